"""Leases whose work blocks the event loop: a thread renews them, on every store."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from companions.once.tests.backends import Backend
from companions.once.tests.calls import call
from lastcall_once._types import Receive, Scope, Send
from lastcall_once.guard import AsyncOnce
from lastcall_once.heartbeat import Heartbeat, RenewalThread
from lastcall_once.metrics import MemoryCounters, Observer
from lastcall_once.middleware import IdempotencyMiddleware
from lastcall_once.records import Attempt, Event, Record, State
from lastcall_once.store import Store
from lastcall_once.stores.memory import MemoryStore
from lastcall_once.stores.sqlite import SQLiteStore

LEASE = 1.0  # on a real clock; that the machine is busy may make a renewal late, and none is lost by that


def look(store: Store, key: str, true: Callable[[Record], bool]) -> Record:
    """Look at a record, from this thread, until it is so."""

    async def looking() -> Record:
        await store.open()
        try:
            for _ in range(2000):
                record = await store.get(key)
                if record is not None and true(record):
                    return record
                await asyncio.sleep(0.01)
            raise AssertionError("it never was")
        finally:
            await store.close()

    return asyncio.run(looking())


@contextmanager
def in_thread(work: Callable[[], object]) -> Iterator[None]:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as exc:
            failures.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()
    if failures:
        raise failures[0]


def real(store: Store) -> Any:
    """The same store on the real clock, where it has one of its own."""
    if isinstance(store, MemoryStore | SQLiteStore):
        store._clock = time.time
    return store


@pytest.mark.slow
def test_work_that_blocks_the_loop_keeps_its_lease(store: Backend, caplog: pytest.LogCaptureFixture) -> None:
    key = f"{store.prefix}k"

    async def body() -> None:
        opened = real(store.make())
        async with AsyncOnce(opened, lease=LEASE) as once, once.lease(key) as lease:
            granted = await opened.get(key)
            renewed = threading.Event()

            def watch() -> None:
                record = look(opened.clone(), key, lambda found: found.updated_at >= granted.updated_at + 2 * LEASE)
                assert (record.token, record.executions) == (lease.token, 1)
                renewed.set()

            with in_thread(watch):
                renewed.wait(25)  # nothing else runs in this loop meanwhile
            assert not lease.lost
            lease.complete("done")
        assert once._tasks == set()
        await opened.open()
        assert (await opened.get(key)).state is State.DONE
        await store.clear(opened)
        await opened.close()

    asyncio.run(body())
    assert "event loop is blocked" in caplog.text


@pytest.mark.slow
def test_a_handler_that_blocks_the_loop_is_not_run_twice(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "once.db")
    runs = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal runs
        runs += 1
        found = [record for record in [await store.get("http:-:k")] if record is not None]
        seen = threading.Event()

        def elsewhere() -> None:
            """Another process's retry, when the lease would have run out."""
            after = found[0].updated_at + 2 * LEASE
            look(store.clone(), "http:-:k", lambda record: record.updated_at >= after)

            async def retry() -> None:
                guarded = IdempotencyMiddleware(app, store.clone(), lease=LEASE)
                assert (await call(guarded)).code == "once_in_flight"
                await guarded.aclose()

            asyncio.run(retry())
            seen.set()

        with in_thread(elsewhere):
            seen.wait(25)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"once"})

    async def body() -> None:
        guarded = IdempotencyMiddleware(app, store, lease=LEASE)
        assert (await call(guarded)).body == b"once"
        assert (await call(guarded)).replayed
        await guarded.aclose()

    asyncio.run(body())
    assert runs == 1


def test_a_loop_that_runs_needs_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    """The thread sleeps, and ends when it is stopped."""

    async def body() -> None:
        store = MemoryStore()
        await store.open()
        observer = Observer(MemoryCounters())
        thread = RenewalThread(store, observer)
        attempt = Attempt("k", "t", 60.0, 60.0)
        await store.acquire(attempt)
        heart = Heartbeat(store, attempt, observer, thread, lost=lambda: None)
        await asyncio.sleep(0)
        assert thread._ended is not None
        await heart.stop()
        assert thread._watched == set()
        await thread.stop()
        assert thread._ended is None
        await thread.stop()

    asyncio.run(body())
    assert caplog.text == ""


def test_no_renewal_follows_an_end() -> None:
    """One that is under way in the thread is waited for: the end would be undone by it."""
    began, go = threading.Event(), threading.Event()

    class Slow(MemoryStore):
        def clone(self) -> MemoryStore:
            twin = super().clone()

            class Late(MemoryStore):
                async def renew(self, *args: Any, **named: Any) -> bool:
                    began.set()
                    assert go.wait(20)
                    return await twin.renew(*args, **named)

                async def open(self) -> None:
                    await twin.open()

            return Late()

    async def body() -> None:
        store, observer = Slow(), Observer(MemoryCounters())
        await store.open()
        thread = RenewalThread(store, observer)
        attempt = Attempt("k", "t", 60.0, 60.0)
        await store.acquire(attempt)
        heart = Heartbeat(store, attempt, observer, thread, lost=lambda: None)
        with thread._changed:
            heart._watched.due = 0.0  # as if the loop had been blocked for most of the lease
            thread._changed.notify()
        assert await asyncio.to_thread(began.wait, 20)
        stopping = asyncio.ensure_future(heart.stop())
        await asyncio.sleep(0.01)
        assert not stopping.done()
        go.set()
        await stopping
        assert await store.finish("k", "t", Event.ABANDON, ttl=60.0)
        await thread.stop()
        record = await store.get("k")
        assert record is not None
        assert record.state is State.UNKNOWN

    asyncio.run(body())


def test_a_second_store_is_of_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the application has gone to another directory since."""

    async def body() -> None:
        store = SQLiteStore("once.db")
        await store.open()
        await store.acquire(Attempt("k", "t", 60.0, 60.0))
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        second = store.clone()
        await second.open()
        assert await second.renew("k", "t", lease=60.0, ttl=60.0)
        await second.close()
        await store.close()

    monkeypatch.chdir(tmp_path)
    asyncio.run(body())


def test_a_store_that_has_no_second_one_is_left_to_the_loop() -> None:
    class Mine(MemoryStore):
        clone = None  # type: ignore[assignment]

    async def body() -> None:
        async with AsyncOnce(Mine()) as once, once.lease("k"):
            assert once.renewal_thread._ended is None

    asyncio.run(body())


def test_a_store_that_fails_in_the_thread_does_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    class Odd(MemoryStore):
        def clone(self) -> MemoryStore:
            raise ArithmeticError("a bug")

    async def body() -> None:
        store, observer = Odd(), Observer(MemoryCounters())
        thread = RenewalThread(store, observer)
        one = thread.watch(Attempt("k", "t", 60.0, 60.0))
        for _ in range(2):
            with thread._changed:
                one.due = 0.0
                thread._changed.notify()
            while one.due == 0.0:
                await asyncio.sleep(0.01)
        await thread.forget(one)
        await thread.stop()

    asyncio.run(body())
    assert "a bug" in caplog.text


def test_a_thread_that_cannot_start_leaves_the_lease_to_the_loop(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At the limit of threads: said once, the work runs, nothing waits for a thread, and a later lease gets one."""
    real_start = threading.Thread.start
    refused: list[str] = []

    def start(thread: threading.Thread) -> None:
        if len(refused) < 2 and "leases" in thread.name:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        real_start(thread)

    async def body() -> None:
        renewed = asyncio.Event()

        class Counting(MemoryStore):
            async def renew(self, *args: Any, **named: Any) -> bool:
                renewed.set()
                return await super().renew(*args, **named)

        once = AsyncOnce(Counting())
        async with asyncio.timeout(60):  # far more than it takes: before, the end waited for ever
            async with once.lease("a", lease=0.3) as first:
                await renewed.wait()  # by the loop
                first.complete("done")
            await once.renewal_thread.stop()
            async with once.lease("b") as second:
                second.complete("done")
            assert once.renewal_thread._ended is None
            async with once.lease("c") as third:
                assert once.renewal_thread._ended is not None
                third.complete("done")
            await once.close()
        assert len(refused) == 2

    monkeypatch.setattr(threading.Thread, "start", start)
    asyncio.run(body())
    assert caplog.text.count("can't start new thread") == 1
