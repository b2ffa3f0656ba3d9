"""The report of a stop as a file."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lastcall.drain.report import StopReport


def write_report(path: str, report: StopReport) -> None:
    """Write the report as one line of JSON.

    A new file appears whole or not at all: whoever watches for it may read it at once. What is there already (a device,
    a file in a directory that is not ours) is written in place.
    """
    line = report.as_json() + "\n"
    if os.path.exists(path):
        # Not waiting: a named pipe that nobody reads must not hold the stop.
        with open(os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK), "w", encoding="utf-8") as file:
            file.write(line)
        return
    fresh = f"{path}.{os.getpid()}.new"
    try:
        with open(fresh, "w", encoding="utf-8") as file:
            file.write(line)
        os.replace(fresh, path)
    except OSError:
        with suppress(OSError):
            os.unlink(fresh)
        raise
