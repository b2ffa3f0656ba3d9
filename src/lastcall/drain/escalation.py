"""How often a person or a supervisor has asked: the first stop signal, the second, the third. Pure."""

from __future__ import annotations

DEBOUNCE = 0.5
"""Seconds within which two stop signals are one: a terminal sends to the whole process group, and so does a parent."""


class Escalation:
    """Counts stop signals. ``level`` is 0 before the first."""

    def __init__(self) -> None:
        self.level = 0
        self.last = float("-inf")

    def press(self, now: float, weight: int = 1) -> bool:
        """One more signal, at ``now`` seconds; ``weight`` 2 is SIGQUIT, the first and the second together.

        Returns whether it counts. A signal that is debounced can still raise the level to its own weight: a SIGQUIT
        right after a SIGTERM means what it says.
        """
        together = now - self.last < DEBOUNCE
        self.last = now
        before = self.level
        self.level = max(self.level, weight) if together else min(3, self.level + weight)
        return self.level > before
