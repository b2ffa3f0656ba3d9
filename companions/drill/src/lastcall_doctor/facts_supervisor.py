"""Reads the configuration of supervisord."""

from __future__ import annotations

import configparser
import re
import shlex
from typing import Final

from lastcall_doctor.facts import Deployment, UnreadableError
from lastcall_doctor.facts_unit import signal_of
from lastcall_doctor.launch import launch_of

DEFAULT_WAIT: Final = 10.0
"""stopwaitsecs of supervisord."""

_PAIR: Final = re.compile(r"""\s*([A-Za-z_]\w*)\s*=\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^,]*?)\s*(?:,|$)""")
_EXPANSION: Final = re.compile(r"%\(ENV_(\w+)\)[sd]")


def supervisor(text: str, file: str) -> tuple[Deployment, ...]:
    """The programs that start a server. Raises :class:`UnreadableError`."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";",), strict=False, delimiters=("=",))
    try:
        parser.read_string(text)
    except configparser.Error as error:
        what = str(error).partition("\n")[0]
        raise UnreadableError(file, getattr(error, "lineno", None), f"this is no configuration: {what}") from None
    found = []
    for section in parser.sections():
        kind, _, name = section.partition(":")
        if kind not in ("program", "fcgi-program"):
            continue
        deployment = _program(parser[section], name, file)
        if deployment.launch is not None:
            found.append(deployment)
    return tuple(found)


def _program(section: configparser.SectionProxy, name: str, file: str) -> Deployment:
    wait = section.get("stopwaitsecs")
    if wait is not None and not re.fullmatch(r"[0-9]{1,9}", wait.strip()):
        raise UnreadableError(file, None, f"stopwaitsecs={wait} of {name} is not usable: expected a number of seconds")
    try:
        words = shlex.split(_EXPANSION.sub(r"${\1}", section.get("command", "")))
    except ValueError as error:
        raise UnreadableError(file, None, f"command of {name}: expected matching quotes ({error})") from None
    env = {match[1]: match[2].strip("\"'") for match in _PAIR.finditer(section.get("environment", ""))}
    return Deployment(
        kind="supervisor",
        where=f"{file}: program {name}",
        launch=launch_of(words, env),
        timer=DEFAULT_WAIT if wait is None else float(wait),
        timer_name="stopwaitsecs",
        timer_given=wait is not None,
        signal=signal_of(section.get("stopsignal", "TERM").strip()),
        signal_name="stopsignal",
        public=False,
    )
