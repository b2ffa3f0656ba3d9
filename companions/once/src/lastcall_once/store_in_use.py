"""The store of a middleware, which nobody opens but the first who needs it."""

from __future__ import annotations

import asyncio
import contextlib

from lastcall_once.own_task import own_task
from lastcall_once.store import Store, StoreError

_CLOSE_TIMEOUT = 0.1  # seconds for closing a store that another event loop has opened


class StoreInUse:
    """A store that is opened when it is first needed, and once again for each event loop that needs it."""

    def __init__(self, store: Store | str) -> None:
        if isinstance(store, str):
            from lastcall_once.stores import store_from_url  # noqa: PLC0415 - not for who brings a store

            store = store_from_url(store)
        self.store = store
        self._open_in: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Task[None] | None = None

    async def ready(self) -> None:
        """Return when the store is open in this event loop. Raises StoreError."""
        loop = asyncio.get_running_loop()
        if self._open_in is loop:
            return
        if self._opening is None or self._opening.get_loop() is not loop or self._opening.done():
            self._opening = own_task(self._open(loop))
        await asyncio.shield(self._opening)

    async def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._open_in is not None:  # as in tests, where each client may have a loop of its own
            self._open_in = None
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_CLOSE_TIMEOUT):  # what it waits for may be the other loop's, which is gone
                    await self.store.close()
        await self.store.open()
        self._open_in = loop

    async def close(self) -> None:
        """Close the store, if it is open here."""
        if self._open_in is asyncio.get_running_loop():
            self._open_in = None
            with contextlib.suppress(StoreError):
                await self.store.close()
