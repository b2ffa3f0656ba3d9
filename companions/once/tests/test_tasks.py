"""once under whatever task factory the application has set."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from companions.once.tests.calls import Handler, Setting
from lastcall_once import AsyncOnce
from lastcall_once.records import State
from testing.loop import VirtualLoop


def broken(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> Any:
    """As asyncio's eager factory is under uvloop 0.23."""
    work.close()
    raise TypeError("a factory that does not work")


def eager(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> Any:
    return asyncio.eager_task_factory(loop, work, **options)  # type: ignore[attr-defined,unused-ignore]


FACTORIES = [broken, eager] if hasattr(asyncio, "eager_task_factory") else [broken]


@pytest.mark.parametrize("factory", FACTORIES)
def test_the_middleware(factory: Any) -> None:
    loop = VirtualLoop()

    async def body() -> None:
        loop.set_task_factory(factory)
        at = Setting(loop)
        handler = Handler()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await asyncio.sleep(50)  # longer than a lease
            await handler(scope, receive, send)

        guarded = at.guard(app)

        async def ask() -> list[Any]:
            """A request, without a task."""
            sent: list[Any] = []
            messages = [{"type": "http.request", "body": b"{}", "more_body": False}]

            async def receive() -> Any:
                return messages.pop()

            async def send(message: Any) -> None:
                sent.append(message)

            scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"idempotency-key", b"k")]}
            await guarded(scope, receive, send)
            return sent

        first, again = await ask(), await ask()
        assert (b"idempotent-replayed", b"true") in again[0]["headers"]
        assert first[1]["body"] == again[1]["body"]
        at.store.down = {"acquire"}
        assert (await ask())[0]["status"] == 200
        await guarded.aclose()
        loop.set_task_factory(None)  # what ends the loop needs tasks

    loop.run(body())
    assert loop.errors == []
    loop.finish()


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_lease(factory: Any) -> None:
    async def body() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        async with AsyncOnce("memory:") as once:
            async with once.lease("k", lease=0.03) as lease:
                await asyncio.sleep(0.1)
                lease.complete("done")
            record = await once.store.get("k")
            assert record is not None
            assert record.state is State.DONE
        asyncio.get_running_loop().set_task_factory(None)

    asyncio.run(body())
