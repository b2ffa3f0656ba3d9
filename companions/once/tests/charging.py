"""Servers of the sample application ``charges`` on one store, and what a test says to them."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from lastcall_once.records import Record
from lastcall_once.stores import store_from_url
from testing.peer import Answer, Peer
from testing.process import ServerProcess

APPS = Path(__file__).with_name("apps")


class Service:
    """Servers of the sample application, one after another or together, on one store. Its keys are no other test's."""

    def __init__(self, home: Path, stack: ExitStack, url: str = "") -> None:
        self.url = url or f"sqlite:///{home}/once.db"
        self._namespace = uuid.uuid4().hex
        self._effects = home / "effects"
        self._stack = stack
        self.env = {
            "STORE": self.url,
            "EFFECTS": str(self._effects),
            "NAMESPACE": self._namespace,
            "PYTHONPATH": str(APPS),
        }

    def start(self, *options: str, **env: str) -> ServerProcess:
        """A server more, ready."""
        return self.start_all(*options, times=1, **env)[0]

    def start_all(self, *options: str, times: int = 2, **env: str) -> list[ServerProcess]:
        """Some servers, ready: they start at the same time."""
        made = [ServerProcess(["--no-access-log", *options], "charges:app", self.env | env, APPS) for _ in range(times)]
        for server in made:
            self._stack.enter_context(server)
        for server in made:
            server.wait_ready()
        return made

    def peer(self, server: ServerProcess) -> Peer:
        """A client of the server."""
        return self._stack.enter_context(Peer(server.addresses[0]))

    @property
    def effects(self) -> int:
        """How often a handler ran, of any server."""
        return len(self._effects.read_text().splitlines()) if self._effects.exists() else 0

    def records(self) -> list[Record]:
        """All records of this service's."""

        async def look() -> list[Record]:
            store = store_from_url(self.url)
            await store.open()
            try:
                return [*await store.scan(f"{self._namespace}:")]
            finally:
                await store.close()

        return asyncio.run(look())

    def record(self, key: str) -> Record:
        """The record of a key of callers without a name."""

        async def look() -> Record | None:
            store = store_from_url(self.url)
            await store.open()
            try:
                return await store.get(f"{self._namespace}:-:{key}")
            finally:
                await store.close()

        found = asyncio.run(look())
        assert found is not None
        return found


def charge(peer: Peer, key: str, path: str = "/charge", *headers: str) -> None:
    """Ask for a charge."""
    peer.request(path, f"Idempotency-Key: {key}", *headers, method="POST", body=b"{}")


def charged(peer: Peer, key: str, path: str = "/charge", *headers: str) -> Answer:
    """Ask for a charge, and wait for the answer."""
    charge(peer, key, path, *headers)
    return peer.answer()


def began(server: ServerProcess, times: int = 1, word: str = "began") -> None:
    """Wait until so many handlers of the server have begun."""
    assert server._stdout.wait(lambda text: text.count(word) >= times, 10.0), server.stderr


def code(answer: Answer) -> str:
    """The code of a problem."""
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.body.decode().partition('"code": "')[2].partition('"')[0]


def eventually(true: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
