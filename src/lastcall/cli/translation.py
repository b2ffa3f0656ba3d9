"""What ``lastcall migrate`` makes of another server's command line: the words to write, what is left out, and why."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import click

from lastcall.base.errors import ConfigError
from lastcall.base.record import Record
from lastcall.config import Config
from lastcall.config.kinds import FilePath, OutputFile, Switch, UnusableValueError
from lastcall.config.options import OPTIONS, Option
from lastcall.config.resolve import Given

LATER: Final = "Later"
UNKNOWN_APP: Final = "module:attribute"  # stands for an application that a variable of the shell names
_STANDS_IN: Final = {"bind": "localhost:80", "host": "localhost", "port": "80", "uds": "/run/app.sock", "fd": "3"}
_VARIABLE: Final = re.compile(r"\$([A-Za-z_]\w*|\{[A-Za-z_][^{}]*\})")
_BARE: Final = re.compile(r"[\w@%+=:,./${}-]+", re.ASCII)


def has_variable(text: str) -> bool:
    """Whether a shell would put something else in, as for ``$PORT`` and ``${PORT:-8000}``: nobody knows it here."""
    return _VARIABLE.search(text) is not None


def quote(word: str) -> str:
    """A word for a shell, in which its variables stay variables."""
    if not has_variable(word):
        return shlex.quote(word)
    if _BARE.fullmatch(word):
        return word
    return '"' + re.sub(r'(["\\`]|\$(?![A-Za-z_{]))', r"\\\1", word) + '"'


class Flag(Record):
    """A flag of a command line: what it is called there for good, and whether a value follows."""

    name: str
    takes_value: bool = True


class Translation:
    """Collects what becomes of a command line of ``program``. ``app`` is the application, once it is known."""

    def __init__(self) -> None:
        self.app = ""
        self.program = "uvicorn"
        self.variables: list[str] = []
        self.words: list[str] = []
        self.left_out: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self.settled: set[str] = set()
        """Names of options that the command line decides: nothing is said about their defaults."""
        self._given: dict[str, Given] = {}

    def keep(self, name: str, value: str | bool = True, *, written: str = "") -> None:
        """Take an option over, by its name in the table; leave it out where this release has not got what it asks for.

        Raises UsageError, with ``written`` as its name, for a value that cannot be used.
        """
        option = OPTIONS[name]
        shown = written or _flag(option, value)
        if self._has(option, value, shown, shown if isinstance(value, bool) else f"{shown} {_masked(option, value)}"):
            self.words += [_flag(option, value)] if isinstance(value, bool) else [_flag(option, value), value]
            earlier = self._given.get(name)
            several = [*(earlier.raw if earlier and isinstance(earlier.raw, list) else []), value]
            self._given[name] = Given(several if option.kind.repeatable else value, shown)

    def keep_variable(self, name: str, variable: str, value: str) -> str | None:
        """Take over what ``variable`` says about an option: return ours, or None if that needs no variable.

        Raises UsageError for a value that cannot be used.
        """
        option = OPTIONS[name]
        if not value:
            return None  # counts as not set
        if option.kind.repeatable and option.group != LATER:  # of one variable several values, with spaces between
            if name not in self.settled:
                for each in value.split():
                    self.keep(name, each)
            return None
        if self._has(option, value, variable, f"{variable}={_masked(option, value)}"):
            return f"{option.env}={value}"
        return None

    def _has(self, option: Option, value: str | bool, name: str, text: str) -> bool:
        """Whether lastcall has what an option asks for; ``text`` is left out if not, unless nothing changes by that."""
        self.settled.add(option.name)
        if not isinstance(value, bool) and has_variable(value):
            if option.group != LATER:
                return True
        else:
            try:
                read = option.kind.read([value] if option.kind.repeatable else value)
            except UnusableValueError as error:
                if not (_is_of_here(option) and value):
                    given = _masked(option, value)
                    raise click.UsageError(f"{name}: {given!r} is not usable: expected {error.expected}") from None
                read = value
            if option.group != LATER or (option.only is not None and read in option.only.values):
                return option.group != LATER
        self.leave(text, _reason(option))
        return False

    def check(self) -> None:
        """Raise UsageError if lastcall would refuse the command. What the shell's variables say is taken as right."""
        environ = dict(each.split("=", 1) for each in self.variables if "=" in each)
        if has_variable(environ.get("WEB_CONCURRENCY", "")):
            del environ["WEB_CONCURRENCY"]
        given = dict(self._given)
        for option in OPTIONS.values():
            written = environ.get(option.env or "")
            if written is not None and (_is_of_here(option) or has_variable(written)):
                environ[option.env or ""] = _STANDS_IN.get(option.name, "")
            one = given.get(option.name)
            if one is not None and (_is_of_here(option) or _has_variables(one.raw)):
                del given[option.name]
                if option.name in _STANDS_IN:  # of addresses it matters which ones there are
                    text = _STANDS_IN[option.name]
                    given[option.name] = Given([text] if option.kind.repeatable else text, one.spelled)
        try:
            Config.from_command(UNKNOWN_APP if has_variable(self.app) else self.app, given, environ)
        except ConfigError as error:
            raise click.UsageError(f"lastcall would not take it: {error}") from None
        env_file = self._given.get("env_file")
        if env_file is not None and not os.path.isfile(str(env_file.raw)) and not has_variable(str(env_file.raw)):
            self.notes.append(
                f"{env_file.spelled} {env_file.raw}: there is no such file here. lastcall does not start without it."
            )

    def leave(self, written: str, why: str) -> None:
        """Leave something out, and say why."""
        self.left_out.append((written, why))

    def command(self, prefix: Sequence[str]) -> str:
        """The whole line, as a shell reads it. ``prefix``: the words that were before the server's name."""
        start = [*prefix, "lastcall"] if prefix[-1:] != ["-m"] else [*prefix[:-1], "-m", "lastcall"]
        variables = [f"{name}={quote(value)}" for name, _, value in (each.partition("=") for each in self.variables)]
        return " ".join([*variables, *map(quote, [*start, self.app, *self.words])])


def _has_variables(raw: object) -> bool:
    return any(isinstance(each, str) and has_variable(each) for each in (raw if isinstance(raw, list) else [raw]))


def _is_of_here(option: Option) -> bool:
    """Whether a value may be right elsewhere, or later: it is a file that has to be there, or to be writable."""
    return isinstance(option.kind, OutputFile) or (isinstance(option.kind, FilePath) and option.kind.existing)


def _masked(option: Option, value: str | bool) -> str | bool:
    return "…" if option.secret else value


def _reason(option: Option) -> str:
    """Why this release has not got an option, or a value of it."""
    if option.name == "forwarded_allow_ips":  # whose headers to read, where none are read
        option = OPTIONS["proxy_headers"]
    return option.only.reason if option.only is not None else "it means nothing here"


def _flag(option: Option, value: str | bool) -> str:
    return option.flags[1] if value is False and len(option.flags) > 1 else option.flags[0]


def read_words(words: Sequence[str], flags: Mapping[str, Flag], program: str) -> Iterator[tuple[str, Flag | None, str]]:
    """Take a command line apart: (as written, the flag, its value), and (word, None, "") for each other word.

    ``-x1`` and ``--flag=1`` are read as click and argparse read them. Raises UsageError for what is no flag of
    ``program``.
    """
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            yield from ((each, None, "") for each in left)
            return
        if not word.startswith("-") or word == "-":
            yield word, None, ""
            continue
        name, equals, value = word.partition("=")
        if not word.startswith("--") and len(word) > 2:  # -w4
            name, equals, value = word[:2], "=", word[2:].removeprefix("=")
        flag = flags.get(name)
        if flag is None:
            raise click.UsageError(f"{name} is no option of {program} that lastcall migrate knows")
        if flag.takes_value and not equals:
            if not left:
                raise click.UsageError(f"{program} {name} needs a value")
            value = left.pop(0)
        elif equals and not flag.takes_value:
            raise click.UsageError(f"{program} {name} takes no value")
        yield name, flag, value


def table_flags() -> dict[str, Flag]:
    """The flags of the table, which are those of uvicorn and our own."""
    found = {}
    for option in OPTIONS.values():
        switch = isinstance(option.kind, Switch) and option.kind.form != "value"
        for flag in option.flags:
            found[flag] = Flag(option.name, not switch)
    return found


def is_off(written: str, name: str) -> bool:
    """Whether a flag of a pair is the one that switches off."""
    return written in OPTIONS[name].flags[1:]
