"""What an option is: one row of the table in :mod:`lastcall.config.options`."""

from __future__ import annotations

from typing import Final

from lastcall.base.record import Record
from lastcall.config.kinds import Kind, Switch

ENV_PREFIX: Final = "LASTCALL_"


class Only(Record):
    """The values that this release accepts, in words too, and why not others."""

    values: tuple[object, ...]
    accepted: str
    reason: str

    @property
    def expected(self) -> str:
        """A phrase for "expected …"."""
        return f"{self.accepted}: {self.reason}"


class Option(Record):
    """One option.

    ``name`` is the keyword; ``kind`` reads and checks values; ``default`` is in the kind's inner form.
    ``flag`` is derived from the name unless given; None makes the option Python-only, without flag and variable.
    ``command_default`` is the default on the command line where that differs. ``short`` is a second spelling (``-D``).
    ``secret`` values never appear in messages.
    """

    name: str
    kind: Kind
    default: object
    group: str
    help: str
    flag: str | None = ""
    command_default: object = ...
    only: Only | None = None
    secret: bool = False
    short: str = ""

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags: none, ``--x``, or ``--x`` and ``--no-x``."""
        if self.flag is None:
            return ()
        flag = self.flag or "--" + self.name.replace("_", "-")
        pair = isinstance(self.kind, Switch) and self.kind.form == "pair"
        return (flag, "--no-" + flag.removeprefix("--")) if pair else (flag,)

    @property
    def env(self) -> str | None:
        """The environment variable, read by the command; None for a Python-only option."""
        return None if self.flag is None else ENV_PREFIX + self.name.upper()

    @property
    def annotation(self) -> str:
        """The type of the keyword in ``ConfigKeywords``."""
        return f"{self.kind.annotation} | None" if self.kind.optional else self.kind.annotation

    @property
    def default_text(self) -> str:
        """The default of the command as help and reference print it."""
        return self.kind.show(self.default if self.command_default is ... else self.command_default)
