"""The tasks of once itself, whatever the application has done to the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def own_task(work: Coroutine[Any, Any, T], *, name: str | None = None) -> asyncio.Task[T]:
    """A task of the running loop, with a copy of the current context.

    Not by ``loop.create_task``: a task factory that the application has set there may begin the work inside the call
    (``asyncio.eager_task_factory``), fail (that one does, under uvloop 0.23), or make something that is no task.
    """
    return asyncio.Task(work, loop=asyncio.get_running_loop(), name=name)
