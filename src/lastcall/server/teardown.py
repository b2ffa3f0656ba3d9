"""The end of an event loop, bounded.

Not ``asyncio.run``'s: that one waits without limit for a task that swallows CancelledError and for a busy executor.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from lastcall.base.own_task import OwnTask
from lastcall.drain.ladder import TEARDOWN
from lastcall.server.loops import run_until_done

logger = logging.getLogger("lastcall.error")

LAST_TURNS = 0.05
"""Seconds for what is cancelled after the time is over: it has at least some turns of the loop to end in."""

GENERATIONS = 10
"""How often tasks are cancelled that began while those before them were."""


def close_loop(
    loop: asyncio.AbstractEventLoop,
    timeout: float = TEARDOWN,
    *,
    named: Collection[asyncio.Task[Any]] = (),
    again: Callable[[float, float], float] = lambda seconds, since: 0.0,
    raise_interrupts: bool = True,
) -> int:
    """Cancel what still runs, close async generators, let go of the executor, close the loop.

    Takes at most ``timeout`` seconds in all. Returns how many tasks would not end; they are named in the log, but for
    those in ``named``, of which it was told before. The loop must not be running; the thread's current event loop is
    left as it is. ``again(timeout, since)`` is asked when the time is over, and gives more: the process may have stood
    still since ``since``. A task that ends in SystemExit is logged like any other that fails; KeyboardInterrupt, which
    may be a person's, is raised when all is done; not without ``raise_interrupts``, for whom signals come to a handler
    of ours, and the number counts.
    """
    abandoned: set[asyncio.Task[Any]] = set()
    interrupts: list[KeyboardInterrupt] = []
    try:
        end = loop.time() + timeout
        for generation in range(GENERATIONS):
            tasks = asyncio.all_tasks(loop) - abandoned
            if not tasks or (generation and loop.time() >= end):
                break
            for task in tasks:
                task.cancel()
            _run(loop, _wait(tasks, max(LAST_TURNS, end - loop.time())), interrupts)
            if not all(task.done() for task in tasks) and (more := again(timeout, end - timeout)):
                end = loop.time() + more
                _run(loop, _wait(tasks, more), interrupts)
            for task in tasks:
                if not task.done():
                    abandoned.add(task)
                elif not task.cancelled() and (exc := task.exception()) is not None:
                    logger.error("A task of the application failed while being cancelled: %r", task, exc_info=exc)
        abandoned |= asyncio.all_tasks(loop)
        for task in abandoned:
            _forget(task)
            if task not in named:
                logger.error("A task of the application does not end: %r", task)
        loop.set_task_factory(None)  # which makes the tasks that close the generators, and may be the application's
        _run(loop, _bounded(loop.shutdown_asyncgens(), max(LAST_TURNS, end - loop.time())), interrupts)
        executor = getattr(loop, "_default_executor", None)
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)
    finally:
        loop.close()
    if interrupts and raise_interrupts:
        raise interrupts[0]
    return len(abandoned)


def _run(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, None], interrupts: list[KeyboardInterrupt]) -> None:
    """Run ``coro``, which bounds itself, to its end, whatever comes out of the loop meanwhile."""

    def came_out(exc: BaseException) -> None:
        if isinstance(exc, KeyboardInterrupt):
            interrupts.append(exc)
        elif not isinstance(exc, SystemExit):  # asyncio lets it out of the loop, past everything else that runs there
            logger.error("An exception came out of the event loop while it was being closed: %r", exc)

    run_until_done(loop, OwnTask(coro, loop=loop), came_out)


async def _wait(tasks: set[asyncio.Task[Any]], timeout: float) -> None:
    await asyncio.wait(tasks, timeout=timeout)


async def _bounded(coro: Coroutine[Any, Any, None], timeout: float) -> None:
    task = asyncio.Task(coro, loop=asyncio.get_running_loop())
    await asyncio.wait({task}, timeout=timeout)
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=LAST_TURNS)
        if not task.done():
            _forget(task)


def _forget(task: asyncio.Task[Any]) -> None:
    # Its destruction would be reported as an error of asyncio's; it is one of the application's.
    task._log_destroy_pending = False  # type: ignore[attr-defined]
