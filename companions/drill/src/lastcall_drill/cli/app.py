"""``lastcall drill --app``: judge the user's own application."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from lastcall_drill.appmode import ROWS, Subject, judge_app
from lastcall_drill.errors import DrillError
from lastcall_drill.reports.text import clean
from lastcall_drill.runner import machine
from lastcall_drill.servers import Target
from lastcall_drill.verdicts import Result, Run, Verdict

MARKS = {Verdict.PASS: "pass", Verdict.FAIL: "FAIL", Verdict.UNSUPPORTED: "-", Verdict.ERROR: "ERROR"}
WIDTH = 100  # of a line, where the terminal is no narrower
_INDENT = " " * 8


def judge_all(targets: list[Target], given: dict[str, Any], say: Callable[[str], None]) -> Run:
    """Judge the application under each server, one after the other. Raises DrillError if it cannot be judged."""
    directory = Path(given["app_dir"])
    if not directory.is_dir():
        raise click.UsageError(f"--app-dir {directory}: there is no such directory")
    if ":" not in given["app"]:
        raise click.UsageError(f"--app {given['app']}: expected module:attribute")
    if not given["route"].startswith("/"):
        raise click.UsageError(f"--route {given['route']}: expected a path, such as /events")
    if not all("!" <= one <= "~" for one in given["route"]):
        raise click.UsageError(f"--route {given['route']!r}: expected %XX for spaces and what is not ASCII")
    subject = Subject(given["app"], given["route"], directory, given["grace"], given["scale"])
    date = datetime.now(UTC).isoformat(timespec="seconds")
    results: list[Result] = []
    for target in targets:
        say(f"{target.label}: {subject.name} with {subject.route} open, SIGTERM, grace {subject.grace} s")
        try:
            results += judge_app(target, subject)
        except DrillError as error:
            results += [Result(row.id, target.label, Verdict.ERROR, str(error)) for row in ROWS[:1]]
    return Run(date, machine(), given["scale"], tuple(one.info for one in targets), ROWS, tuple(results))


def sentences(run: Run, width: int) -> str:
    """What was found, for people, in ``width`` characters: a line or more for each row and server."""
    lines = []
    for server in run.servers:
        lines.append(server.command if len(run.servers) == 1 else server.label)
        for row in run.scenarios:
            found = run.result(server.label, row.id)
            if found is not None:
                lines += _lines(row.title, found, width)
    return "\n".join(lines)


def _lines(title: str, result: Result, width: int) -> list[str]:
    """The verdict, and below it, further in, what follows from it: remedies, or the words of the server as they are."""
    first, *more = clean(result.sentence).split("\n")
    lines = _wrapped(f"  {MARKS[result.verdict]:4}  {title}: {first}", _INDENT, width)
    for line in more:
        prose = result.verdict is not Verdict.ERROR
        hanging = _INDENT + ("  " if line.startswith("- ") else "")
        lines += _wrapped(_INDENT + line, hanging, width) if prose else [_INDENT + line]
    return [*lines, ""] if more else lines


def _wrapped(line: str, indent: str, width: int) -> list[str]:
    return textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
