"""The report of a stop as a file."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from lastcall.server import replacing, watchdog

if TYPE_CHECKING:
    from lastcall.drain.report import StopReport


class ReportFile:
    """The file of ``--drain-report``, wherever the working directory is by the time that it is written."""

    def __init__(self, path: str) -> None:
        with suppress(OSError):  # a working directory that is gone: then it stays relative
            path = os.path.join(os.getcwd(), path)
        self._path = os.fsencode(path)
        self._fresh = b"%s.%d.new" % (self._path, os.getpid())

    def write(self, report: StopReport) -> None:
        """Write the report as one line of JSON; raises OSError.

        A file appears whole or not at all, also where it replaces an earlier one: whoever watches for it may read it at
        once. What is no plain file of our own (a device, a pipe, a link) is written in place; a pipe gets one line
        more, and so does a file that is our own output (``/dev/stdout``). See ``replacing.replace_file``.
        """
        replacing.replace_file(self._path, self._fresh, report.as_json().encode() + b"\n")

    def draft(self, report: StopReport) -> None:
        """Give the watchdog what it is to write if it ends the process."""
        watchdog.draft(self._path, self._fresh, report.as_draft().encode())


def report_file(path: str | None) -> ReportFile | None:
    """The file at ``path``, from the working directory of now; None where no report is asked for."""
    return ReportFile(path) if path else None
