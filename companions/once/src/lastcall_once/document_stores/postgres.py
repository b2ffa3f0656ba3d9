"""The document store of the PostgreSQL store: tables beside the one of the records, which ``open`` makes too.

Each step is one statement, except for charges: they are one in a transaction, which is undone where a limit says no.
It adds to its counters in the order of their names, and so takes the locks of their rows in that order: charges never
wait for each other in a circle. The row of a stream, which has its last number, orders those that append to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import AsyncConnection

from lastcall_once.document_stores.rules import MOST, bounded, check_charges, check_keep, first_refused, sums
from lastcall_once.documents import Charge, Document, Entry
from lastcall_once.stores.postgres import NOW, PostgresStore, end_of

_READ = """
SELECT d.collection, d.name, d.data, d.version, d.updated_at FROM {documents} AS d
WHERE d.collection = %(collection)s AND d.name = %(name)s
"""

_INSERT = f"""
INSERT INTO {{documents}} AS d (collection, name, data, version, updated_at)
SELECT %(collection)s::text, %(name)s::text, %(data)s::text, 1, clock.now FROM {NOW}
ON CONFLICT (collection, name)"""

_WRITE_NEW = f"{_INSERT} DO NOTHING RETURNING d.version, d.updated_at"

_WRITE_ANY = f"""{_INSERT} DO UPDATE SET data = excluded.data, version = d.version + 1, updated_at = excluded.updated_at
RETURNING d.version, d.updated_at"""

_WRITE_OLD = f"""
UPDATE {{documents}} AS d SET data = %(data)s, version = d.version + 1, updated_at = clock.now FROM {NOW}
WHERE d.collection = %(collection)s AND d.name = %(name)s AND d.version = %(version)s
RETURNING d.version, d.updated_at
"""

_REMOVE = "DELETE FROM {documents} AS d WHERE d.collection = %(collection)s AND d.name = %(name)s RETURNING 1"

_DOCUMENTS = """
SELECT d.collection, d.name, d.data, d.version, d.updated_at FROM {documents} AS d
WHERE d.collection = %(collection)s AND d.name >= %(prefix)s AND d.name > %(after)s
    AND starts_with(d.name, %(prefix)s) AND (%(end)s::text IS NULL OR d.name < %(end)s)
ORDER BY d.name LIMIT %(limit)s
"""

# The clock is read behind the row of the stream, so that times rise with numbers. What others append meanwhile cannot
# be seen to be deleted: the next one does so.
_APPEND = """
WITH next AS (
    INSERT INTO {streams} AS s (stream, number) VALUES (%(stream)s, 1)
    ON CONFLICT (stream) DO UPDATE SET number = s.number + 1 RETURNING s.number
), trimmed AS (
    DELETE FROM {entries} AS e USING next WHERE e.stream = %(stream)s AND e.number <= next.number - %(keep)s::bigint
)
INSERT INTO {entries} AS e (stream, number, at, data)
SELECT %(stream)s::text, next.number, extract(epoch FROM clock_timestamp())::double precision, %(data)s::text FROM next
RETURNING e.number, e.at
"""

_ENTRIES = """
SELECT e.stream, e.number, e.at, e.data FROM {entries} AS e WHERE e.stream = %(stream)s
ORDER BY e.number DESC LIMIT %(limit)s OFFSET %(offset)s
"""

# OFFSET 0: the clock is read once for both columns.
_CHARGE = f"""
INSERT INTO {{counters}} AS c (counter, value, expires_at)
SELECT given.counter, given.amount, clock.now + given.keep
FROM unnest(%(counters)s::text[], %(amounts)s::bigint[], %(keeps)s::double precision[]) WITH ORDINALITY
    AS given (counter, amount, keep, place), {NOW}
ORDER BY given.place
ON CONFLICT (counter) DO UPDATE SET (value, expires_at) = (
    SELECT CASE WHEN old.gone THEN excluded.value ELSE c.value + excluded.value END,
        CASE WHEN old.gone THEN excluded.expires_at ELSE c.expires_at END
    FROM (SELECT c.expires_at <= clock.now AS gone FROM {NOW} OFFSET 0) AS old)
RETURNING c.counter, c.value
"""

_COUNTS = f"""
SELECT c.counter, c.value FROM {{counters}} AS c, {NOW}
WHERE c.counter = ANY (%(counters)s::text[]) AND c.expires_at > clock.now
"""


class PostgresDocumentStore:
    """A ``DocumentStore`` of a :class:`lastcall_once.stores.postgres.PostgresStore`."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self._named: dict[str, bytes] = {}  # statements with the names of the tables

    async def read(self, collection: str, name: str) -> Document | None:
        """Like :meth:`lastcall_once.documents.DocumentStore.read`."""
        rows = await self._rows(_READ, {"collection": collection, "name": name})
        return Document(*rows[0]) if rows else None

    async def write(self, collection: str, name: str, data: str, *, version: int | None = None) -> Document | None:
        """Like :meth:`lastcall_once.documents.DocumentStore.write`."""
        statement = _WRITE_ANY if version is None else _WRITE_OLD if version else _WRITE_NEW
        values = {"collection": collection, "name": name, "data": data, "version": version}
        rows = await self._rows(statement, values)
        return Document(collection, name, data, *rows[0]) if rows else None

    async def remove(self, collection: str, name: str) -> bool:
        """Like :meth:`lastcall_once.documents.DocumentStore.remove`."""
        return bool(await self._rows(_REMOVE, {"collection": collection, "name": name}))

    async def list_documents(
        self, collection: str, *, prefix: str = "", after: str = "", limit: int = 100
    ) -> Sequence[Document]:
        """Like :meth:`lastcall_once.documents.DocumentStore.list_documents`."""
        where = {"collection": collection, "prefix": prefix, "after": after, "end": end_of(prefix)}
        rows = await self._rows(_DOCUMENTS, where | {"limit": bounded(limit)})
        return [Document(*row) for row in rows]

    async def append(self, stream: str, data: str, *, keep: int) -> Entry:
        """Like :meth:`lastcall_once.documents.DocumentStore.append`."""
        check_keep(keep)
        rows = await self._rows(_APPEND, {"stream": stream, "data": data, "keep": keep})
        number, at = rows[0]
        return Entry(stream, number, at, data)

    async def entries(self, stream: str, *, limit: int = 100, offset: int = 0) -> Sequence[Entry]:
        """Like :meth:`lastcall_once.documents.DocumentStore.entries`."""
        rows = await self._rows(_ENTRIES, {"stream": stream, "limit": bounded(limit), "offset": bounded(offset)})
        return [Entry(*row) for row in rows]

    async def charge(self, charges: Sequence[Charge]) -> str | None:
        """Like :meth:`lastcall_once.documents.DocumentStore.charge`."""
        check_charges(charges)
        # No more than is too much for any limit: the server's integers end somewhere too.
        added = {each.counter: min(each.amount, MOST) for each in sums(charges)}
        values = {
            "counters": list(added),
            "amounts": list(added.values()),
            "keeps": [each.keep for each in sums(charges)],
        }

        async def work(connection: AsyncConnection[Any]) -> str | None:
            refused = None
            async with connection.transaction():
                rows = await self._execute(connection, _CHARGE, values)
                refused = first_refused(charges, {counter: value - added[counter] for counter, value in rows})
                if refused is not None:
                    raise psycopg.Rollback
            return refused

        return await self._store.run(work)

    async def counts(self, counters: Sequence[str]) -> Sequence[int]:
        """Like :meth:`lastcall_once.documents.DocumentStore.counts`."""
        there = dict(await self._rows(_COUNTS, {"counters": list(counters)}))
        return [there.get(name, 0) for name in counters]

    async def _rows(self, statement: str, values: Mapping[str, Any]) -> list[Any]:
        """The rows that a statement, by itself, comes to."""
        return await self._store.run(lambda connection: self._execute(connection, statement, values))

    async def _execute(self, connection: AsyncConnection[Any], text: str, values: Mapping[str, Any]) -> list[Any]:
        statement = self._named.get(text)
        if statement is None:
            statement = self._named[text] = self._store.named(text)
        cursor = await self._store.execute(connection, statement, values)
        return await cursor.fetchall()
