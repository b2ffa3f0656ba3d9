"""Reads ECS task definitions and fly.toml."""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Mapping
from typing import Any, Final

from lastcall_doctor.facts import Deployment, UnreadableError
from lastcall_doctor.facts_unit import signal_of
from lastcall_doctor.images import is_infrastructure
from lastcall_doctor.launch import launch_of
from lastcall_doctor.spans import go_duration

DEFAULT_ECS_STOP: Final = 30.0
"""stopTimeout of ECS, unless the agent's ECS_CONTAINER_STOP_TIMEOUT says otherwise."""
MOST_FARGATE: Final = 120
DEFAULT_FLY_KILL: Final = 5.0
"""kill_timeout of Fly Machines."""
DEFAULT_FLY_SIGNAL: Final = "SIGINT"
"""kill_signal of Fly Machines."""


def ecs(text: str, file: str) -> tuple[Deployment, ...]:
    """The containers of an ECS task definition that run a server: those whose command does, else those of images.

    Also as ``aws ecs describe-task-definition`` prints it. Raises :class:`UnreadableError`.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise UnreadableError(file, getattr(error, "lineno", None), f"this is not JSON: {error}") from None
    if isinstance(data, dict) and isinstance(data.get("taskDefinition"), dict):
        data = data["taskDefinition"]
    containers = data.get("containerDefinitions") if isinstance(data, dict) else None
    if not isinstance(containers, list) or not all(isinstance(one, dict) for one in containers):
        raise UnreadableError(file, None, "containerDefinitions has to be a list of containers")
    named, silent = [], []
    for one in containers:
        words = _texts(one, "entryPoint", file) + _texts(one, "command", file)
        found = _ecs_container(one, words, file)
        if found.launch is not None:
            named.append(found)
        elif not words and not is_infrastructure(str(one.get("image", ""))):
            silent.append(found)
    return tuple(named or silent)


def _ecs_container(one: Mapping[str, Any], words: list[str], file: str) -> Deployment:
    env = {
        str(pair["name"]): str(pair["value"])
        for pair in one.get("environment") or ()
        if isinstance(pair, dict) and "name" in pair and "value" in pair
    }
    timer = one.get("stopTimeout")
    if timer is not None and (isinstance(timer, bool) or not isinstance(timer, int) or timer < 0):
        raise UnreadableError(file, None, f"stopTimeout has to be a whole number of seconds, not {timer!r}")
    return Deployment(
        kind="ecs",
        where=f"{file}: container {one.get('name', '?')}",
        launch=launch_of(words, env),
        timer=DEFAULT_ECS_STOP if timer is None else float(timer),
        timer_name="stopTimeout",
        timer_given=timer is not None,
        signal_name="STOPSIGNAL",
    )


def _texts(one: Mapping[str, Any], key: str, file: str) -> list[str]:
    value = one.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise UnreadableError(file, None, f"{key} has to be a list of texts")
    return value


def fly(text: str, file: str) -> tuple[Deployment, ...]:
    """The processes of a ``fly.toml`` that start a server, or what the image starts if none is named.

    Raises :class:`UnreadableError`.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UnreadableError(file, None, f"this is not TOML: {error}") from None
    env = {str(name): str(value) for name, value in _section(data, "env").items()}
    commands: dict[str, list[str]] = {}
    for name, value in _section(data, "processes").items():
        commands[f"process {name}"] = _fly_words(value, file)
    experimental = _section(data, "experimental")
    for key in ("exec", "cmd", "entrypoint"):
        if not commands and key in experimental:
            commands[f"experimental.{key}"] = _fly_words(experimental[key], file)
    timer, given = _fly_timer(data, file)
    signal = data.get("kill_signal")
    found = []
    for name, words in (commands or {"the image": []}).items():
        deployment = Deployment(
            kind="fly",
            where=f"{file}: {name}",
            launch=launch_of(words, env),
            timer=timer,
            timer_name="kill_timeout",
            timer_given=given,
            signal=signal_of(str(signal)) if signal else DEFAULT_FLY_SIGNAL,
            signal_name="kill_signal",
        )
        if deployment.launch is not None or not words:
            found.append(deployment)
    return tuple(found)


def _fly_timer(data: Mapping[str, Any], file: str) -> tuple[float, bool]:
    value = data.get("kill_timeout")
    if value is None:
        return DEFAULT_FLY_KILL, False
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value), True
    try:
        return go_duration(str(value)), True
    except ValueError as error:
        raise UnreadableError(file, None, f"kill_timeout: {value!r} is not usable: expected {error}") from None


def _fly_words(value: object, file: str) -> list[str]:
    if isinstance(value, list):
        return [str(one) for one in value]
    try:
        return shlex.split(str(value))
    except ValueError as error:
        raise UnreadableError(file, None, f"{value!r} is no command: {error}") from None


def _section(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = data.get(key)
    return found if isinstance(found, dict) else {}
