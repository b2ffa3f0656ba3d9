"""``lastcall-once``, and ``lastcall once``: look into a store of once, give keys back, and the way to its service.

``ls``, ``show``, ``release`` and ``purge`` work on any store, beside the processes that use it. ``serve`` and ``key``
are imported when they are called.

Exit codes: 0 done · 1 there is no such key, or the order was refused · 2 usage · 3 the store cannot be used.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any, Final, NoReturn, TypeVar

import click

from lastcall_once.cli.text import escaped, facts_of, headline, legible, preview, row_of, span
from lastcall_once.records import Event, Record, State
from lastcall_once.store import Store, StoreError

T = TypeVar("T")

PROGRAM: Final = "lastcall-once"

NOT_DONE: Final = 1
STORE_FAILED: Final = 3

_LAZY: Final = {
    "serve": ("lastcall_once.cli.serve:serve_command", "Serve the HTTP API of once."),
    "key": ("lastcall_once.cli.key:key_group", "Create, list and revoke API keys."),
}
_STATES: Final = tuple(state.value for state in State if state is not State.ABSENT)
_PAGE: Final = 100  # records of the first page; what follows depends on their size
_LARGEST_PAGE: Final = 2000
_PAGE_BYTES: Final = 16 << 20


class _Failed(click.ClickException):
    """The command ends with one line on stderr, without what a terminal would obey, and an exit code."""

    exit_code = NOT_DONE

    def __init__(self, message: str) -> None:
        super().__init__(escaped(message))


class _NoStore(_Failed):
    """The store cannot be used."""

    exit_code = STORE_FAILED


class _OnceGroup(click.Group):
    """A group with the commands of ``_LAZY`` in it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in order."""
        return sorted({*super().list_commands(ctx), *_LAZY})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported if need be."""
        if cmd_name not in _LAZY:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = _LAZY[cmd_name][0].partition(":")
        command = getattr(import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{_LAZY[cmd_name][0]} is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in ``--help``, for which nothing is imported."""
        rows = []
        for name in self.list_commands(ctx):
            command = None if name in _LAZY else super().get_command(ctx, name)
            rows.append((name, _LAZY[name][1] if command is None else command.get_short_help_str(100)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def main() -> NoReturn:
    """Entry point of the command ``lastcall-once``. Always ends in ``SystemExit``."""
    raise SystemExit(once.main(prog_name=PROGRAM))


def _text(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise click.BadParameter("it is not valid UTF-8, as every key is") from None
    return value


_store_option = click.option(
    "--store",
    "url",
    metavar="URL",
    envvar="LASTCALL_ONCE_STORE",
    default="sqlite:///once.db",
    show_default=True,
    show_envvar=True,
    help="The store: sqlite:///PATH, redis://…, rediss://… or postgresql://….",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON, for programs.")
_key_argument = click.argument("key", callback=_text)


@click.group(
    cls=_OnceGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 1 no such key, or refused; 2 usage; 3 the store cannot be used.",
)
def once() -> None:
    """At most one execution per key: look into a store, and serve it."""


@once.command()
@click.argument("prefix", default="", callback=_text)
@click.option("--state", type=click.Choice(_STATES), help="Only keys in this state.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many keys at most.")
@_store_option
@_json_option
def ls(prefix: str, state: str | None, limit: int, url: str, as_json: bool) -> None:
    """List keys that begin with PREFIX, in their order.

    With --json: one object on each line.
    """
    shown = 0

    def write(record: Record) -> None:
        nonlocal shown
        now = time.time()
        if as_json:
            click.echo(json.dumps(facts_of(record)))
        else:
            if not shown:
                click.echo(headline())
            click.echo(row_of(record, now))
        shown += 1

    async def work(store: Store) -> bool:
        return await _list(store, prefix, None if state is None else State(state), limit, write)

    if _run(url, work):
        click.echo(f"There are more: --limit {limit} was reached.", err=True)


async def _list(store: Store, prefix: str, state: State | None, limit: int, write: Callable[[Record], None]) -> bool:
    """Write ``limit`` records; return whether there are more. Holds one page of them in memory."""
    after, size = "", _PAGE
    while page := await store.scan(prefix, after=after, limit=size):
        for record in page:
            if state is None or record.state is state:
                if not limit:
                    return True
                write(record)
                limit -= 1
        if len(page) < size:
            break
        after, size = page[-1].key, _next_size(sum(len(record.result or b"") for record in page) // len(page))
    return False


def _next_size(result: int) -> int:
    """How many records to ask for, of which each comes with a result of so many bytes."""
    return max(_PAGE // 10, min(_LARGEST_PAGE, _PAGE_BYTES // (result + 1)))


@once.command()
@_key_argument
@click.option("--result", "raw", is_flag=True, help="Write the stored result to stdout, as it is.")
@_store_option
@_json_option
def show(key: str, raw: bool, url: str, as_json: bool) -> None:
    """Show what is stored of KEY."""
    if raw and as_json:
        raise click.UsageError("--result writes the bytes as they are, and --json does not: give one of them")
    record = _record(url, key)
    if raw:
        if record.result is None:
            raise _Failed(f"the key {key} is {record.state.value}, and has no result")
        click.echo(record.result, nl=False)
    elif as_json:
        click.echo(json.dumps(facts_of(record) | {"preview": preview(record)}))
    else:
        for name, fact in _described(record, time.time()):
            click.echo(f"{name:<12} {fact}")


def _described(record: Record, now: float) -> list[tuple[str, str]]:
    """What ``show`` says, line by line."""
    facts = facts_of(record)
    lines = [("key", escaped(record.key)), ("state", record.state.value)]
    for name, title, timestamp in (
        ("first_seen_at", "first seen", record.first_seen_at),
        ("updated_at", "updated", record.updated_at),
        ("lease_until", "leased until", record.lease_until),
        ("expires_at", "expires", record.expires_at),
    ):
        if facts[name] is not None:
            lines.append((title, f"{facts[name]} ({span(timestamp - now)})"))
    if facts["expires_at"] is None:
        lines.append(("expires", "never"))
    lines += [("attempts", str(record.attempts)), ("executions", str(record.executions))]
    lines += [
        (title, legible(text))
        for title, text in (("worker", record.worker), ("fingerprint", record.fingerprint), ("meta", record.meta))
        if text
    ]
    answer = facts["answer"]
    if answer is not None:
        kept = f"{answer['body_bytes']} bytes" if answer["kept"] else "a body that was too large to be kept"
        lines.append(("answer", f"HTTP {answer['status']}, {escaped(answer['content_type'] or 'no type')}, {kept}"))
    elif record.result is not None:
        lines.append(("result", f"{len(record.result)} bytes"))
    if text := preview(record):
        lines.append(("", text))
    return lines


@once.command()
@_key_argument
@click.option("--yes", is_flag=True, help="Also while the work runs, and without a question.")
@_store_option
@_json_option
def release(key: str, yes: bool, url: str, as_json: bool) -> None:
    """Forget KEY, so that the next attempt executes.

    Look first whether the work had its effect. While it runs (state leased), a terminal is asked, and anything else
    needs --yes: the next attempt would run beside it.
    """
    record = _record(url, key)
    if record.state is State.LEASED and not yes:
        _ask(record)

    async def work(store: Store) -> bool:
        if yes or record.state in (State.DONE, State.FAILED):
            return await store.delete(key)
        # Only the lease that was looked at, not one that another attempt has got since.
        return await store.finish(key, record.token, Event.RELEASE, ttl=1.0)

    if not _run(url, work):
        raise _Failed(f"the key {key} has changed meanwhile, and was not released: look at it again")
    if as_json:
        click.echo(json.dumps({"key": key, "released": True, "state": record.state.value}))
    else:
        click.echo(f"Released {escaped(key)}, which was {record.state.value}.")


def _ask(record: Record) -> None:
    """Have a lease's end confirmed. Raises _Failed where nobody can be asked, or says no."""
    by = f" by {record.worker}" if record.worker else ""
    until = span(record.lease_until - time.time())
    message = f"the work of {record.key} is running{by}; its lease ends {until}, unless it is renewed"
    if not sys.stdin.isatty():
        raise _Failed(f"{message}. Nothing was released: give --yes if the next attempt may run beside it")
    click.echo(escaped(f"{message}. The next attempt would run beside it."), err=True)
    if not click.confirm("Release it all the same?", err=True):
        raise _Failed("nothing was released")


@once.command()
@_store_option
@_json_option
def purge(url: str, as_json: bool) -> None:
    """Remove what has expired. Stores also do that by themselves."""
    count = _run(url, lambda store: store.purge())
    click.echo(json.dumps({"purged": count}) if as_json else f"Removed {count} expired keys.")


def _record(url: str, key: str) -> Record:
    """The record. Raises _Failed if there is none."""
    record = _run(url, lambda store: store.get(key))
    if record is None:
        raise _Failed(f"there is no key {key}")
    return record


def _run(url: str, work: Callable[[Store], Awaitable[T]]) -> T:
    """Await ``work(store)`` on the open store. Raises _NoStore if that fails, UsageError for a URL that is none."""
    store = _store_at(url)

    async def run() -> T:
        await store.open()
        try:
            return await work(store)
        finally:
            await store.close()

    try:
        return asyncio.run(run())
    except StoreError as exc:
        raise _NoStore(str(exc)) from exc


def _store_at(url: str) -> Store:
    from lastcall_once.stores import store_from_url  # noqa: PLC0415 - not for --help
    from lastcall_once.stores.memory import MemoryStore  # noqa: PLC0415
    from lastcall_once.stores.sqlite import SQLiteStore  # noqa: PLC0415

    try:
        store: Any = store_from_url(url)
    except ValueError as exc:
        raise click.UsageError(f"--store: {exc}") from None
    except ImportError as exc:
        raise _NoStore(str(exc)) from None
    if isinstance(store, MemoryStore):
        raise click.UsageError("--store: the memory store is one process's own; nobody else can look into it")
    if isinstance(store, SQLiteStore) and not store.path.exists():
        raise _NoStore(f"there is no file {store.path}: name another with --store")
    found: Store = store
    return found
