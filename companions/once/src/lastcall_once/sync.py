"""``Once``: ``AsyncOnce`` for code that blocks. Its loop has a thread of its own, which also sends the heartbeats."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import Any, Self, TypeVar

from lastcall_once.functions import guard_async, guard_blocking
from lastcall_once.guard import AsyncOnce, CheckLock, Ending, Lease
from lastcall_once.metrics import Counters
from lastcall_once.records import Record, Verdict
from lastcall_once.store import Store, StoreError

T = TypeVar("T")


class Once:
    """At most one execution per key and lease: what :class:`AsyncOnce` is, with methods that block.

    It takes the same arguments. Any thread may use it, also at the same time; ``on_event`` is called in its own.
    """

    def __init__(self, store: Store | str, **options: Any) -> None:
        self._once = AsyncOnce(store, **options)
        self._lock = threading.Lock()
        self._pid = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._calls: set[asyncio.Task[Any]] = set()  # those that threads wait for

    @property
    def store(self) -> Store:
        """The store. Its methods are for the loop of this object: they cannot be called from here."""
        return self._once.store

    @property
    def metrics(self) -> Counters:
        """The counters."""
        return self._once.metrics

    def __enter__(self) -> Self:
        """Open the store."""
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def open(self) -> None:
        """Open the store now, rather than at its first use. Raises StoreError, whatever ``fail_open`` says."""
        self.run(self._once.open())

    def close(self) -> None:
        """Close the store and end the thread. It may be opened again. Calls of other threads raise StoreError."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
            if loop is None or thread is None or self._pid != os.getpid():
                return
        try:
            asyncio.run_coroutine_threadsafe(self._end(), loop).result()
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def check_lock(self, key: str, ttl: float | None = None, meta: object = None, *, scope: str = "") -> CheckLock:
        """Like :meth:`AsyncOnce.check_lock`."""
        return self.run(self._once.check_lock(key, ttl, meta, scope=scope))

    def lease(self, key: str, **options: Any) -> SyncLease:
        """Like :meth:`AsyncOnce.lease`, to be entered with ``with``."""
        return SyncLease(self, self._once.lease(key, **options))

    def guard(
        self, *, key: str | Callable[..., str], wait: float = 0.0, **options: Any
    ) -> Callable[[Callable[..., T]], Callable[..., T]]:
        """Like :meth:`AsyncOnce.guard`, for functions that block and for async ones, which may run in any loop."""

        def decorate(function: Callable[..., T]) -> Callable[..., T]:
            if inspect.iscoroutinefunction(function):
                made: Any = guard_async(
                    function, key, lambda name: _Bridge(self, self._once.lease(name, wait=wait, **options))
                )
                guarded: Callable[..., T] = made
                return guarded
            return guard_blocking(function, key, lambda name: self.lease(name, wait=wait, **options))

        return decorate

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in this object's loop, and wait for it. Raises StoreError if that is closed meanwhile."""
        future = self.submit(work)
        try:
            return future.result()
        except CancelledError:
            raise StoreError("this Once was closed before it had an answer") from None
        except BaseException:
            future.cancel()  # Ctrl-C while waiting: the coroutine is to know
            raise

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine in this object's loop."""
        try:
            loop = self._running()
        except BaseException:
            work.close()
            raise
        return asyncio.run_coroutine_threadsafe(self._call(work), loop)

    async def _call(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        assert task is not None, "a coroutine of this loop runs in a task"
        self._calls.add(task)
        try:
            return await work
        finally:
            self._calls.discard(task)

    async def _end(self) -> None:
        """In the loop, before it stops: nobody may be left waiting for it."""
        for call in self._calls:
            call.cancel()
        if self._calls:
            await asyncio.wait(self._calls)
        await self._once.close()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if threading.current_thread() is self._thread:
                raise RuntimeError("Once was called from its own thread (on_event?): it would wait for itself")
            if self._loop is not None and self._pid != os.getpid():
                raise StoreError("this Once was opened before a fork: make one in each process, or close() it before")
            if self._loop is None:
                self._pid = os.getpid()
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="lastcall-once loop", daemon=True)
                self._thread.start()
            return self._loop


class SyncLease:
    """A :class:`Lease` for code that blocks: a context manager, and its ends are stored when they are called."""

    def __init__(self, once: Once, lease: Lease) -> None:
        self._once = once
        self._lease = lease

    @property
    def key(self) -> str:
        """The key, with its scope."""
        return self._lease.key

    @property
    def verdict(self) -> Verdict:
        """How the attempt ended."""
        return self._lease.verdict

    @property
    def granted(self) -> bool:
        """Whether to do the work."""
        return self._lease.granted

    @property
    def record(self) -> Record | None:
        """The record after the attempt; None if the store failed."""
        return self._lease.record

    @property
    def result(self) -> bytes | None:
        """What was stored, in bytes; None if there is nothing."""
        return self._lease.result

    @property
    def retry_after(self) -> float:
        """With ``IN_FLIGHT``: how long the other's lease lasts without a renewal, in seconds."""
        return self._lease.retry_after

    @property
    def lost(self) -> bool:
        """Whether somebody else has the key by now, as far as the heartbeat knows."""
        return self._lease.lost

    @property
    def unguarded(self) -> bool:
        """Whether the store failed, and the work runs without a guard (``fail_open``)."""
        return self._lease.unguarded

    @property
    def nested(self) -> bool:
        """Whether a guard around this code holds the key."""
        return self._lease.nested

    @property
    def token(self) -> str:
        """What names this lease in the store."""
        return self._lease.token

    def json(self) -> Any:
        """Like :meth:`Lease.json`."""
        return self._lease.json()

    def replay(self) -> Any:
        """Like :meth:`Lease.replay`."""
        return self._lease.replay()

    def __enter__(self) -> Self:
        """Ask for the lease. Raises StoreError if the store fails, unless ``fail_open`` is set."""
        self._once.run(self._lease.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the lease, if that was not done."""
        self._once.run(self._lease.__aexit__(kind, exc, trace))

    def complete(self, result: object = None) -> None:
        """Like ``await lease.complete(result)`` of :class:`Lease`."""
        self._once.run(_awaited(self._lease.complete(result)))

    def fail(self, error: object = None) -> None:
        """Like ``await lease.fail(error)`` of :class:`Lease`."""
        self._once.run(_awaited(self._lease.fail(error)))

    def abandon(self) -> None:
        """Like ``await lease.abandon()`` of :class:`Lease`."""
        self._once.run(_awaited(self._lease.abandon()))

    def release(self) -> None:
        """Like ``await lease.release()`` of :class:`Lease`."""
        self._once.run(_awaited(self._lease.release()))


class _Bridge:
    """A lease that lives in the loop of a ``Once``, for an async function in another loop."""

    def __init__(self, once: Once, lease: Lease) -> None:
        self._once = once
        self._lease = lease

    @property
    def granted(self) -> bool:
        return self._lease.granted

    @property
    def key(self) -> str:
        return self._lease.key

    @property
    def nested(self) -> bool:
        return self._lease.nested

    @property
    def token(self) -> str:
        return self._lease.token

    @property
    def record(self) -> Record | None:
        return self._lease.record

    def replay(self) -> Any:
        return self._lease.replay()

    async def complete(self, result: object = None) -> None:
        await self._there(_awaited(self._lease.complete(result)))

    async def __aenter__(self) -> Self:
        await self._there(self._lease.__aenter__())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._there(self._lease.__aexit__(kind, exc, trace))

    async def _there(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(self._once.submit(work))


async def _awaited(ending: Ending) -> None:
    await ending
