"""Clients that keep their connections and count every request that fails, and the backends that they are served by.

::

    with Backend("a", directory) as a, Traffic(address) as traffic:
        traffic.more(500)
        a.restart()
        traffic.more(500)
    assert traffic.failures == []
"""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from testing.peer import Peer, eventually
from testing.process import ServerProcess
from testing.service import alive

CLIENTS = 16
PATIENCE = 25.0
"""Seconds for one answer. A proxy tries again for some time, and the machine may be busy; a request may not hang."""
PAUSE = 0.03
"""The longest pause of a client between two requests: some upstream connections fall idle, others do not."""
BODY = b"x" * 100

APP = '''\
"""Answers with the token that it is asked for. Each POST is written down before it is answered, once for each run."""

import asyncio
import os

NAME = os.environ["BACKEND"]
GENERATION = "{generation}"
POSTS = os.open(os.environ["POSTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] == "lifespan.startup":
            await send({{"type": "lifespan.startup.complete"}})
        return await send({{"type": "lifespan.shutdown.complete"}})
    while True:
        message = await receive()
        assert message["type"] == "http.request", message
        if not message["more_body"]:
            break
    token = scope["path"].rpartition("/")[2]
    if scope["method"] == "POST":
        os.write(POSTS, token.encode() + b"\\n")
    await asyncio.sleep(float(scope["query_string"] or 0))
    headers = [(b"content-length", b"%d" % len(token)), (b"x-backend", f"{{NAME}} {{GENERATION}}".encode())]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    await send({{"type": "http.response.body", "body": token.encode()}})
'''


@dataclass(frozen=True)
class Failure:
    """A request that was not answered with 200 and its token. ``at``: seconds from the start of the traffic."""

    at: float
    method: str
    token: str
    cause: str
    reused: bool

    def __str__(self) -> str:
        connection = "a kept" if self.reused else "a new"
        return f"{self.at:.3f} s: {self.method} {self.token} on {connection} connection: {self.cause}"


class Traffic:
    """``clients`` threads, each with one kept-alive connection to ``address``, that ask with ``methods`` in turn.

    Leaving the block ends them. Then ``failures`` is complete, and ``answered`` has the tokens by method.

    :param connect: what makes a connection.
    """

    def __init__(
        self,
        address: tuple[str, int],
        methods: Sequence[str] = ("GET", "POST"),
        *,
        clients: int = CLIENTS,
        connect: Callable[[tuple[str, int]], Peer] = Peer,
    ) -> None:
        self.address = address
        self._connect = connect
        self.failures: list[Failure] = []
        self.answered: dict[str, list[str]] = {method: [] for method in methods}
        self.slowest = 0.0
        self._methods = methods
        self._served: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._done = threading.Event()
        self._began = time.monotonic()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(PATIENCE + 5)
        assert not any(thread.is_alive() for thread in self._threads)

    @property
    def count(self) -> int:
        """How many were answered."""
        return sum(map(len, self.answered.values()))

    @property
    def clock(self) -> float:
        """Seconds since the start, as in `Failure.at`."""
        return time.monotonic() - self._began

    def more(self, count: int, timeout: float = 60.0) -> None:
        """Wait until so many more requests have been answered."""
        with self._changed:
            wanted = self.count + count
            assert self._changed.wait_for(lambda: self.count >= wanted, timeout), self.told()

    def served_by(self, name: str, timeout: float = 60.0) -> None:
        """Wait for some more answers of this backend: its name, or ``NAME GENERATION``."""
        with self._changed:
            wanted = self._answers_of(name) + 5
            assert self._changed.wait_for(lambda: self._answers_of(name) >= wanted, timeout), f"{name}: {self.told()}"

    def told(self) -> str:
        """All of it in some lines."""
        head = f"{self.count} answers, the slowest after {self.slowest:.2f} s: {dict(self._served)}"
        return "\n".join([head, f"{len(self.failures)} failures", *map(str, self.failures[:30])])

    def _answers_of(self, name: str) -> int:
        return sum(number for server, number in self._served.items() if server == name or server.split(" ")[0] == name)

    def _run(self, number: int) -> None:
        chance = random.Random(number)
        peer: Peer | None = None
        turn = 0
        while not self._done.is_set():
            turn += 1
            method, token = self._methods[(number + turn) % len(self._methods)], f"{number}-{turn}"
            reused, began = peer is not None, time.monotonic()
            try:
                if peer is None:
                    peer = self._connect(self.address)
                    peer.sock.settimeout(PATIENCE)
                seconds = 0.5 if chance.random() < 0.02 else chance.uniform(0, 0.01)
                peer.request(f"/{token}?{seconds:.4f}", method=method, body=BODY if method == "POST" else b"")
                answer = peer.answer()
                if (answer.status, answer.body) != (200, token.encode()):
                    raise AssertionError(f"status {answer.status}, {answer.body[:200]!r}")
            except Exception as error:
                cause = f"{type(error).__name__}: {error}, after {time.monotonic() - began:.3f} s"
                with self._changed:
                    self.failures.append(Failure(began - self._began, method, token, cause, reused))
                    self._changed.notify_all()
                if peer is not None:
                    peer.close()
                peer = None
                self._done.wait(0.2)
                continue
            with self._changed:
                self.answered[method].append(token)
                self._served[answer.headers["x-backend"]] += 1
                self.slowest = max(self.slowest, time.monotonic() - began)
                self._changed.notify_all()
            if answer.headers.get("connection", "").lower() == "close":
                peer.close()
                peer = None
            self._done.wait(chance.uniform(0, PAUSE))
        if peer is not None:
            peer.close()


def free_address() -> tuple[str, int]:
    """A loopback address of its own, with a port that is free there: nobody else takes it while nobody listens."""
    chance = random.SystemRandom()
    host = f"127.{chance.randrange(1, 255)}.{chance.randrange(256)}.{chance.randrange(1, 255)}"
    with socket.socket() as probe:
        probe.bind((host, 0))
        return host, int(probe.getsockname()[1])


class Backend:
    """One lastcall at ``address`` that can be stopped and started again there, with an application of its own.

    :param prefix: words before the command, such as ``nsenter --net=…``.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        *options: str,
        address: tuple[str, int] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.address = address or free_address()
        self.generation = 0
        self.logs: list[str] = []
        self._directory = directory / name
        self._directory.mkdir()
        self._posts = self._directory / "posts"
        host, port = self.address
        listen = ("--host", host, "--port", str(port), "--no-access-log")
        places = ("--control-socket", str(self._directory / "control.sock"), "--pidfile", str(self._directory / "pid"))
        self._arguments = ["app:app", *listen, *places, *options]
        self._command = [*prefix, sys.executable, "-m", "lastcall"]
        self.process = self._new()

    def __enter__(self) -> Self:
        self.deploy()
        self.process.start().wait_ready(30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            # At SIGKILL of a parent its workers would drain on their own, beside the next test.
            with suppress(ProcessLookupError, FileNotFoundError, AssertionError):
                pid = self.pid
                if alive(pid):
                    os.kill(pid, signal.SIGQUIT)
                    eventually(lambda: not alive(pid), 15)
        finally:
            self._end()
            if kind is not None:  # pytest shows it with the failure
                print(f"--- {self.name}\n" + "\n".join(self.logs))

    def _new(self) -> ServerProcess:
        env = {"BACKEND": self.name, "POSTS": str(self._posts)}
        return ServerProcess(self._arguments, None, env, self._directory, command=self._command)

    def _end(self) -> None:
        self.process.kill()
        self.logs.append(self.process.stderr)

    @property
    def posts(self) -> list[str]:
        """The tokens of the POSTs that have run here, as often as they have."""
        return self._posts.read_text().split() if self._posts.exists() else []

    def deploy(self) -> None:
        """Put the next generation of the application in its place."""
        self.generation += 1
        fresh = self._directory / "app.py.new"
        fresh.write_text(APP.format(generation=self.generation))
        fresh.rename(self._directory / "app.py")

    def stop(self) -> None:
        """SIGTERM, and a clean end in time."""
        code = self.process.stop(40)
        self._end()
        assert code == 0, self.process.stderr

    def start(self) -> None:
        """Start it again, where it was."""
        self.process = self._new()
        self.process.start().wait_ready(30)

    def upgrade(self) -> None:
        """Another parent, with the next generation; returns when it serves and the old one has ended.

        Needs ``--workers`` or ``--supervise``. `stop` and leaving the block end the last parent.
        """
        self.deploy()
        old = self.pid
        os.kill(old, signal.SIGUSR2)
        eventually(lambda: not alive(old), 60)
        assert self.pid != old, self.process.stderr

    @property
    def pid(self) -> int:
        """The process that takes signals."""
        return int((self._directory / "pid").read_text())

    def reload(self) -> None:
        """A rolling reload to the next generation; returns when it serves alone."""
        self.deploy()
        before = self.process.stderr.count("Reloaded: ")
        self.process.signal(signal.SIGHUP)
        self.process.wait_for(rf"(?s)(Reloaded: .*){{{before + 1}}}", 60)
