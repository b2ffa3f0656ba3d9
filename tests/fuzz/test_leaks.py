"""100 000 parsed streams and as many heads leave no memory and no object behind."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import sys
from pathlib import Path

import pytest

from lastcall.base.errors import LocalProtocolError, RemoteProtocolError
from lastcall.wire.head import checked
from lastcall.wire.http1 import Event, RequestParser
from lastcall.wire.response import encoded
from tests.fuzz.seeds import seeds

PAGE = os.sysconf("SC_PAGESIZE")
STREAMS = [data[3:] for name, data in seeds().items() if name.startswith(("request-", "pipelined-"))]
HEADERS = [[(b"content-type", b"text/plain"), (b"x-%d" % i, b"v" * (i * 37))] for i in range(600)]


def resident() -> int:
    """Bytes of memory that this process has in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def parse_streams(count: int) -> None:
    """Parsers that end in every state: after requests, in the middle of one, and broken."""
    for data in itertools.islice(itertools.cycle(STREAMS), count):
        parser = RequestParser()
        parser.receive_data(data)
        with contextlib.suppress(RemoteProtocolError):
            while parser.next_event()[0] is not Event.NEED_DATA:
                pass


def encode_heads(count: int) -> None:
    """Heads of all sizes; every fourth is refused when much of it is checked already."""
    for i, headers in enumerate(itertools.islice(itertools.cycle(HEADERS), count)):
        with contextlib.suppress(LocalProtocolError):
            last = (b"a", b"\n" if i % 4 == 0 else b"b")
            encoded(checked(200 + i % 300, [*headers, last], [(b"server", b"x")]))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.parametrize("work", [parse_streams, encode_heads])
def test_memory_stays_flat(work: object) -> None:
    assert callable(work)
    work(20_000)  # pools, free lists, the tables of status lines and of known names fill
    gc.collect()
    blocks, memory = sys.getallocatedblocks(), resident()
    work(100_000)
    gc.collect()
    assert sys.getallocatedblocks() - blocks < 200
    assert resident() - memory < 512 * 1024
