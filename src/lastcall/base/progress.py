"""``Progress``: how far a stop has come, as the shutdown controller tells it and a log or a terminal shows it."""

from __future__ import annotations

import math
from typing import Final

from lastcall.base.record import Record

NAMED_IN_A_LINE: Final = 3


class Remaining(Record):
    """One piece of work that is left: its name (printable), what the report calls its kind, its age in seconds."""

    name: str
    kind: str
    seconds: float


class Progress(Record):
    """What is left at one moment of a stop. ``str()`` of it is one line.

    ``summary`` says how much, and when that ends. ``oldest`` are the first of ``count`` pieces of work, the oldest
    first; it is empty where ``summary`` says it all. ``phase`` is the ladder's word, ``left`` the seconds to what comes
    next in it, infinity where nothing does.
    """

    summary: str
    oldest: tuple[Remaining, ...] = ()
    count: int = 0
    phase: str = ""
    left: float = math.inf

    def __str__(self) -> str:
        named = [f"{one.name} {one.seconds:.0f} s" for one in self.oldest[:NAMED_IN_A_LINE]]
        if not named:
            return self.summary
        return f"{self.summary}: {', '.join(named)}{', …' if self.count > len(named) else ''}"
