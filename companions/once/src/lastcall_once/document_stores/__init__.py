"""What the HTTP service keeps, one module for each store that it may be in, and ``document_store_of``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lastcall_once.documents import DocumentStore
    from lastcall_once.store import Store

# By name: the packages of the stores that are not used need not be there.
_DOCUMENT_STORES = {
    "lastcall_once.stores.memory.MemoryStore": ("lastcall_once.document_stores.memory", "MemoryDocumentStore"),
    "lastcall_once.stores.sqlite.SQLiteStore": ("lastcall_once.document_stores.sqlite", "SQLiteDocumentStore"),
    "lastcall_once.stores.redis.RedisStore": ("lastcall_once.document_stores.redis", "RedisDocumentStore"),
    "lastcall_once.stores.postgres.PostgresStore": ("lastcall_once.document_stores.postgres", "PostgresDocumentStore"),
}


def document_store_of(store: Store) -> DocumentStore:
    """The document store in ``store``: the same file, database and connections, opened and closed with the store.

    It may be had before the store is open, and as often as one likes: all of them show the same data.
    Raises TypeError for a store that has none.
    """
    for base in type(store).__mro__:
        home, name = _DOCUMENT_STORES.get(f"{base.__module__}.{base.__qualname__}", ("", ""))
        if name:
            made: Any = getattr(import_module(home), name)
            documents: DocumentStore = made(store)
            return documents
    raise TypeError(f"{type(store).__name__} has no document store: those of lastcall_once.stores have one")
