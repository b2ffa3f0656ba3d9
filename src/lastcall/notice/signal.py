"""The one signal of a server's drain: who waits for it, who is called, and when responses will be cut. Thread-safe."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from lastcall.base.lineage import leave_if_child
from lastcall.drain.state import DrainState

if TYPE_CHECKING:
    from lastcall.notice.running import RunningTasks

logger = logging.getLogger("lastcall.error")


class DrainSignal:
    """What every :class:`DrainNotice` of one server looks at.

    ``state`` is the server's DrainState; ``stopping`` is true from the stop order on, ``is_set`` from ``DRAINING`` on.
    ``disconnect_at`` is when responses that have started will be disconnected, ``farewell_at`` when those whose policy
    is *close* are; both are on the clock of ``time.monotonic()``, which is that of asyncio's loops, and ``math.inf``
    means never. ``tasks`` is where ``track()`` puts tasks: None but for a server's own signal while it serves.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, state: DrainState | None = None) -> None:
        self.state = DrainState() if state is None else state
        self.is_set = False
        self.disconnect_at = math.inf
        self.farewell_at = math.inf
        self.tasks: RunningTasks | None = None
        self._clock = clock
        self._lock = threading.RLock()  # of one thread: a signal handler, or the collector, may come in between
        self._waiters: set[asyncio.Future[None]] = set()
        self._callbacks: list[Callable[[], object]] = []

    @property
    def stopping(self) -> bool:
        """True from the stop order on, also while the server still accepts (``--drain-delay``)."""
        return self.state.stopping

    def give(self, disconnect_at: float, farewell_at: float) -> None:
        """Set the notice: wake who waits, call who asked to be called. A second call only changes the times."""
        self.disconnect_at, self.farewell_at = disconnect_at, farewell_at
        with self._lock:
            self.is_set = True
            waiters, self._waiters = self._waiters, set()
            callbacks, self._callbacks = self._callbacks, []
        for waiter in waiters:
            with suppress(RuntimeError):  # that loop is closed: nobody waits there any more
                waiter.get_loop().call_soon_threadsafe(_wake, waiter)
        for function in callbacks:
            call(function)

    async def wait(self) -> None:
        """Return once the notice is set."""
        waiter = asyncio.get_running_loop().create_future()
        with self._lock:
            if self.is_set:
                return
            self._waiters.add(waiter)
        try:
            await waiter
        finally:
            with self._lock:
                self._waiters.discard(waiter)

    def add_callback(self, function: Callable[[], object]) -> None:
        """Call ``function()`` when the notice is set, in the thread of the server's loop; now, if it is set already."""
        with self._lock:
            if not self.is_set:
                self._callbacks.append(function)
                return
        call(function)

    def remaining(self, *, closing: bool) -> float | None:
        """Seconds until a response is disconnected whose policy is *close* or not; None before the notice."""
        if not self.is_set:
            return None
        return max(0.0, (self.farewell_at if closing else self.disconnect_at) - self._clock())


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def call(function: Callable[[], object]) -> None:
    """Call an application's function; what it raises is logged and harms nobody else."""
    pid = os.getpid()
    try:
        function()
        leave_if_child(pid)
    except BaseException as exc:  # nothing that an application raises here may stop the stop
        leave_if_child(pid, exc)
        logger.exception("Exception in a callback of the drain notice")
