"""Clean-up of late acquires: leases that a store granted after the caller had given up waiting for them.

A store that was slow, or unreachable for a moment, may still carry out an acquire that has failed for its caller. Its
key then has a lease without a holder: retries would be told that the work is under way, and later that its end is
unknown, though nothing was run. So the store is asked about the key as soon as it answers again, and the lease is
released.
"""

from __future__ import annotations

import asyncio

from lastcall_once.own_task import own_task
from lastcall_once.records import Attempt, Event
from lastcall_once.store import Store, StoreError

_MOST = 100  # at once; all other leases expire
_FIRST_PAUSE, _PAUSE_GROWTH, _LONGEST_PAUSE = 0.1, 2.0, 1.0  # seconds between two looks at the store
_LATE = 2.0  # seconds for which a store that answers again may still carry out earlier requests


async def release_if_granted(store: Store, attempt: Attempt) -> bool:
    """Release the lease of an attempt, if it was granted; return whether it was. Raises StoreError.

    Nothing was run. If an earlier run of the key ended as unknown, it stays unknown.
    """
    record = await store.get(attempt.key)
    if record is None or record.token != attempt.token:
        return False
    event = Event.RELEASE if record.executions == 1 else Event.ABANDON
    await store.finish(attempt.key, attempt.token, event, ttl=attempt.ttl)
    return True


class LateAcquireCleanup:
    """Releases what the store grants late, in one task for each attempt."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, store: Store, attempt: Attempt) -> None:
        """Watch for the lease of an attempt for which the store has failed, as long as that lease can last."""
        if len(self._tasks) < _MOST and attempt.lease > 0:
            task = own_task(_release_when_granted(store, attempt))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Cancel the tasks of this event loop: the store is about to be closed."""
        loop = asyncio.get_running_loop()
        ours = [task for task in self._tasks if task.get_loop() is loop]
        for task in ours:
            task.cancel()
        if ours:
            await asyncio.wait(ours)


async def _release_when_granted(store: Store, attempt: Attempt) -> None:
    now = asyncio.get_running_loop().time
    until = now() + attempt.lease
    answered = False
    pause = _FIRST_PAUSE
    while now() < until:
        await asyncio.sleep(pause)
        pause = min(pause * _PAUSE_GROWTH, _LONGEST_PAUSE)
        try:
            if await release_if_granted(store, attempt):
                return
        except StoreError:
            continue
        if not answered:
            answered, until = True, min(until, now() + _LATE)
