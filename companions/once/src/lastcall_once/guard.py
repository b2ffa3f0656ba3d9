"""The Python API: ``AsyncOnce`` and its ``Lease``. ``lastcall_once.sync`` has the same for code without a loop.

A lease is taken when its block is entered, renewed every third of its length while the block runs, and ended with it:
``COMPLETE`` at its end, ``FAIL`` at an exception, ``ABANDON`` when it is cancelled. A cancelled block may have had its
effect, so its key is not simply given back. An end is stored even if whoever waits for that is cancelled.

Where the store fails, ``fail_open`` decides: the work is refused with ``StoreError``, or runs unguarded. Either way the
log and the metrics say so.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from lastcall_once._record import Record as _Record
from lastcall_once._record import replace
from lastcall_once.errors import InFlight, LeaseLost, NotReplayable, OnceError, Refused
from lastcall_once.forgotten import complete_forgotten
from lastcall_once.heartbeat import Heartbeat, RenewalThread
from lastcall_once.late_acquires import LateAcquireCleanup, release_if_granted
from lastcall_once.looking import still_readable
from lastcall_once.lost_workers import is_lost, marked_unknown, name_of_this_worker
from lastcall_once.metrics import Counters, MemoryCounters, Observer, OnceEvent
from lastcall_once.nesting import around, is_nested
from lastcall_once.own_task import own_task
from lastcall_once.records import Attempt, Event, Outcome, Policy, Record, State, Verdict
from lastcall_once.store import Store, StoreError
from lastcall_once.stores import store_from_url

T = TypeVar("T")

MAX_KEY = 255
_ENDS = {
    Event.COMPLETE: "completed",
    Event.FAIL: "failed",
    Event.ABANDON: "abandoned",
    Event.RELEASE: "released",
}
_REOPEN_AFTER = 1.0  # seconds: a store that could not be opened is not asked again before
_POLL = (0.02, 1.5, 0.25)  # seconds between two looks at a key that is waited for: the first, its growth, the longest


def check_key(key: str, scope: str = "") -> str:
    """The key as it is stored: with its scope and a colon in front, if there is one.

    Raises ValueError unless both have 255 characters at most, the key has one at least, none is a control character or
    a lone surrogate, and the scope has no colon; TypeError for what is no string.
    """
    for what, text in (("key", key), ("scope", scope)):
        if not isinstance(text, str):
            raise TypeError(f"a {what} is a string, not {type(text).__name__}")
        if len(text) > MAX_KEY or (what == "key" and not text):
            raise ValueError(f"a {what} has 1 to {MAX_KEY} characters, this one has {len(text)}")
        if not text.isprintable() and any(
            ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000 for c in text
        ):
            raise ValueError(f"a {what} has no control characters, and is valid Unicode: {text!r}")
    if ":" in scope:
        raise ValueError(f"a scope has no colon: {scope!r}")
    return f"{scope}:{key}" if scope else key


def encoded(result: object) -> bytes:
    """A result as it is stored: bytes as they are, a string in UTF-8, anything else as JSON.

    Raises TypeError or ValueError for what is none of them.
    """
    if isinstance(result, bytes | bytearray | memoryview):
        return bytes(result)
    if isinstance(result, str):
        return result.encode()
    return json.dumps(result, ensure_ascii=False, separators=(",", ":")).encode()


class CheckLock(_Record):
    """What ``check_lock`` says. ``locked``: the caller is the first, and executes; ``duplicate`` is its contrary.

    ``first_seen_at`` is in seconds since 1970, on the store's clock. ``unguarded``: the store failed and ``fail_open``
    let the caller through; nothing else is known then.
    """

    locked: bool
    duplicate: bool
    key: str
    first_seen_at: float = 0.0
    attempts: int = 0
    unguarded: bool = False


class Ending:
    """The end of a lease, noted. Awaiting it stores it at once, otherwise that happens at the end of the block."""

    def __init__(self, store: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._store = store

    def __await__(self) -> Generator[Any, Any, None]:
        return self._store().__await__()


class Lease:
    """One attempt at a key, and the lease if it was granted: an async context manager, from ``AsyncOnce.lease``.

    ``verdict`` says how the attempt ended. With ``granted``, do the work, and call ``complete`` with its result;
    otherwise ``result`` has what was stored, if the verdict is ``DONE`` (or ``FAILED``).
    """

    def __init__(
        self, once: AsyncOnce, attempt: Attempt, *, wait: float = 0.0, on_exception: Event = Event.FAIL
    ) -> None:
        if on_exception not in (Event.FAIL, Event.ABANDON, Event.RELEASE):
            raise ValueError("on_exception is Event.FAIL, Event.ABANDON or Event.RELEASE")
        self._once = once
        self._attempt = attempt
        self._wait = wait
        self._on_exception = on_exception
        self._noted: tuple[Event, bytes | None] | None = None
        self._ended = False
        self._since = 0.0
        self._heartbeat: Heartbeat | None = None
        self._entered = False
        self._around = around()
        self.verdict = Verdict.IN_FLIGHT
        self.record: Record | None = None
        self.lost = False
        """Whether somebody else has the key by now, as far as the heartbeat knows."""
        self.unguarded = False
        """Whether the store failed, and the work runs without a guard (``fail_open``)."""
        self.nested = False
        """Whether a guard around this code holds the key: it was not granted, and nobody else is at it."""

    @property
    def key(self) -> str:
        """The key, with its scope."""
        return self._attempt.key

    @property
    def token(self) -> str:
        """What names this lease in the store."""
        return self._attempt.token

    @property
    def granted(self) -> bool:
        """Whether to do the work."""
        return self.verdict is Verdict.GRANTED

    @property
    def result(self) -> bytes | None:
        """What was stored, in bytes; None if there is nothing."""
        return None if self.record is None else self.record.result

    def json(self) -> Any:
        """The stored result, read as JSON. Raises NotReplayable if there is none, ValueError if it is no JSON."""
        if self.result is None:
            raise NotReplayable(self.key)
        return json.loads(self.result)

    @property
    def retry_after(self) -> float:
        """With ``IN_FLIGHT``: how long the other's lease lasts without a renewal, in seconds."""
        if self.record is None or self.record.state is not State.LEASED:
            return 0.0
        return max(0.0, self.record.lease_until - self.record.updated_at)

    def replay(self) -> Any:
        """The stored result as JSON, for an attempt that was not granted; else an exception that says why not.

        Raises InFlight, Refused or NotReplayable.
        """
        if self.verdict is Verdict.DONE:
            return self.json()
        if self.verdict is Verdict.IN_FLIGHT:
            raise InFlight(self.key, self.retry_after)
        raise Refused(self.key, self.verdict)

    async def __aenter__(self) -> Self:
        """Ask for the lease. Raises StoreError if the store fails, unless ``fail_open`` is set."""
        if self._entered:
            raise RuntimeError("a lease is entered once: ask for another with lease()")
        self._entered = True
        loop = asyncio.get_running_loop()
        until = loop.time() + self._wait
        outcome = await self._once.attempt(self._attempt)
        self.nested = outcome is not None and is_nested(outcome, self._around)
        while outcome is not None and outcome.verdict is Verdict.IN_FLIGHT and not self.nested and loop.time() < until:
            if not await self._once.until_free(self.key, until):
                break
            outcome = await self._once.attempt(self._attempt)
        self._since = loop.time()
        if outcome is None:
            self.unguarded, self.verdict = True, Verdict.GRANTED
            return self
        self.verdict, self.record = outcome.verdict, outcome.record
        if self.granted:
            once = self._once
            self._heartbeat = Heartbeat(
                once.store, self._attempt, once.observer, once.renewal_thread, lost=self._lose, spawn=once.spawn
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the lease, if that was not done. Raises LeaseLost or StoreError, but not on top of an exception."""
        if not self.granted or self._ended:
            return
        if exc is None:
            await self._end(*(self._noted or (Event.COMPLETE, None)))
            return
        event = self._on_exception if isinstance(exc, Exception) else Event.ABANDON
        with suppress(StoreError, OnceError):  # it is logged and counted; what the block has raised matters more
            await self._end(*(self._noted or (event, None)))

    def complete(self, result: object = None) -> Ending:
        """The work is done, with this result: bytes, a string, or anything that is JSON. None stores no result.

        ``await lease.complete(result)`` stores it at once, and raises LeaseLost if somebody else has the key,
        StoreError if the store fails (not with ``fail_open``). Without ``await`` that happens at the end of the block.
        Raises RuntimeError if the lease was not granted, or has ended, TypeError or ValueError for a result that is no
        JSON.
        """
        return self._note(Event.COMPLETE, None if result is None else encoded(result))

    def fail(self, error: object = None) -> Ending:
        """The work has failed, and had no effect. Like ``complete``; the next attempt gets what ``on_failed`` says."""
        return self._note(Event.FAIL, None if error is None else encoded(error))

    def abandon(self) -> Ending:
        """Nobody knows how the work ended. Like ``complete``; the next attempt gets what ``on_unknown`` says."""
        return self._note(Event.ABANDON, None)

    def release(self) -> Ending:
        """The work was not begun: forget the key. Like ``complete``."""
        return self._note(Event.RELEASE, None)

    def _note(self, event: Event, result: bytes | None) -> Ending:
        if not self.granted:
            raise RuntimeError(f"the lease of key {self.key!r} was not granted ({self.verdict.value})")
        if self._noted is not None or self._ended:
            raise RuntimeError(f"the lease of key {self.key!r} has ended already")
        self._noted = (event, result)
        return Ending(lambda: self._end(event, result))

    async def _end(self, event: Event, result: bytes | None) -> None:
        if self._ended:
            return
        self._ended = True
        if self.unguarded:
            return
        await self._once.shielded(self._store_end(event, result))

    async def _store_end(self, event: Event, result: bytes | None) -> None:
        once, attempt = self._once, self._attempt
        if self._heartbeat is not None:
            await self._heartbeat.stop()
        try:
            held = await once.timed(
                "finish", once.store.finish(attempt.key, attempt.token, event, ttl=attempt.ttl, result=result)
            )
            if not held and event is Event.COMPLETE:
                held = await complete_forgotten(once.store, attempt, ttl=attempt.ttl, result=result)
        except StoreError as exc:
            once.observer.store_error(self.key, "finish", exc, fail_open=once.fail_open)
            if once.fail_open:
                return
            raise
        once.observer.ended(_ENDS[event], self.key, asyncio.get_running_loop().time() - self._since)
        if not held:
            self._lose()
            raise LeaseLost(self.key)

    def _lose(self) -> None:
        if not self.lost:
            self.lost = True
            self._once.observer.lease_lost(self.key)


class AsyncOnce:
    """At most one execution per key and lease, and the stored result for every retry after it.

    ``store`` is a store, or its URL (:func:`lastcall_once.stores.store_from_url`); it is opened at its first use, or by
    ``open``, and closed by ``close``, or use ``async with``. All calls have to come from one event loop.

    ``lease`` is how long a worker that died holds a key (seconds), ``ttl`` how long a result is kept (seconds).
    ``on_unknown`` and ``on_failed`` say what an attempt gets after a run whose end is unknown, or that failed.
    With ``fail_open``, work runs unguarded while the store fails; otherwise that raises StoreError. ``on_event`` is
    called with each :class:`lastcall_once.metrics.OnceEvent`, in the loop's thread; ``metrics`` has the counters.
    """

    def __init__(  # noqa: PLR0913 - options, by name only
        self,
        store: Store | str,
        *,
        lease: float = 30.0,
        ttl: float = 86400.0,
        fail_open: bool = False,
        on_unknown: Policy = Policy.RETRY,
        on_failed: Policy = Policy.RETRY,
        on_event: Callable[[OnceEvent], object] | None = None,
        metrics: Counters | None = None,
    ) -> None:
        _check_spans(lease, ttl)
        self.store: Store = store_from_url(store) if isinstance(store, str) else store
        self.fail_open = fail_open
        self.observer = Observer(MemoryCounters() if metrics is None else metrics, on_event)
        self._lease = lease
        self._ttl = ttl
        self._on_unknown = on_unknown
        self._on_failed = on_failed
        self._pid = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker = ""
        self._late_acquires = LateAcquireCleanup()
        self._opening: asyncio.Task[None] | None = None
        self._failed: tuple[float, StoreError] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.renewal_thread = RenewalThread(self.store, self.observer)

    @property
    def metrics(self) -> Counters:
        """The counters."""
        return self.observer.counters

    async def __aenter__(self) -> Self:
        """Open the store."""
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.close()

    async def open(self) -> None:
        """Open the store now, rather than at its first use. Raises StoreError, whatever ``fail_open`` says."""
        loop = asyncio.get_running_loop()
        if self._pid == os.getpid():
            if self._loop is not loop:
                raise RuntimeError(
                    "an AsyncOnce belongs to the event loop that it was opened in: close() it there, or use Once"
                )
            return
        if self._opening is None or self._opening.get_loop() is not loop:
            if self._failed is not None and loop.time() < self._failed[0]:
                raise StoreError(str(self._failed[1])) from self._failed[1]
            self._opening = self.spawn(self._open(loop))
        await asyncio.shield(self._opening)

    async def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            await self.store.open()
        except StoreError as exc:
            self._failed = (loop.time() + _REOPEN_AFTER, exc)
            raise
        else:
            self._failed = None
            self._loop, self._pid = loop, os.getpid()
            self._worker = name_of_this_worker()
        finally:
            self._opening = None

    async def close(self) -> None:
        """Wait for what is being stored, and close the store. It may be opened again, in another loop too."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._late_acquires.stop()
        await self.renewal_thread.stop()
        if self._pid == os.getpid():
            self._pid, self._loop = 0, None
            await self.store.close()

    async def check_lock(
        self, key: str, ttl: float | None = None, meta: object = None, *, scope: str = ""
    ) -> CheckLock:
        """Claim ``key`` for ``ttl`` seconds, without a lease: the first is told ``locked``, others ``duplicate``.

        ``meta`` is any JSON, stored with the claim. Raises ValueError for a key that cannot be, StoreError if the store
        fails and ``fail_open`` is not set.
        """
        name = check_key(key, scope)
        outcome = await self.attempt(self._attempt(name, 0.0, ttl, meta))
        if outcome is None:
            return CheckLock(locked=True, duplicate=False, key=key, unguarded=True)
        record, locked = outcome.record, outcome.verdict is Verdict.GRANTED
        return CheckLock(locked, not locked, key, record.first_seen_at, record.attempts)

    def lease(  # noqa: PLR0913 - options of one attempt, by name only
        self,
        key: str,
        *,
        lease: float | None = None,
        ttl: float | None = None,
        meta: object = None,
        scope: str = "",
        fingerprint: str = "",
        wait: float = 0.0,
        on_unknown: Policy | None = None,
        on_failed: Policy | None = None,
        on_exception: Event = Event.FAIL,
    ) -> Lease:
        """An attempt at ``key``, to be entered with ``async with``.

        ``fingerprint`` says what the key is used for: a later attempt with another one gets ``MISMATCH``. ``wait`` is
        how long to wait while somebody else is at it (seconds). ``on_exception`` is how the lease ends if the block
        raises an ``Exception``: ``FAIL``, ``ABANDON`` or ``RELEASE``. The other options are those of the class.

        Raises ValueError for a key or a time that cannot be.
        """
        name = check_key(key, scope)
        length = self._lease if lease is None else lease
        _check_spans(length, self._ttl)
        attempt = self._attempt(name, length, ttl, meta, fingerprint, (on_unknown, on_failed))
        return Lease(self, attempt, wait=wait, on_exception=on_exception)

    def guard(
        self, *, key: str | Callable[..., str], wait: float = 0.0, **options: Any
    ) -> Callable[[Callable[..., Awaitable[T]]], Callable[..., Coroutine[Any, Any, T]]]:
        """Decorate an async function: it runs once for each key, and its result, as JSON, is replayed.

        ``key`` is a template over the function's arguments (``"order:{order_id}"``, ``"{event.id}"``), or a function of
        the same arguments. ``options`` are those of ``lease``. A replayed result is what JSON makes of the first one:
        a tuple comes back as a list. A result that is no JSON raises TypeError, after the work, which counts as done.
        Within a guarded function, another one with the same key just runs; the same one again raises InFlight.

        A call raises InFlight while another runs, after ``wait`` seconds, Refused as the policies say, NotReplayable
        if there is no result, StoreError if the store fails and ``fail_open`` is not set.
        Raises TypeError for a function that is not async (use ``Once``), ValueError for a template that does not fit.
        """
        from lastcall_once.functions import guard_async  # noqa: PLC0415 - `inspect` is for decorators only

        def decorate(function: Callable[..., Awaitable[T]]) -> Callable[..., Coroutine[Any, Any, T]]:
            return guard_async(function, key, lambda name: self.lease(name, wait=wait, **options))

        return decorate

    def _attempt(
        self,
        key: str,
        lease: float,
        ttl: float | None,
        meta: object,
        fingerprint: str = "",
        policies: tuple[Policy | None, Policy | None] = (None, None),
    ) -> Attempt:
        ttl = self._ttl if ttl is None else ttl
        _check_spans(lease or 1.0, ttl)
        on_unknown, on_failed = policies
        return Attempt(
            key,
            secrets.token_hex(16),
            lease,
            ttl,
            self._worker,
            fingerprint,
            "" if meta is None else json.dumps(meta, separators=(",", ":")),
            self._on_unknown if on_unknown is None else on_unknown,
            self._on_failed if on_failed is None else on_failed,
        )

    # -- for the other APIs of once ------------------------------------------------------------------------------------

    async def attempt(self, attempt: Attempt) -> Outcome | None:
        """Make an attempt, and count it. None if the store fails and ``fail_open`` is set; else raises StoreError."""
        started = time.perf_counter()
        asked = False
        try:
            if self._pid != os.getpid() or self._loop is not asyncio.get_running_loop():
                await self.open()
            if not attempt.worker:  # made before the store was opened
                attempt = replace(attempt, worker=self._worker)
            asked = True
            outcome = await self.store.acquire(attempt)
            if await marked_unknown(self.store, attempt, outcome):
                outcome = await self.store.acquire(attempt)
        except StoreError as exc:
            if asked and not self.fail_open:
                self._late_acquires.start(self.store, attempt)
            found = await still_readable(self.store, attempt) if asked else None
            if found is None:
                self.observer.store_error(attempt.key, "acquire", exc, fail_open=self.fail_open)
                if self.fail_open:
                    return None
                raise
            outcome = found
        except asyncio.CancelledError:
            if attempt.lease > 0 and self._pid == os.getpid():
                self.spawn(self._release_cancelled(attempt))
            raise
        seconds = time.perf_counter() - started
        self.observer.took("acquire", seconds)
        self.observer.attempt(attempt.key, outcome, seconds)
        return outcome

    async def _release_cancelled(self, attempt: Attempt) -> None:
        """Nobody will run what was granted to an attempt that was cancelled, if it was."""
        try:
            await release_if_granted(self.store, attempt)
        except StoreError as exc:
            self.observer.store_error(attempt.key, "finish", exc, fail_open=False)

    async def until_free(self, key: str, until: float) -> bool:
        """Wait while the key is leased, until a point of the loop's time; False if it still is then."""
        loop = asyncio.get_running_loop()
        pause, growth, longest = _POLL
        while (left := until - loop.time()) > 0:
            await asyncio.sleep(min(pause, left))
            pause = min(pause * growth, longest)
            try:
                record = await self.store.get(key)
            except StoreError:
                return True  # the next attempt finds out, and decides
            if record is None or record.state is not State.LEASED or is_lost(record.worker):
                return True
        return False

    async def timed(self, operation: str, work: Awaitable[T]) -> T:
        """Await an operation of the store, and count how long it took."""
        started = time.perf_counter()
        try:
            return await work
        finally:
            self.observer.took(operation, time.perf_counter() - started)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that ``close`` waits for."""
        task = own_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._spawned)
        return task

    def _spawned(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has it, or was cancelled meanwhile; it is counted

    async def shielded(self, work: Coroutine[Any, Any, T]) -> T:
        """Await ``work``, which goes on if that is cancelled."""
        return await asyncio.shield(self.spawn(work))


def _check_spans(lease: float, ttl: float) -> None:
    if not 0 < lease < float("inf"):
        raise ValueError(f"a lease is longer than 0 seconds, and not endless: {lease!r}")
    if not ttl > 0:
        raise ValueError(f"a ttl is longer than 0 seconds: {ttl!r}")
