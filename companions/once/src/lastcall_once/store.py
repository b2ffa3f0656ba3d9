"""The contract of a store, and the errors that one may raise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lastcall_once.records import Attempt, Event, Outcome, Record


class StoreError(Exception):
    """The store cannot do its work: it is down, slow, full, read-only, or of another schema. Says which."""


class Store(Protocol):
    """Where records are kept. Every method is one atomic step for all processes that share the store.

    ``lastcall_once.records`` says what each step does; times are on the store's own clock. All raise
    :class:`StoreError`, and nothing else, where the store fails, within the timeout that it was made with (seconds).
    Methods may be called in any event loop, but all in the same one.
    """

    async def open(self) -> None:
        """Connect; create or migrate the schema. Raises StoreError for a schema newer than this release's."""

    async def close(self) -> None:
        """Give everything back. The store may be opened again."""

    async def acquire(self, attempt: Attempt) -> Outcome:
        """``records.acquire`` on the record of ``attempt.key``."""

    async def renew(self, key: str, token: str, *, lease: float, ttl: float) -> bool:
        """``records.renew``; False if ``token`` does not hold the key any more."""

    async def finish(self, key: str, token: str, event: Event, *, ttl: float, result: bytes | None = None) -> bool:
        """``records.finish``; False if ``token`` does not hold the key any more."""

    async def get(self, key: str) -> Record | None:
        """The record as the clock has it, or None. Counts no attempt."""

    async def scan(self, prefix: str = "", *, after: str = "", limit: int = 100) -> Sequence[Record]:
        """Records whose keys begin with ``prefix`` and sort behind ``after``, in the order of their keys."""

    async def delete(self, key: str) -> bool:
        """Forget the key, whatever its state: an operator's decision. False if there was none."""

    async def purge(self) -> int:
        """Remove what has expired; return how many records that were. Stores may also do so by themselves."""
