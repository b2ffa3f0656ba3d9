"""The end of an event loop is bounded, whatever the application has left in it."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator

import pytest

from lastcall.server.loops import loop_factory
from lastcall.server.teardown import LAST_TURNS, close_loop
from testing.loop import VirtualLoop
from testing.running import Lines, server_log

MakeLoop = Callable[[], asyncio.AbstractEventLoop]


ENDS = 10.0
"""Seconds for what ends by itself, on a real clock: nobody waits so long, however busy the machine is."""
STAYS = 0.2
"""Seconds for what does not."""


@pytest.fixture(params=["virtual", "asyncio", "uvloop"])
def make_loop(request: pytest.FixtureRequest) -> MakeLoop:
    """How long something takes is asserted on the loop with a clock of its own; real ones are there for all else."""
    return VirtualLoop if request.param == "virtual" else loop_factory(request.param)


@pytest.fixture
def log() -> Iterator[Lines]:
    with server_log() as lines:
        yield lines


def close(
    loop: asyncio.AbstractEventLoop,
    timeout: float = ENDS,
    *,
    takes: float = 0.0,
    named: Collection[asyncio.Task[None]] = (),
) -> int:
    """``close_loop``; how many tasks were left. ``takes`` is how long it takes by the loop's own clock."""
    begun = loop.time()
    try:
        return close_loop(loop, timeout, named=named)
    finally:
        assert loop.is_closed()
        if isinstance(loop, VirtualLoop):
            assert loop.time() - begun == pytest.approx(takes, abs=0.001)


async def sleep_for_ever() -> None:
    await asyncio.sleep(1000)


def test_tasks_are_cancelled_and_waited_for(make_loop: MakeLoop) -> None:
    ended = []

    async def task() -> None:
        try:
            await sleep_for_ever()
        finally:
            await asyncio.sleep(0.01)
            ended.append(True)

    async def main() -> asyncio.Task[None]:
        started = asyncio.create_task(task())
        await asyncio.sleep(0)
        return started

    loop = make_loop()
    kept = loop.run_until_complete(main())
    assert close(loop, takes=0.01) == 0
    assert ended == [True]
    assert kept.cancelled()


def test_a_task_that_swallows_cancellation_is_named_and_left(make_loop: MakeLoop, log: Lines) -> None:
    async def stubborn() -> None:
        while True:
            try:
                await sleep_for_ever()
            except asyncio.CancelledError:
                continue

    loop = make_loop()

    async def main() -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(stubborn())]
        await asyncio.sleep(0)
        return tasks

    kept = loop.run_until_complete(main())
    assert close(loop, STAYS, takes=STAYS) == 1
    assert any("A task of the application does not end" in line for line in log.messages(logging.ERROR))
    assert not kept[0].done()


def test_the_end_has_its_time_again_where_the_process_stood_still(make_loop: MakeLoop) -> None:
    ended, asked = [], []

    async def task() -> None:
        try:
            await sleep_for_ever()
        finally:
            await asyncio.sleep(0.3)
            ended.append(True)

    async def main() -> asyncio.Task[None]:
        started = asyncio.create_task(task())
        await asyncio.sleep(0)
        return started

    def again(seconds: float, since: float) -> float:
        asked.append((seconds, since < loop.time()))
        return 20.0

    loop = make_loop()
    kept = loop.run_until_complete(main())
    assert close_loop(loop, 0.1, again=again) == 0
    assert kept.done()
    assert ended == [True]
    assert asked == [(0.1, True)]


def test_tasks_that_begin_while_others_are_cancelled_are_cancelled_too(make_loop: MakeLoop, log: Lines) -> None:
    ended = []

    async def task(left: int) -> None:
        try:
            await sleep_for_ever()
        finally:
            ended.append(left)
            if left:
                kept.append(asyncio.get_running_loop().create_task(task(left - 1)))

    async def main() -> None:
        kept.append(asyncio.get_running_loop().create_task(task(3)))
        await asyncio.sleep(0)

    kept: list[asyncio.Task[None]] = []
    loop = make_loop()
    loop.run_until_complete(main())
    assert close(loop) == 0
    assert ended == [3, 2, 1, 0]
    assert log.messages(logging.ERROR) == []


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_tasks_that_leave_others_behind_for_ever_are_bounded_and_named(make_loop: MakeLoop, log: Lines) -> None:
    async def task() -> None:
        try:
            while True:
                await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            successor = asyncio.get_running_loop().create_task(task(), name="again")
            await asyncio.sleep(0)  # it is running by then
            kept.append(successor)
            raise

    async def main() -> None:
        kept.append(asyncio.get_running_loop().create_task(task()))
        await asyncio.sleep(0)

    kept: list[asyncio.Task[None]] = []
    loop = make_loop()
    loop.run_until_complete(main())
    assert close(loop) == 1
    (line,) = log.messages(logging.ERROR)
    assert "A task of the application does not end: <Task pending name='again'" in line
    kept.clear()
    gc.collect()


def test_a_task_that_fails_in_its_clean_up_is_logged(make_loop: MakeLoop, log: Lines) -> None:
    async def failing() -> None:
        try:
            await sleep_for_ever()
        finally:
            raise RuntimeError("in the clean-up")

    loop = make_loop()

    async def main() -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(failing())]
        await asyncio.sleep(0)
        return tasks

    kept = loop.run_until_complete(main())
    assert close(loop) == 0
    assert kept[0].done()
    errors = [record for record in log.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert errors[0].exc_info is not None
    assert str(errors[0].exc_info[1]) == "in the clean-up"


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_task_that_leaves_the_loop_by_an_exception_does_not_cut_the_teardown_short(
    make_loop: MakeLoop, log: Lines, kind: type[BaseException]
) -> None:
    ended = []

    async def leaving() -> None:
        try:
            await sleep_for_ever()
        finally:
            raise kind(7)

    async def slow() -> None:
        try:
            await sleep_for_ever()
        finally:
            await asyncio.sleep(0.02)
            ended.append(True)

    async def main() -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(leaving()), asyncio.create_task(slow())]
        await asyncio.sleep(0)
        return tasks

    loop = make_loop()
    kept = loop.run_until_complete(main())
    if kind is KeyboardInterrupt:  # may be a person's: not lost
        with pytest.raises(KeyboardInterrupt):
            close(loop, takes=0.02)
    else:
        assert close(loop, takes=0.02) == 0
    assert loop.is_closed()
    assert ended == [True]
    assert kept[1].cancelled()
    assert len(log.messages(logging.ERROR)) == 1


def test_a_task_that_was_named_before_is_counted_but_not_named_again(make_loop: MakeLoop, log: Lines) -> None:
    async def stubborn() -> None:
        while True:
            try:
                await sleep_for_ever()
            except asyncio.CancelledError:
                continue

    async def main() -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(stubborn())]
        await asyncio.sleep(0)
        return tasks

    loop = make_loop()
    kept = loop.run_until_complete(main())
    assert close(loop, STAYS, takes=STAYS, named=kept) == 1
    assert log.messages(logging.ERROR) == []


def test_async_generators_are_closed(make_loop: MakeLoop) -> None:
    closed = []
    kept = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async def main() -> None:
        generator = numbers()
        kept.append(generator)
        assert await anext(generator) == 1

    loop = make_loop()
    loop.run_until_complete(main())
    assert close(loop) == 0
    assert closed == [True]


@pytest.mark.parametrize("stubborn", [False, True])
def test_an_async_generator_that_does_not_close_is_cancelled_and_then_left(
    make_loop: MakeLoop, stubborn: bool, caplog: pytest.LogCaptureFixture
) -> None:
    kept = []
    cancelled: list[bool] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            while not cancelled or stubborn:
                try:
                    await sleep_for_ever()
                except asyncio.CancelledError:
                    cancelled.append(True)

    async def main() -> None:
        generator = numbers()
        kept.append(generator)
        await anext(generator)

    loop = make_loop()
    loop.run_until_complete(main())
    close(loop, STAYS, takes=STAYS + (LAST_TURNS if stubborn else 0))
    assert cancelled == [True]
    kept.clear()
    gc.collect()
    assert "Task was destroyed" not in caplog.text


def test_a_busy_executor_is_not_waited_for(make_loop: MakeLoop) -> None:
    release = threading.Event()
    loop = make_loop()

    async def main() -> None:
        loop.run_in_executor(None, release.wait)
        await asyncio.sleep(0.01)

    loop.run_until_complete(main())
    try:
        assert close(loop) == 0
    finally:
        release.set()
