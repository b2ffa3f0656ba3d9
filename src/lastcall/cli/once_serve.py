"""``lastcall once serve``: the HTTP service of once, with the server's own options.

The store is tried before a port is opened. Exit codes are those of the server, and: 2 the store's URL cannot be read,
or a package of its is missing; 3 the store cannot be opened.
"""

from __future__ import annotations

import os
from typing import Final

import click

from lastcall.cli.flags import GroupedCommand, TableFlag, given_flags, table_flags
from lastcall.cli.once_store import with_shelf, without_password
from lastcall.cli.run import serve
from lastcall.config import Config
from lastcall.config.resolve import Given
from lastcall.once.service import factory
from lastcall.once.service.core import Settings
from lastcall.once.shelf import Shelf

# What is served is not the user's to say, whatever LASTCALL_FACTORY and its like are for other servers here.
_FIXED: Final = {
    "app_dir": Given(None, "--app-dir"),
    "env_file": Given(None, "--env-file"),
    "factory": Given(True, "--factory"),
    "interface": Given("asgi3", "--interface"),
    "lifespan": Given("on", "--lifespan"),
}
_DEFAULT: Final = Settings()


class _ServeCommand(GroupedCommand):
    """Its own options come first in ``--help``."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the section of once, then the server's."""
        own = [param for param in self.params if not isinstance(param, TableFlag)]
        with formatter.section("Once"):
            formatter.write_dl([record for param in own if (record := param.get_help_record(ctx)) is not None])
        servers = GroupedCommand(self.name, params=[param for param in self.params if isinstance(param, TableFlag)])
        servers.context_settings = self.context_settings
        servers.format_options(ctx, formatter)


def _own_options() -> list[click.Parameter]:
    seconds = click.IntRange(1, 366 * 86_400)
    return [
        click.Option(
            ["--store", "url"],
            envvar=factory.STORE,
            default="sqlite:///once.db",
            show_default=True,
            show_envvar=True,
            metavar="URL",
            help="The store: sqlite:///PATH, redis://…, rediss://… or postgresql://….",
        ),
        click.Option(
            ["--lease"],
            envvar=factory.LEASE,
            default=_DEFAULT.lease,
            show_default=True,
            type=click.IntRange(1, 86_400),
            metavar="SECONDS",
            help="Length of a lease that is asked for without a ttl.",
        ),
        click.Option(
            ["--ttl"],
            envvar=factory.TTL,
            default=_DEFAULT.ttl,
            show_default=True,
            type=seconds,
            metavar="SECONDS",
            help="How long results are kept, and claims without a ttl.",
        ),
        click.Option(
            ["--dedup-window"],
            envvar=factory.DEDUP_WINDOW,
            default=_DEFAULT.dedup_window,
            show_default=True,
            type=seconds,
            metavar="SECONDS",
            help="How long a tool call that was allowed is not allowed again with the same arguments.",
        ),
        click.Option(
            ["--on-failed"],
            envvar=factory.ON_FAILED,
            default="replay",
            show_default=True,
            type=click.Choice(["replay", "retry"]),
            help="What a lease for a key gets whose work has failed: the failure, or a new lease.",
        ),
    ]


@click.pass_context
def _serve(ctx: click.Context, /, url: str, **options: object) -> None:
    if not with_shelf(url, _has_keys):
        command = f"lastcall once key create --store {without_password(url)}"
        click.echo(f"once: there is no API key yet; make one with: {command}", err=True)
    for name, variable in (
        ("lease", factory.LEASE),
        ("ttl", factory.TTL),
        ("dedup_window", factory.DEDUP_WINDOW),
        ("on_failed", factory.ON_FAILED),
    ):
        os.environ[variable] = str(options.pop(name))  # for the workers, which make the application
    os.environ[factory.STORE] = url
    given = {**given_flags(ctx, options), **_FIXED}
    ctx.exit(serve(lambda: Config.from_command(factory.FACTORY, given, os.environ)))


async def _has_keys(shelf: Shelf) -> bool:
    """Whether there is a key that is good."""
    from lastcall.once.service.keys import known  # noqa: PLC0415 - not for --help

    return any(not key.revoked_at for key in await known(shelf))


serve_command: Final = _ServeCommand(
    "serve",
    callback=_serve,
    params=[
        *_own_options(),
        *(flag for flag in table_flags() if not (isinstance(flag, TableFlag) and flag.row.name in _FIXED)),
    ],
    help="Serve the HTTP API of once until SIGTERM or Ctrl-C. /openapi.json describes it.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
