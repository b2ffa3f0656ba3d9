"""A store that forgets a lease while its work runs, as Redis does by an eviction or a restart."""

from __future__ import annotations

import asyncio

import pytest

from companions.once.tests.backends import Backend
from companions.once.tests.calls import Call, Handler, call, until
from lastcall_once import AsyncOnce, LeaseLost
from lastcall_once.middleware import IdempotencyMiddleware
from lastcall_once.records import Attempt, Event, Verdict
from lastcall_once.store import StoreError
from lastcall_once.stores.memory import MemoryStore

LONG = 3600.0


def test_work_that_is_done_is_recorded(store: Backend) -> None:
    async def body() -> None:
        async with store.opened() as opened:
            once = AsyncOnce(opened, lease=LONG)
            async with once.lease(f"{store.prefix}k", fingerprint="f") as lease:
                await opened.delete(lease.key)
                await lease.complete("shipped")
            assert not lease.lost
            async with once.lease(f"{store.prefix}k", fingerprint="f") as again:
                assert (again.verdict, again.result) == (Verdict.DONE, b"shipped")
            async with once.lease(f"{store.prefix}k", fingerprint="other") as other:
                assert other.verdict is Verdict.MISMATCH
            await once.close()
            await opened.open()

    asyncio.run(body())


@pytest.mark.parametrize("event", [None, Event.COMPLETE, Event.FAIL, Event.ABANDON])
def test_unless_somebody_else_has_had_the_key(store: Backend, event: Event | None) -> None:
    """Whatever came of that: their word stands."""

    async def body() -> None:
        async with store.opened() as opened:
            once = AsyncOnce(opened, lease=LONG)
            with pytest.raises(LeaseLost):  # noqa: PT012 - the block is what raises
                async with once.lease(f"{store.prefix}k") as lease:
                    await opened.delete(lease.key)
                    assert (await opened.acquire(Attempt(lease.key, "other", LONG, LONG))).verdict is Verdict.GRANTED
                    if event is not None:
                        await opened.finish(lease.key, "other", event, ttl=LONG, result=b"theirs")
                    before = await opened.get(lease.key)
                    await lease.complete("ours")
            after = await opened.get(lease.key)
            assert before is not None
            assert after is not None
            assert (after.state, after.token, after.result) == (before.state, "other", before.result)
            await once.close()
            await opened.open()

    asyncio.run(body())


@pytest.mark.parametrize("event", [Event.FAIL, Event.ABANDON, Event.RELEASE])
def test_work_that_is_not_done_leaves_no_record(event: Event) -> None:
    async def body() -> None:
        opened = MemoryStore()
        async with AsyncOnce(opened) as once:
            with pytest.raises(LeaseLost):  # noqa: PT012 - the block is what raises
                async with once.lease("k") as lease:
                    await opened.delete("k")
                    ends = {Event.FAIL: lease.fail, Event.ABANDON: lease.abandon, Event.RELEASE: lease.release}
                    await ends[event]()
            assert await opened.scan() == []

    asyncio.run(body())


def test_an_answer_that_is_done_is_replayed() -> None:
    async def body() -> None:
        opened, handler = MemoryStore(), Handler()
        app = IdempotencyMiddleware(handler, opened)
        handler.go.clear()
        first = Call(app)
        await until(lambda: handler.runs)
        await opened.delete("http:-:k")
        handler.go.set()
        await first.task
        assert (await call(app)).replayed
        assert handler.runs == 1
        await app.aclose()

    asyncio.run(body())


def test_an_end_whose_answer_was_lost_is_no_lost_lease() -> None:
    """The store has it; the try after that finds it."""

    class Mumbling(MemoryStore):
        first = True

        async def finish(self, *args: object, **named: object) -> bool:
            done = await super().finish(*args, **named)  # type: ignore[arg-type]
            if self.first:
                self.first = False
                raise StoreError("no answer")
            return done

    async def body() -> None:
        events: list[str] = []
        app = IdempotencyMiddleware(Handler(), Mumbling(), on_event=lambda event: events.append(event.name))
        assert (await call(app)).status == 200
        assert (await call(app)).replayed
        assert events == ["attempt", "completed", "attempt"]
        await app.aclose()

    asyncio.run(body())
