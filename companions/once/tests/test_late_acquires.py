"""An attempt that the store carries out, though nobody waits for it any more, leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from companions.once.tests.calls import Handler, call
from lastcall_once import AsyncOnce, Policy
from lastcall_once.late_acquires import LateAcquireCleanup
from lastcall_once.middleware import IdempotencyMiddleware
from lastcall_once.records import Attempt, Event, State, Verdict
from lastcall_once.store import StoreError
from lastcall_once.stores.memory import MemoryStore
from testing.loop import VirtualLoop

LEASE = 30.0


class Late(MemoryStore):
    """A store whose next ``acquire`` fails, and is carried out ``after`` so many seconds. Meanwhile it may be down."""

    def __init__(self, clock: Callable[[], float], after: float = 0.0) -> None:
        super().__init__(clock=clock)
        self.after: float | None = after
        self.down_until = 0.0
        self.asked = 0

    async def acquire(self, attempt: Attempt) -> Any:
        if self.after is None:
            return await super().acquire(attempt)
        asyncio.get_running_loop().call_later(self.after, self._carry_out, attempt)
        self.after = None
        raise StoreError("no answer")

    def _carry_out(self, attempt: Attempt) -> None:
        self.carried_out = asyncio.ensure_future(super().acquire(attempt))

    async def get(self, key: str) -> Any:
        self.asked += 1
        if self._clock() < self.down_until:
            raise StoreError("down")
        return await super().get(key)


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    loop = VirtualLoop()
    yield loop
    assert loop.errors == []
    loop.finish()


@pytest.mark.parametrize("after", [0.0, 0.5, 1.9])
def test_a_lease_that_nobody_got_is_given_back(loop: VirtualLoop, after: float) -> None:
    store = Late(loop.time, after)

    async def body() -> None:
        async with AsyncOnce(store, lease=LEASE, on_unknown=Policy.REFUSE) as once:
            with pytest.raises(StoreError):
                async with once.lease("k"):
                    pass
            await asyncio.sleep(3.0)
            assert await store.get("k") is None
            async with once.lease("k") as lease:
                assert lease.granted

    loop.run(body())


def test_the_middleware_gives_it_back_too(loop: VirtualLoop) -> None:
    store = Late(loop.time)

    async def body() -> None:
        handler = Handler()
        app = IdempotencyMiddleware(handler, store, on_unknown="refuse")
        assert (await call(app)).code == "once_store_down"
        await asyncio.sleep(1.0)
        assert (await call(app)).body == b"run 1"
        await app.aclose()

    loop.run(body())


def test_a_store_that_is_away_is_asked_again_until_the_lease_would_be_over(loop: VirtualLoop) -> None:
    store = Late(loop.time)
    store.down_until = loop.time() + 10.0

    async def body() -> None:
        await store.open()
        cleanup = LateAcquireCleanup()
        attempt = Attempt("k", "t", LEASE, 100.0)
        with pytest.raises(StoreError):
            await store.acquire(attempt)
        cleanup.start(store, attempt)
        await asyncio.sleep(12.0)
        assert await store.get("k") is None
        assert store.asked < 20
        store.down_until = loop.time() + 100.0
        store.asked = 0
        cleanup.start(store, attempt)
        await asyncio.sleep(LEASE + 5.0)
        asked = store.asked
        await asyncio.sleep(LEASE)
        assert store.asked == asked, "its lease is over: nothing is left to give back"

    loop.run(body())


def test_what_ran_unguarded_is_not_given_back(loop: VirtualLoop) -> None:
    """With ``fail_open`` the work was done: its end is unknown to the store, as the record says in the end."""
    store = Late(loop.time)

    async def body() -> None:
        async with AsyncOnce(store, lease=LEASE, fail_open=True) as once:
            async with once.lease("k") as lease:
                assert lease.unguarded
            await asyncio.sleep(5.0)
            record = await store.get("k")
            assert record is not None
            assert record.state is State.LEASED

    loop.run(body())


def test_what_an_earlier_run_may_have_done_stays_unknown(loop: VirtualLoop) -> None:
    store = Late(loop.time)

    async def body() -> None:
        async with AsyncOnce(store, lease=LEASE) as once:
            store.after = None
            first = await store.acquire(Attempt("k", "first", 1.0, 100.0))
            assert first.verdict is Verdict.GRANTED
            await store.finish("k", "first", Event.ABANDON, ttl=100.0)
            store.after = 0.0
            with pytest.raises(StoreError):
                async with once.lease("k"):
                    pass
            await asyncio.sleep(3.0)
            record = await store.get("k")
            assert record is not None
            assert (record.state, record.executions) == (State.UNKNOWN, 2)

    loop.run(body())


def test_the_end_does_not_wait_for_a_store_that_is_away(loop: VirtualLoop) -> None:
    store = Late(loop.time)
    store.down_until = loop.time() + 1000.0

    async def body() -> None:
        once = AsyncOnce(store, lease=LEASE)
        with pytest.raises(StoreError):
            async with once.lease("k"):
                pass
        began = loop.time()
        await once.close()
        assert loop.time() - began < 1.0

    loop.run(body())


def test_a_crowd_of_failures_makes_no_crowd_of_questions(loop: VirtualLoop) -> None:
    store = Late(loop.time)
    store.down_until = loop.time() + 1000.0

    async def body() -> None:
        await store.open()
        cleanup = LateAcquireCleanup()
        for number in range(1000):
            cleanup.start(store, Attempt(f"k{number}", "t", LEASE, 100.0))
        await asyncio.sleep(0.15)
        assert store.asked == 100
        await cleanup.stop()

    loop.run(body())
