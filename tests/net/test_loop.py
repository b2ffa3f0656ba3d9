"""The compiled ``call_soon`` does what asyncio's does."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from lastcall.net.loop import SelectorLoop
from lastcall.server.loops import make_loop

number: contextvars.ContextVar[int] = contextvars.ContextVar("number", default=0)


@pytest.fixture(params=[asyncio.SelectorEventLoop, SelectorLoop], ids=["asyncio", "compiled"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    loop: asyncio.AbstractEventLoop = request.param()
    yield loop
    loop.close()


def run_turn(loop: asyncio.AbstractEventLoop) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_auto_is_the_compiled_loop_and_asyncio_is_not() -> None:
    for name, compiled in (("auto", True), ("asyncio", False)):
        loop = make_loop(name)
        assert isinstance(loop, asyncio.SelectorEventLoop)
        assert isinstance(loop, SelectorLoop) is compiled
        loop.close()


def test_this_version_of_asyncio_is_built_as_the_loop_expects() -> None:
    loop = SelectorLoop()
    assert loop.suits()
    loop.close()


def test_calls_come_in_order_with_their_arguments(loop: asyncio.AbstractEventLoop) -> None:
    seen: list[tuple[int, ...]] = []
    loop.call_soon(lambda *args: seen.append(args))
    loop.call_soon(lambda *args: seen.append(args), 1)
    loop.call_soon(lambda *args: seen.append(args), 2, 3)
    run_turn(loop)
    assert seen == [(), (1,), (2, 3)]


def test_what_a_callback_orders_comes_in_the_next_turn(loop: asyncio.AbstractEventLoop) -> None:
    seen: list[str] = []

    def first() -> None:
        loop.call_soon(seen.append, "next")
        seen.append("first")

    loop.call_soon(first)
    run_turn(loop)
    assert seen == ["first"]
    run_turn(loop)
    assert seen == ["first", "next"]


def test_a_cancelled_call_is_not_made(loop: asyncio.AbstractEventLoop) -> None:
    seen: list[int] = []
    handle = loop.call_soon(seen.append, 1)
    assert not handle.cancelled()
    handle.cancel()
    handle.cancel()
    assert handle.cancelled()
    assert "cancelled" in repr(handle)
    run_turn(loop)
    assert seen == []


def test_a_call_runs_in_the_context_of_its_caller_or_in_the_one_given(loop: asyncio.AbstractEventLoop) -> None:
    seen: list[int] = []

    def note() -> None:
        seen.append(number.get())
        number.set(99)  # stays in the call's own context

    given = contextvars.Context()
    given.run(number.set, 7)
    token = number.set(3)
    handle: Any = loop.call_soon(note)
    explicit: Any = loop.call_soon(note, context=given)
    number.reset(token)
    run_turn(loop)
    assert seen == [3, 7]
    assert number.get() == 0
    if sys.version_info >= (3, 12):  # Handle.get_context is that young
        assert handle.get_context()[number] == 99
        assert explicit.get_context() is given
    assert given[number] == 99


def test_a_call_that_raises_is_told_to_the_exception_handler(loop: asyncio.AbstractEventLoop) -> None:
    told: list[dict[str, Any]] = []
    seen: list[str] = []
    loop.set_exception_handler(lambda _loop, context: told.append(context))

    def fails() -> None:
        raise ValueError("no")

    handle = loop.call_soon(fails)
    loop.call_soon(seen.append, "after")
    run_turn(loop)
    assert seen == ["after"]
    assert [(str(one["exception"]), one["handle"]) for one in told] == [("no", handle)]
    assert told[0]["message"].startswith("Exception in callback test_a_call_that_raises")
    assert "fails()" in told[0]["message"]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_exits_leave_the_loop(loop: asyncio.AbstractEventLoop, kind: type[BaseException]) -> None:
    def leave() -> None:
        raise kind

    loop.call_soon(leave)
    with pytest.raises(kind):
        loop.run_forever()


def test_a_closed_loop_refuses(loop: asyncio.AbstractEventLoop) -> None:
    loop.close()
    with pytest.raises(RuntimeError):
        loop.call_soon(print)


def test_debug_mode_keeps_its_checks(loop: asyncio.AbstractEventLoop) -> None:
    async def work() -> None:
        """A coroutine function, which ``call_soon`` does not take."""

    loop.set_debug(True)
    with pytest.raises(TypeError):
        loop.call_soon(work)
    handle = loop.call_soon(print)
    assert isinstance(handle, asyncio.Handle)
    handle.cancel()


@pytest.mark.parametrize("outcome", ["result", "error", "cancelled"])
def test_tasks_run_as_ever(loop: asyncio.AbstractEventLoop, outcome: str) -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        if outcome == "error":
            raise LookupError
        await asyncio.sleep(60 if outcome == "cancelled" else 0.001)
        return number.get()

    async def main() -> int:
        number.set(5)
        task = asyncio.ensure_future(work())
        if outcome == "cancelled":
            loop.call_soon(task.cancel)
        return await task

    if outcome == "result":
        assert loop.run_until_complete(main()) == 5
    else:
        with pytest.raises(LookupError if outcome == "error" else asyncio.CancelledError):
            loop.run_until_complete(main())


def test_other_threads_wake_it(loop: asyncio.AbstractEventLoop) -> None:
    async def main() -> int:
        return await loop.run_in_executor(None, lambda: 4)

    assert loop.run_until_complete(main()) == 4
    loop.run_until_complete(loop.shutdown_default_executor())
