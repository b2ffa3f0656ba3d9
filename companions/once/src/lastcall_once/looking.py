"""What an attempt would come to, without making it: from a store that is only read."""

from __future__ import annotations

import asyncio
import contextlib
import math

from lastcall_once import records
from lastcall_once._record import replace
from lastcall_once.records import Attempt, Outcome, Verdict
from lastcall_once.store import Store, StoreError

_LONGEST = 0.5  # seconds for reading a store that has failed: it may be down altogether


async def look(store: Store, attempt: Attempt) -> Outcome:
    """What the attempt would come to. GRANTED comes with a record that has no token. Raises StoreError."""
    record = await store.get(attempt.key)
    # The record is as the store's clock has it, and no clock that is behind it changes that.
    outcome = records.acquire(record, replace(attempt, token=""), -math.inf)
    if record is None:
        return outcome
    return Outcome(outcome.verdict, replace(outcome.record, updated_at=record.updated_at))


async def still_readable(store: Store, attempt: Attempt) -> Outcome | None:
    """What an attempt comes to for which the store has failed, being full, read-only or busy.

    None for a key that would have to be written, or where nothing can be read either.
    """
    with contextlib.suppress(StoreError, TimeoutError):
        async with asyncio.timeout(_LONGEST):
            outcome = await look(store, attempt)
        if outcome.verdict is not Verdict.GRANTED:
            return outcome
    return None
