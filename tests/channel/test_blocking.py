"""Messages without an event loop: the first that a worker reads, and its last words."""

from __future__ import annotations

import array
import contextlib
import os
import socket
from collections.abc import Iterator

import pytest

from lastcall.channel.blocking import hung_up, receive_now, send_now
from lastcall.channel.frames import LARGEST, frame
from lastcall.channel.messages import Accept, ChannelError, Failed, Ready, encode

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, other = socket.socketpair()
    with one, other:
        other.settimeout(10)
        yield one, other


def test_nothing_behind_the_message_is_taken(pair: Pair) -> None:
    one, other = pair
    one.sendall(frame(encode(Accept((1, 2)))) + frame(encode(Ready())))
    assert receive_now(other) == (Accept((1, 2)), [])
    assert receive_now(other) == (Ready(), [])


def test_descriptors_come_with_it(pair: Pair) -> None:
    one, other = pair
    read, write = os.pipe()
    data = frame(encode(Accept((1,))), 2)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [read, write]))]
    sent = one.sendmsg([data[:3]], rights)  # in pieces: the descriptors belong to the first byte
    one.sendall(data[sent:])
    os.close(read)
    os.close(write)
    found = receive_now(other)
    assert found is not None
    message, (ours, theirs) = found
    assert message == Accept((1,))
    os.write(theirs, b"x")
    assert os.read(ours, 1) == b"x"
    assert not os.get_inheritable(ours)
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("said", [b"", b"\0\0", frame(encode(Ready()))[:-1]])
def test_the_other_side_is_gone(pair: Pair, said: bytes) -> None:
    one, other = pair
    one.sendall(said)
    one.close()
    assert receive_now(other) is None


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n", frame(b"{}"), frame(encode(Ready()), 1), frame(b"")])
def test_what_is_no_message(pair: Pair, said: bytes) -> None:
    one, other = pair
    one.sendall(said)
    with pytest.raises(ChannelError):
        receive_now(other)


def test_a_length_that_cannot_be_is_not_waited_for(pair: Pair) -> None:
    one, other = pair
    one.sendall((LARGEST + 1).to_bytes(4, "big") + b"\0")
    with pytest.raises(ChannelError):
        receive_now(other)


def test_last_words(pair: Pair) -> None:
    one, other = pair
    assert send_now(one, Failed("no such module", 3))
    assert receive_now(other) == (Failed("no such module", 3), [])
    other.close()
    assert not send_now(one, Ready()), "nobody hears them"


def test_nobody_reads_the_last_words(pair: Pair) -> None:
    one, _ = pair
    one.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            one.send(bytes(65536))
    assert not send_now(one, Ready(), 0.05)


def test_hanging_up(pair: Pair) -> None:
    one, other = pair
    assert not hung_up(other)
    one.sendall(b"x")
    one.close()
    assert not hung_up(other), "there is something to read"
    other.recv(1)
    assert hung_up(other)
