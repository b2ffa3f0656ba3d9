"""The error that the doctor tells in one sentence, without a traceback."""

from __future__ import annotations


class DoctorError(Exception):
    """An option or a file cannot be used. The message says which, and what would help."""
