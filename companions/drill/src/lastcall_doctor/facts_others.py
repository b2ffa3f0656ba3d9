"""From the command of another server to the few numbers that the doctor judges. What it knows is ``others.toml``."""

from __future__ import annotations

import math
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

from lastcall_doctor.facts import LOOPBACK, Launch, Server
from lastcall_doctor.spans import go_duration

NO_NUMBERS: Final = "What {} is told here is not known to the doctor, so that only the deployment is judged."


def server_of_another(launch: Launch, where: str) -> Server | None:
    """The server that ``launch`` starts; None if its options are not known, or stand in a file that is not read."""
    known = known_others().get(launch.server)
    if known is None:
        return None
    words = (*_words_of(launch.env.get(known.get("arguments", ""), "")), *launch.words)
    if _given(words, known["config"]) is not None:
        return None

    def given(name: str) -> str | None:
        return _given(words, known[name]) or _of_variables(launch.env, known["variables"], known[name])

    grace = _seconds(given("grace"), known["grace_default"])
    bind = given("bind") or known["bind_default"]
    port = given("port") or bind.rpartition(":")[2]
    return Server(
        where=where,
        name=launch.server,
        worst_case=grace + known["after"],
        unlimited=(known["grace"][0],) if grace == math.inf else (),
        graceful=grace,
        grace_flag=known["grace"][0],
        keep_alive=_seconds(given("keep_alive"), known["keep_alive_default"]),
        keep_alive_flag=(*known["keep_alive"], "")[0],
        loopback=bind.lower().startswith(LOOPBACK),
        port=int(port) if port.isdigit() else 8000,
        unresolved=launch.unresolved,
    )


def _words_of(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return []


def _of_variables(env: Mapping[str, str], prefix: str, flags: Sequence[str]) -> str | None:
    """The value that a variable gives an option, where the server has a variable for each."""
    for flag in flags:
        name = f"{prefix}{flag.removeprefix('--').replace('-', '_').upper()}"
        if prefix and flag.startswith("--") and name in env:
            return env[name]
    return None


def _given(words: Sequence[str], flags: Sequence[str]) -> str | None:
    """The value of the last of ``flags`` in a command; None if there is none."""
    found = None
    for number, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in flags:
            found = value if equals else "".join(words[number + 1 : number + 2])
    return found


def _seconds(text: str | None, default: float) -> float:
    """The seconds of an option, also ``30s``; the default where it was not given, or cannot be read."""
    if text is None:
        return default
    for read in (float, go_duration):
        try:
            return read(text)
        except ValueError:
            continue
    return default


@cache
def known_others() -> dict[str, dict[str, Any]]:
    """The servers of ``others.toml``, by their names."""
    return tomllib.loads(files("lastcall_doctor").joinpath("others.toml").read_text("utf-8"))
