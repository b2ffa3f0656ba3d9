"""What has to be known besides a log's lines: releases, and how the process ended.

Most logs do not say either. What a log says by itself (a path of a Python, a line of systemd's) is used; the rest can
be given to ``match``. What is not known fulfils no condition: a guess would be a match in a healthy log.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from lastcall_drill.record import Record

STILL_RUNNING: Final = "none"
"""The word for a process that did not exit by itself."""

_COMPARISON: Final = re.compile(r"(>=|<=|==|!=|<|>)\s*(\d+(?:\.\d+)*)")
_PYTHON: Final = re.compile(r"[/\\]python(3\.\d+)[/\\]")
_GUNICORN: Final = re.compile(r"\[INFO\] Starting (gunicorn) (\d[\w.]*)")
_EXITED: Final = re.compile(r"Main process exited, code=(?:exited|killed|dumped), status=(\d+)(?:/(\w+))?")
_TIMED_OUT: Final = re.compile(r"State '(?:stop-\w+|final-\w+)' timed out\. Killing\.")
_SIGNALS: Final = {"TERM": "SIGTERM", "INT": "SIGINT", "KILL": "SIGKILL", "QUIT": "SIGQUIT", "ABRT": "SIGABRT"}
HINTS: Final = (b"python3.", b"Starting gunicorn", b"Main process exited", b"' timed out. Killing.")
"""Texts, one of which is in every line that :meth:`Facts.of_line` learns from."""


class VersionRange(Record):
    """Releases, as ``>=0.22,<0.24``: every comparison holds."""

    comparisons: tuple[tuple[str, tuple[int, ...]], ...]
    text: str

    def holds(self, version: str) -> bool:
        """Whether a release is one of them. ``3.12`` stands for what is known of it: 3.12 as a whole."""
        known = _numbers(version)
        return all(_compares(operator, known, other) for operator, other in self.comparisons)


def version_range(text: str) -> VersionRange:
    """The range that a text says. Raises ValueError with what was expected."""
    found = []
    for part in text.split(","):
        match = _COMPARISON.fullmatch(part.strip())
        if match is None:
            raise ValueError("comparisons such as >=0.22,<0.24")
        found.append((match[1], _numbers(match[2])))
    return VersionRange(tuple(found), text)


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(one) for one in match[0].split(".")) if match else ()


def _compares(operator: str, known: tuple[int, ...], other: tuple[int, ...]) -> bool:
    length = max(len(known), len(other))
    one, two = ((*each, *[0] * (length - len(each))) for each in (known, other))
    return {
        ">=": one >= two,
        "<=": one <= two,
        ">": one > two,
        "<": one < two,
        "==": one == two,
        "!=": one != two,
    }[operator]


class Facts:
    """What is known of the run that a part of a log is about."""

    def __init__(self, versions: Mapping[str, str] | None = None, exit_: str = "") -> None:
        self._given = {name.lower(): version for name, version in (versions or {}).items()}
        self._exit = exit_
        self.versions = dict(self._given)
        self.exit = exit_

    def of_line(self, line: str) -> None:
        """Learn from a line of the log. What was given is not overruled."""
        if (python := _PYTHON.search(line)) is not None:
            self.versions.setdefault("python", python[1])
        if (gunicorn := _GUNICORN.search(line)) is not None:
            self.versions.setdefault(gunicorn[1], gunicorn[2])
        if self._exit:
            return
        if _TIMED_OUT.search(line):
            self.exit = STILL_RUNNING
        elif (exited := _EXITED.search(line)) is not None and self.exit != STILL_RUNNING:
            self.exit = _SIGNALS.get(exited[2] or "", exited[1])

    def begin(self) -> None:
        """Another process begins: how the one before has ended says nothing of it."""
        self.exit = self._exit


class Conditions(Record):
    """What a signature asks for besides lines. Empty: nothing."""

    exits: tuple[str, ...] = ()
    versions: tuple[tuple[str, VersionRange], ...] = ()

    @property
    def asked(self) -> bool:
        """Whether there is any."""
        return bool(self.exits or self.versions)

    def hold(self, facts: Facts) -> bool:
        """Whether all are fulfilled by what is known."""
        if self.exits and facts.exit not in self.exits:
            return False
        return all(name in facts.versions and one.holds(facts.versions[name]) for name, one in self.versions)

    @property
    def words(self) -> str:
        """The conditions in words."""
        said = [f"{name} {one.text}" for name, one in self.versions]
        if self.exits:
            said.append(f"exit {' or '.join(self.exits)}")
        return ", ".join(said)
