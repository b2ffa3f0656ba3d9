"""The document store of the SQLite store: work for the store's thread, in its transactions."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from lastcall_once.document_stores.rules import bounded, check_charges, check_keep, first_refused, sums
from lastcall_once.documents import Charge, Document, Entry
from lastcall_once.stores.sqlite import SQLiteStore, check_texts

_READ = "SELECT collection, name, data, version, updated_at FROM once_documents WHERE collection = ? AND name = ?"
_VERSION = "SELECT version FROM once_documents WHERE collection = ? AND name = ?"
_WRITE = "INSERT OR REPLACE INTO once_documents (collection, name, data, version, updated_at) VALUES (?, ?, ?, ?, ?)"
_REMOVE = "DELETE FROM once_documents WHERE collection = ? AND name = ?"
_DOCUMENTS = """SELECT collection, name, data, version, updated_at FROM once_documents
    WHERE collection = ? AND name >= ? AND name > ? ORDER BY name LIMIT ?"""

_LAST = "SELECT max(number) FROM once_entries WHERE stream = ?"
_APPEND = "INSERT INTO once_entries (stream, number, at, data) VALUES (?, ?, ?, ?)"
_TRIM = "DELETE FROM once_entries WHERE stream = ? AND number <= ?"
_ENTRIES = "SELECT stream, number, at, data FROM once_entries WHERE stream = ? ORDER BY number DESC LIMIT ? OFFSET ?"

_COUNTERS = """SELECT counter, value, expires_at FROM once_counters
    WHERE counter IN (SELECT value FROM json_each(?)) AND expires_at > ?"""
_CHARGE = "INSERT OR REPLACE INTO once_counters (counter, value, expires_at) VALUES (?, ?, ?)"


class SQLiteDocumentStore:
    """A ``DocumentStore`` in the file of a :class:`lastcall_once.stores.sqlite.SQLiteStore`.

    A step is one piece of work in a transaction that holds the file for writing, so that what it reads stays as it is
    until it has written.
    """

    def __init__(self, store: SQLiteStore) -> None:
        self._store = store

    async def read(self, collection: str, name: str) -> Document | None:
        """Like :meth:`lastcall_once.documents.DocumentStore.read`."""
        check_texts(collection, name)

        def work(connection: sqlite3.Connection, _now: float) -> Document | None:
            row = connection.execute(_READ, (collection, name)).fetchone()
            return Document(*row) if row else None

        return await self._store.work(work, writes=False)

    async def write(self, collection: str, name: str, data: str, *, version: int | None = None) -> Document | None:
        """Like :meth:`lastcall_once.documents.DocumentStore.write`."""
        check_texts(collection, name, data)

        def work(connection: sqlite3.Connection, now: float) -> Document | None:
            row = connection.execute(_VERSION, (collection, name)).fetchone()
            current = row[0] if row else 0
            if version is not None and version != current:
                return None
            connection.execute(_WRITE, (collection, name, data, current + 1, now))
            return Document(collection, name, data, current + 1, now)

        return await self._store.work(work)

    async def remove(self, collection: str, name: str) -> bool:
        """Like :meth:`lastcall_once.documents.DocumentStore.remove`."""
        check_texts(collection, name)
        return await self._store.work(
            lambda connection, _: connection.execute(_REMOVE, (collection, name)).rowcount > 0
        )

    async def list_documents(
        self, collection: str, *, prefix: str = "", after: str = "", limit: int = 100
    ) -> Sequence[Document]:
        """Like :meth:`lastcall_once.documents.DocumentStore.list_documents`."""
        check_texts(collection, prefix, after)

        def work(connection: sqlite3.Connection, _now: float) -> list[Document]:
            found = []
            for row in connection.execute(_DOCUMENTS, (collection, prefix, after, bounded(limit))):
                if not row[1].startswith(prefix):
                    break  # those that begin with it come first, and together
                found.append(Document(*row))
            return found

        return await self._store.work(work, writes=False)

    async def append(self, stream: str, data: str, *, keep: int) -> Entry:
        """Like :meth:`lastcall_once.documents.DocumentStore.append`."""
        check_keep(keep)
        check_texts(stream, data)

        def work(connection: sqlite3.Connection, now: float) -> Entry:
            number = (connection.execute(_LAST, (stream,)).fetchone()[0] or 0) + 1
            connection.execute(_APPEND, (stream, number, now, data))
            connection.execute(_TRIM, (stream, number - keep))
            return Entry(stream, number, now, data)

        return await self._store.work(work)

    async def entries(self, stream: str, *, limit: int = 100, offset: int = 0) -> Sequence[Entry]:
        """Like :meth:`lastcall_once.documents.DocumentStore.entries`."""
        check_texts(stream)

        def work(connection: sqlite3.Connection, _now: float) -> list[Entry]:
            rows = connection.execute(_ENTRIES, (stream, bounded(limit), bounded(offset)))
            return [Entry(*row) for row in rows]

        return await self._store.work(work, writes=False)

    async def charge(self, charges: Sequence[Charge]) -> str | None:
        """Like :meth:`lastcall_once.documents.DocumentStore.charge`."""
        check_charges(charges)
        check_texts(*(charge.counter for charge in charges))
        added = sums(charges)

        def work(connection: sqlite3.Connection, now: float) -> str | None:
            there = _counters(connection, [each.counter for each in added], now)
            refused = first_refused(charges, {name: value for name, (value, _) in there.items()})
            if refused is None:
                for each in added:
                    value, expires_at = there.get(each.counter, (0, now + each.keep))
                    connection.execute(_CHARGE, (each.counter, value + each.amount, expires_at))
            return refused

        return await self._store.work(work)

    async def counts(self, counters: Sequence[str]) -> Sequence[int]:
        """Like :meth:`lastcall_once.documents.DocumentStore.counts`."""
        check_texts(*counters)

        def work(connection: sqlite3.Connection, now: float) -> list[int]:
            there = _counters(connection, counters, now)
            return [there.get(name, (0, 0.0))[0] for name in counters]

        return await self._store.work(work, writes=False)


def _counters(connection: sqlite3.Connection, names: Sequence[str], now: float) -> dict[str, tuple[int, float]]:
    """The value and the end of each counter that exists."""
    rows = connection.execute(_COUNTERS, (json.dumps(list(names)), now))
    return {name: (value, expires_at) for name, value, expires_at in rows}
