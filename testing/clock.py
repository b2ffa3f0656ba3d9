"""A clock for what real processes do: the time that the machine gave to others does not count.

A bound on how long a server takes tells one behaviour from another, say a linger of a tenth of a second from one of a
second. On a busy machine the time on the wall tells nothing: a process that wants to run waits for a processor. The
kernel keeps that time for each thread (``/proc/PID/schedstat``, the second number), and this clock takes it off.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Self

_waiting: dict[int, float] = {}
"""Seconds that the main thread of each watched process waited for a processor, as last seen, by process id."""


def watch(pid: int) -> None:
    """Count the waits of this process from now on."""
    _waiting[pid] = waited(pid)


def look(pid: int) -> None:
    """Look again at a process: the last time is when it has ended and was not reaped."""
    if pid in _waiting:
        _waiting[pid] = max(_waiting[pid], waited(pid))


def forget(pid: int) -> None:
    """The process is no more. Its number may be another's next."""
    _waiting.pop(pid, None)


def waited(who: int | str) -> float:
    """Seconds that the main thread of a process (or ``thread-self``) has waited for a processor; 0 if unknown."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{who}/schedstat", "rb") as stat:
        return int(stat.read().split()[1]) / 1e9
    return 0.0


class Seconds(float):
    """Seconds on the wall; the upper bounds that it is compared with are held against ``own``.

    ``own`` is without the time in which this thread, or a server that it watches, waited for a processor.
    """

    own: float

    def __new__(cls, wall: float, own: float) -> Self:
        found = super().__new__(cls, wall)
        found.own = own
        return found

    def __lt__(self, bound: float) -> bool:
        return self.own < bound

    def __le__(self, bound: float) -> bool:
        return self.own <= bound

    def __repr__(self) -> str:
        return f"{float(self):.3f} ({self.own:.3f} of its own)"

    __hash__ = float.__hash__


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._waited = self._waits()

    @property
    def seconds(self) -> Seconds:
        """So far."""
        wall = time.monotonic() - self._since
        now = self._waits()
        lost = sum(max(0.0, seconds - self._waited.get(who, 0.0)) for who, seconds in now.items())
        return Seconds(wall, max(0.0, wall - lost))

    @staticmethod
    def _waits() -> dict[int, float]:
        for pid in _waiting:
            look(pid)
        return {os.getpid(): waited("thread-self"), **_waiting}
