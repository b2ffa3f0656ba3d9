"""The store that a command of ``once`` is given by ``--store``: found, opened, and named without its password."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import click

from lastcall_once.documents import DocumentStore
from lastcall_once.store import Store, StoreError

T = TypeVar("T")

STORE_FAILED: Final = 3
# libpq and redis-py take passwords as options too, and names in any percent-encoding.
_SECRET: Final = re.compile(r"((?:^|&)[^=&]*(?:pass|%)[^=&]*=)[^&]*", re.IGNORECASE)


class StoreFailed(click.ClickException):
    """The store cannot be used: exit code 3, and one line on stderr."""

    exit_code = STORE_FAILED


def with_documents(url: str, work: Callable[[DocumentStore], Awaitable[T]]) -> T:
    """Await ``work(documents)`` with the store open, and close it. Not in a running event loop.

    Raises UsageError (exit code 2) for a URL that cannot be read, and for the memory store, StoreFailed if the store
    cannot be used.
    """
    from lastcall_once.document_stores import document_store_of  # noqa: PLC0415 - not for --help

    store = _store_at(url)

    async def run() -> T:
        await store.open()
        try:
            return await work(document_store_of(store))
        finally:
            await store.close()

    try:
        return asyncio.run(run())
    except StoreError as exc:
        raise StoreFailed(f"the store of once cannot be used: {exc}") from exc


def _store_at(url: str) -> Store:
    from lastcall_once.stores import store_from_url  # noqa: PLC0415
    from lastcall_once.stores.memory import MemoryStore  # noqa: PLC0415

    try:
        store: Any = store_from_url(url)
    except ValueError as exc:
        raise click.UsageError(f"--store: {exc}") from None
    except ImportError as exc:
        raise StoreFailed(str(exc)) from None
    if isinstance(store, MemoryStore):
        raise click.UsageError("--store: the memory store is one process's own, so that it can have no API keys")
    found: Store = store
    return found


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    try:
        parts = urlsplit(url)
        query = _SECRET.sub(r"\1***", parts.query)
        if parts.password is None and query == parts.query:
            return url  # as it is: geturl() takes slashes away
        host = parts.netloc.rpartition("@")[2]
        place = parts.netloc if parts.password is None else f"{parts.username}:***@{host}"
        return parts._replace(netloc=place, query=query).geturl()
    except ValueError:
        return "URL"
