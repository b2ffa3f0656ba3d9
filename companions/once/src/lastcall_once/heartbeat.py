"""Renewing a lease while its work runs: by the event loop, and by a thread where the work blocks that.

Theory of operation
-------------------
The loop renews every third of a lease. Work that blocks the loop (a call that does not await) stops that too, and with
the lease's end another process would run the same work. So one thread for each guard looks after the leases: one that
has not been renewed for most of its length is renewed from there, by a second store on the same records, since the
first one belongs to the loop. The thread sleeps otherwise, and is not woken for each lease: an idle one ends.

No renewal may follow an end, as it would make a lease of what is unknown. So whoever ends a lease takes it from the
thread first, and waits for a renewal that is under way.

What a thread cannot help with is work that holds the GIL for as long as a lease.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

from lastcall_once.metrics import Observer
from lastcall_once.own_task import own_task
from lastcall_once.records import Attempt
from lastcall_once.store import Store, StoreError

RENEWALS_PER_LEASE = 3  # renewals within one lease, so that one may fail
_LATE = 0.6  # of a lease: then the thread takes it that the loop is blocked
_IDLE = 10.0  # seconds for which the thread waits for another lease

Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class Watched:
    """A lease that the thread looks after. ``due`` is when it renews it, on the thread's clock."""

    def __init__(self, attempt: Attempt, due: float) -> None:
        self.attempt = attempt
        self.due = due
        self.renewing: Future[None] | None = None


class RenewalThread:
    """Renews the leases of a store whose event loop is blocked. It starts with the first lease.

    A store without ``clone`` is left to the loop. ``clock`` is monotonic, in seconds.
    """

    def __init__(self, store: Store, observer: Observer, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clone: Callable[[], Store] | None = getattr(store, "clone", None)
        self._observer = observer
        self._clock = clock
        self._pid = 0
        self._changed = threading.Condition()
        self._watched: set[Watched] = set()
        self._wakes_at = 0.0
        self._ended: Future[None] | None = None  # while the thread runs
        self._stopped = False

    def watch(self, attempt: Attempt) -> Watched:
        """Look after a lease, from now on."""
        if self._pid != os.getpid():  # a thread does not survive a fork, nor does the state of a lock
            self._pid, self._changed = os.getpid(), threading.Condition()
            self._watched, self._ended = set(), None
        one = Watched(attempt, self._clock() + _LATE * attempt.lease)
        if self._clone is not None:
            with self._changed:
                self._watched.add(one)
                self._stopped = False
                if self._ended is None:
                    self._start(one.due)
                elif one.due < self._wakes_at:
                    self._changed.notify()
        return one

    def _start(self, wakes_at: float) -> None:
        """Start the thread. Where there can be none, the loop's renewals go on, and a later lease tries again."""
        self._ended, self._wakes_at = Future(), wakes_at
        thread = threading.Thread(target=self._run, name="lastcall-once leases", daemon=True)
        try:
            thread.start()
        except RuntimeError as exc:
            self._ended = None  # nobody would ever set it
            self._observer.warn("thread start", "once: leases are not renewed while the event loop is blocked: %s", exc)

    def beat(self, one: Watched) -> None:
        """The loop is about to renew it: it is not blocked."""
        one.due = self._clock() + _LATE * one.attempt.lease

    async def forget(self, one: Watched) -> None:
        """Look after it no more; returns when no renewal is under way."""
        with self._changed:
            self._watched.discard(one)
            renewing = one.renewing
        if renewing is not None:
            await asyncio.wait({asyncio.wrap_future(renewing)})  # as long as the store's timeouts at most

    async def stop(self) -> None:
        """End the thread. It starts again with the next lease."""
        with self._changed:
            ended = self._ended if self._pid == os.getpid() else None
            self._stopped = True
            self._changed.notify()
        if ended is not None:
            await asyncio.wait({asyncio.wrap_future(ended)})

    # -- in the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while late := self._wait():
            try:
                # A loop of no policy's making, whatever the application has set.
                with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                    runner.run(self._renew(late))
            except Exception as exc:  # the thread goes on: other leases depend on it
                self._observer.warn("thread", "once: leases could not be renewed from a thread: %r", exc)
            with self._changed:
                for one in late:
                    one.due = max(one.due, self._clock() + one.attempt.lease / RENEWALS_PER_LEASE)
                    if one.renewing is not None:
                        one.renewing.set_result(None)
                        one.renewing = None

    def _wait(self) -> list[Watched]:
        """Wait until leases are due, and return them; none if the thread is to end."""
        idle_until = self._clock() + _IDLE
        with self._changed:
            while not self._stopped:
                now = self._clock()
                late = [one for one in self._watched if one.due <= now]
                if late:
                    for one in late:
                        one.renewing = Future()
                    return late
                if self._watched:
                    idle_until = now + _IDLE
                elif now >= idle_until:
                    break
                self._wakes_at = min((one.due for one in self._watched), default=idle_until)
                self._changed.wait(self._wakes_at - now)
            ended, self._ended = self._ended, None
        if ended is not None:
            ended.set_result(None)
        return []

    async def _renew(self, late: list[Watched]) -> None:
        assert self._clone is not None, "leases of others are not watched"
        self._observer.warn("blocked", "once: the event loop is blocked, and leases are renewed from a thread")
        store = self._clone()
        try:
            await store.open()
            try:
                for one in late:
                    attempt = one.attempt
                    await store.renew(attempt.key, attempt.token, lease=attempt.lease, ttl=attempt.ttl)
                    # One that is lost is told by the loop, once that runs.
            finally:
                await store.close()
        except StoreError as exc:
            self._observer.warn("renew", "once: leases could not be renewed from a thread: %s", exc)


class Heartbeat:
    """Renews a lease until it is stopped. It costs a timer, and a task only for each renewal.

    ``lost`` is called when somebody else has the lease. ``spawn`` makes the tasks.
    """

    def __init__(
        self,
        store: Store,
        attempt: Attempt,
        observer: Observer,
        thread: RenewalThread,
        *,
        lost: Callable[[], object],
        spawn: Spawn | None = None,
    ) -> None:
        self._store = store
        self._attempt = attempt
        self._observer = observer
        self._thread = thread
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._spawn: Spawn = own_task if spawn is None else spawn
        self._renewal: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        self._watched = thread.watch(attempt)
        self._wait()

    def _wait(self) -> None:
        self._timer = self._loop.call_later(self._attempt.lease / RENEWALS_PER_LEASE, self._beat)

    def _beat(self) -> None:
        self._renewal = self._spawn(self._renew())

    async def _renew(self) -> None:
        attempt, began = self._attempt, time.perf_counter()
        self._thread.beat(self._watched)
        try:
            if not await self._store.renew(attempt.key, attempt.token, lease=attempt.lease, ttl=attempt.ttl):
                if not self._stopped:
                    await self._thread.forget(self._watched)
                    self._lost()  # and the work cannot be taken back
                return
        except StoreError as exc:
            self._observer.warn("renew", "once: a lease could not be renewed (key %r): %s", attempt.key, exc)
        finally:
            self._observer.took("renew", time.perf_counter() - began)
        if not self._stopped:
            self._wait()

    async def stop(self) -> None:
        """Renew no more; returns when nothing is under way any more, so that no renewal follows an end."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._renewal is not None:
            await asyncio.wait({self._renewal})
        await self._thread.forget(self._watched)
