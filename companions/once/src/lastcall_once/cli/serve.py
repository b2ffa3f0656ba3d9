"""``lastcall-once serve``: the HTTP service of once, on the server lastcall, with all of its options.

The store is tried before a port is opened. Then this process becomes lastcall: there is no other way to it from here,
since nothing in this package imports it. Exit codes are those of the server, and: 2 lastcall is not installed, the
store's URL cannot be read, or a package of its is missing; 3 the store cannot be opened.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import Final, NoReturn

import click

from lastcall_once.cli.store import with_documents, without_password
from lastcall_once.documents import DocumentStore
from lastcall_once.service import factory
from lastcall_once.service.core import Settings

SERVER: Final = "lastcall"
NO_SERVER: Final = (
    "serve runs on the server lastcall, which is not installed: pip install lastcall (from a checkout: pip install .)"
)

# What is served is not the user's to say, whatever LASTCALL_FACTORY and its like are for other servers here.
_FIXED: Final = ("--factory", "--interface", "asgi3", "--lifespan", "on")
_REFUSED: Final = ("--app-dir", "--env-file", "--factory", "--interface", "--lifespan")
_DROPPED: Final = ("LASTCALL_APP_DIR", "LASTCALL_ENV_FILE")
_DEFAULT: Final = Settings()


class _ServeCommand(click.Command):
    """Says in ``--help`` that the server's options are taken too."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of once, and a word about the others."""
        super().format_options(ctx, formatter)
        with formatter.section("Options of the server"):
            formatter.write_text(
                "--host, --port, --health-path and all others that `lastcall --help` lists, but for "
                f"{', '.join(_REFUSED)}."
            )


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
def _serve(ctx: click.Context, /, url: str, server_options: tuple[str, ...], **options: object) -> None:
    for word in server_options:
        if word.partition("=")[0] in _REFUSED:
            raise click.UsageError(f"{word} is not for this server, which serves once and nothing else", ctx)
    if find_spec(SERVER) is None:
        raise click.UsageError(NO_SERVER, ctx)
    if not with_documents(url, _has_keys):
        command = f"{ctx.find_root().info_name} key create --store {without_password(url)}"
        click.echo(f"once: there is no API key yet; make one with: {command}", err=True)
    for name, variable in (
        ("lease", factory.LEASE),
        ("ttl", factory.TTL),
        ("dedup_window", factory.DEDUP_WINDOW),
        ("on_failed", factory.ON_FAILED),
    ):
        os.environ[variable] = str(options.pop(name))  # for the server's processes, which make the application
    os.environ[factory.STORE] = url
    for variable in _DROPPED:
        os.environ.pop(variable, None)
    _become([sys.executable, "-m", SERVER, factory.FACTORY, *_FIXED, *server_options])


def _become(words: list[str]) -> NoReturn:
    """Run the command ``words`` in this process, in place of this program."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(words[0], words)


async def _has_keys(documents: DocumentStore) -> bool:
    """Whether there is a key that is good."""
    from lastcall_once.service.keys import known  # noqa: PLC0415 - not for --help

    return any(not key.revoked_at for key in await known(documents))


serve_command: Final = _ServeCommand(
    "serve",
    callback=_serve,
    params=[
        *_own_options(),
        click.Argument(["server_options"], nargs=-1, type=click.UNPROCESSED, metavar="[OPTION OF LASTCALL]..."),
    ],
    help="Serve the HTTP API of once until SIGTERM or Ctrl-C. /openapi.json describes it.",
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "ignore_unknown_options": True,
    },
)
