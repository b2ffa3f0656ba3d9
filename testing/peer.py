"""A client made of one blocking socket: it sends any bytes, reads answers one by one, and can leave in every way."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from testing.patience import Patience

PATIENCE = 10.0
SO_GET_FILTER = getattr(socket, "SO_GET_FILTER", 26)  # Linux: as SO_ATTACH_FILTER


@dataclass(frozen=True, slots=True)
class Answer:
    """One response. Header names are in lower case; of repeated headers, the last."""

    status: int
    headers: dict[str, str]
    body: bytes


class Peer:
    """A connection to ``address``: (host, port), the path of a unix socket, or what a ready line says.

    :param receive_buffer: SO_RCVBUF in bytes; a small one makes a client that does not read felt soon.
    """

    def __init__(self, address: tuple[str, int] | str, *, receive_buffer: int | None = None) -> None:
        if isinstance(address, str) and address.startswith("http://"):
            host, _, port = address.removeprefix("http://").rpartition(":")
            address = (host.strip("[]"), int(port))
        if isinstance(address, str):
            family, address = socket.AF_UNIX, address.removeprefix("unix:")
        else:
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(PATIENCE)
        self._buffer = bytearray()
        try:
            self.sock.connect(address)
        except BaseException:
            self.sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def name(self) -> tuple[str, int]:
        """Our own address, which is the server's ``client``."""
        host, port = self.sock.getsockname()[:2]
        return host, port

    def send(self, data: bytes) -> None:
        """Send all of ``data``."""
        self.sock.sendall(data)

    def request(self, path: str = "/", *headers: str, method: str = "GET", body: bytes = b"") -> None:
        """Send one HTTP/1.1 request."""
        self.send(request(path, *headers, method=method, body=body))

    def get(self, path: str = "/", *headers: str) -> Answer:
        """Send a request and return its answer."""
        self.request(path, *headers)
        return self.answer()

    def answer(self) -> Answer:
        """Read one response, framed by a length, by chunks, or by the end of the connection."""
        status, headers = self.head()
        if "content-length" in headers:
            body = self._take(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            body = b"".join(iter(self.chunk, b""))
        elif status in (101, 204, 304):
            body = b""
        else:
            body = self.rest()
        return Answer(status, headers, body)

    def head(self) -> tuple[int, dict[str, str]]:
        """Read the head of a response: its status, and the headers with lower-case names."""
        lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines[1:] if line)
        return int(lines[0].split(" ")[1]), {name.lower(): value.strip() for name, _, value in pairs}

    def chunk(self) -> bytes:
        """Read one chunk; the last one is empty."""
        size = int(self._until(b"\r\n"), 16)
        data = self._take(size)
        assert self._take(2) == b"\r\n"
        return data

    def rest(self) -> bytes:
        """Read until the peer's FIN. Raises ConnectionResetError for a RST."""
        while self._receive():
            pass
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    def read_some(self) -> bytes:
        """What has come, or comes next; b"" for the peer's FIN."""
        if not self._buffer:
            self._receive()
        return self._consume(len(self._buffer))

    def ended(self) -> str:
        """How the connection ends, whatever comes before: ``"FIN"`` or ``"RST"``."""
        try:
            self.rest()
        except ConnectionResetError:
            return "RST"
        return "FIN"

    def silent(self, seconds: float) -> bool:
        """Whether nothing, not even a FIN, comes for so long."""
        self.sock.settimeout(seconds)
        try:
            self._receive()
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(PATIENCE)
        return False

    def finish(self) -> None:
        """Send a FIN."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Leave with a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """Leave with a FIN."""
        self.sock.close()

    def _receive(self) -> int:
        data = self.sock.recv(65536)
        self._buffer += data
        return len(data)

    def _until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            if not self._receive():
                raise EOFError(f"the server closed the connection after {bytes(self._buffer)!r}")
        at = self._buffer.index(end) + len(end)
        return self._consume(at)[: -len(end)]

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            if not self._receive():
                raise EOFError(f"the server closed the connection {size - len(self._buffer)} bytes early")
        return self._consume(size)

    def _consume(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data


def request(path: str = "/", *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
    """The bytes of one HTTP/1.1 request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: test", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def eventually(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait until ``condition()`` is true; fail if it is not in time."""
    patience = Patience(seconds)
    while not condition():
        assert not patience.over, f"did not become true within {seconds:g} s"
        time.sleep(0.005)


def filter_instructions(sock: socket.socket) -> int:
    """How many instructions the socket's filter has; 0 without one. (Linux gives their number for the length.)"""
    return len(sock.getsockopt(socket.SOL_SOCKET, SO_GET_FILTER, 8 * 64))
