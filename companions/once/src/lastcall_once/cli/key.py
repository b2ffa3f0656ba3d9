"""``lastcall once key``: create, list and revoke the API keys of the HTTP service.

Exit codes: 0 done · 1 there is no such key · 2 usage · 3 the store cannot be used.
"""

from __future__ import annotations

import json
import time
from typing import Any, Final

import click

from lastcall_once.cli.store import with_documents
from lastcall_once.documents import DocumentStore

NOT_DONE: Final = 1
_FACTS: Final = ("id", "account", "name", "created_at", "revoked_at")

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


@click.group(
    "key",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 1 no such key; 2 usage; 3 the store cannot be used.",
)
def key_group() -> None:
    """Create, list and revoke API keys."""


@key_group.command()
@click.option("--name", default="", metavar="TEXT", help="What it is for; shown by ls and /v1/me.")
@click.option("--account", default="", metavar="NAME", help="Whose it is; a new account unless one is named.")
@_store_option
@_json_option
def create(name: str, account: str, url: str, as_json: bool) -> None:
    """Make a key, and write it as the last word of the output.

    It is shown this once: only a hash of it is stored. Keys of one account see the same things, so that a key is
    replaced by making another with --account, and revoking the first.
    """
    from lastcall_once.service import keys  # noqa: PLC0415 - not for --help

    if not name.isprintable() or len(name) > 255:
        raise click.UsageError("--name: expected at most 255 printable characters")
    if account and keys.ACCOUNT.fullmatch(account) is None:
        raise click.UsageError(f"--account: expected 1 to 64 letters, digits, - and _, got {account!r}")

    async def work(documents: DocumentStore) -> tuple[str, keys.Key]:
        return await keys.create(documents, now=time.time(), name=name, account=account)

    secret, key = with_documents(url, work)
    if as_json:
        click.echo(json.dumps({"id": key.id, "account": key.account, "name": key.name, "key": secret}))
    else:
        click.echo(f"Key {key.id} of account {key.account}. It is shown this once: {secret}")


@key_group.command("ls")
@_store_option
@_json_option
def list_keys(url: str, as_json: bool) -> None:
    """List keys, the revoked ones too. With --json: one object on each line."""
    from lastcall_once.service import keys  # noqa: PLC0415 - not for --help

    found = with_documents(url, keys.known)
    if found and not as_json:
        click.echo(_row("ID", "ACCOUNT", "CREATED", "REVOKED", "NAME"))
    for key in found:
        facts: dict[str, Any] = {name: getattr(key, name) for name in _FACTS}
        click.echo(
            json.dumps({**facts, "revoked_at": key.revoked_at or None})
            if as_json
            else _row(key.id, key.account, key.created_at[:19], key.revoked_at[:19] or "-", key.name)
        )


@key_group.command()
@click.argument("identity", metavar="ID")
@_store_option
def revoke(identity: str, url: str) -> None:
    """Revoke the key of this ID, for good. Servers that run may take it for some seconds more, 3 at most."""
    from lastcall_once.service import keys  # noqa: PLC0415 - not for --help

    # People paste what they have: the id is the middle of the key.
    wanted = identity.split("_")[1] if identity.startswith("once_") and identity.count("_") > 1 else identity

    async def work(documents: DocumentStore) -> keys.Key | None:
        return await keys.revoke(documents, wanted, now=time.time())

    key = with_documents(url, work) if wanted.isalnum() and wanted.isascii() else None
    if key is None:
        raise click.ClickException(f"there is no key {ascii(wanted)[1:-1]}: `key ls` has those that are")
    click.echo(f"Key {key.id} of account {key.account} was revoked at {key.revoked_at}.")


def _row(*words: str) -> str:
    widths = (14, 20, 20, 20, 0)
    return " ".join(word.ljust(width) for word, width in zip(words, widths, strict=True)).rstrip()
