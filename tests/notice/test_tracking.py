"""``lastcall.track()``: an application's own task is drained like a request."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from typing import Any

import pytest

import lastcall
from lastcall.base.types import Receive, Scope, Send
from lastcall.drain.ladder import Phase
from lastcall.drain.state import DrainState
from lastcall.notice.notice import DrainNotice, register, signal_of, unregister
from lastcall.notice.running import RunningTasks
from lastcall.notice.signal import DrainSignal
from lastcall.notice.tracking import track
from testing.running import respond, running


@pytest.fixture
def tasks() -> Iterator[RunningTasks]:
    """That of the only server of this process."""
    signal = DrainSignal()
    signal.tasks = RunningTasks()
    register(signal)
    yield signal.tasks
    unregister(signal)


def test_the_name_is_lastcalls() -> None:
    assert lastcall.track is track


def test_a_task_runs_until_it_ends(tasks: RunningTasks) -> None:
    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(0, "result"), name="sync")
        assert track(task) is task
        (tracked,) = tasks.snapshot()
        assert (tracked.kind, tracked.describe(), tracked.response_complete) == ("app task", "task sync", True)
        assert tracked.since == pytest.approx(asyncio.get_running_loop().time(), abs=1)
        assert await task == "result"
        await asyncio.sleep(0)
        assert (tasks.count, tasks.total) == (0, 1)

    asyncio.run(main())


@pytest.mark.parametrize("end", ["raises", "is cancelled"])
def test_however_it_ends(tasks: RunningTasks, end: str) -> None:
    async def main() -> None:
        async def work() -> None:
            await asyncio.sleep(0)
            raise ValueError("mine")

        task = track(asyncio.create_task(work()))
        if end == "is cancelled":
            task.cancel()
        await asyncio.wait({task})
        await asyncio.sleep(0)
        assert tasks.count == 0
        assert task.cancelled() or isinstance(task.exception(), ValueError)

    asyncio.run(main())


def test_the_servers_cancel_reaches_it(tasks: RunningTasks) -> None:
    async def main() -> None:
        task = track(asyncio.create_task(asyncio.sleep(1000)))
        await asyncio.sleep(0)
        tasks.snapshot()[0].cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    asyncio.run(main())


def test_it_has_no_response_that_could_be_cut(tasks: RunningTasks) -> None:
    async def main() -> None:
        task = track(asyncio.create_task(asyncio.sleep(1000)))
        (tracked,) = tasks.snapshot()
        assert not tracked.disconnectable
        assert tracked.disconnect_response("disconnected") is False
        tracked.disconnect_if_closing()
        tracked.notify()
        tracked.abandon()
        assert not task.done()
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(main())


def test_it_takes_no_place_from_a_request(tasks: RunningTasks) -> None:
    """``--limit-concurrency`` counts requests."""

    async def main() -> None:
        task = track(asyncio.create_task(asyncio.sleep(0)))
        assert (tasks.count, tasks.places) == (1, 0)
        await task
        await asyncio.sleep(0)
        assert (tasks.count, tasks.places) == (0, 0)

    asyncio.run(main())


def test_in_a_server_that_cancels_already_it_is_cancelled_at_once() -> None:
    signal = DrainSignal(state=DrainState(Phase.CANCELLING))
    signal.tasks = RunningTasks()
    signal.state.refusing = True
    register(signal)

    async def main() -> None:
        task = track(asyncio.create_task(asyncio.sleep(1000)))
        await asyncio.wait({task})
        assert task.cancelled()

    try:
        asyncio.run(main())
    finally:
        unregister(signal)


def test_a_task_is_tracked_once(tasks: RunningTasks) -> None:
    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(1000))
        assert track(track(task)) is task
        assert (tasks.count, tasks.total) == (1, 1)
        task.cancel()
        await asyncio.wait({task})
        await asyncio.sleep(0)
        assert (tasks.count, tasks.total) == (0, 1)

    asyncio.run(main())


def test_a_requests_own_task_is_running_already() -> None:
    counts: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        await asyncio.sleep(0)
        assert track(track(task)) is task
        counts.append(server.server._tasks.count)
        await respond(send)

    with running(app) as server, server.peer() as peer:
        assert peer.get().status == 200
        assert server.stop().total == 0
    assert counts == [1]


def test_a_future_is_as_good_as_a_task(tasks: RunningTasks) -> None:
    async def main() -> None:
        future: asyncio.Future[int] = track(asyncio.get_running_loop().create_future())
        (tracked,) = tasks.snapshot()
        assert tracked.describe().startswith("task <Future pending")
        tracked.cancel()
        assert future.cancelled()
        await asyncio.sleep(0)
        assert tasks.count == 0

    asyncio.run(main())


def test_a_task_that_is_done_is_nothing_to_wait_for(tasks: RunningTasks) -> None:
    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(0))
        await task
        assert track(task) is task
        assert tasks.total == 0

    asyncio.run(main())


def test_without_a_server_it_does_nothing() -> None:
    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(0))
        assert track(task) is task
        await task

    asyncio.run(main())


async def forgotten() -> None:
    """A coroutine that nobody made a task of."""


def test_a_coroutine_is_refused_with_a_sentence(tasks: RunningTasks) -> None:
    coroutine: Any = forgotten()
    with pytest.raises(TypeError, match="coroutine"):
        track(coroutine)
    coroutine.close()
    assert tasks.total == 0


def test_the_notice_of_a_tracked_task_is_found_in_it(tasks: RunningTasks) -> None:
    async def work() -> None:
        await lastcall.drain_notice().wait()

    async def main() -> None:
        task = track(asyncio.create_task(work()))
        await asyncio.sleep(0)
        assert not task.done()
        signal_of(lastcall.drain_notice()).give(math.inf, math.inf)
        await asyncio.wait_for(task, 5)

    asyncio.run(main())


def test_by_a_notice_that_is_at_hand(tasks: RunningTasks) -> None:
    """Of whatever server it is, in a process that has several."""

    async def body() -> None:
        notice = DrainNotice(signal_of_tasks)
        task = asyncio.ensure_future(asyncio.sleep(0))
        assert notice.track(task) is task
        assert len(mine) == 1
        await task
        await asyncio.sleep(0)
        assert len(mine) == 0

    signal_of_tasks = DrainSignal(lambda: 0.0)
    mine = RunningTasks()
    signal_of_tasks.tasks = mine
    asyncio.run(body())
    assert len(tasks) == 0
