"""``lastcall.track(task)``: an application's own task is drained like a request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from lastcall.notice.notice import drain_notice, signal_of
from lastcall.notice.running import RunningTask

if TYPE_CHECKING:
    from lastcall.notice.running import RunningTasks

T = TypeVar("T", bound="asyncio.Future[Any]")


class TrackedTask(RunningTask):
    """A task that the application made."""

    def __init__(self, task: asyncio.Future[Any], tasks: RunningTasks) -> None:
        self._task = task
        self._home = tasks

    @property
    def task(self) -> asyncio.Future[Any]:
        """What was tracked."""
        return self._task

    @property
    def kind(self) -> str:
        """What the report calls it."""
        return "app task"

    def cancel(self) -> None:
        """Cancel the task."""
        self._task.cancel()

    def describe(self) -> str:
        """``task`` and its name."""
        name = self._task.get_name() if isinstance(self._task, asyncio.Task) else repr(self._task)
        return f"task {name.encode('unicode_escape').decode()}"

    def ended(self, _task: asyncio.Future[Any]) -> None:
        """The task is done."""
        self._home.leave(self)


_tracked: WeakSet[asyncio.Future[Any]] = WeakSet()
"""All that were tracked, by whatever server."""


def _is_drained(task: asyncio.Future[Any]) -> bool:
    """Whether it is among the running tasks already. That of a request has its notice at its coroutine."""
    own = isinstance(task, asyncio.Task) and getattr(task.get_coro(), "notice", None) is not None
    return own or task in _tracked


def track(task: T) -> T:
    """Have ``task`` drained like a request; returns it.

    From now on a stop waits for it, names it in its progress and its report, cancels it at the end of the grace and
    waits for its end before ``lifespan.shutdown``. It can look at :func:`lastcall.drain_notice` to end by itself.
    Does nothing for a task that is done, one that is drained already (tracked before, or that of a request), nor under
    another server. Call it in the thread of the server's loop.

    Raises TypeError for what is no task or future: a coroutine has to be made one first.
    """
    if not isinstance(task, asyncio.Future):
        raise TypeError(f"track() takes a task, as asyncio.create_task() makes one, not {type(task).__name__}")
    signal = signal_of(drain_notice())
    tasks = signal.tasks
    if tasks is not None and not task.done() and not _is_drained(task):
        _tracked.add(task)
        tracked = TrackedTask(task, tasks)
        tasks.join(tracked, task.get_loop().time())
        task.add_done_callback(tracked.ended)
        if signal.state.refusing:
            tracked.cancel()
    return task
