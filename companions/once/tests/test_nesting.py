"""A guard within another one on the same key passes through, rather than wait for itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fastapi import FastAPI

from companions.once.tests.calls import Call, Handler, call, until
from lastcall_once import AsyncOnce, InFlight, Once
from lastcall_once._types import Receive, Scope, Send
from lastcall_once.middleware import IdempotencyMiddleware
from lastcall_once.records import Verdict
from lastcall_once.stores.memory import MemoryStore


@pytest.mark.parametrize("shared", ["object", "file"])
def test_an_application_that_is_guarded_twice(tmp_path: Path, shared: str) -> None:
    """As one is whose own middleware is there, and which is mounted in another that has one."""
    memory = MemoryStore()

    def store() -> MemoryStore | str:
        return memory if shared == "object" else f"sqlite:///{tmp_path}/once.db"

    async def body() -> None:
        handler = Handler()
        handler.go.clear()
        inner, outer = FastAPI(), FastAPI()
        inner.mount("/in", handler)
        inner.add_middleware(IdempotencyMiddleware, store=store(), wait=5)
        outer.mount("/out", inner)
        guarded = IdempotencyMiddleware(outer, store(), wait=5)
        calls = [Call(guarded, path="/out/in/x") for _ in range(3)]
        await until(lambda: handler.runs)
        handler.go.set()
        await asyncio.gather(*(made.task for made in calls))
        assert [made.status for made in calls] == [200] * 3
        assert {made.body for made in calls} == {b"run 1"}
        assert sum(made.replayed for made in calls) == 2
        assert (await call(guarded, path="/out/in/x")).replayed
        assert (await call(guarded, path="/out/in/y")).code == "once_mismatch"
        assert handler.runs == 1
        await guarded.aclose()

    asyncio.run(body())


def test_two_guards_of_two_namespaces_are_two(tmp_path: Path) -> None:
    async def body() -> None:
        handler, store = Handler(), MemoryStore()
        inner = IdempotencyMiddleware(handler, store, namespace="inner")
        outer = IdempotencyMiddleware(inner, store, namespace="outer")
        assert not (await call(outer)).replayed
        assert (await call(outer)).replayed
        assert (await call(inner)).replayed
        assert sorted(record.key for record in await store.scan()) == ["inner:-:k", "outer:-:k"]

    asyncio.run(body())


def test_a_guard_that_is_entered_again_from_within_is_a_second_run() -> None:
    async def body() -> None:
        runs = 0

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal runs
            runs += 1
            again = await call(guarded)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": again.code.encode()})

        guarded = IdempotencyMiddleware(app, "memory:")
        assert (await call(guarded)).body == b"once_in_flight"
        assert runs == 1
        await guarded.aclose()

    asyncio.run(body())


def test_who_is_not_within_still_waits(caplog: pytest.LogCaptureFixture) -> None:
    """Also a request that the first one's handler waits for, if it came from outside."""

    async def body() -> None:
        store = MemoryStore()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            again.set()
            await answered.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        again, answered = asyncio.Event(), asyncio.Event()
        guarded = IdempotencyMiddleware(app, store)
        first = Call(guarded)
        await again.wait()
        assert (await call(guarded)).code == "once_in_flight"
        assert "namespace" not in caplog.text
        # A service of the same namespace that the key was passed on to.
        assert (await call(guarded, path="/other/service")).code == "once_mismatch"
        assert "namespace" in caplog.text
        named = IdempotencyMiddleware(app, store, namespace="http")
        answered.set()
        await first.task
        caplog.clear()
        assert (await call(named, path="/other/service")).code == "once_mismatch"
        assert "namespace" not in caplog.text
        await guarded.aclose()

    asyncio.run(body())


def test_a_guarded_function_within_another() -> None:
    async def body() -> None:
        async with AsyncOnce("memory:") as once:
            runs = []

            @once.guard(key="order:{number}", wait=5)
            async def inner(number: int) -> str:
                runs.append("inner")
                async with once.lease(f"order:{number}", wait=5) as lease:
                    assert (lease.granted, lease.nested, lease.verdict) == (False, True, Verdict.IN_FLIGHT)
                return "shipped"

            @once.guard(key="order:{number}")
            async def outer(number: int) -> list[str]:
                runs.append("outer")
                found = await asyncio.gather(inner(number), asyncio.create_task(inner(number)))
                return [*found, await inner(8)]

            assert await outer(7) == ["shipped"] * 3
            assert runs == ["outer", "inner", "inner", "inner"]
            assert await outer(7) == ["shipped"] * 3
            assert await inner(8) == "shipped"
            assert len(runs) == 4

    asyncio.run(body())


def test_a_task_that_outlives_its_guard_is_not_within_it() -> None:
    async def body() -> None:
        async with AsyncOnce("memory:") as once:
            go = asyncio.Event()
            late: list[asyncio.Task[str]] = []

            @once.guard(key="k")
            async def inner() -> str:
                return "inner"

            @once.guard(key="k")
            async def outer() -> str:
                async def later() -> str:
                    await go.wait()
                    return await inner()

                late.append(asyncio.create_task(later()))
                return "outer"

            await outer()
            go.set()
            assert await late[0] == "outer"  # what is stored

    asyncio.run(body())


def test_the_same_for_code_that_blocks(tmp_path: Path) -> None:
    with Once(f"sqlite:///{tmp_path}/once.db") as once:
        runs = []

        @once.guard(key="k", wait=5)
        def inner() -> str:
            runs.append("inner")
            with once.lease("k", wait=5) as lease:
                assert (lease.granted, lease.nested) == (False, True)
            return "done"

        @once.guard(key="k", wait=5)
        async def between() -> str:
            return inner()

        @once.guard(key="k")
        def outer() -> str:
            return asyncio.run(between())

        assert outer() == "done"
        assert outer() == "done"
        assert runs == ["inner"]
        with once.lease("other") as lease:
            assert not lease.nested

            @once.guard(key="other")
            def within() -> None: ...

            with pytest.raises(InFlight):
                within()
