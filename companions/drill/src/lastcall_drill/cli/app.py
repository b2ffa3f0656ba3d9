"""``lastcall drill --app``: judge the user's own application."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from lastcall_drill.appmode.acting import judge_app
from lastcall_drill.appmode.judging import rows_of
from lastcall_drill.appmode.remedy import SECRETS_FILE, Again
from lastcall_drill.appmode.routes import Subject, routes_of
from lastcall_drill.errors import DrillError
from lastcall_drill.reports.text import clean
from lastcall_drill.runner import machine
from lastcall_drill.servers import Target
from lastcall_drill.verdicts import Result, Run, Verdict

MARKS = {
    Verdict.PASS: "pass",
    Verdict.FAIL: "FAIL",
    Verdict.UNSUPPORTED: "-",
    Verdict.ERROR: "ERROR",
    Verdict.UNREACHED: "?",
}
WIDTH = 100  # of a line, where the terminal is no narrower
_SECRET = re.compile(r"auth|cookie|token|secret|password|key|session|credential", re.IGNORECASE)
_INDENT = " " * 8
_REPEATED = {"app": "--app", "app_dir": "--app-dir", "routes": "--route", "websockets": "--websocket"}
_REPEATED |= {"method": "--method", "headers": "--header", "body": "--body"}


def subject_of(given: dict[str, Any]) -> Subject:
    """What the options ask for. Raises click.UsageError for what cannot be asked."""
    directory = Path(given["app_dir"])
    if not directory.is_dir():
        raise click.UsageError(f"--app-dir {directory}: there is no such directory")
    if ":" not in given["app"]:
        raise click.UsageError(f"--app {given['app']}: expected module:attribute")
    headers = _headers(given["headers"])
    for line in headers:
        name, colon, value = line.partition(":")
        if not colon or not name.isascii() or not name.strip() or " " in name or not value.isprintable():
            raise click.UsageError(f"--header {line!r}: expected 'Name: value'")
        if not value.isascii():
            raise click.UsageError(f"--header {name}: a value of ASCII characters was expected")
    try:
        routes = routes_of(given["routes"], given["websockets"], given["method"], _body(given["body"]))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return Subject(given["app"], routes, directory, given["grace"], given["scale"], headers)


def _body(text: str | None) -> bytes | None:
    if text is None or not text.startswith("@"):
        return None if text is None else text.encode()
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise click.UsageError(f"--body {text}: {error.strerror}") from None


def _headers(given: Sequence[str]) -> tuple[str, ...]:
    """The lines, those of files put in."""
    lines: list[str] = []
    for one in given:
        if not one.startswith("@"):
            lines.append(one)
            continue
        try:
            lines += filter(None, map(str.strip, Path(one[1:]).read_text("utf-8").splitlines()))
        except (OSError, UnicodeDecodeError) as error:
            raise click.UsageError(f"--header {one}: {getattr(error, 'strerror', None) or error}") from None
    return tuple(lines)


def _secret(line: str) -> str:
    """The name of a header line that says that its value is a secret, else nothing."""
    name, colon, _ = line.partition(":")
    return name if colon and not line.startswith("@") and _SECRET.search(name) else ""


def again(given: dict[str, Any], subject: Subject, program: str) -> Again:
    """How the same is asked again, with the options as they were given; secrets are to come out of a file."""
    words: list[str] = []
    secrets = tuple(dict.fromkeys(filter(None, map(_secret, given["headers"]))))
    for name, option in _REPEATED.items():
        value = given[name]
        if name == "headers" and secrets:
            words += [option, f"@{SECRETS_FILE}"]
        for one in value if isinstance(value, tuple) else (value,):
            if one is None or (name, one) == ("app_dir", ".") or (name == "headers" and _secret(one)):
                continue
            words += [option, one]
    return Again(program, subject, tuple(words), secrets)


def judge_all(targets: list[Target], given: dict[str, Any], program: str, say: Callable[[str], None]) -> Run:
    """Judge the application under each server, one after the other. ``program`` is how the command was called."""
    subject = subject_of(given)
    rows = rows_of(subject.routes)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    results: list[Result] = []
    opened = " and ".join(one.label for one in subject.routes)
    for target in targets:
        say(f"{target.label}: {subject.name} with {opened} open, SIGTERM, grace {subject.grace} s")
        try:
            results += judge_app(target, subject, again(given, subject, program))
        except DrillError as error:
            first, *others = rows
            results.append(Result(first.id, target.label, Verdict.ERROR, str(error)))
            results += [Result(one.id, target.label, Verdict.UNREACHED, "there was no stop") for one in others]
    return Run(date, machine(), given["scale"], tuple(one.info for one in targets), rows, tuple(results))


def sentences(run: Run, width: int) -> str:
    """What was found, for people, in ``width`` characters: a line or more for each row and server."""
    lines = []
    for server in run.servers:
        lines.append(server.command if len(run.servers) == 1 else server.label)
        unreached: dict[str, list[str]] = {}  # why: which
        for row in run.scenarios:
            found = run.result(server.label, row.id)
            if found is not None and found.verdict is Verdict.UNREACHED:
                unreached.setdefault(clean(found.sentence), []).append(row.title)
            elif found is not None:
                lines += _lines(row.title, found, width)
        for why, titles in unreached.items():
            lines += _wrapped(
                f"  {MARKS[Verdict.UNREACHED]:4}  Not reached, since {why}: {'; '.join(titles)}", _INDENT, width
            )
    return "\n".join(lines)


def _lines(title: str, result: Result, width: int) -> list[str]:
    """The verdict, and below it, further in, what follows from it: remedies, or the words of the server as they are."""
    first, *more = clean(result.sentence).split("\n")
    lines = _wrapped(f"  {MARKS[result.verdict]:4}  {title}: {first}", _INDENT, width)
    for line in more:
        prose = result.verdict is not Verdict.ERROR
        hanging = _INDENT + ("  " if line.startswith("- ") else "")
        command = line.startswith("$ ")  # to be copied: never broken into lines
        lines += _wrapped(_INDENT + line, hanging, width) if prose and not command else [_INDENT + line]
    return [*lines, ""] if more else lines


def _wrapped(line: str, indent: str, width: int) -> list[str]:
    return textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
