"""A clock for what real processes do: the time that the machine gave to others does not count.

A bound on how long a server takes tells one behaviour from another, say a linger of a tenth of a second from one of a
second. On a busy machine the time on the wall tells nothing: a process that wants to run waits for a processor. The
kernel keeps that time for each thread (``/proc/PID/schedstat``, the second number), and this clock takes it off.
"""

from __future__ import annotations

import contextlib
import time
from typing import Self


class Watched:
    """A process whose waits count: those of its main thread, as last seen."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.at_first = self.waited = waited(pid)
        self._begun = begun(pid)
        _running.add(self)

    def look(self) -> None:
        """Look again. The last time is when the process has ended and was not reaped."""
        found = waited(self.pid)
        if self in _running and begun(self.pid) == self._begun:  # behind the look: the number is not another's yet
            self.waited = max(self.waited, found)

    def forget(self) -> None:
        """The process is no more; its number may be another's next."""
        _running.discard(self)


_running: set[Watched] = set()


def waited(who: int | str) -> float:
    """Seconds that the main thread of a process (or ``thread-self``) has waited for a processor; 0 if unknown."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{who}/schedstat", "rb") as stat:
        return int(stat.read().split()[1]) / 1e9
    return 0.0


def begun(pid: int) -> str:
    """When a process was started, as the kernel counts; numbers are given again, within minutes on a busy machine."""
    with (
        contextlib.suppress(OSError, IndexError),
        open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat,
    ):
        return stat.read().rpartition(")")[2].split()[19]
    return ""


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


class Waits:
    """What processes have waited since this was made: those that are watched now, and those that still are later."""

    def __init__(self) -> None:
        for process in _running:
            process.look()
        self._before = {process: process.waited for process in _running}

    @property
    def seconds(self) -> float:
        """So far; of a process that has ended, all."""
        before = {process: process.at_first for process in _running} | self._before
        for process in before:
            process.look()
        return sum(process.waited - then for process, then in before.items())


class Moment(float):
    """A moment on the monotonic clock; later ones less this one are ``Seconds``."""

    waits: Waits

    @classmethod
    def now(cls) -> Self:
        """This one."""
        found = cls(time.monotonic())
        found.waits = Waits()
        return found

    def __rsub__(self, later: float) -> Seconds:
        wall = float(later) - float(self)
        return Seconds(wall, max(0.0, wall - self.waits.seconds))


class Stopwatch:
    """Seconds since it was made. The waits of this thread are taken off as well, although a process may sleep then."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._waits = Waits()
        self._waited = waited("thread-self")

    @property
    def seconds(self) -> Seconds:
        """So far."""
        wall = time.monotonic() - self._since
        lost = self._waits.seconds + waited("thread-self") - self._waited
        return Seconds(wall, max(0.0, wall - lost))
