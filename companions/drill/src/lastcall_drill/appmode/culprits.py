"""Who keeps a process from a clean stop, as far as the server's own output names them.

A server that gives up on a thread, a task or a lifespan says so in its log, in one of a few forms: a line with a
level, a traceback below it, or the stacks that faulthandler writes. They are worth more than any guess of the drill's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Final

from lastcall_drill.record import Record

MOST: Final = 4
"""Culprits that one row names. The output has the rest."""

LONGEST: Final = 300  # characters of one of them

_LEVEL: Final = re.compile(r"(?:^|[\s\[|])(?:ERROR|CRITICAL|WARNING)\]?:?\s*(?:\|\s*)?(.+)$")
_TRACEBACK: Final = "Traceback (most recent call last):"
_DUMP: Final = re.compile(r"^(?:Current t|T)hread 0x\w+.*\(most recent call first\):$")
_FRAME: Final = re.compile(r'^\s+File "(?P<file>[^"]+)", line (?P<line>\d+),? in (?P<name>\S+)')
_SUMMARY: Final = re.compile(r"Stopped \([^)]*\) after [\d.]+ s: ")  # of lastcall: it counts, others name
_LIFESPAN: Final = re.compile(r"lifespan|application shutdown", re.IGNORECASE)
_REQUEST: Final = re.compile(r"Exception in ASGI application|error in request|ASGI callable", re.IGNORECASE)


class About(Enum):
    """Which question a culprit answers."""

    REQUEST = "request"
    LIFESPAN = "lifespan"
    PROCESS = "process"


class Culprit(Record):
    """Something that the server itself has named, in its own words."""

    about: About
    text: str


def named(output: str, directory: Path) -> list[Culprit]:
    """The culprits in a server's output since the signal. ``directory`` is where the application's own files are."""
    found: list[Culprit] = []
    lines = iter(output.splitlines())
    for line in lines:
        if line.strip() == _TRACEBACK:
            error, where = _traceback(lines, directory)
            # A server that cuts a request cancels it: that traceback, and the line above it, name nobody.
            ordered = error.startswith(("asyncio.exceptions.CancelledError", "KeyboardInterrupt"))
            above = found.pop() if found and _belongs(found[-1], ordered=ordered) else None
            if not ordered:
                about, start = (above.about, above.text.rstrip(".:") + ": ") if above else (About.PROCESS, "")
                found.append(Culprit(about, f"{start}{error}{where}"))
        elif _DUMP.match(line):
            where = _innermost(list(_frames(lines)), directory)
            if where:
                found.append(Culprit(About.PROCESS, f"its stacks, written when it gave up, show {where}"))
        elif (match := _LEVEL.search(line)) is not None and not line.startswith((" ", "\t")):
            if _SUMMARY.match(match[1]):
                continue
            found.append(Culprit(_about(match[1]), match[1]))
    shortened = (Culprit(one.about, one.text[:LONGEST].rstrip()) for one in found)
    return list(dict.fromkeys(shortened))


def _belongs(above: Culprit, *, ordered: bool) -> bool:
    """Whether the line before a traceback announces it."""
    return above.about is About.REQUEST or (not ordered and above.text.endswith((".", ":")))


def _about(text: str) -> About:
    if _LIFESPAN.search(text):
        return About.LIFESPAN
    return About.REQUEST if _REQUEST.search(text) else About.PROCESS


def _traceback(lines: Iterator[str], directory: Path) -> tuple[str, str]:
    """The error at the end of a traceback, and in brackets where it was raised."""
    frames: list[tuple[str, str, str]] = []
    for line in lines:
        if (match := _FRAME.match(line)) is not None:
            frames.append((match["file"], match["line"], match["name"]))
        elif line and not line.startswith((" ", "\t")):
            where = _innermost(frames[::-1], directory)
            return line, f" ({where})" if where else ""
    return "an error whose traceback was cut off", ""


def _frames(lines: Iterator[str]) -> Iterator[tuple[str, str, str]]:
    """The frames of a thread in faulthandler's form, the innermost first; the line behind them is used up."""
    for line in lines:
        match = _FRAME.match(line)
        if match is None:
            return
        yield match["file"], match["line"], match["name"]


def _innermost(frames: Sequence[tuple[str, str, str]], directory: Path) -> str:
    """The first frame that is the application's own, else the first one; empty if there is none."""
    own = [one for one in frames if Path(one[0]).is_relative_to(directory.absolute()) and "site-packages" not in one[0]]
    for file, line, name in own or frames:
        return f"{Path(file).name}:{line}, in {name}"
    return ""
