"""The exit codes of a server's process."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the end of the process says. If several hold: ``ABANDONED``, then ``LIFESPAN``, ``ERROR``, ``CUT``."""

    STOPPED = 0
    """Stopped as asked, also where streams had to be cut: the report says so."""

    ERROR = 1
    """An unexpected error, or the watchdog."""

    USAGE = 2
    """A wrong option, or a wrong configuration: found before an address was bound or the application imported."""

    STARTUP = 3
    """The start failed after that: bind, import or ``lifespan.startup``."""

    LIFESPAN = 4
    """``lifespan.shutdown`` failed or timed out, or the lifespan's task had raised while serving."""

    ABANDONED = 5
    """Tasks, threads or connections were abandoned."""

    CUT = 6
    """A response was cut, and ``--exit-nonzero-on-cut`` asks to be told."""
