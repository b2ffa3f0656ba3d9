"""What the HTTP service keeps, one module for each store that it may be in, and ``shelf_of``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lastcall_once.shelf import Shelf
    from lastcall_once.store import Store

# By name: the packages of the stores that are not used need not be there.
_SHELVES = {
    "lastcall_once.stores.memory.MemoryStore": ("lastcall_once.shelves.memory", "MemoryShelf"),
    "lastcall_once.stores.sqlite.SQLiteStore": ("lastcall_once.shelves.sqlite", "SQLiteShelf"),
    "lastcall_once.stores.redis.RedisStore": ("lastcall_once.shelves.redis", "RedisShelf"),
    "lastcall_once.stores.postgres.PostgresStore": ("lastcall_once.shelves.postgres", "PostgresShelf"),
}


def shelf_of(store: Store) -> Shelf:
    """The shelf in ``store``: the same file, database and connections, opened and closed with the store.

    It may be had before the store is open, and as often as one likes: all shelves of a store are the same things.
    Raises TypeError for a store that has none.
    """
    for base in type(store).__mro__:
        home, name = _SHELVES.get(f"{base.__module__}.{base.__qualname__}", ("", ""))
        if name:
            made: Any = getattr(import_module(home), name)
            shelf: Shelf = made(store)
            return shelf
    raise TypeError(f"{type(store).__name__} has no shelf: the stores that have one are those of lastcall_once.stores")
