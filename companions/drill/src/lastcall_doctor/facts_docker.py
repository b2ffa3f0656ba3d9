"""Reads a Dockerfile: how the image starts its server, and by which signal it is stopped."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from lastcall_doctor.facts import Deployment, UnreadableError
from lastcall_doctor.facts_unit import read_text, signal_of
from lastcall_doctor.launch import launch_of

_DIRECTIVE: Final = re.compile(r"#\s*(\w+)\s*=\s*(\S+)\s*$")
_INSTRUCTION: Final = re.compile(r"([A-Za-z]+)\s+(.*)", re.DOTALL)
_HEREDOC: Final = re.compile(r"<<-?\s*([\"']?)(\w+)\1")
_LEGACY_ENV: Final = re.compile(r"(\w+)\s+(.+)", re.DOTALL)


@dataclass
class _Stage:
    """What a stage says so far. ``own_command``: its CMD is its own and not its base's."""

    entrypoint: list[str] = field(default_factory=list)
    in_shell: bool = False
    command: list[str] = field(default_factory=list)
    own_command: bool = False
    shell: list[str] = field(default_factory=lambda: ["/bin/sh", "-c"])
    signal: str = "SIGTERM"
    env: dict[str, str] = field(default_factory=dict)


def read_dockerfile(path: Path) -> tuple[Deployment, ...]:
    """The image of the last stage, with what it has from earlier ones, if its command starts a server that is known.

    Raises :class:`UnreadableError`. Who runs the image decides on the kill timer, so there is none here.
    """
    return deployments_of(read_text(path), str(path))


def deployments_of(text: str, file: str) -> tuple[Deployment, ...]:
    """The same for a text."""
    stages: dict[str, _Stage] = {}
    stage: _Stage | None = None
    for number, name, rest in instructions(text, file):
        if name == "FROM":
            stage = _from(rest, stages)
        elif stage is not None:  # only ARG may stand before the first FROM
            _apply(stage, name, rest, file, number)
    if stage is None:
        raise UnreadableError(file, None, "this is no Dockerfile: it has no FROM")
    # A shell form of ENTRYPOINT takes no arguments: what CMD says is lost.
    words = stage.entrypoint if stage.in_shell else [*stage.entrypoint, *stage.command]
    launch = launch_of(words, stage.env)
    if launch is None:
        return ()
    image = Deployment(
        kind="docker",
        where=file,
        launch=launch,
        timer=math.inf,
        timer_name="docker stop --timeout",
        timer_given=False,
        signal=stage.signal,
        signal_name="STOPSIGNAL",
    )
    return (image,)


def _from(rest: str, stages: dict[str, _Stage]) -> _Stage:
    """A new stage, which goes into ``stages`` if it has a name. One of an earlier stage has all that this one says."""
    image, *alias = [word for word in rest.split() if not word.startswith("--")] or [""]
    base = stages.get(image.lower())
    stage = _Stage() if base is None else replace(base, env=dict(base.env), own_command=False)
    if len(alias) == 2 and alias[0].upper() == "AS":
        stages[alias[1].lower()] = stage
    return stage


def _apply(stage: _Stage, name: str, rest: str, file: str, number: int) -> None:
    if name == "ENTRYPOINT":
        stage.entrypoint = _command(rest, stage.shell, file, number)
        stage.in_shell = _exec_form(rest) is None
        if not stage.own_command:
            stage.command = []  # what the base says was for its own entry point
    elif name == "CMD":
        stage.command, stage.own_command = _command(rest, stage.shell, file, number), True
    elif name == "SHELL":
        stage.shell = _exec_form(rest) or stage.shell
    elif name == "STOPSIGNAL":
        stage.signal = signal_of(rest.strip())
    elif name == "ENV":
        stage.env |= _environment(rest)


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
