"""Raw sockets whose bytes are read at once, by a thread each, and that know how they ended.

By a FIN (the server closed) or by an RST (it was reset, and what was under way is lost). What is sent can be anything,
half a request included.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from types import TracebackType
from typing import Final, Self, TypedDict, Unpack

from lastcall_drill.timeline import Timeline
from lastcall_drill.verdicts import Source

CONNECT_SECONDS: Final = 5.0
READ: Final = 65536


class End(Enum):
    """How a connection ended."""

    FIN = "fin"
    RST = "rst"
    OURS = "ours"  # we closed it


class SocketOptions(TypedDict, total=False):
    """How to connect. ``path`` is that of a unix socket, instead of host and port.

    With ``paused`` nothing is read before :meth:`Socket.resume`, and ``receive_buffer`` makes the kernel's part small
    (bytes). ``timeout`` is for connecting (seconds).
    """

    host: str
    path: str | None
    paused: bool
    receive_buffer: int
    timeout: float


class Socket:
    """A connection. ``name`` stands in the timeline. Raises OSError if there is none: refused, or timed out.

    ``connected`` and ``ended`` are times of ``time.monotonic()``, ``received`` a number of bytes.
    """

    def __init__(self, port: int, timeline: Timeline, name: str, **options: Unpack[SocketOptions]) -> None:
        self.name = name
        self.end: End | None = None
        self.ended: float | None = None
        self.received = 0
        self._timeline = timeline
        self._changed = threading.Condition()
        self._reading = threading.Event()
        path = options.get("path")
        self._socket = socket.socket(socket.AF_INET if path is None else socket.AF_UNIX)
        self._socket.settimeout(options.get("timeout", CONNECT_SECONDS))
        if "receive_buffer" in options:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options["receive_buffer"])
        try:
            self._socket.connect((options.get("host", "127.0.0.1"), port) if path is None else path)
        except OSError as error:
            self._socket.close()
            self._note("refused", "connection refused" if isinstance(error, ConnectionRefusedError) else str(error))
            raise
        self.connected = self._note("connect")
        self._socket.settimeout(None)
        if path is None:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not options.get("paused", False):
            self._reading.set()
        self._thread = threading.Thread(target=self._read, name=f"drill-{name}", daemon=True)
        self._thread.start()

    def send(self, data: bytes) -> float:
        """Send bytes as they are, and return when they were handed to the kernel.

        A connection that the server has ended takes none, which is noted and no error: what ended it is in ``end``.
        """
        try:
            self._socket.sendall(data)
        except OSError as error:
            # EPIPE comes after a FIN that the reader tells of; only a reset is news.
            if isinstance(error, ConnectionResetError):
                self._over(End.RST)
        return time.monotonic()

    def send_fin(self) -> None:
        """Say that nothing more will be sent."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def resume(self) -> None:
        """Begin to read, after ``paused``."""
        self._reading.set()

    def wait_end(self, timeout: float) -> End | None:
        """Wait up to ``timeout`` seconds for the end of the connection; None if it is still open."""
        self._wait(lambda: self.end is not None, timeout)
        return self.end

    def close(self) -> None:
        """Close it from our side. May be called again."""
        self._over(End.OURS)
        self._reading.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread, which close() alone does not
        self._thread.join(CONNECT_SECONDS)
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, data: bytes, now: float) -> None:
        raise NotImplementedError

    def _take_end(self, now: float) -> None:
        raise NotImplementedError

    def _wait(self, condition: Callable[[], bool], timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(condition, max(0.0, timeout))

    def _read(self) -> None:
        self._reading.wait()
        while self.end is None:
            try:
                data = self._socket.recv(READ)
            except OSError:  # ECONNRESET, and ETIMEDOUT where a peer is gone
                self._over(End.RST)
                return
            now = time.monotonic()
            if not data:
                self._over(End.FIN, now)
                return
            with self._changed:
                self.received += len(data)
                self._note("bytes", str(len(data)), now)
                self._take(data, now)
                self._changed.notify_all()

    def _over(self, end: End, at: float | None = None) -> None:
        with self._changed:
            if self.end is not None:
                return
            self.ended = time.monotonic() if at is None else at
            self.end = end
            if end is not End.OURS:
                self._note(end.value, at=self.ended)
            self._take_end(self.ended)
            self._changed.notify_all()

    def _note(self, what: str, detail: str = "", at: float | None = None) -> float:
        return self._timeline.add(Source.CLIENT, what, detail, who=self.name, at=at)
