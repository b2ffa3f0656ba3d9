"""The signal of a server's drain: who waits, in whatever loop and thread; who is called; when responses are cut."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from lastcall.drain.ladder import Phase
from lastcall.drain.state import DrainState
from lastcall.notice.signal import DrainSignal

INF = math.inf


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def until(condition: Callable[[], object]) -> None:
    """Poll, without a word about how long it takes."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_before_the_notice() -> None:
    signal = DrainSignal()
    assert (signal.stopping, signal.is_set, signal.tasks) == (False, False, None)
    assert signal.remaining(closing=True) is None
    assert signal.remaining(closing=False) is None


def test_announced_is_not_set() -> None:
    state = DrainState(Phase.SERVING)
    signal = DrainSignal(state=state)
    assert signal.state is state
    assert not signal.stopping
    state.phase = Phase.ANNOUNCED
    assert signal.stopping
    assert not signal.is_set
    assert signal.remaining(closing=True) is None, "nothing is disconnected while the delay lasts"


def test_giving_the_notice_sets_it_and_its_times() -> None:
    clock = Clock()
    signal = DrainSignal(clock)
    signal.give(118.0, 101.0)
    assert signal.is_set
    assert (signal.remaining(closing=False), signal.remaining(closing=True)) == (18.0, 1.0)
    clock.now = 110.5
    assert (signal.remaining(closing=False), signal.remaining(closing=True)) == (7.5, 0.0), "never below 0"


def test_without_a_limit_the_rest_is_infinite() -> None:
    signal = DrainSignal(Clock())
    signal.give(INF, 101.0)
    assert (signal.remaining(closing=False), signal.remaining(closing=True)) == (INF, 1.0)


def test_given_again_only_the_times_change() -> None:
    """A Ctrl-C in a drain: nobody is woken or called a second time."""
    signal = DrainSignal(Clock())
    calls: list[str] = []
    signal.add_callback(lambda: calls.append("once"))
    signal.give(118.0, 101.0)
    signal.give(103.0, 101.0)
    assert calls == ["once"]
    assert signal.remaining(closing=False) == 3.0


# -- waiting -----------------------------------------------------------------------------------------------------------


def test_all_who_wait_are_woken() -> None:
    async def main() -> None:
        signal = DrainSignal()
        waiting = [asyncio.create_task(signal.wait()) for _ in range(5)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        signal.give(INF, INF)
        await asyncio.wait_for(asyncio.gather(*waiting), 5)
        await signal.wait()  # and nobody who comes later has to wait

    asyncio.run(main())


def test_whoever_stops_waiting_is_forgotten() -> None:
    async def main() -> None:
        signal = DrainSignal()
        tasks = [asyncio.create_task(signal.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(signal.wait(), 0)
        await asyncio.sleep(0)
        assert tasks[0].cancelled()
        assert len(signal._waiters) == 2, "polling with a timeout must not collect futures"
        tasks[1].cancel()  # in the same step as the notice
        signal.give(INF, INF)
        await asyncio.wait_for(tasks[2], 5)
        assert tasks[1].cancelled()

    asyncio.run(main())


def test_a_notice_wakes_other_loops_and_threads() -> None:
    signal = DrainSignal()
    woken: list[int] = []
    ready = threading.Barrier(4, timeout=10)

    async def wait(number: int) -> None:
        task = asyncio.create_task(signal.wait())
        await asyncio.sleep(0)
        ready.wait()
        await asyncio.wait_for(task, 10)
        woken.append(number)

    threads = [threading.Thread(target=lambda number=number: asyncio.run(wait(number))) for number in range(3)]
    for thread in threads:
        thread.start()
    ready.wait()
    signal.give(INF, INF)
    for thread in threads:
        thread.join(10)
    assert sorted(woken) == [0, 1, 2]


def test_a_loop_that_is_closed_harms_nobody() -> None:
    signal = DrainSignal()
    gone = asyncio.new_event_loop()
    task = gone.create_task(signal.wait())
    gone.run_until_complete(asyncio.sleep(0))
    gone.close()

    async def main() -> None:
        waiting = asyncio.create_task(signal.wait())
        await asyncio.sleep(0)
        assert len(signal._waiters) == 2
        signal.give(INF, INF)
        await asyncio.wait_for(waiting, 5)

    asyncio.run(main())
    assert not task.done()
    coroutine: Any = task.get_coro()
    coroutine.close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_the_lock_may_be_held_below() -> None:
    """A signal handler, or the collector that closes a forgotten wait(), may come between any two steps."""
    signal = DrainSignal()
    loop = asyncio.new_event_loop()
    task = loop.create_task(signal.wait())
    loop.run_until_complete(asyncio.sleep(0))
    coroutine: Any = task.get_coro()
    calls: list[str] = []

    def interrupted() -> None:
        with signal._lock:
            coroutine.close()
            signal.add_callback(lambda: calls.append("told"))

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive(), "it waits for itself"
    assert len(signal._waiters) == 0
    signal.give(INF, INF)
    assert calls == ["told"]
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()


def test_who_comes_and_goes_while_the_notice_is_given() -> None:
    """Threads that wait, give up and wait again: the notice reaches every one, and nothing breaks."""
    for _ in range(20):
        signal = DrainSignal()
        seen: list[int] = []
        started = threading.Barrier(4, timeout=10)

        async def come_and_go(
            number: int,
            signal: DrainSignal = signal,
            seen: list[int] = seen,
            started: threading.Barrier = started,
        ) -> None:
            started.wait()
            while not signal.is_set:
                tasks = [asyncio.create_task(signal.wait()) for _ in range(3)]
                await asyncio.sleep(0)
                for task in tasks[1:]:
                    task.cancel()
                await asyncio.wait(tasks, timeout=0 if number % 2 else None)
                for task in tasks:
                    task.cancel()
            await asyncio.wait_for(signal.wait(), 10)
            seen.append(number)

        threads = [
            threading.Thread(target=lambda number=number, run=come_and_go: asyncio.run(run(number)))
            for number in range(3)
        ]
        for thread in threads:
            thread.start()
        started.wait()
        signal.give(INF, INF)
        for thread in threads:
            thread.join(10)
        assert sorted(seen) == [0, 1, 2]


# -- callbacks ---------------------------------------------------------------------------------------------------------


def test_callbacks_are_called_once_in_their_order() -> None:
    signal = DrainSignal()
    calls: list[object] = []
    for number in range(3):
        signal.add_callback(lambda number=number: calls.append(number))  # type: ignore[misc]
    assert calls == []
    signal.give(INF, INF)
    assert calls == [0, 1, 2]
    signal.add_callback(lambda: calls.append(signal.is_set))
    assert calls == [0, 1, 2, True], "the notice is set: at once"


def test_a_callback_sees_the_notice_and_may_add_another() -> None:
    signal = DrainSignal(Clock())
    calls: list[object] = []

    def outer() -> None:
        calls.append((signal.is_set, signal.remaining(closing=False)))
        signal.add_callback(lambda: calls.append("inner"))

    signal.add_callback(outer)
    signal.give(118.0, 101.0)
    assert calls == [(True, 18.0), "inner"]


def test_a_callback_that_raises_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    signal = DrainSignal()
    calls: list[str] = []

    def broken() -> None:
        raise ValueError("mine")

    for function in (broken, lambda: calls.append("after")):
        signal.add_callback(function)

    async def main() -> None:
        waiting = asyncio.create_task(signal.wait())
        await asyncio.sleep(0)
        signal.give(INF, INF)
        await asyncio.wait_for(waiting, 5)

    asyncio.run(main())
    signal.add_callback(broken)
    assert calls == ["after"]
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.ERROR, "Exception in a callback of the drain notice")
    ] * 2
    assert all(record.exc_info is not None for record in caplog.records), "an application's bug: with its traceback"


def test_no_callback_is_lost_that_is_added_while_the_notice_is_given() -> None:
    for _ in range(20):
        signal = DrainSignal()
        calls: list[int] = []
        started = threading.Barrier(4, timeout=10)

        def add(
            first: int,
            signal: DrainSignal = signal,
            calls: list[int] = calls,
            started: threading.Barrier = started,
        ) -> None:
            started.wait()
            for number in range(first, first + 200):
                signal.add_callback(lambda number=number: calls.append(number))  # type: ignore[misc]

        threads = [threading.Thread(target=add, args=(index * 200,)) for index in range(3)]
        for thread in threads:
            thread.start()
        started.wait()
        signal.give(INF, INF)
        for thread in threads:
            thread.join(10)
        until(lambda calls=calls: len(calls) == 600)  # type: ignore[misc]
        assert sorted(calls) == list(range(600))
