"""The service as its users have it: ``lastcall once serve`` in a process, keys from ``lastcall once key``, the SDK."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
from onceonly import OnceOnly

from lastcall_once.document_stores import document_store_of
from lastcall_once.service.keys import create
from lastcall_once.stores import store_from_url
from testing.process import ServerProcess

LASTCALL = [sys.executable, "-m", "lastcall", "once"]


def lastcall_once(*words: str, code: int = 0) -> str:
    """Run the command; its output. It has to end with ``code``."""
    done = subprocess.run([*LASTCALL, *words], capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == code, (done.args, done.stdout, done.stderr)
    return done.stdout if code == 0 else done.stderr


def new_key(url: str, account: str = "") -> str:
    """A key, made without the command, which takes a third of a second."""

    async def make() -> str:
        store = store_from_url(url)
        await store.open()
        try:
            return (await create(document_store_of(store), now=time.time(), account=account))[0]
        finally:
            await store.close()

    return asyncio.run(make())


class Serving:
    """Processes that serve one store."""

    def __init__(self, store: str, stack: ExitStack) -> None:
        self.store = store
        self._stack = stack
        self.processes: list[ServerProcess] = []

    def start(self, *options: str) -> str:
        """Start another process; its address."""
        words = ["--store", self.store, "--port", "0", "--no-access-log", *options]
        process = ServerProcess(words, None, command=[*LASTCALL, "serve"])
        self.processes.append(self._stack.enter_context(process))
        return process.wait_ready()[0]

    def key(self, account: str = "") -> str:
        """A new key, of a new account unless one is named."""
        return new_key(self.store, account)

    def stop(self) -> None:
        """Stop all processes, in order."""
        for process in self.processes:
            assert process.stop() == 0
            assert "Traceback" not in process.stderr
            assert "Warning" not in process.stderr


@contextmanager
def serving(store: str, *options: str) -> Iterator[tuple[Serving, str]]:
    """One process over ``store``, and its address."""
    with ExitStack() as stack:
        made = Serving(store, stack)
        yield made, made.start(*options)
        made.stop()


class Sdk:
    """The SDK's client, unmodified, by its sync or its async methods: ``sdk("ai.lease", key="k")``."""

    def __init__(self, address: str, key: str, mode: str = "sync", **options: Any) -> None:
        self.mode = mode
        self.loop = asyncio.new_event_loop()
        self.client = OnceOnly(api_key=key, base_url=address, timeout=10.0, **options)

    def __call__(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call the method of that name, or its ``…_async``."""
        found: Any = self.client
        for part in f"{method}{'' if self.mode == 'sync' else '_async'}".split("."):
            found = getattr(found, part)
        made = found(*args, **kwargs)
        return made if self.mode == "sync" else self.loop.run_until_complete(made)

    def close(self) -> None:
        """Close both of its clients."""
        self.client.close()
        self.loop.run_until_complete(self.client.aclose())
        self.loop.close()


@contextmanager
def sdk(address: str, key: str, mode: str = "sync", **options: Any) -> Iterator[Sdk]:
    """An ``Sdk`` that is closed at the end."""
    made = Sdk(address, key, mode, **options)
    try:
        yield made
    finally:
        made.close()


def bearer(key: str) -> dict[str, str]:
    """The header that brings a key."""
    return {"Authorization": f"Bearer {key}"}


def http(address: str, key: str) -> httpx.Client:
    """A client for what the SDK does not say; the caller closes it."""
    return httpx.Client(base_url=address, headers=bearer(key), timeout=10.0)
