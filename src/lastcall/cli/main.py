"""The command ``lastcall APP [options]``.

The first word decides: the name of a command of another package runs that, anything else is the application to serve.
Both can be told apart for good, since an application is ``module:attribute`` and the name of a command has no colon.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

import click

from lastcall._version import __version__
from lastcall.base.early_exit import leave_no_more
from lastcall.cli.commands import can_be_command, find_command, help_records
from lastcall.cli.flags import GroupedCommand, given_flags, table_flags
from lastcall.cli.run import serve
from lastcall.config import Config
from lastcall.config.directory import enter_directory
from lastcall.config.resolve import Given, from_environment

PROGRAM: Final = "lastcall"
EXAMPLES: Final = (
    ("lastcall main:app", "Serve app of main.py on http://127.0.0.1:8000."),
    ("lastcall main:app --host 0.0.0.0 --port 80", "On all addresses of this machine."),
    ("lastcall main:make_app --factory --uds app.sock", "What make_app() returns, behind a proxy, on a unix socket."),
    ("lastcall migrate -- uvicorn main:app --port 80", "The same as another server's command, for lastcall."),
)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the command. Always ends in ``SystemExit`` with one of the exit codes."""
    words = list(sys.argv[1:] if argv is None else argv)
    command, program = None, PROGRAM
    if words and can_be_command(words[0]):
        try:
            command = find_command(words[0])
        except click.UsageError as error:
            error.show()
            raise SystemExit(error.exit_code) from None
        if command is not None:
            leave_no_more()
            program = f"{PROGRAM} {words.pop(0)}"
    raise SystemExit((command or serve_command).main(args=words, prog_name=program))


class _ServeCommand(GroupedCommand):
    """The flags by topic, behind examples and the commands."""

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write both forms."""
        formatter.write_usage(ctx.command_path, "[OPTIONS] APP")
        formatter.write_usage(ctx.command_path, "COMMAND …", prefix="       ")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write examples, the commands, then one section per topic."""
        with formatter.section("Examples"):
            formatter.write_dl(EXAMPLES)
        with formatter.section("Commands"):
            formatter.write_dl(help_records())
        super().format_options(ctx, formatter)


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        import platform  # noqa: PLC0415 - not for serving

        python = f"{platform.python_implementation()} {platform.python_version()}"
        click.echo(f"{PROGRAM} {__version__} with {python} on {platform.system()}")
        ctx.exit()


@click.pass_context
def _serve(ctx: click.Context, /, app: str, **flags: object) -> None:
    given = given_flags(ctx, flags)

    def configure() -> Config:
        directory = from_environment(os.environ).get("chdir") if "chdir" not in given else given["chdir"]
        if directory is not None:
            given["chdir"] = Given(enter_directory(directory.raw, directory.spelled), directory.spelled)
        return Config.from_command(app, given, os.environ)

    ctx.exit(serve(configure))


serve_command: Final = _ServeCommand(
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
