"""The flags of the command, made from the table of options, and the help that lists them by topic."""

from __future__ import annotations

import re
from collections.abc import Mapping

import click
from click.core import ParameterSource

from lastcall.config.kinds import Switch
from lastcall.config.options import GROUPS, OPTIONS, Option
from lastcall.config.resolve import Given

HIDDEN_GROUP = "Later"


class TableFlag(click.Option):
    """The click option of one row of the table. It only collects text: reading and checking are ``config``'s."""

    def __init__(self, option: Option) -> None:
        self.row = option
        switch = isinstance(option.kind, Switch) and option.kind.form != "value"
        super().__init__(
            ["/".join(option.flags), *([option.short] if option.short else []), option.name],
            is_flag=switch,
            type=bool if switch else str,
            metavar=None if switch else option.kind.metavar,
            multiple=option.kind.repeatable,
            hidden=option.group == HIDDEN_GROUP,
            help=f"{_in_flags(option.help)}  [{option.default_text}]",
        )

    def written(self, value: object) -> str:
        """Return the flag that gave ``value``: of a pair, the one of the two that was used."""
        return self.row.flags[1] if value is False and len(self.row.flags) > 1 else self.row.flags[0]


def _in_flags(text: str) -> str:
    """Return a help text of the table without markup, with other options called by their flags."""

    def plain(match: re.Match[str]) -> str:
        option = OPTIONS.get(match[1])
        return option.flags[0] if option and option.flags else match[1]

    return re.sub(r"`([^`]*)`", plain, text)


def table_flags() -> list[click.Parameter]:
    """Return a click option for every option that has a flag."""
    return [TableFlag(option) for option in OPTIONS.values() if option.flags]


def given_flags(ctx: click.Context, params: Mapping[str, object]) -> dict[str, Given]:
    """Return the options that were given on the command line, each with the flag that gave it."""
    given: dict[str, Given] = {}
    for param in ctx.command.params:
        if isinstance(param, TableFlag) and ctx.get_parameter_source(param.row.name) is ParameterSource.COMMANDLINE:
            value = params[param.row.name]
            given[param.row.name] = Given(value, param.written(value))
    return given


class GroupedCommand(click.Command):
    """A command whose ``--help`` lists the flags of the table under their groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section per group, then one for ``--version`` and ``--help``."""
        sections: dict[str, list[tuple[str, str]]] = {group: [] for group in GROUPS}
        sections["Help"] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                sections[param.row.group if isinstance(param, TableFlag) else "Help"].append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
