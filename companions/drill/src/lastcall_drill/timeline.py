"""When what happened: the moments that client, application, process and drill saw, on one clock.

The clock is ``time.monotonic()``, which is the same for all processes of a machine; the application's moments join by
it. Everything here may be called from any thread.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from lastcall_drill.record import Record
from lastcall_drill.verdicts import Moment, Source


class Event(Record):
    """A moment on the clock itself: ``at`` is ``time.monotonic()``. For the rest see :class:`Moment`."""

    at: float
    source: Source
    what: str
    who: str = ""
    detail: str = ""


class Timeline:
    """Collects what happened. ``start`` is the zero of its moments until :meth:`signal` sets another one."""

    def __init__(self, start: float | None = None) -> None:
        self._zero = time.monotonic() if start is None else start
        self._signalled = False
        self._events: list[Event] = []
        self._lock = threading.Lock()

    def add(self, source: Source, what: str, detail: str = "", *, who: str = "", at: float | None = None) -> float:
        """Write down that ``what`` happened, now or ``at``, and return when. For the words see :class:`Moment`."""
        when = time.monotonic() if at is None else at
        with self._lock:
            self._events.append(Event(when, source, what, who, detail))
        return when

    def signal(self, detail: str, at: float | None = None) -> float:
        """Write down that the drill sends a signal. The first one is the zero of all moments."""
        when = self.add(Source.DRILL, "signal", detail, at=at)
        with self._lock:
            if not self._signalled:
                self._signalled = True
                self._zero = when
        return when

    def rearm(self) -> None:
        """Let the next signal be the zero: another server is started."""
        with self._lock:
            self._signalled = False

    @property
    def signalled(self) -> bool:
        """Whether the signal has been sent, to the server that runs now."""
        return self._signalled

    @property
    def zero(self) -> float:
        """The time of the first signal, or the start before there was one (``time.monotonic()``)."""
        return self._zero

    @property
    def events(self) -> list[Event]:
        """All of it in the order of time."""
        with self._lock:
            return sorted(self._events, key=lambda one: one.at)

    @property
    def moments(self) -> list[Moment]:
        """The same, counted from the signal."""
        return [Moment(round(e.at - self._zero, 6), e.source, e.what, e.who, e.detail) for e in self.events]

    def join(self, path: Path) -> None:
        """Take in what the application wrote, see :func:`read_events`."""
        found = read_events(path)
        with self._lock:
            self._events += found


def read_events(path: Path) -> list[Event]:
    """The application's events: lines ``TIME WHAT [WHO [DETAIL…]]``, TIME as ``time.monotonic()`` says it.

    The file may grow meanwhile: a line that is not finished yet is left out, and no file at all is no event. Lines that
    are of another form are left out too: applications of other people write here.
    """
    try:
        text = path.read_text("utf-8", "replace")
    except FileNotFoundError:
        return []
    events = []
    for line in text.splitlines(keepends=True):
        time_, what, who, detail = [*line.rstrip("\n").split(" ", 3), "", "", ""][:4]
        if line.endswith("\n") and what:
            try:
                events.append(Event(float(time_), Source.APP, what, who, detail))
            except ValueError:
                continue
    return events
