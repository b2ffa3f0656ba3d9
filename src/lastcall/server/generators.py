"""Async generators that nobody has closed: the collector gives them to the loop, and they end in tasks of their own.

A generator whose consumer has left it in the middle waits in a ``yield``, with a ``finally`` that has not run. Python
hands it to the hook that the event loop has set (PEP 525), and the loop makes a task of its ``aclose()``, which nobody
knows of. From HTTP specification 2.4 on Starlette leaves every stream so whose ``send()`` has raised: a stop would
close the database while such a ``finally`` still rolls back.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any


class ClosingGenerators:
    """Those of one loop that the collector has found, and that are not closed yet.

    One counts from the moment when the hook is called, which may be in any thread; its task begins a turn or two of the
    loop later. ``on_end()`` is called in the loop's thread each time one has been closed.
    """

    def __init__(self) -> None:
        self.on_end: Callable[[], object] = lambda: None
        self.watching = False
        """Whether the hook was ever replaced: in a loop of somebody else's it is not."""
        self._closing: set[_Closing] = set()  # adding and discarding are one step each, in whatever thread

    def __len__(self) -> int:
        return len(self._closing)

    def names(self) -> list[str]:
        """The generators' functions."""
        return sorted(closing.name for closing in tuple(self._closing))

    def watch(self) -> None:
        """Replace the hook of the loop that runs in this thread; the loop calls this, soon after it was entered.

        It does so again each time that it is entered: a loop sets its hooks then. Generators keep the hook that was set
        when they began.
        """
        if sys.get_asyncgen_hooks().finalizer is not None:
            self.watching = True
            sys.set_asyncgen_hooks(finalizer=partial(self._finalize, asyncio.get_running_loop()))

    def _finalize(self, loop: asyncio.AbstractEventLoop, generator: AsyncGenerator[Any, Any]) -> None:
        closing = _Closing(generator, self._ended)
        self._closing.add(closing)
        try:
            loop.call_soon_threadsafe(closing.begin, loop)
        except RuntimeError:  # the loop is closed: nobody can close it any more
            self._closing.discard(closing)

    def _ended(self, closing: _Closing) -> None:
        self._closing.discard(closing)
        self.on_end()


class _Closing:
    """A generator that is being closed, in a task of ours.

    The loop's own hook would make the task by ``create_task()``, which asks the task factory: the application's, and an
    eager one fails under uvloop 0.23.
    """

    def __init__(self, generator: AsyncGenerator[Any, Any], on_end: Callable[[_Closing], object]) -> None:
        self.name: str = getattr(generator, "__qualname__", type(generator).__qualname__)
        self._generator = generator
        self._on_end = on_end
        self._task: asyncio.Task[None] | None = None  # the loop itself does not keep it alive

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """In the loop's thread."""
        self._task = asyncio.Task(self._close(), loop=loop, name=f"closing {self.name}")
        self._task.add_done_callback(self._done)  # comes also where the task is cancelled before its first step

    async def _close(self) -> None:
        await self._generator.aclose()

    def _done(self, _task: asyncio.Task[None]) -> None:
        self._on_end(self)
