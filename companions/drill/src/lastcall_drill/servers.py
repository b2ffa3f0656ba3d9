"""The servers to be judged: what the user names, how each is started, and which verdicts are known of it.

How to start a program is data: ``servers.toml``. The verdicts that were recorded of released peers are
``expected.toml``.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from lastcall_drill.errors import DrillError
from lastcall_drill.record import Record, replace
from lastcall_drill.verdicts import ServerInfo, Verdict

OURS: Final = "lastcall"

_NAMED: Final = re.compile(r"(?P<name>[^\s{}\[\]=]+)(?:\[(?P<extras>[\w., -]+)\])?(?:==(?P<release>[^\s{}]+))?")

OPTIONS: Final = ("grace", "lifespan_timeout", "workers", "keep_alive", "max_requests", "reload")
"""What a program may have an option for: the keys of ``servers.toml``."""


class Program(Record):
    """A server that is known. ``options`` are the words that its command takes for each thing, by its name."""

    name: str
    command: str
    tcp: str = ""
    unix: str = ""
    options: Mapping[str, str] = {}
    features: frozenset[str] = frozenset()
    requires: Sequence[str] = ()
    python: str = ""  # the Python of its time, if that is not any

    def with_extras(self, extras: str) -> Program:
        """The program with what the extras of its distribution bring, such as ``standard``."""
        features = set(self.features)
        for extra in filter(None, extras.split(",")):
            features |= set(_tables()[self.name].get("extras", {}).get(extra, ()))
        return replace(self, features=frozenset(features))

    def of_release(self, version: str) -> Program:
        """The program as it was at that release."""
        without: set[str] = set()
        requires, python = self.requires, self.python
        for older in _tables()[self.name].get("before", ()):
            if _order(version) < _order(older["release"]):
                without |= set(older.get("without", ()))
                requires = older.get("requires", requires)
                python = older.get("python", python)
        options = {name: words for name, words in self.options.items() if name not in without}
        return Program(self.name, self.command, self.tcp, self.unix, options, self.features - without, requires, python)


class Asked(Record):
    """A server as the user has asked for it, which is its label. ``version`` is empty for the newest, or ours.

    ``extras`` are those of its distribution, without brackets.
    ``command`` is a command of the user's own, with ``{app}``, ``{port}`` and perhaps ``{grace}`` in it.
    """

    label: str
    name: str
    version: str = ""
    command: str = ""
    extras: str = ""

    @property
    def distribution(self) -> str:
        """What is installed: the name, with the extras if there are any."""
        return f"{self.name}[{self.extras}]" if self.extras else self.name


class Target(Record):
    """A server that can be started. ``features`` are words that scenarios ask for."""

    asked: Asked
    program: Program
    version: str
    python: Path
    python_version: str = ""

    @property
    def label(self) -> str:
        """Its name in the report."""
        return self.asked.label

    @property
    def features(self) -> frozenset[str]:
        """What it has, options included."""
        found = self.program.features | self.program.options.keys()
        return found | {"unix"} if self.program.unix else found

    @property
    def no_grace(self) -> str:
        """A remark, to follow a sentence, where the server cannot be told how long its grace is. Empty if it can."""
        if "grace" in self.features:
            return ""
        why = "the command has no {grace}" if self.asked.command else "it has no option for one"
        return f" (it could not be told a grace: {why})"

    @property
    def info(self) -> ServerInfo:
        """What the report says of it: where its interpreter lies is nobody's business."""
        shown_as = replace(self, python=Path("python"))
        words = shown_as.command(app="{app}", port="{port}", given={"grace": "{grace}"})
        shown = shlex.join(words).replace("'", "")
        return ServerInfo(self.label, self.asked.distribution, self.version, shown, self.python_version)

    def command(
        self, *, app: str, port: int | str, path: Path | None = None, given: Mapping[str, object] | None = None
    ) -> list[str]:
        """The command that serves ``app`` on a port, or on the unix socket ``path``.

        ``given`` are values of options by name; those that it has no option for are left out.
        """
        program = self.program
        # Beside the interpreter of an environment are its commands.
        values = {"python": self.python, "script": self.python.with_name(program.name), "app": app}
        values |= {"port": port, "path": path, **(given or {})}
        parts = [program.command, program.unix if path is not None else program.tcp]
        parts += [words for name, words in program.options.items() if name in (given or {})]
        return [_filled(word, values) for part in parts for word in shlex.split(part)]


@cache
def programs() -> dict[str, Program]:
    """The known servers by name, as their newest releases are."""
    found = {}
    for name, table in _tables().items():
        options: dict[str, str] = {key: table[key] for key in OPTIONS if key in table}
        features, requires = frozenset(table["features"]), tuple(table.get("requires", ()))
        found[name] = Program(name, table["command"], table["tcp"], table["unix"], options, features, requires)
    return found


def parse_server(text: str) -> Asked:
    """What ``--server`` says: ``NAME`` or ``NAME[EXTRAS]``, perhaps with ``==VERSION``, or a command.

    Raises DrillError for anything else.
    """
    text = text.strip()
    match = _NAMED.fullmatch(text)
    if match is None and (" " in text or "{" in text):
        return _own_command(text)
    name, extras, release = (match["name"], match["extras"] or "", match["release"] or "") if match else (text, "", "")
    if name not in programs():
        known = ", ".join(sorted(programs()))
        raise DrillError(
            f"--server {text}: the drill knows how to start {known}. For another server give its command, such as "
            f'"{name} {{app}} --port {{port}}".'
        )
    extras = ",".join(sorted(one.strip() for one in extras.split(",")))
    return Asked(text, name, release, extras=extras)


def _own_command(text: str) -> Asked:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise DrillError(f"--server {text}: the command cannot be split into words: {error}.") from None
    missing = [f"{{{name}}}" for name in ("app", "port") if f"{{{name}}}" not in text]
    if missing:
        raise DrillError(f"--server {text}: the command needs {' and '.join(missing)}, which the drill replaces.")
    return Asked(text, _server_of(words), command=text)


def _server_of(words: Sequence[str]) -> str:
    """The name of the server that a command starts: its first word, or the module that an interpreter is given."""
    name = Path(words[0]).name
    if name.startswith(("python", "pypy")) and "-m" in words[1:-1]:
        return words[words.index("-m", 1) + 1]
    return name


def prepare(asked: Asked, say: Callable[[str], None] | None = None) -> Target:
    """Make what is asked for ready to be started, with an environment for a release. ``say`` is told what is done.

    Raises DrillError with a sentence if it cannot be had.
    """
    python = Path(sys.executable)
    ours = ".".join(map(str, sys.version_info[:3]))
    if asked.command:
        _must_be_there(asked)
        return Target(asked, _program_of(asked), "", python)
    if asked.name == OURS and not asked.version:
        return Target(asked, programs()[OURS], _version_of_ours(), python, ours)
    # Late: the module is needed for this alone.
    from lastcall_drill.environments import environment_for  # noqa: PLC0415

    newest = programs()[asked.name].with_extras(asked.extras)
    program = newest.of_release(asked.version) if asked.version else newest
    release = f"{asked.distribution}=={asked.version}" if asked.version else asked.distribution
    made = environment_for([release, *program.requires], python=program.python or None, say=say)
    versions = {name.lower(): version for name, version in made.versions.items()}
    return Target(asked, program, versions[asked.name], made.python, made.python_version)


def _version_of_ours() -> str:
    try:
        return version(OURS)
    except PackageNotFoundError:
        raise DrillError(
            f"--server {OURS}: it is not installed beside the drill: pip install {OURS} (from a checkout: pip install "
            "--editable .), or name another server, such as --server uvicorn"
        ) from None


def prepare_here(asked: Asked) -> Target:
    """The same for the user's own application, which runs beside the packages that it needs: in this environment.

    Raises DrillError with a sentence if the server is not installed in it, or another release than was asked for.
    """
    if asked.command:
        _must_be_there(asked, f"python -m pip install {asked.name} installs it beside your application")
    if asked.command or (asked.name == OURS and not asked.version):
        return prepare(asked)
    try:
        found = version(asked.name)
    except PackageNotFoundError:
        raise DrillError(
            f"--server {asked.label}: with --app the server runs beside your application, and {asked.name} is not "
            f"installed here: python -m pip install {asked.label}"
        ) from None
    if asked.version not in ("", found):
        raise DrillError(
            f"--server {asked.label}: with --app the server runs beside your application, where {asked.name} is {found}"
        )
    python = ".".join(map(str, sys.version_info[:3]))
    program = programs()[asked.name].with_extras(asked.extras)
    return Target(asked, program.of_release(found), found, Path(sys.executable), python)


def _must_be_there(asked: Asked, remedy: str = "") -> None:
    """Raise DrillError if there is no such command: at once, not in every scenario.

    A path that is not absolute is left alone: what it names depends on the directory that the server runs in.
    """
    word = shlex.split(asked.command)[0]
    if ("/" in word and not word.startswith("/")) or shutil.which(word):
        return
    if "/" in word:
        raise DrillError(f"--server {asked.label}: {word} is no file that can be run")
    if not remedy:
        remedy = f"--server {asked.name} judges it in an environment of its own"
    hint = f"; {remedy}" if asked.name in programs() else ""
    raise DrillError(f"--server {asked.label}: {word} is not on PATH{hint}")


def _program_of(asked: Asked) -> Program:
    """A program for a command of the user's. If we know its server, we know what else it takes."""
    known = programs().get(asked.name)
    given = {word.partition("=")[0] for word in shlex.split(asked.command)}
    options = {} if known is None else {n: w for n, w in known.options.items() if n != "grace"}
    options = {name: words for name, words in options.items() if words.split()[0] not in given}
    features = frozenset({"lifespan", "websocket"}) if known is None else known.features
    if "{grace}" in asked.command:
        features |= {"grace"}
    return Program(asked.name, asked.command, options=options, features=features)


@cache
def expectations() -> dict[tuple[str, str], dict[str, Verdict]]:
    """The recorded verdicts: ``NAME==VERSION`` and Python (``3.13``), then scenario."""
    text = files("lastcall_drill").joinpath("expected.toml").read_text("utf-8")
    return {
        (release, python): {scenario: Verdict(word) for scenario, word in verdicts.items()}
        for release, pythons in tomllib.loads(text).items()
        for python, verdicts in pythons.items()
    }


def expected(target: Target, scenario: str) -> Verdict | None:
    """The verdict that is recorded for this release on this Python, None if none is.

    Commands of the user's own have none.
    """
    if target.asked.command:
        return None
    python = ".".join(target.python_version.split(".")[:2])
    return expectations().get((f"{target.asked.distribution}=={target.version}", python), {}).get(scenario)


@cache
def _tables() -> dict[str, dict[str, Any]]:
    return tomllib.loads(files("lastcall_drill").joinpath("servers.toml").read_text("utf-8"))


def _order(version: str) -> tuple[int, ...]:
    """The numbers of a release, to be compared: ``0.21.1`` is (0, 21, 1)."""
    numbers = []
    for part in version.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def _filled(word: str, values: Mapping[str, object]) -> str:
    # Not format(): a command may have braces of its own.
    for name, value in values.items():
        word = word.replace(f"{{{name}}}", str(value))
    return word
