"""Commands: ``lastcall NAME`` is ``migrate`` or ``ctl``, or what an installed package has registered under that name.

A package registers a click command in the entry-point group ``lastcall.commands``; it is imported when it is called.
Reading the registrations takes some 60 ms, so it is done only for ``--help`` and for a word that can be no application.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import click

from lastcall.base.record import Record

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = "lastcall.commands"


class Companion(Record):
    """A command of a package of this project: the package, where a checkout has it, and what the command is for."""

    package: str
    directory: str
    purpose: str

    @property
    def remedy(self) -> str:
        """How to install it."""
        return f"pip install {self.package} (from a checkout: pip install ./{self.directory})"


COMPANIONS: Final[Mapping[str, Companion]] = {
    "doctor": Companion(
        "lastcall-drill", "companions/drill", "Find what will go wrong where a server is going to run."
    ),
    "drill": Companion("lastcall-drill", "companions/drill", "Judge from outside how a server stops."),
    "once": Companion("lastcall-once", "companions/once", "Look into the records of once, and serve them over HTTP."),
}


class Own(Record):
    """A command of this package: the module and the name in it of its click command, and what it is for."""

    module: str
    attribute: str
    purpose: str


OWN: Final[Mapping[str, Own]] = {
    "ctl": Own("lastcall.cli.ctl", "ctl", "Look into a running service, reload, scale or stop it."),
    "migrate": Own(
        "lastcall.cli.migrate",
        "migrate",
        "Print what the command line of another ASGI server is for lastcall, and what changes.",
    ),
}
"""Commands of this package. They are not for serving, so each is imported when it is called."""


def can_be_command(word: str) -> bool:
    """Whether the first word of the command line may name a command: it is neither an option nor ``module:app``."""
    return not word.startswith("-") and ":" not in word


def find_command(name: str) -> click.Command | None:
    """The command that is registered as ``name``; None if there is none.

    Raises UsageError, with what to install, for a command of this project that is not there, and TypeError for what is
    registered and no click command.
    """
    if name in OWN:
        own: click.Command = getattr(importlib.import_module(OWN[name].module), OWN[name].attribute)
        return own
    found = _registered().get(name)
    if found is None:
        if name in COMPANIONS:
            missing = COMPANIONS[name]
            raise click.UsageError(
                f"'lastcall {name}' is in the package {missing.package}, which is not installed: {missing.remedy}"
            )
        return None
    command = found.load()
    if not isinstance(command, click.Command):
        raise TypeError(f"{found.value}, registered as 'lastcall {name}', is not a click command")
    return command


def help_records() -> list[tuple[str, str]]:
    """What ``--help`` says of each command, for which none is imported."""
    registered = _registered()
    records = [(name, own.purpose) for name, own in OWN.items()]
    for name in sorted({*registered, *COMPANIONS} - {*OWN}):
        known = COMPANIONS.get(name)
        text = known.purpose if known else ""
        if name not in registered and known:
            text += f"  [not installed: pip install {known.package}]"
        elif known is None and (package := registered[name].dist) is not None:
            text = f"A command of the package {package.name}."
        records.append((name, text))
    return records


def _registered() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # noqa: PLC0415 - slow, and not for serving

    return {one.name: one for one in entry_points(group=GROUP)}
