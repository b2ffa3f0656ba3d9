"""The errors that the drill tells in one sentence, without a traceback."""

from __future__ import annotations


class DrillError(Exception):
    """What was asked for cannot be done. The message says why, and what would help."""
