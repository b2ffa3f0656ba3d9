"""The byte queue, as far as Python sees it: empty ones directly, its growth through what encode_head writes."""

from __future__ import annotations

import gc

import pytest

from lastcall.base.errors import LocalProtocolError
from lastcall.wire.buffer import ByteBuffer
from lastcall.wire.response import encode_head

BLOCK = 16384  # of the pool


def test_an_empty_buffer() -> None:
    buffer = ByteBuffer()
    assert len(buffer) == 0
    assert bytes(buffer) == b""
    assert not buffer


def test_buffers_come_and_go() -> None:
    for _ in range(1000):
        buffers = [ByteBuffer() for _ in range(100)]
        assert {bytes(buffer) for buffer in buffers} == {b""}
        del buffers
    gc.collect()


@pytest.mark.parametrize("size", [1, BLOCK - 6, BLOCK - 5, BLOCK - 4, BLOCK, BLOCK + 1, 2 * BLOCK, 1 << 20])
def test_what_is_written_across_a_block_boundary_comes_out_whole(size: int) -> None:
    value = bytes(i % 251 % 26 + 97 for i in range(size))
    _, head = encode_head(200, [(b"x", value)])
    assert head.block == b"x: " + value + b"\r\n"


def test_many_small_appends_grow_it() -> None:
    fields = [(b"x-%d" % i, b"v" * (i % 97)) for i in range(5000)]
    _, head = encode_head(200, fields)
    assert head.block == b"".join(b"%s: %s\r\n" % pair for pair in fields)
    assert encode_head(200, fields[:1])[1].block == b"x-0: \r\n"


def test_a_head_that_was_refused_leaves_nothing_behind() -> None:
    with pytest.raises(LocalProtocolError):
        encode_head(200, [(b"a", b"left over" * 5000), (b"b", b"\n")])
    assert encode_head(200, [(b"c", b"d")])[1].block == b"c: d\r\n"
