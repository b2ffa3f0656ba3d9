"""Limits of time for what a busy machine slows down: a process that waits for a processor uses none of them up.

A limit is there to end what hangs. What hangs does not want to run; what wants to run and may not is only slow, and how
slow says nothing about it. The kernel keeps that apart for each thread (``/proc/PID/task/TID/schedstat``). In a tree of
processes the one that has waited longest is the one that the others waited for.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

AT_MOST = 20
"""A limit is never stretched to more than so many times its length."""


class Patience:
    """``seconds`` from now on, for a process and all that it has started and will start; by default for this one.

    >>> Patience(1.0).over
    False
    """

    def __init__(self, seconds: float, pid: int | None = None) -> None:
        self.seconds = seconds
        self._pid = os.getpid() if pid is None else pid
        self._since = time.monotonic()
        self._before = dict(_waits(self._pid))
        self._lost = 0.0

    @property
    def left(self) -> float:
        """Seconds; 0 or less: they are over. To be asked while the processes live: what has ended says nothing more."""
        wall = time.monotonic() - self._since
        waited = [now - self._before.get(thread, 0.0) for thread, now in _waits(self._pid)]
        self._lost = max(self._lost, *waited, 0.0)
        return min(self.seconds + self._lost, AT_MOST * self.seconds) - wall

    @property
    def over(self) -> bool:
        """Whether nothing is left."""
        return self.left <= 0


def _waits(pid: int) -> Iterator[tuple[tuple[int, str], float]]:
    """What each thread of a tree of processes has waited for a processor, in seconds."""
    pids = [pid]
    while pids:
        pid = pids.pop()
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError, ValueError, IndexError):
                    with open(f"/proc/{pid}/task/{thread}/schedstat", "rb") as stat:
                        yield (pid, thread), int(stat.read().split()[1]) / 1e9
                    with open(f"/proc/{pid}/task/{thread}/children", "rb") as children:
                        pids += map(int, children.read().split())
