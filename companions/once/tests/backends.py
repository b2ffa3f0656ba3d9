"""The stores under the contract's tests, and how time passes for them."""

from __future__ import annotations

import asyncio
import math
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from lastcall_once.store import Store
from lastcall_once.stores import store_from_url
from lastcall_once.stores.memory import MemoryStore
from lastcall_once.stores.sqlite import SQLiteStore

LONG = 3600.0


class Clock:
    """Time as an argument, in seconds. Whole ones: they are exact in any store."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Backend:
    """One kind of store. ``clock`` is None where the server's own clock counts: then time really passes.

    ``short`` is a span that a test may let pass; ``prefix`` is for the keys of one test, which may share a server.
    """

    directory: Path | None = None

    def __init__(self, name: str, make: Callable[[], Store], clock: Clock | None = None) -> None:
        self.name = name
        self.make = make
        self.clock = clock
        self.short = 30.0 if clock is not None else 0.05
        self.prefix = f"{uuid.uuid4().hex}/"

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Store]:
        """The store, open; its keys are gone afterwards."""
        store = self.make()
        await store.open()
        try:
            yield store
            await self.clear(store)
        finally:
            await store.close()

    async def clear(self, store: Store) -> None:
        """Forget the keys of this test."""
        await store.purge()
        while page := await store.scan(self.prefix):
            for record in page:
                await store.delete(record.key)

    async def pass_(self, seconds: float) -> None:
        """Let time pass."""
        if self.clock is None:
            await asyncio.sleep(seconds)
        else:
            self.clock.now += math.ceil(seconds)


def backend(name: str, url: str = "") -> Backend:
    """The backend of that name; ``url`` is that of its server."""
    clock = Clock()
    if name == "memory":
        return Backend(name, lambda: MemoryStore(clock=clock), clock)
    if name == "sqlite":
        directory = Path(tempfile.mkdtemp(prefix="lastcall-once-"))
        made = Backend(name, lambda: SQLiteStore(directory / "once.db", clock=clock, timeout=20.0), clock)
        made.directory = directory
        return made
    return Backend(name, lambda: store_from_url(url))
