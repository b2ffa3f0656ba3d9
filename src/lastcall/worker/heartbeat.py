"""The sign of life of an event loop: a time in memory that the parent shares, which costs it nothing to look at."""

from __future__ import annotations

import asyncio
import mmap
import time

SECONDS = 0.25
"""Between two beats."""


class Heartbeat:
    """Writes ``time.monotonic()`` as a double, four times a second, at ``place`` (in doubles) of a page.

    ``descriptor`` is that of the page (a memfd); it is closed. Raises OSError, or ValueError where the page is too
    small for that place.
    """

    def __init__(self, descriptor: int, place: int) -> None:
        with open(descriptor, "r+b", buffering=0) as page:
            self._page = memoryview(mmap.mmap(page.fileno(), 0)).cast("d")
        self._place = place
        if not 0 <= place < len(self._page):
            raise ValueError(f"the page of heartbeats has {len(self._page)} places, and not {place + 1}")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Beat for as long as ``loop`` runs, and ``stop()`` is not called."""
        self._loop = loop
        self._beat()

    def stop(self) -> None:
        """Beat no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop = None

    def _beat(self) -> None:
        if self._loop is not None:
            self._page[self._place] = time.monotonic()
            self._timer = self._loop.call_later(SECONDS, self._beat)
