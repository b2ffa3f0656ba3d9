"""Async generators that nobody has closed are counted from the moment on when the collector finds them."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from lastcall.server.generators import ClosingGenerators


def running(watched: ClosingGenerators, steps: Callable[[], object]) -> None:
    """Run an async function in a loop whose hook is wrapped."""
    loop = asyncio.new_event_loop()
    loop.call_soon(watched.watch)
    try:
        loop.run_until_complete(steps())  # type: ignore[arg-type]
    finally:
        loop.close()


async def begun(ends: list[str], gate: asyncio.Event) -> AsyncIterator[int]:
    """A generator whose end waits for ``gate``."""
    try:
        yield 1
    finally:
        await gate.wait()
        ends.append("closed")


@pytest.mark.parametrize("where", ["here", "in a thread", "in a cycle"])
def test_one_counts_from_the_hook_on_until_it_is_closed(where: str) -> None:
    watched = ClosingGenerators()
    ends: list[str] = []
    watched.on_end = lambda: ends.append("told")

    async def steps() -> None:
        gate = asyncio.Event()
        await asyncio.sleep(0)
        held = [begun(ends, gate)]
        await anext(held[0])
        assert len(watched) == 0
        if where == "in a thread":
            thread = threading.Thread(target=held.clear)
            thread.start()
            thread.join()
        elif where == "in a cycle":
            cycle: list[object] = [held.pop()]
            cycle.append(cycle)
            del cycle
            assert len(watched) == 0
            gc.collect()
        else:
            held.clear()
        assert len(watched) == 1, "before its task has begun"
        assert watched.names() == ["begun"]
        for _ in range(5):
            await asyncio.sleep(0)
        assert (len(watched), ends) == (1, [])
        gate.set()
        while len(watched):
            await asyncio.sleep(0)
        assert ends == ["closed", "told"]

    running(watched, steps)


def test_one_that_is_found_in_a_thread_wakes_a_loop_that_sleeps() -> None:
    watched = ClosingGenerators()
    ends: list[str] = []

    async def steps() -> None:
        gate, told = asyncio.Event(), asyncio.get_running_loop().create_future()
        gate.set()
        watched.on_end = lambda: told.set_result(None)
        await asyncio.sleep(0)
        held = [begun(ends, gate)]
        await anext(held[0])
        asleep = threading.Timer(0.2, held.clear)  # by then the loop has nothing to do, and no timer
        asleep.start()
        await told
        asleep.join()
        assert ends == ["closed"]

    running(watched, steps)


def test_one_that_is_closed_by_its_consumer_never_counts() -> None:
    watched = ClosingGenerators()

    async def steps() -> None:
        gate = asyncio.Event()
        gate.set()
        generator = begun([], gate)
        await anext(generator)
        await generator.aclose()  # type: ignore[attr-defined]
        del generator
        gc.collect()
        assert len(watched) == 0

    running(watched, steps)


def test_a_loop_that_is_left_has_its_own_hooks_again() -> None:
    before = sys.get_asyncgen_hooks()
    watched = ClosingGenerators()
    running(watched, lambda: asyncio.sleep(0))
    assert watched.watching
    assert sys.get_asyncgen_hooks() == before
