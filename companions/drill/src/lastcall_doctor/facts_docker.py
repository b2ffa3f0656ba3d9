"""Reads a Dockerfile: how the image starts its server, and by which signal it is stopped."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lastcall_doctor.facts import Deployment, UnreadableError
from lastcall_doctor.facts_unit import read_text, signal_of
from lastcall_doctor.launch import launch_of

_DIRECTIVE: Final = re.compile(r"#\s*(\w+)\s*=\s*(\S+)\s*$")
_INSTRUCTION: Final = re.compile(r"([A-Za-z]+)\s+(.*)", re.DOTALL)
_HEREDOC: Final = re.compile(r"<<-?\s*([\"']?)(\w+)\1")
_LEGACY_ENV: Final = re.compile(r"(\w+)\s+(.+)", re.DOTALL)


def read_dockerfile(path: Path) -> tuple[Deployment, ...]:
    """The image of the last stage, if its command starts a server that is known. Raises :class:`UnreadableError`.

    Who runs the image decides on the kill timer, so there is none here.
    """
    return deployments_of(read_text(path), str(path))


def deployments_of(text: str, file: str) -> tuple[Deployment, ...]:
    """The same for a text."""
    entrypoint: list[str] = []
    command: list[str] = []
    env: dict[str, str] = {}
    signal = "SIGTERM"
    shell = ["/bin/sh", "-c"]
    staged = False
    for number, name, rest in instructions(text, file):
        if name == "FROM":
            entrypoint, command, env, signal, staged = [], [], {}, "SIGTERM", True
            shell = ["/bin/sh", "-c"]
        elif name == "ENTRYPOINT":
            entrypoint, command = _command(rest, shell, file, number), []
        elif name == "CMD":
            command = _command(rest, shell, file, number)
        elif name == "SHELL":
            shell = _exec_form(rest) or shell
        elif name == "STOPSIGNAL":
            signal = signal_of(rest.strip())
        elif name == "ENV":
            env |= _environment(rest)
    if not staged:
        raise UnreadableError(file, None, "this is no Dockerfile: it has no FROM")
    # A shell form of ENTRYPOINT takes no arguments: what CMD says is lost.
    words = entrypoint if entrypoint[:2] == shell[:2] and len(shell) > 1 else [*entrypoint, *command]
    launch = launch_of(words, env)
    if launch is None:
        return ()
    image = Deployment(
        kind="docker",
        where=file,
        launch=launch,
        timer=math.inf,
        timer_name="docker stop --timeout",
        timer_given=False,
        signal=signal,
        signal_name="STOPSIGNAL",
    )
    return (image,)


def instructions(text: str, file: str) -> Iterator[tuple[int, str, str]]:
    """The instructions with the numbers of their lines: continued ones joined, comments and here-documents left out."""
    escape = "\\"
    lines = text.split("\n")
    at = 0
    for line in lines:  # parser directives come before everything else
        match = _DIRECTIVE.match(line.strip())
        if match is None:
            break
        if match[1].lower() == "escape":
            escape = match[2]
    while at < len(lines):
        number, line = at + 1, lines[at].strip()
        at += 1
        if not line or line.startswith("#"):
            continue
        while line.endswith(escape) and at < len(lines):
            following = lines[at].strip()
            at += 1
            if not following.startswith("#"):
                line = f"{line[: -len(escape)]} {following}"
        match = _INSTRUCTION.fullmatch(line)
        if match is None:
            raise UnreadableError(file, number, f"expected an instruction of a Dockerfile, not {line[:60]!r}")
        name = match[1].upper()
        if name in ("RUN", "COPY", "ADD"):
            for _, end in _HEREDOC.findall(line):
                while at < len(lines) and lines[at].strip() != end:
                    at += 1
                at += 1
        yield number, name, match[2]


def _command(rest: str, shell: list[str], file: str, number: int) -> list[str]:
    found = _exec_form(rest)
    if found is not None:
        return found
    if rest.lstrip().startswith("["):
        # Docker takes what is no JSON for the shell form, which is never what was meant.
        raise UnreadableError(file, number, f"expected a list of texts in double quotes, not {rest.strip()[:60]!r}")
    return [*shell, rest.strip()]


def _exec_form(rest: str) -> list[str] | None:
    try:
        found = json.loads(rest)
    except ValueError:
        return None
    return found if isinstance(found, list) and all(isinstance(one, str) for one in found) else None


def _environment(rest: str) -> dict[str, str]:
    try:
        words = shlex.split(rest)
    except ValueError:
        return {}
    if words and "=" not in words[0]:
        match = _LEGACY_ENV.fullmatch(rest.strip())
        return {match[1]: match[2]} if match else {}
    return {name: value for name, _, value in (word.partition("=") for word in words)}
