"""``lastcall drill --app``: judge the user's own application."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from lastcall.base.errors import LastcallError
from lastcall.drill.appmode import ROWS, Subject, judge_app
from lastcall.drill.runner import machine
from lastcall.drill.servers import Target
from lastcall.drill.verdicts import Result, Run, Verdict

MARKS = {Verdict.PASS: "pass", Verdict.FAIL: "FAIL", Verdict.UNSUPPORTED: "-   ", Verdict.ERROR: "ERROR"}


def judge_all(targets: list[Target], given: dict[str, Any], say: Callable[[str], None]) -> Run:
    """Judge the application under each server, one after the other. Raises LastcallError if it cannot be judged."""
    directory = Path(given["app_dir"])
    if not directory.is_dir():
        raise click.UsageError(f"--app-dir {directory}: there is no such directory")
    if ":" not in given["app"]:
        raise click.UsageError(f"--app {given['app']}: expected module:attribute")
    if not given["route"].startswith("/"):
        raise click.UsageError(f"--route {given['route']}: expected a path, such as /events")
    subject = Subject(given["app"], given["route"], directory, given["grace"], given["scale"])
    date = datetime.now(UTC).isoformat(timespec="seconds")
    results: list[Result] = []
    for target in targets:
        say(f"{target.label}: {subject.name} with {subject.route} open, SIGTERM, grace {subject.grace} s")
        try:
            results += judge_app(target, subject)
        except LastcallError as error:
            results += [Result(row.id, target.label, Verdict.ERROR, str(error)) for row in ROWS[:1]]
    return Run(date, machine(), given["scale"], tuple(one.info for one in targets), ROWS, tuple(results))


def sentences(run: Run) -> str:
    """What was found, for people: a line or more for each row and server."""
    lines = []
    for server in run.servers:
        lines.append(f"{run.servers[0].command if len(run.servers) == 1 else server.label}")
        for row in run.scenarios:
            found = run.result(server.label, row.id)
            if found is not None:
                lines.append(f"  {MARKS[found.verdict]}  {row.title}: {found.sentence}")
    return "\n".join(lines)
