"""Two ends over a real socketpair: order, descriptors, loss, and a side that does not read."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import threading
from collections.abc import Callable

import pytest

from lastcall.channel.endpoint import Endpoint
from lastcall.channel.frames import Frames, frame
from lastcall.channel.messages import Adopt, ChannelError, Force, Hello, Message, decode


class Side:
    """One end, and what it has been told."""

    def __init__(self, sock: socket.socket) -> None:
        self.messages: list[tuple[Message, list[int]]] = []
        self.lost: list[ChannelError | None] = []
        self._changed = asyncio.Event()
        self.endpoint = Endpoint(sock, self._message, self._lose)

    def _message(self, message: Message, descriptors: list[int]) -> None:
        self.messages.append((message, descriptors))
        self._changed.set()

    def _lose(self, error: ChannelError | None) -> None:
        self.lost.append(error)
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()


def test_messages_come_in_order_with_their_descriptors() -> None:
    async def main() -> None:
        a, b = socket.socketpair()
        near, far = Side(a), Side(b)
        out, into = os.pipe()
        near.endpoint.send(Hello(1))
        near.endpoint.send(Adopt(), [out])
        near.endpoint.send(Adopt(), [into, out])
        near.endpoint.send(Hello(2))
        os.close(out)
        os.close(into)
        await far.until(lambda: len(far.messages) == 4)
        assert [type(message) for message, _ in far.messages] == [Hello, Adopt, Adopt, Hello]
        assert [len(fds) for _, fds in far.messages] == [0, 1, 2, 0]
        received = [fd for _, fds in far.messages for fd in fds]
        assert all(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for fd in received)
        os.write(far.messages[2][1][0], b"x")
        assert os.read(far.messages[1][1][0], 1) == b"x"
        for fd in received:
            os.close(fd)
        near.endpoint.close()
        await far.until(lambda: bool(far.lost))
        assert far.lost == [None]
        assert near.lost == []

    asyncio.run(main())


def test_what_the_other_side_does_not_read_is_kept_and_nobody_waits() -> None:
    async def main() -> None:
        a, b = socket.socketpair()
        near = Side(a)
        for n in range(2000):
            near.endpoint.send(Force(f"{n:04}" + "x" * 1000))
        assert near.endpoint.unsent
        far = Side(b)
        await far.until(lambda: len(far.messages) == 2000)
        assert [message.cause[:4] for message, _ in far.messages if isinstance(message, Force)] == [
            f"{n:04}" for n in range(2000)
        ]
        assert not near.endpoint.unsent
        near.endpoint.close()
        far.endpoint.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "junk", [b"\xff" * 20, frame(b'{"type": "nothing"}'), frame(b'{"type":"adopt"}', 1)], ids=["length", "type", "fds"]
)
def test_one_who_sends_no_message_is_lost_with_the_reason(junk: bytes) -> None:
    async def main() -> None:
        a, b = socket.socketpair()
        side = Side(b)
        a.sendall(junk)
        await side.until(lambda: bool(side.lost))
        assert isinstance(side.lost[0], ChannelError)
        assert side.endpoint.closed
        side.endpoint.send(Hello(1))  # too late, and no error
        a.close()

    asyncio.run(main())


def test_descriptors_that_nobody_took_are_closed() -> None:
    async def main() -> None:
        a, b = socket.socketpair()
        near = Side(a)
        before = len(os.listdir("/proc/self/fd"))
        out, into = os.pipe()
        for _ in range(2000):  # until the socket is full: the rest waits with its copies
            near.endpoint.send(Force("x" * 1000), [])
        near.endpoint.send(Adopt(), [out, into])
        os.close(out)
        os.close(into)
        near.endpoint.close()
        b.close()
        assert len(os.listdir("/proc/self/fd")) <= before - 2

    asyncio.run(main())


def test_what_is_unsent_is_sent_at_the_end() -> None:
    a, b = socket.socketpair()
    received: list[Message] = []

    def read() -> None:
        frames = Frames()
        while data := b.recv(65536):
            received.extend(decode(content) for content, _ in frames.feed(data))

    reader = threading.Thread(target=read)

    async def main() -> None:
        near = Side(a)
        for n in range(5000):
            near.endpoint.send(Hello(n))
        assert near.endpoint.unsent > 0
        reader.start()
        near.endpoint.finish(10.0)

    asyncio.run(main())
    reader.join()
    b.close()
    assert received == [Hello(n) for n in range(5000)]


def test_the_end_is_not_held_by_a_side_that_does_not_read() -> None:
    async def main() -> None:
        a, b = socket.socketpair()
        near = Side(a)
        for n in range(5000):
            near.endpoint.send(Hello(n))
        near.endpoint.finish(0.1)
        assert near.endpoint.closed
        b.close()

    asyncio.run(main())
