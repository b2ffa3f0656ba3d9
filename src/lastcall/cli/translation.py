"""What ``lastcall migrate`` makes of another server's command line: the words to write, what is left out, and why."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import click

from lastcall.base.record import Record
from lastcall.config.kinds import Switch, UnusableValueError
from lastcall.config.options import OPTIONS, Option

LATER: Final = "Later"


class Flag(Record):
    """A flag of a command line: what it is called there for good, and whether a value follows."""

    name: str
    takes_value: bool = True


class Translation:
    """Collects what becomes of a command line. ``app`` is the application, once it is known."""

    def __init__(self) -> None:
        self.app = ""
        self.variables: list[str] = []
        self.words: list[str] = []
        self.left_out: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self.settled: set[str] = set()
        """Names of options that the command line decides: nothing is said about their defaults."""

    def keep(self, name: str, value: str | bool = True, *, written: str = "") -> None:
        """Take an option over, by its name in the table; leave it out where this release has not got what it asks for.

        Raises UsageError, with ``written`` as its name, for a value that cannot be used.
        """
        option = OPTIONS[name]
        self.settled.add(name)
        shown = written or _flag(option, value)
        try:
            read = option.kind.read([value] if option.kind.repeatable else value)
        except UnusableValueError as error:
            raise click.UsageError(f"{shown}: {value!r} is not usable: expected {error.expected}") from None
        if option.only is not None and read not in option.only.values:
            hidden = "…" if option.secret else value
            text = shown if isinstance(value, bool) else f"{shown} {hidden}"
            self.leave(text, option.only.reason)
        elif option.group == LATER and option.only is None:
            self.leave(shown if isinstance(value, bool) else f"{shown} {value}", "it means nothing here")
        elif option.group != LATER:
            self.words += [_flag(option, value)] if isinstance(value, bool) else [_flag(option, value), value]

    def leave(self, written: str, why: str) -> None:
        """Leave something out, and say why."""
        self.left_out.append((written, why))

    def command(self, prefix: Sequence[str]) -> str:
        """The whole line, as a shell reads it. ``prefix``: the words that were before the server's name."""
        start = [*prefix, "lastcall"] if prefix[-1:] != ["-m"] else [*prefix[:-1], "-m", "lastcall"]
        variables = [
            f"{name}={shlex.quote(value)}" for name, _, value in (each.partition("=") for each in self.variables)
        ]
        return " ".join([*variables, shlex.join([*start, self.app, *self.words])])


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
