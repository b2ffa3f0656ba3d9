"""A real worker process, driven over its channel as the parent would.

    with WorkerProcess("app:app", path=APPS) as worker:
        worker.expect(Ready)
        worker.accept()
        ...

Every wait has a limit, and fails with all that the worker has said and written.
"""

from __future__ import annotations

import array
import base64
import contextlib
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from lastcall.channel.frames import Frames, frame
from lastcall.channel.messages import (
    Accept,
    Accepting,
    Boot,
    Census,
    CensusWanted,
    Hello,
    Message,
    Ready,
    decode,
    encode,
)
from lastcall.config import Config

SECONDS = 20.0
"""At most, for anything; a busy machine is slow."""

M = TypeVar("M", bound=Message)


class WorkerFailure(AssertionError):
    """The worker did not do what was waited for."""


def reuseport(port: int = 0) -> socket.socket:
    """A slot's listener, which listens."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(128)
    return sock


class WorkerProcess:
    """One worker with ``slots`` listeners of its own service, all on one port, of which it is in slot 0.

    ``options`` are those of ``Config``; ``path`` is put first in the worker's ``sys.path``.
    ``start=False``: nothing is started yet.
    """

    def __init__(
        self,
        app: str = "app:app",
        *,
        path: Path,
        slots: int = 1,
        number: int = 1,
        listeners: Sequence[socket.socket] = (),
        **options: Any,
    ) -> None:
        self.number = number
        self.config = Config(app, **options)
        self.path = path
        self.listeners = list(listeners)
        if not self.listeners:
            self.listeners.append(reuseport())
            self.listeners += [reuseport(self.port) for _ in range(slots - 1)]
        self.page = os.memfd_create("beats")
        os.ftruncate(self.page, 4096)
        self._directory = tempfile.TemporaryDirectory()
        self.private_path = os.path.join(self._directory.name, "private")
        self.private = socket.socket(socket.AF_UNIX)
        self.private.bind(self.private_path)
        self.private.listen(16)
        self.channel, self._theirs = socket.socketpair()
        self.said: list[Message] = []
        self.descriptors: list[int] = []
        self._unread: list[Message] = []
        self._frames = Frames()
        self._eof = False
        self._process: subprocess.Popen[str] | None = None
        self._output: list[str] = []
        self._readers: list[threading.Thread] = []

    @property
    def port(self) -> int:
        """Where the clients come."""
        port: int = self.listeners[0].getsockname()[1]
        return port

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def output(self) -> str:
        """What it has written so far, to both outputs."""
        return "".join(self._output)

    # -- its life -------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        self.boot()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-P", "-m", "lastcall.cli.worker", str(self._theirs.fileno())]

    def start(self) -> None:
        """Start the process."""
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[self._theirs.fileno()],
            encoding="utf-8",
            errors="backslashreplace",
            start_new_session=True,  # what a test sends to the group reaches nobody else
        )
        self._theirs.close()
        assert self._process.stdout is not None
        reader = threading.Thread(target=self._read_output, args=[self._process.stdout], daemon=True)
        reader.start()
        self._readers.append(reader)

    def _read_output(self, stream: Any) -> None:
        for line in stream:
            self._output.append(line)

    def boot_message(self) -> Boot:
        settings = base64.b64encode(pickle.dumps(self.config.origin)).decode()
        slots = tuple(range(len(self.listeners)))
        return Boot(self.number, 0, 0, settings, (str(self.path), *sys.path), 3, slots, (0,) * len(slots))

    def boot(self) -> None:
        """Send the first message."""
        self.send(
            self.boot_message(),
            [self.page, self.private.fileno(), *(listener.fileno() for listener in self.listeners)],
        )

    def close(self) -> None:
        """Kill what is left, and close everything."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGCONT)
            self._process.kill()
            self._process.wait(SECONDS)
        for reader in self._readers:
            reader.join(SECONDS)
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()
        for sock in (self.channel, self._theirs, self.private, *self.listeners):
            sock.close()
        with contextlib.suppress(OSError):
            os.close(self.page)
        self._directory.cleanup()

    def wait(self, timeout: float = SECONDS) -> int:
        """The exit code."""
        assert self._process is not None
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self._failure("the worker still runs") from None
        for reader in self._readers:
            reader.join(SECONDS)
        return code

    def signal(self, number: int) -> None:
        """Send it a signal, and nobody else."""
        assert self._process is not None
        self._process.send_signal(number)

    # -- the channel ----------------------------------------------------------------------------------------------

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Give an order."""
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self.channel.settimeout(SECONDS)
        data = frame(encode(message), len(descriptors))
        sent = self.channel.sendmsg([data], ancillary)
        if sent < len(data):  # an empty send, too, fails where the worker has left by now
            self.channel.sendall(data[sent:])

    def expect(self, kind: type[M], timeout: float = SECONDS) -> M:
        """The next message of that class; others before it are in ``said``."""
        deadline = time.monotonic() + timeout
        while True:
            while self._unread:
                message = self._unread.pop(0)
                self.said.append(message)
                if isinstance(message, kind):
                    return message
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                raise self._failure(f"no {kind.__name__}")

    def heard(self, kind: type[M]) -> list[M]:
        """All messages of that class that have come up to now."""
        with contextlib.suppress(WorkerFailure):
            while self._read(0.01):
                pass
        self.said += self._unread
        self._unread.clear()
        return [message for message in self.said if isinstance(message, kind)]

    def _read(self, timeout: float) -> bool:
        """Read once; False at the end, or when the time is over."""
        if self._eof:
            return False
        self.channel.settimeout(max(0.001, timeout))
        try:
            data = self.channel.recv(65536)
        except TimeoutError:
            return False
        except ConnectionError:
            data = b""
        self._eof = not data
        self._unread += [decode(content) for content, _ in self._frames.feed(data)]
        return bool(data)

    def ready(self) -> Self:
        """Wait until it is."""
        self.expect(Hello)
        self.expect(Ready)
        return self

    def serving(self, *slots: int) -> Self:
        """Wait until it is ready, and have it accept on these slots; by default on its own."""
        self.ready()
        self.accept(*(slots or (0,)))
        return self

    def accept(self, *slots: int) -> tuple[int, ...]:
        """Have it accept on exactly these slots."""
        self.send(Accept(tuple(slots)))
        return self.expect(Accepting).slots

    def census(self, number: int = 1, *, tasks: bool = False) -> Census:
        """Ask it what it does."""
        self.send(CensusWanted(number, tasks))
        return self.expect(Census)

    def beat(self) -> float:
        """When its loop gave its last sign of life, by ``time.monotonic()``."""
        found: float = struct.unpack("d", os.pread(self.page, 8, 3 * 8))[0]
        return found

    def _failure(self, what: str) -> WorkerFailure:
        assert self._process is not None
        said = "\n".join(map(repr, [*self.said, *self._unread]))
        return WorkerFailure(f"{what}; exit code {self._process.poll()}; it said\n{said}\nand wrote\n{self.output}")

    # -- clients --------------------------------------------------------------------------------------------------

    def connect(self) -> socket.socket:
        """A client of the service."""
        return socket.create_connection(("127.0.0.1", self.port), SECONDS)

    def connect_private(self) -> socket.socket:
        """The parent's own connection."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(SECONDS)
        sock.connect(self.private_path)
        return sock

    def get(self, path: str, *, private: bool = False) -> bytes:
        """The whole response of one request, of a client's or (``private``) of the parent's own."""
        with self.connect_private() if private else self.connect() as sock:
            sock.settimeout(SECONDS)
            sock.sendall(b"GET %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % path.encode())
            data = b""
            while piece := sock.recv(65536):
                data += piece
        return data
