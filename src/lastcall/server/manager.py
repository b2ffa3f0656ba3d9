"""What the service manager (systemd) is told of a server, and when: the events of a life become messages."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final

from lastcall.systemd.notify import Notifier

if TYPE_CHECKING:
    from lastcall.base.progress import Progress

_ROOM: Final = 5.0
"""Seconds that the manager waits beyond the longest time that the stop can take."""
_UNBOUNDED: Final = 60.0
"""Seconds at a time, where the stop has no limit; it is extended while the loop turns."""


class ServiceManager:
    """The manager of a process that serves. Without one all of this does nothing.

    ``ready``, ``stopping`` and ``progress`` are called in the loop, which is what the watchdog watches; ``bound`` by
    whoever gives an order, a signal's handler say.
    """

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._timer: asyncio.TimerHandle | None = None
        self._bound = 0.0
        self._stopping = False

    def starting(self) -> None:
        """The process starts."""
        self._notifier.status("Starting")

    def ready(self) -> None:
        """Requests are served."""
        if self._notifier.listening:
            self._notifier.ready("Serving")
            self._turn(asyncio.get_running_loop())

    def bound(self, seconds: float) -> None:
        """The stop takes at most ``seconds`` from now on."""
        self._bound = seconds
        self._extend()

    def stopping(self, phase: str) -> None:
        """The stop has come to ``phase``."""
        if not self._stopping:
            self._stopping = True
            self._notifier.stopping(phase)
            self._extend()
        else:
            self._notifier.status(phase)

    def progress(self, progress: Progress | None) -> None:
        """How far the stop is: each second."""
        if progress is not None:
            self._notifier.status(str(progress))
            if self._bound == math.inf:
                self._extend()

    def failed(self, error: Exception) -> None:
        """Nothing is served: ``systemctl status`` says why."""
        self._notifier.status(f"Error: {error}")

    def close(self) -> None:
        """The loop has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _extend(self) -> None:
        if self._bound > 0:
            self._notifier.extend((_UNBOUNDED if self._bound == math.inf else self._bound) + _ROOM)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say that the loop turns, and come again: at half of the time, as sd_watchdog_enabled(3) asks for."""
        if self._notifier.watchdog < math.inf:
            self._notifier.alive()
            self._timer = loop.call_later(self._notifier.watchdog / 2, self._turn, loop)
