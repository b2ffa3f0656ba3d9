"""Tasks of once's own, whatever factory the application has set on the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def new_task(work: Coroutine[Any, Any, T], *, name: str | None = None) -> asyncio.Task[T]:
    """A task of the running loop, which begins in a later turn.

    A factory may run it at once, and some do not work (asyncio's eager one raises TypeError under uvloop 0.23).
    """
    return asyncio.Task(work, loop=asyncio.get_running_loop(), name=name)
