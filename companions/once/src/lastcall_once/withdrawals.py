"""Attempts whose answer did not come: what the store has granted all the same is given back.

A store that was slow, or away for a moment, may carry out what nobody waits for any more. Its key then has a lease
without a holder: retries would be told that the work is under way, and later that its end is unknown, though nothing
was run. So the store is asked, as soon as it answers again.
"""

from __future__ import annotations

import asyncio

from lastcall_once.records import Attempt, Event
from lastcall_once.store import Store, StoreError

_MOST = 100  # at once; the leases of all others run out
_PAUSES = (0.1, 2.0, 1.0)  # seconds between two looks: the first, its growth, the longest
_LATE = 2.0  # seconds for which a store that answers again may still carry out what it was asked before


async def give_back(store: Store, attempt: Attempt) -> bool:
    """Give back what an attempt was granted, if it holds the key now. Raises StoreError.

    Nothing was run. What an earlier run may have left behind stays as unknown as it was.
    """
    record = await store.get(attempt.key)
    if record is None or record.token != attempt.token:
        return False
    event = Event.RELEASE if record.executions == 1 else Event.ABANDON
    await store.finish(attempt.key, attempt.token, event, ttl=attempt.ttl)
    return True


class Withdrawals:
    """The attempts that are being withdrawn, each in a task of its own."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, store: Store, attempt: Attempt) -> None:
        """Withdraw an attempt for which the store has failed, for as long as its lease can last."""
        if len(self._tasks) < _MOST and attempt.lease > 0:
            task = asyncio.get_running_loop().create_task(_withdraw(store, attempt))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """Give up those of this event loop: the store is about to be closed."""
        loop = asyncio.get_running_loop()
        ours = [task for task in self._tasks if task.get_loop() is loop]
        for task in ours:
            task.cancel()
        if ours:
            await asyncio.wait(ours)


async def _withdraw(store: Store, attempt: Attempt) -> None:
    now = asyncio.get_running_loop().time
    until = now() + attempt.lease
    answered = False
    pause, growth, longest = _PAUSES
    while now() < until:
        await asyncio.sleep(pause)
        pause = min(pause * growth, longest)
        try:
            if await give_back(store, attempt):
                return
        except StoreError:
            continue
        if not answered:
            answered, until = True, min(until, now() + _LATE)
