"""Two ends over a real socketpair: order, descriptors, loss, and a side that does not read."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import resource
import socket
import threading
from collections.abc import Callable
from typing import Any

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


class Full(socket.socket):
    """The kernel has no room for the first descriptors."""

    refusals = 2

    def sendmsg(self, *arguments: Any) -> int:
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.ETOOMANYREFS, "Too many references: cannot splice")
        return super().sendmsg(*arguments)


def test_where_the_kernel_has_no_room_it_is_tried_again() -> None:
    async def main() -> None:
        a, b = socket.socketpair()
        near, far = Side(Full(fileno=a.detach())), Side(b)
        near.endpoint.send(Adopt(), [0])
        near.endpoint.send(Hello(1))
        await far.until(lambda: len(far.messages) == 2)
        assert [type(message) for message, _ in far.messages] == [Adopt, Hello]
        os.close(far.messages[0][1][0])
        assert not near.lost
        near.endpoint.close()
        far.endpoint.close()

    asyncio.run(main())


def test_a_message_that_is_not_digested_does_not_hold_the_next_back() -> None:
    async def main() -> None:
        reported: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
        a, b = socket.socketpair()
        heard: list[Message] = []
        both = asyncio.Event()

        def hear(message: Message, _: list[int]) -> None:
            heard.append(message)
            if len(heard) == 1:
                raise LookupError
            both.set()

        far = Endpoint(b, hear, drop)
        near = Endpoint(a, drop, drop)
        near.send(Hello(1))
        near.send(Hello(2))
        await both.wait()
        assert [type(one) for one in reported] == [LookupError]
        near.close()
        far.close()

    asyncio.run(main())


def test_the_last_words_leave_by_a_descriptor_beyond_1024() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip("needs 2048 descriptors")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(2048, before[0]), hard))

    async def main() -> None:
        a, b = socket.socketpair()
        with b:
            near = Endpoint(socket.socket(fileno=fcntl.fcntl(a.fileno(), fcntl.F_DUPFD_CLOEXEC, 1500)), drop, drop)
            a.close()
            for _ in range(40):
                near.send(Force("x" * 30000))
            assert near.unsent
            near.finish(0.05)
            assert near.closed

    try:
        asyncio.run(main())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def drop(*_: object) -> None:
    """Nobody wants it."""
