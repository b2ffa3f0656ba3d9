"""``lastcall ctl``: ask a running service, and give it orders, over its control socket.

Exit codes: 0 done · 1 refused, or failed (a reload that was rolled back, say) · 2 usage, or several services to choose
from · 3 there is none. Ctrl-C while an order is under way is 130; the order goes on.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn

import click

from lastcall.cli.ctl_client import Client, ControlError
from lastcall.cli.ctl_tables import View, inflight_view, lines, plain, printable, services_view, status_view
from lastcall.supervisor.runtime_dir import Found, find

DONE: Final = 0
FAILED: Final = 1
SEVERAL: Final = 2
NONE_FOUND: Final = 3
INTERRUPTED: Final = 130

DOING_SECONDS: Final = 5.0
LIST_SECONDS: Final = 2.0
"""How long each of several services is asked who it is."""

_SOCKET_HELP: Final = "The service's control socket, or the name that the list of services gives it (its port, mostly)."
_json_option: Final = click.option("--json", "as_json", is_flag=True, help="JSON, for machines.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--socket", metavar="PATH", envvar="LASTCALL_CONTROL_SOCKET", help=_SOCKET_HELP)
@click.pass_context
def ctl(ctx: click.Context, socket: str | None) -> None:
    """Look into a running service, and give it orders.

    The service is found by itself if it is the only one of this user.
    """
    ctx.obj = socket


def _command(name: str, *options: Callable[[Any], Any]) -> Callable[[Callable[..., None]], click.Command]:
    """Register a command that takes --socket too: many write it at the end. It wins over the one before."""

    def register(function: Callable[..., None]) -> click.Command:
        for option in (*reversed(options), _json_option, click.option("--socket", metavar="PATH", help=_SOCKET_HELP)):
            function = option(function)
        return ctl.command(name)(click.pass_context(function))

    return register


_watch_options: Final = (
    click.option("--watch", is_flag=True, help="Again and again, until Ctrl-C."),
    click.option("--every", type=click.FloatRange(0.1), default=1.0, show_default=True, help="Seconds, for --watch."),
)


@_command("status", *_watch_options)
def status(ctx: click.Context, socket: str | None, as_json: bool, watch: bool, every: float) -> None:
    """The service and its workers."""
    _look(ctx, socket, "status", status_view, as_json=as_json, every=every if watch else None)


@_command("inflight", *_watch_options)
def inflight(ctx: click.Context, socket: str | None, as_json: bool, watch: bool, every: float) -> None:
    """The requests that run now, longest first."""
    _look(
        ctx,
        socket,
        "inflight",
        lambda answer: inflight_view(answer.get("inflight") or ()),
        as_json=as_json,
        every=every if watch else None,
    )


@_command(
    "reload", click.option("--canary", is_flag=True, help="Through the canary, also where --canary was not given.")
)
def reload(ctx: click.Context, socket: str | None, as_json: bool, canary: bool) -> None:
    """Replace all workers by new ones, with the code and the configuration of now.

    Exits with 1 if the service runs the old code in the end.
    """
    _order(ctx, socket, "reload", as_json, canary=canary)


@_command("promote")
def promote(ctx: click.Context, socket: str | None, as_json: bool) -> None:
    """Approve the canary: all workers are replaced by the new generation."""
    _order(ctx, socket, "promote", as_json)


@_command("rollback")
def rollback(ctx: click.Context, socket: str | None, as_json: bool) -> None:
    """Refuse the canary: the old generation stays."""
    _order(ctx, socket, "rollback", as_json)


@_command("scale", click.argument("workers", type=click.IntRange(1)))
def scale(ctx: click.Context, socket: str | None, as_json: bool, workers: int) -> None:
    """Serve with so many workers."""
    _order(ctx, socket, "scale", as_json, workers=workers)


@_command("stop", click.option("--force", is_flag=True, help="Cancel what still runs, as a second SIGTERM does."))
def stop(ctx: click.Context, socket: str | None, as_json: bool, force: bool) -> None:
    """Stop the service, as SIGTERM does, and wait until it has."""
    _order(ctx, socket, "stop", as_json, force=force)


@_command("stacks")
def stacks(ctx: click.Context, socket: str | None, as_json: bool) -> None:
    """Have every worker write the stacks of its threads to its standard error."""
    _order(ctx, socket, "stacks", as_json)


@_command("upgrade")
def upgrade(ctx: click.Context, socket: str | None, as_json: bool) -> None:
    """Replace the parent too, by the lastcall that is installed now; the port stays open."""
    _order(ctx, socket, "upgrade", as_json)


# -- which service ----------------------------------------------------------------------------------------------------


def _client(ctx: click.Context, given: str | None) -> Client:
    """The service that is meant; ends the command where that is none, or not one."""
    given = given or ctx.obj
    if given and "/" in given:
        return Client(given)
    found = find(os.environ, os.geteuid())
    if given:
        named = [one for one in found if one.name == given]
        if not named and os.path.exists(given):  # a path after all
            return Client(given)
        if not named:
            _fail(f"no service is called {given!r}", NONE_FOUND, found)
        return Client(named[0].path)
    if not found:
        _fail(
            "no service of this user was found. One process without a parent has no control socket: "
            "lastcall … --workers N, or --supervise; --socket says where it is if it is elsewhere",
            NONE_FOUND,
        )
    if len(found) > 1:
        _fail("several services run: choose one with --socket NAME", SEVERAL, found)
    return Client(found[0].path)


def _fail(text: str, code: int, services: list[Found] | None = None) -> NoReturn:
    click.echo(f"Error: {lines(text)}", err=True)
    if services:
        click.echo(plain(services_view([_described(one) for one in services])), err=True)
    raise SystemExit(code)


def _described(one: Found) -> dict[str, Any]:
    row: dict[str, Any] = {"name": one.name, "path": one.path}
    try:
        answer = Client(one.path).get("status", LIST_SECONDS)
    except ControlError as exc:
        return {**row, "app": f"({exc})"}
    return {**row, **{field: answer[field] for field in ("app", "addresses", "pid") if field in answer}}


def _give_up(error: ControlError) -> NoReturn:
    _fail(str(error), NONE_FOUND if error.gone else FAILED)


# -- looking ----------------------------------------------------------------------------------------------------------


def _look(
    ctx: click.Context,
    socket: str | None,
    name: str,
    view: Callable[[dict[str, Any]], View],
    *,
    as_json: bool,
    every: float | None,
) -> None:
    client = _client(ctx, socket)
    try:
        if every is None:
            answer = client.get(name)
            click.echo(json.dumps(answer) if as_json else _rendered(view(answer)))
        elif as_json:
            for answer in _again(client, name, every):
                click.echo(json.dumps(answer))
                sys.stdout.flush()
        else:
            _live(map(view, _again(client, name, every)))
    except ControlError as error:
        _give_up(error)
    except KeyboardInterrupt:
        ctx.exit(DONE)


def _again(client: Client, name: str, every: float) -> Iterator[dict[str, Any]]:
    while True:
        yield client.get(name)
        time.sleep(every)


def _rendered(view: View) -> str:
    """For a terminal by rich, if that is there."""
    if sys.stdout.isatty():
        try:
            from rich.console import Console  # noqa: PLC0415 - for tables only

            from lastcall.cli.ctl_tables import drawn  # noqa: PLC0415

            console = Console()
            with console.capture() as capture:
                console.print(drawn(view))
            return capture.get().rstrip("\n")
        except ImportError:
            pass
    return plain(view)


def _live(views: Iterator[View]) -> None:
    """One view after another: in the same place on a terminal, below each other elsewhere."""
    try:
        if not sys.stdout.isatty():
            raise ImportError
        from rich.live import Live  # noqa: PLC0415 - for tables only

        from lastcall.cli.ctl_tables import drawn  # noqa: PLC0415
    except ImportError:
        for view in views:
            click.echo(plain(view) + "\n")
            sys.stdout.flush()
        return
    with Live(auto_refresh=False, screen=True) as live:
        for view in views:
            live.update(drawn(view), refresh=True)


# -- ordering ---------------------------------------------------------------------------------------------------------


class _Story:
    """What happens while an order is carried out, on standard error.

    What the service is doing changes each second: on a terminal it is one line at the end that changes, elsewhere a
    line every ``DOING_SECONDS``.
    """

    def __init__(self) -> None:
        self.told: set[str] = set()
        """The lines of the server's log that were shown."""
        self._terminal = sys.stderr.isatty()
        self._shown = False
        self._next = 0.0

    def tell(self, event: str, text: str) -> None:
        """A line of the answer."""
        if event == "log":
            self.clear()
            self.told.add(text)
            click.echo(text, err=True)
        elif event == "doing" and self._terminal:
            width = shutil.get_terminal_size().columns - 1
            click.echo(f"\r\x1b[K{text[:width]}", err=True, nl=False)
            self._shown = True
        elif event == "doing" and time.monotonic() >= self._next:
            self._next = time.monotonic() + DOING_SECONDS
            click.echo(text, err=True)

    def clear(self) -> None:
        """Take the changing line away."""
        if self._shown:
            self._shown = False
            click.echo("\r\x1b[K", err=True, nl=False)


def _order(ctx: click.Context, socket: str | None, name: str, as_json: bool, **arguments: Any) -> None:
    """Give an order, show what happens, and exit as it was settled."""
    client = _client(ctx, socket)
    last: dict[str, Any] = {}
    story = _Story()
    try:
        for line in client.order(name, arguments):
            last = line
            if as_json:
                click.echo(json.dumps(line))
                sys.stdout.flush()
            else:
                story.tell(str(line.get("event")), lines(line.get("text", "")))
    except ControlError as error:
        _give_up(error)
    except KeyboardInterrupt:
        story.clear()
        click.echo("The order goes on; `lastcall ctl status` shows how far it is.", err=True)
        raise SystemExit(INTERRUPTED) from None
    finally:
        story.clear()
    ok = last.get("ok") is True
    said = str(last.get("text") or "")
    if last.get("event") == "ended" and name == "stop":
        ok, said = True, "Stopped"  # its process has ended: that was the order
    if not as_json and (ok or lines(said) not in story.told):  # both are on standard error: once is enough
        click.echo(lines(said) or ("Done" if ok else f"{printable(name)} failed"), err=not ok)
    ctx.exit(DONE if ok else FAILED)
