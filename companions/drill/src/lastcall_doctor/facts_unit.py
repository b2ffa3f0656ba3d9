"""Reads systemd units: the file, the drop-ins beside it, and the environment files that it names."""

from __future__ import annotations

import contextlib
import math
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from lastcall_doctor.facts import Deployment, Launch, Service, UnreadableError
from lastcall_doctor.launch import launch_of, simple_commands
from lastcall_doctor.spans import systemd_span
from lastcall_drill.record import Record

DEFAULT_STOP: Final = 90.0
"""DefaultTimeoutStopSec of systemd."""
KILLERS: Final = frozenset({"kill", "pkill", "killall", "skill"})
"""Commands that send a signal, SIGTERM unless they are told another."""
DEFAULT_NOFILE: Final = 1024.0
"""The soft half of DefaultLimitNOFILE."""
NUMBERS: Final = {"1": "SIGHUP", "2": "SIGINT", "3": "SIGQUIT", "9": "SIGKILL", "10": "SIGUSR1", "12": "SIGUSR2"}

_LISTS: Final = frozenset({"ExecStart", "ExecStop", "Environment", "EnvironmentFile"})
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_COMMENTS: Final = ("#", ";")
T = TypeVar("T")


class Setting(Record):
    """One ``Name=value`` of a section, and where it stands."""

    value: str
    file: str
    line: int

    def read(self, name: str, reader: Callable[[str], T]) -> T:
        """The value, read by ``reader``, whose ValueError says what was expected. Raises :class:`UnreadableError`."""
        try:
            return reader(self.value)
        except ValueError as error:
            what = f"{name}={self.value} is not usable: expected {error}"
            raise UnreadableError(self.file, self.line, what) from None


Section = dict[str, list[Setting]]


def read_unit(path: Path) -> Deployment:
    """The unit file at ``path``, with the ``*.conf`` files of ``path.d`` merged in, in the order of their names.

    What ``systemctl cat`` prints can be read as well. Raises :class:`UnreadableError`.
    """
    section: Section = {}
    for file in (path, *sorted(Path(f"{path}.d").glob("*.conf"))):
        parse(read_text(file), str(file), section)
    return deployment_of(section, str(path))


def read_text(path: Path) -> str:
    """A text file. Raises :class:`UnreadableError` if there is none, or it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableError(str(path), None, f"this is not UTF-8 text (byte {error.start})") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnreadableError(str(path), None, f"cannot be read: {reason}") from None


def parse(text: str, file: str, section: Section | None = None) -> Section:
    """The settings of ``[Service]``, added to ``section``: later ones win, an empty one empties a list.

    Raises :class:`UnreadableError` for a line that is none of a unit file's.
    """
    found: Section = {} if section is None else section
    current: str | None = None
    for number, line in _logical_lines(text):
        if line.startswith("["):
            if not line.endswith("]") or len(line) < 3:
                raise UnreadableError(file, number, f"expected a section as in [Service], not {line[:60]!r}")
            current = line[1:-1]
            continue
        name, equals, value = line.partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not _NAME.fullmatch(name):
            raise UnreadableError(file, number, f"expected Name=value, a section or a comment, not {line[:60]!r}")
        if current is None:
            raise UnreadableError(file, number, f"{name}= stands before the first section")
        if current == "Service":
            setting = Setting(value, file, number)
            if name not in _LISTS:
                found[name] = [setting]
            elif value:
                found.setdefault(name, []).append(setting)
            else:
                found[name] = []
    return found


def _logical_lines(text: str) -> list[tuple[int, str]]:
    """The lines that say something, with their numbers; those that end in a backslash joined with the next."""
    lines: list[tuple[int, str]] = []
    begun: tuple[int, str] | None = None
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if line.startswith(_COMMENTS) or (not line and begun is None):
            continue
        start, before = begun or (number, "")
        if line.endswith("\\"):
            begun = start, f"{before}{line[:-1]} "
        else:
            begun = None
            lines.append((start, (before + line).strip()))
    if begun is not None:
        lines.append((begun[0], begun[1].strip()))
    return [(number, line) for number, line in lines if line]


def deployment_of(section: Section, where: str) -> Deployment:
    """What the settings of ``[Service]`` amount to. Raises :class:`UnreadableError` for values that mean nothing."""
    stop = _last(section, "TimeoutStopSec") or _last(section, "TimeoutSec")
    name = "TimeoutStopSec" if _last(section, "TimeoutStopSec") or not stop else "TimeoutSec"
    timer = DEFAULT_STOP
    if stop is not None:
        timer = stop.read(name, systemd_span) or math.inf  # 0 is "no timeout" here
    killed_by = _stop_command(section)
    watchdog = _last(section, "WatchdogSec")
    nofile = _last(section, "LimitNOFILE")
    return Deployment(
        kind="systemd",
        where=where,
        launch=_launch(section),
        timer=timer,
        timer_name=name,
        timer_given=stop is not None,
        signal=killed_by or signal_of(_text(section, "KillSignal", "SIGTERM")),
        signal_name="ExecStop" if killed_by else "KillSignal",
        public=False,
        service=Service(
            kill_mode=_text(section, "KillMode", "control-group"),
            restart=_text(section, "Restart", "no"),
            type=_text(section, "Type", "simple"),
            watchdog=watchdog.read("WatchdogSec", systemd_span) if watchdog else 0.0,
            nofile=nofile.read("LimitNOFILE", _soft_limit) if nofile else DEFAULT_NOFILE,
        ),
    )


def _launch(section: Section) -> Launch | None:
    env = environment(section)
    for setting in section.get("ExecStart", []):
        found = launch_of(setting.read("ExecStart", command_words), env)
        if found is not None:
            return found
    return None


def _stop_command(section: Section) -> str:
    """The signal, other than SIGTERM, that a command of ``ExecStop=`` sends; empty if none does."""
    for setting in section.get("ExecStop", []):
        signal = signal_sent(setting.read("ExecStop", command_words))
        if signal not in ("", "SIGTERM"):
            return signal
    return ""


def signal_sent(words: Sequence[str]) -> str:
    """The signal that a command sends to a process by ``kill``, ``pkill`` or ``killall``; empty if it sends none."""
    for command in simple_commands(words):
        for number, word in enumerate(command):
            if word.rpartition("/")[2] in KILLERS:
                return _signal_of_options(command[number + 1 :])
    return ""


def _signal_of_options(options: Sequence[str]) -> str:
    for number, word in enumerate(options):
        if word in ("-s", "-n", "--signal"):
            return signal_of("".join(options[number + 1 : number + 2]))
        match = re.fullmatch(r"--signal=(\w+)|-s(\w+)|-((?:SIG)?[A-Z]+[0-9]?|[0-9]+)", word)
        if match is not None:
            return signal_of(match[1] or match[2] or match[3])
    return "SIGTERM"


def command_words(text: str) -> list[str]:
    """The words of an ``Exec…=`` line, without the characters that may stand before the program.

    ValueError's text is what was expected.
    """
    try:
        words = shlex.split(text.lstrip("@-:+!|"), comments=False, posix=True)
    except ValueError as error:
        raise ValueError(f"matching quotes ({error})") from None
    return [word for word in words if word != ";"]


def environment(section: Section) -> dict[str, str]:
    """The variables of ``EnvironmentFile=``, where those files can be read here, and ``Environment=``."""
    env: dict[str, str] = {}
    # systemd reads files after Environment=, so that they win.
    for setting in section.get("Environment", []):
        for word in setting.read("Environment", command_words):
            name, _, value = word.partition("=")
            env[name] = value
    for setting in section.get("EnvironmentFile", []):
        with contextlib.suppress(UnreadableError):  # it may be there only where the server will run
            for line in read_text(Path(setting.value.lstrip("-"))).splitlines():
                name, equals, value = line.strip().partition("=")
                if equals and not name.startswith(_COMMENTS):
                    with contextlib.suppress(ValueError):
                        env[name.strip()] = " ".join(shlex.split(value))
    return env


def _last(section: Section, name: str) -> Setting | None:
    settings: Sequence[Setting] = section.get(name, [])
    return settings[-1] if settings and settings[-1].value else None


def _text(section: Section, name: str, default: str) -> str:
    setting = _last(section, name)
    return setting.value if setting else default


def signal_of(text: str) -> str:
    """``TERM``, ``SIGTERM`` and ``15`` are the same."""
    word = text.upper()
    if word.isdigit():
        return NUMBERS.get(word, "SIGTERM" if word == "15" else f"signal {word}")
    return word if word.startswith("SIG") else f"SIG{word}"


def _soft_limit(text: str) -> float:
    soft = text.partition(":")[0].strip()
    if soft == "infinity":
        return math.inf
    match = re.fullmatch(r"([0-9]{1,18})([KMGT]?)", soft)
    if match is None:
        raise ValueError("a number, SOFT:HARD or infinity")
    return float(int(match[1]) * 1024 ** " KMGT".index(match[2] or " "))
