"""The command ``lastcall APP [options]``.

The first word decides: the name of a subcommand runs that, anything else is the application to serve. Both can be told
apart for good, since an application is ``module:attribute`` and the name of a subcommand has no colon.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, NoReturn

import click

from lastcall._version import __version__
from lastcall.cli.flags import GroupedCommand, given_flags, table_flags
from lastcall.cli.run import serve
from lastcall.config import Config

PROGRAM: Final = "lastcall"

SUBCOMMANDS: Final[dict[str, str]] = {
    "doctor": "lastcall.cli.doctor:doctor_command",
    "drill": "lastcall.cli.drill:drill_group",
    "once": "lastcall.cli.once:once",
}
"""Subcommands by name, each as ``module:attribute`` of a click command that is imported when it is called."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """RunningTask point of the command. Always ends in ``SystemExit`` with one of the exit codes."""
    words = list(sys.argv[1:] if argv is None else argv)
    command: click.Command = serve_command
    program = PROGRAM
    if words and words[0] in SUBCOMMANDS:
        name = words.pop(0)
        program = f"{PROGRAM} {name}"
        command = _load(SUBCOMMANDS[name])
    raise SystemExit(command.main(args=words, prog_name=program))


def _load(target: str) -> click.Command:
    module, _, attribute = target.partition(":")
    command = getattr(import_module(module), attribute)
    if not isinstance(command, click.Command):
        raise TypeError(f"{target} is not a click command")
    return command


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        import platform  # noqa: PLC0415 - not for serving

        python = f"{platform.python_implementation()} {platform.python_version()}"
        click.echo(f"{PROGRAM} {__version__} with {python} on {platform.system()}")
        ctx.exit()


@click.pass_context
def _serve(ctx: click.Context, /, app: str, **flags: object) -> None:
    given = given_flags(ctx, flags)
    ctx.exit(serve(lambda: Config.from_command(app, given, os.environ)))


serve_command: Final = GroupedCommand(
    PROGRAM,
    callback=_serve,
    params=[
        click.Argument(["app"], envvar="LASTCALL_APP"),
        *table_flags(),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_version,
            help="Show the version and exit.",
        ),
    ],
    help="Serve the ASGI application APP, given as module:attribute, until SIGTERM or Ctrl-C.",
    epilog=(
        "In brackets: the default. Every option can also be set by a variable LASTCALL_NAME (--port: LASTCALL_PORT); "
        "a flag wins over it. Times are seconds; many limits can be none. Options of uvicorn that are not listed are "
        "accepted as long as they ask for nothing that is missing."
    ),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
