"""Where records are kept, one module for each store, and ``store_from_url``."""

from __future__ import annotations

import math
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

if TYPE_CHECKING:
    from lastcall_once.store import Store

FORMS = "sqlite:///once.db, sqlite:////var/lib/once.db, memory:, redis://…, rediss://… or postgresql://…"
_REMOTE = {
    "redis": ("lastcall_once.stores.redis", "RedisStore", "redis"),
    "rediss": ("lastcall_once.stores.redis", "RedisStore", "redis"),
    "postgresql": ("lastcall_once.stores.postgres", "PostgresStore", "postgres"),
    "postgres": ("lastcall_once.stores.postgres", "PostgresStore", "postgres"),
}


def store_from_url(url: str) -> Store:
    """Make the store that ``url`` names. It is not opened yet.

    - ``sqlite:///once.db`` is a file in the working directory, ``sqlite:////var/lib/once.db`` an absolute path.
      Options: ``?synchronous=full`` (survives power loss; the default ``normal`` survives the death of processes) and
      ``?timeout=5`` (seconds to wait for other processes).
    - ``memory:`` is for one process, and for tests.
    - ``redis://…``, ``rediss://…`` and ``postgresql://…`` are handed to their stores as they are.

    Raises ValueError for what cannot be read, ImportError where the package of an extra is missing. No message quotes
    more of the URL than its scheme and options: it may have a password.
    """
    scheme, colon, rest = url.partition(":")
    scheme = scheme.lower()
    if not colon or scheme not in ("sqlite", "memory", *_REMOTE):
        shown = repr(scheme) if colon and scheme.isalnum() else "none"
        raise ValueError(f"a store's URL is {FORMS}; the scheme of this one is {shown}")
    if scheme == "sqlite":
        return _sqlite(rest)
    if scheme == "memory":
        if rest.strip("/"):
            raise ValueError("the memory store's URL is just memory:")
        from lastcall_once.stores.memory import MemoryStore  # noqa: PLC0415 - only what is used

        return MemoryStore()
    home, name, extra = _REMOTE[scheme]
    try:
        store: Any = getattr(import_module(home), name)
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.startswith("lastcall"):
            raise
        raise ImportError(
            f"a store at {scheme}:// needs the package {exc.name}: pip install 'lastcall-once[{extra}]'", name=exc.name
        ) from exc
    made: Store = store(url)
    return made


def _sqlite(rest: str) -> Store:
    from lastcall_once.stores.sqlite import SQLiteStore  # noqa: PLC0415 - only what is used

    path, _, query = rest.partition("?")
    path = unquote(path.removeprefix("///"))
    if not rest.startswith("///") or not path or path == ":memory:" or path.endswith("/") or "\0" in path:
        raise ValueError("a SQLite store's URL is sqlite:///once.db, or sqlite:////var/lib/once.db with four slashes")
    synchronous, timeout = "normal", 5.0
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "synchronous" and value.lower() in ("normal", "full"):
            synchronous = value.lower()
        elif name == "timeout" and (seconds := _seconds(value)) is not None:
            timeout = seconds
        else:
            raise ValueError(
                f"{name}={value} is no option of a SQLite store: there are synchronous=normal, synchronous=full and "
                "timeout=SECONDS"
            )
    return SQLiteStore(path, synchronous=synchronous, timeout=timeout)


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 < seconds < math.inf else None
