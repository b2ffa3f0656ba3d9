"""A client on a raw socket that does what it is told, right or wrong, and reads answers strictly."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Address = tuple[str, int]
READ_SIZE = 262_144
SMALL_BUFFER = 8_192


class WrongAnswer(Exception):
    """What came is not what the server owes."""


class Ended(Exception):
    """The connection ended before what was waited for came."""


@dataclass
class Answer:
    """One response. ``complete`` is False if it ended before its own framing said so."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    complete: bool = True


@dataclass
class Wire:
    """One connection. ``pause`` seconds go by before each read of at most ``most`` bytes."""

    sock: socket.socket
    most: int = READ_SIZE
    pause: float = 0.0
    was_reset: bool = False
    _got: bytearray = field(default_factory=bytearray)

    async def send(self, data: bytes | memoryview) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def send_split(self, data: bytes, rng: random.Random, pieces: int = 4) -> None:
        """Send ``data`` cut at random places, with a turn of the loop between the pieces."""
        cuts = sorted(rng.randrange(len(data) + 1) for _ in range(pieces - 1))
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            await self.send(data[start:end])
            await asyncio.sleep(0)

    def fin(self) -> None:
        """Say that nothing more will be sent."""
        self.sock.shutdown(socket.SHUT_WR)

    def leave(self, *, reset: bool) -> None:
        """Close both directions: with a RST, or with a FIN (the kernel makes it a RST if there are bytes unread)."""
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    async def fill(self) -> None:
        """Read once. :raises Ended: by FIN or RST."""
        if self.pause:
            await asyncio.sleep(self.pause)
        try:
            data = await asyncio.get_running_loop().sock_recv(self.sock, self.most)
        except ConnectionResetError as error:
            self.was_reset = True
            raise Ended("reset") from error
        if not data:
            raise Ended("closed")
        self._got += data

    async def take_until(self, end: bytes) -> bytes:
        at = 0
        while (found := self._got.find(end, at)) < 0:
            at = max(0, len(self._got) - len(end) + 1)
            await self.fill()
        return self._take(found + len(end))

    async def take_end(self) -> bytes:
        """Wait for the end of the connection; what came before it."""
        while True:
            try:
                await self.fill()
            except Ended:
                return self._take(len(self._got))

    async def answer(self, method: str = "GET") -> Answer:
        """Read one response to a request with ``method``. :raises Ended: before the end of its head."""
        lines = (await self.take_until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        version, _, rest = lines[0].partition(" ")
        if version != "HTTP/1.1" or not rest[:3].isdecimal():
            raise WrongAnswer(f"status line {lines[0]!r}")
        answer = Answer(int(rest[:3]), {})
        for line in lines[1:-2]:
            name, colon, value = line.partition(": ")
            if not colon or name in answer.headers:
                raise WrongAnswer(f"header line {line!r}")
            answer.headers[name] = value
        if method == "HEAD" or answer.status in (204, 304) or answer.status < 200:
            return answer
        body = bytearray()
        try:
            await self._read_body(answer, body)
        except Ended:
            answer.complete = "content-length" not in answer.headers and "transfer-encoding" not in answer.headers
            if self.was_reset:
                answer.complete = False
        answer.body = bytes(body)
        return answer

    async def _read_body(self, answer: Answer, body: bytearray) -> None:
        if "transfer-encoding" in answer.headers:
            if answer.headers["transfer-encoding"] != "chunked" or "content-length" in answer.headers:
                raise WrongAnswer(f"framing {answer.headers}")
            while True:
                size = int((await self.take_until(b"\r\n"))[:-2], 16)
                await self._read_into(body, size)
                if await self.take_until(b"\r\n") != b"\r\n":
                    raise WrongAnswer("no CRLF behind a chunk")
                if not size:
                    return
        elif "content-length" in answer.headers:
            await self._read_into(body, int(answer.headers["content-length"]))
        else:
            while True:  # the close is the end
                await self._read_into(body, 1)

    async def _read_into(self, body: bytearray, n: int) -> None:
        while n:
            if not self._got:
                await self.fill()
            piece = self._take(min(n, len(self._got)))
            body += piece
            n -= len(piece)

    def _take(self, n: int) -> bytes:
        taken = bytes(self._got[:n])
        del self._got[:n]
        return taken


@asynccontextmanager
async def connected(address: Address, *, small_buffer: bool = False) -> AsyncIterator[Wire]:
    """A connection for the time of the block; ``small_buffer``: the kernel holds little that is not read yet."""
    with socket.socket() as sock:
        sock.setblocking(False)
        if small_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        await asyncio.get_running_loop().sock_connect(sock, address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield Wire(sock)
