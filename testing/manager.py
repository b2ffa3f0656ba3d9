"""A service manager for tests: the socket of ``NOTIFY_SOCKET``, and what came over it."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Self

PATIENCE = 15.0


class Manager:
    """Listens at ``address``: the path of a socket that is made, or ``@name`` for an abstract one."""

    def __init__(self, address: str | Path) -> None:
        self.address = str(address)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind("\0" + self.address[1:] if self.address.startswith("@") else self.address)
        self.messages: list[dict[str, str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.sock.close()
        if not self.address.startswith("@"):
            os.unlink(self.address)

    def wait_for(self, name: str, value: str | None = None, patience: float = PATIENCE) -> dict[str, str]:
        """The first message from now on that has the field, with this value if one is given."""
        deadline = time.monotonic() + patience
        while True:
            message = self._next(deadline)
            assert message is not None, f"{name} did not come, only {self.messages}"
            if name in message and value in (None, message[name]):
                return message

    def rest(self) -> list[dict[str, str]]:
        """All that came, for a process that has ended."""
        while self._next(time.monotonic()) is not None:
            pass
        return self.messages

    def _next(self, deadline: float) -> dict[str, str] | None:
        self.sock.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            data = self.sock.recv(4096)
        except TimeoutError:
            return None
        message = dict(line.split("=", 1) for line in data.decode().split("\n"))
        self.messages.append(message)
        return message
