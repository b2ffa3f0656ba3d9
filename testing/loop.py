"""An event loop whose time costs nothing."""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class VirtualSelector(selectors.DefaultSelector):
    """Where the loop would wait for a timer, the clock jumps to it; at ``until`` the loop is stopped instead."""

    def __init__(self, now: float) -> None:
        super().__init__()
        self.now = now
        self.until = math.inf
        self.at_rest: Callable[[], None] = lambda: None

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if timeout is not None and self.now + timeout <= self.until:
            self.now += timeout
            return []
        if self.until < math.inf:
            self.now = self.until
            self.at_rest()
            return []
        return super().select(timeout)  # another thread works for this loop


class VirtualLoop(asyncio.SelectorEventLoop):
    """A real event loop on a clock of its own, which moves only when nothing is left to do before the next timer.

    ``now`` is what the clock shows in the beginning.
    """

    def __init__(self, now: float = 1000.0) -> None:
        self.selector = VirtualSelector(now)
        super().__init__(self.selector)
        self.selector.at_rest = self.stop
        self.errors: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.errors.append(context))

    def time(self) -> float:
        return self.selector.now

    def settle(self) -> None:
        """Run until nothing is left to do at this moment."""
        self.advance(0)

    def advance(self, seconds: float) -> None:
        """Run until ``seconds`` have passed, with every timer in between at its own time."""
        self.selector.until = self.selector.now + seconds
        try:
            self.run_forever()
        finally:
            self.selector.until = math.inf

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Call ``function`` from inside the running loop, as a driver would, and run what follows from it."""
        failures: list[BaseException] = []

        def guarded() -> None:
            try:
                function(*args)
            except BaseException as error:
                failures.append(error)

        self.call_soon(guarded)
        self.settle()
        if failures:
            raise failures[0]

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """``coroutine`` to its end, however long that takes on this clock."""
        return self.run_until_complete(coroutine)

    def finish(self) -> None:
        """Cancel what is left, and close."""
        for task in (tasks := asyncio.all_tasks(self)):
            task.cancel()
        if tasks:
            self.run(asyncio.wait(tasks))
        self.run(self.shutdown_asyncgens())
        self.close()
