"""Clients that come one after the other, as fast as they are served, and a worker that serves listeners that change."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections import Counter
from types import TracebackType
from typing import Any, Self

from testing.peer import eventually


class Flood:
    """Threads that connect to ``address``, ask, read the answer, and begin again until the block is left."""

    def __init__(self, address: Any, family: int = socket.AF_INET, clients: int = 4) -> None:
        self.address, self.family = address, family
        self.errors: list[str] = []
        self.answers: Counter[bytes] = Counter()
        self._rounds = [0] * clients
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self.settle()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def settle(self) -> None:
        """Wait until everybody who has begun a connection before this call has been answered, and some more."""
        wanted = [rounds + 2 for rounds in self._rounds]
        eventually(lambda: bool(self.errors) or all(map(int.__ge__, self._rounds, wanted)), 25.0)

    def _run(self, number: int) -> None:
        while not self._over.is_set():
            try:
                with socket.socket(self.family) as sock:
                    sock.settimeout(20.0)
                    sock.connect(self.address)
                    sock.sendall(b"?")
                    answer = sock.recv(64)
                self.answers[answer] += 1
                if not answer:
                    self.errors.append("no answer")
            except OSError as exc:
                self.errors.append(repr(exc))
            self._rounds[number] += 1


class Acceptor:
    """A thread that answers at listeners: what it is given is a copy of each, with the answer to give there."""

    def __init__(self) -> None:
        self._held: dict[bytes, list[socket.socket]] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._over.set()
        self._thread.join(30)
        for answer in list(self._held):
            self.release(answer)

    def hold(self, answer: bytes, fds: list[tuple[int, int]]) -> None:
        """Accept here from now on."""
        with self._lock:
            self._held[answer] = [socket.socket(fileno=os.dup(fd)) for _, fd in fds]

    def release(self, answer: bytes) -> None:
        """Accept who waits, and close the copies."""
        with self._lock:
            for sock in self._held.pop(answer):
                serve_waiting(sock, answer)
                sock.close()

    def _run(self) -> None:
        while not self._over.is_set():
            with self._lock:
                found = {sock: answer for answer, socks in self._held.items() for sock in socks}
                for sock in select.select(list(found), [], [], 0.002)[0]:
                    serve_waiting(sock, found[sock])


def serve_waiting(sock: socket.socket, answer: bytes = b"!") -> int:
    """Accept until nobody waits, and give each the answer; return how many."""
    served = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            accepted, _ = sock.accept()
            with accepted:
                accepted.settimeout(20.0)
                if accepted.recv(64):
                    accepted.sendall(answer)
            served += 1
    return served
