"""Empty byte queues, and heads of every size. How a queue grows is seen through a connection: tests/connection."""

from __future__ import annotations

import gc

import pytest

from lastcall.base.errors import LocalProtocolError
from lastcall.wire.buffer import ByteBuffer
from lastcall.wire.head import checked
from lastcall.wire.response import encoded

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
def test_a_value_of_any_size_comes_out_whole(size: int) -> None:
    value = bytes(i % 251 % 26 + 97 for i in range(size))
    assert encoded(checked(200, [(b"x", value)])) == b"HTTP/1.1 200 OK\r\nx: " + value + b"\r\n"


def test_many_fields_come_out_in_order() -> None:
    fields = [(b"x-%d" % i, b"v" * (i % 97)) for i in range(5000)]
    head = checked(200, fields)
    assert encoded(head) == b"HTTP/1.1 200 OK\r\n" + b"".join(b"%s: %s\r\n" % pair for pair in fields)
    assert encoded(checked(200, fields[:1])) == b"HTTP/1.1 200 OK\r\nx-0: \r\n"


def test_a_head_that_was_refused_leaves_nothing_behind() -> None:
    with pytest.raises(LocalProtocolError):
        checked(200, [(b"a", b"left over" * 5000), (b"b", b"\n")])
    assert encoded(checked(200, [(b"c", b"d")])) == b"HTTP/1.1 200 OK\r\nc: d\r\n"
