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

Finalizer = Callable[[Any], object]


class ClosingGenerators:
    """Those of one loop that the collector has found, and that are not closed yet.

    One counts from the moment when the hook is called, which may be in any thread; its task begins a turn or two of the
    loop later. ``on_end()`` is called in the loop's thread each time one has been closed.
    """

    def __init__(self) -> None:
        self.on_end: Callable[[], object] = lambda: None
        self.watching = False
        """Whether the hook was ever wrapped: in a loop of somebody else's it is not."""
        self._closing: set[_Closing] = set()  # adding and discarding are one step each, in whatever thread

    def __len__(self) -> int:
        return len(self._closing)

    def names(self) -> list[str]:
        """The generators' functions."""
        return sorted(closing.name for closing in tuple(self._closing))

    def watch(self) -> None:
        """Wrap the hook of the loop that runs in this thread; the loop calls this, soon after it was entered.

        It does so again each time that it is entered: a loop sets its hooks then. Generators keep the hook that was set
        when they began.
        """
        earlier = sys.get_asyncgen_hooks().finalizer
        if earlier is not None:
            self.watching = True
            sys.set_asyncgen_hooks(finalizer=partial(self._finalize, earlier))

    def _finalize(self, earlier: Finalizer, generator: AsyncGenerator[Any, Any]) -> None:
        closing = _Closing(generator, self._ended)
        self._closing.add(closing)
        try:
            earlier(closing)
        except BaseException:
            self._closing.discard(closing)
            raise

    def _ended(self, closing: _Closing) -> None:
        self._closing.discard(closing)
        self.on_end()


class _Closing:
    """A generator, as far as a loop's hook looks at one: it makes a task of ``aclose()``."""

    def __init__(self, generator: AsyncGenerator[Any, Any], on_end: Callable[[_Closing], object]) -> None:
        self.name: str = getattr(generator, "__qualname__", type(generator).__qualname__)
        self._generator = generator
        self._on_end = on_end

    async def aclose(self) -> None:
        """Close it, and say so however that ends."""
        task = asyncio.current_task()
        if task is not None:
            task.set_name(f"closing {self.name}")
        try:
            await self._generator.aclose()
        finally:
            self._on_end(self)
