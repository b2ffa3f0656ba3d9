"""Records in PostgreSQL (12 or newer), for a fleet that has one. Needs the extra ``postgres``.

Theory of operation
-------------------
A record is a row of one table, whose columns are the fields of ``records.Record``, times as seconds since 1970 on the
server's clock (``clock_timestamp()``). Each step is one statement in a transaction of its own. To acquire is to insert,
or in a conflict to update: the row lock orders the attempts, the verdict is computed there, and the column ``verdict``
keeps it, since ``RETURNING`` sees no other way what was decided.

The clock is read when a statement begins, before it waits for a row; the wait is short, and bounded by the timeout.

The table is made, or brought up to date, by ``open``, under an advisory lock; its version is in a second table,
``<table>_schema``, and those of the document store are beside them (``lastcall_once.document_stores.postgres``). What
has expired counts as absent, but stays until ``purge``, which also happens by itself, about once a minute of use. A row
is as safe as a commit is: see PostgreSQL's ``synchronous_commit``.

A connection that has died is found by a look at its socket before it is used; connecting anew is the pool's work. Calls
that wait for that fail when it does, not only at their timeout. A call that the server does not answer is ended by
shutting its socket down: psycopg's own way, a cancel request, needs a server that answers. A connection that turns out
to be read-only (its server was demoted, or its name leads to another one now) is closed, and all others with it.

A pooler such as PgBouncer may hand each transaction to another server's process, with the settings and the prepared
statements that any client has left there: under one's own name there may be another one's statement. It is recognised
by the process that answers, which is not the one that greeted us; then nothing is prepared and nothing set. What is
lost by that: the server does not stop a statement that takes too long, so that it may still wait for its row, and then
have its effect, when our call has failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import select
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar
from weakref import WeakSet

import psycopg
from psycopg import AsyncConnection, AsyncCursor, errors
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier
from psycopg_pool import AsyncConnectionPool

from lastcall_once.own_task import own_task
from lastcall_once.records import Attempt, Event, Outcome, Policy, Record, State, Verdict, at
from lastcall_once.store import StoreError

T = TypeVar("T")

# What leads from each version of the schema to the next; the first makes it from nothing. Never change one that was
# released. What is in braces are names. Text is compared bytewise, which is the order of Python's strings.
MIGRATIONS = (
    """
    CREATE TABLE {table} (
        key text COLLATE "C" PRIMARY KEY,
        state text NOT NULL,
        token text NOT NULL,
        worker text NOT NULL,
        first_seen_at double precision NOT NULL,
        updated_at double precision NOT NULL,
        lease_until double precision NOT NULL,
        expires_at double precision NOT NULL,
        attempts bigint NOT NULL,
        executions bigint NOT NULL,
        fingerprint text NOT NULL,
        result bytea,
        meta text NOT NULL,
        verdict text NOT NULL
    ) WITH (fillfactor = 80);
    CREATE INDEX {index} ON {table} (expires_at);
    """,
    # Tables of lastcall_once.document_stores.postgres. {streams} has the number of each stream's last entry.
    """
    CREATE TABLE {documents} (
        collection text COLLATE "C" NOT NULL,
        name text COLLATE "C" NOT NULL,
        data text NOT NULL,
        version bigint NOT NULL,
        updated_at double precision NOT NULL,
        PRIMARY KEY (collection, name)
    );
    CREATE TABLE {streams} (stream text COLLATE "C" PRIMARY KEY, number bigint NOT NULL) WITH (fillfactor = 80);
    CREATE TABLE {entries} (
        stream text COLLATE "C" NOT NULL,
        number bigint NOT NULL,
        at double precision NOT NULL,
        data text NOT NULL,
        PRIMARY KEY (stream, number)
    );
    CREATE TABLE {counters} (
        counter text COLLATE "C" PRIMARY KEY,
        value bigint NOT NULL,
        expires_at double precision NOT NULL
    ) WITH (fillfactor = 80);
    CREATE INDEX {counters_index} ON {counters} (expires_at);
    """,
)

_PURGE_ROWS = 1000  # at once: a statement must end within the timeout
_PURGE_EVERY = 60.0

_FIELDS = """r.key, r.state, r.token, r.worker, r.first_seen_at, r.updated_at, r.lease_until, r.expires_at,
    r.attempts, r.executions, r.fingerprint, r.result, r.meta"""

NOW = "(SELECT extract(epoch FROM clock_timestamp())::double precision AS now OFFSET 0) AS clock"

# records.at: there is no record any more
_GONE = "r.expires_at <= clock.now AND NOT (r.state = 'leased' AND clock.now < r.lease_until)"

# OFFSET 0 keeps the planner from writing the inner expressions out wherever they are used, which makes them hundreds.
_ACQUIRE = f"""
INSERT INTO {{table}} AS r (key, state, token, worker, first_seen_at, updated_at, lease_until, expires_at,
    attempts, executions, fingerprint, result, meta, verdict)
SELECT %(key)s::text, CASE WHEN %(lease)s::double precision > 0 THEN 'leased' ELSE 'done' END,
    %(token)s::text, %(worker)s::text, clock.now, clock.now, clock.now + %(lease)s::double precision,
    clock.now + %(lease)s::double precision + %(ttl)s::double precision,
    1, 1, %(fingerprint)s::text, NULL, %(meta)s::text, 'granted'
FROM {NOW}
ON CONFLICT (key) DO UPDATE SET
    (state, token, worker, first_seen_at, updated_at, lease_until, expires_at,
        attempts, executions, fingerprint, result, meta, verdict) =
    (SELECT
        CASE WHEN told.granted THEN excluded.state ELSE told.state END,
        CASE WHEN told.granted THEN excluded.token ELSE r.token END,
        CASE WHEN told.granted THEN excluded.worker ELSE r.worker END,
        CASE WHEN told.state = 'absent' THEN excluded.first_seen_at ELSE r.first_seen_at END,
        excluded.updated_at,
        CASE WHEN told.granted THEN excluded.lease_until ELSE r.lease_until END,
        CASE WHEN told.granted THEN excluded.expires_at ELSE r.expires_at END,
        CASE WHEN told.state = 'absent' THEN 1 ELSE r.attempts + 1 END,
        CASE WHEN told.state = 'absent' THEN 1 WHEN told.granted THEN r.executions + 1 ELSE r.executions END,
        CASE WHEN told.state = 'absent' OR told.granted AND excluded.fingerprint <> ''
            THEN excluded.fingerprint ELSE r.fingerprint END,
        CASE WHEN told.granted THEN NULL ELSE r.result END,
        CASE WHEN told.granted THEN excluded.meta ELSE r.meta END,
        told.verdict
    FROM (SELECT judged.state, judged.verdict, judged.verdict = 'granted' AS granted FROM
        (SELECT seen.state, CASE
            WHEN seen.state = 'absent' THEN 'granted'
            WHEN excluded.fingerprint <> '' AND r.fingerprint <> '' AND excluded.fingerprint <> r.fingerprint
                THEN 'mismatch'
            WHEN seen.state = 'leased' THEN 'in_flight'
            WHEN seen.state = 'done' THEN 'done'
            WHEN seen.state = 'failed' AND %(refuse_failed)s::boolean THEN 'failed'
            WHEN seen.state = 'unknown' AND %(refuse_unknown)s::boolean THEN 'unknown'
            ELSE 'granted' END AS verdict
        FROM (SELECT CASE
            WHEN r.state = 'leased' AND excluded.updated_at < r.lease_until THEN 'leased'
            WHEN r.expires_at <= excluded.updated_at THEN 'absent'
            WHEN r.state = 'leased' THEN 'unknown'
            ELSE r.state END AS state OFFSET 0) AS seen OFFSET 0) AS judged) AS told)
RETURNING r.verdict, {_FIELDS}
"""

_HELD = f"""r.key = %(key)s AND r.token = %(token)s AND r.state IN ('leased', 'unknown') AND NOT ({_GONE})"""

_RENEW = f"""
UPDATE {{table}} AS r SET state = 'leased', updated_at = clock.now,
    lease_until = clock.now + %(lease)s::double precision,
    expires_at = clock.now + %(lease)s::double precision + %(ttl)s::double precision
FROM {NOW} WHERE {_HELD}
"""

_FINISH = f"""
UPDATE {{table}} AS r SET state = %(state)s, updated_at = clock.now,
    expires_at = clock.now + %(ttl)s::double precision, result = %(result)s
FROM {NOW} WHERE {_HELD}
"""

_RELEASE = f"DELETE FROM {{table}} AS r USING {NOW} WHERE {_HELD}"

_GET = f"SELECT clock.now, {_FIELDS} FROM {{table}} AS r, {NOW} WHERE r.key = %(key)s"

_SCAN = f"""
SELECT clock.now, {_FIELDS} FROM {{table}} AS r, {NOW}
WHERE r.key >= %(first)s AND r.key > %(after)s AND starts_with(r.key, %(prefix)s) AND NOT ({_GONE})
    AND (%(end)s::text IS NULL OR r.key < %(end)s)
ORDER BY r.key LIMIT %(limit)s
"""

_DELETE = f"DELETE FROM {{table}} AS r USING {NOW} WHERE r.key = %(key)s RETURNING NOT ({_GONE})"

_PURGE = f"""
DELETE FROM {{table}} WHERE key = ANY (ARRAY(
    SELECT r.key FROM {{table}} AS r, {NOW} WHERE {_GONE} LIMIT %(rows)s FOR UPDATE OF r SKIP LOCKED))
"""

_PURGE_COUNTERS = f"""
DELETE FROM {{counters}} WHERE counter = ANY (ARRAY(
    SELECT c.counter FROM {{counters}} AS c, {NOW} WHERE c.expires_at <= clock.now
    LIMIT %(rows)s FOR UPDATE OF c SKIP LOCKED))
"""

_ENDS = {Event.COMPLETE: State.DONE, Event.FAIL: State.FAILED, Event.ABANDON: State.UNKNOWN}
_STATES = {state.value: state for state in State}
_VERDICTS = {verdict.value: verdict for verdict in Verdict}


class _Statements(NamedTuple):
    """The statements, with the table's name in them."""

    acquire: bytes
    renew: bytes
    finish: bytes
    release: bytes
    get: bytes
    scan: bytes
    delete: bytes
    purge: bytes
    purge_counters: bytes


class PostgresStore:
    """A store (``lastcall_once.store.Store``) at ``postgresql://[user[:password]@][host][:port][/database]``.

    What follows ``?`` is libpq's, such as ``sslmode=verify-full``, or ``prepare_threshold``: psycopg's, after how many
    executions on a connection a statement is prepared there, or ``none``. Without it, that is at once, or never behind
    a pooler. ``table`` may name a schema too (``app.once``).
    ``timeout`` (seconds) bounds every call, the wait for one of the ``connections`` included; the server stops a
    statement a little before it. Nothing is retried: whether a call that failed had its effect is not known. The user
    needs SELECT, INSERT, UPDATE and DELETE, and for the first ``open`` of a release CREATE. Raises ValueError for a URL
    that cannot be read, and a name of a table that is none.
    """

    def __init__(self, url: str, *, table: str = "once_records", timeout: float = 2.0, connections: int = 8) -> None:
        if not re.fullmatch(r"(?:[A-Za-z_]\w{0,47}\.)?[A-Za-z_]\w{0,47}", table, re.ASCII):
            raise ValueError(f"{table!r} is no name of a table: letters, digits and _, after a schema's name and a dot")
        self._url, self._threshold = _without_threshold(url)
        try:
            conninfo_to_dict(self._url)
        except psycopg.Error:  # its message has the URL, and that the password
            raise ValueError("a PostgreSQL store's URL is postgresql://[user[:password]@][host][:port][/db]") from None
        self._given = url
        self._table = table
        self._timeout = timeout
        self._connections = connections
        self._pool: AsyncConnectionPool[AsyncConnection[Any]] | None = None
        self._purged = 0.0  # the loop's time
        self._purging: asyncio.Task[int] | None = None
        self._waiting: set[asyncio.Timeout] = set()  # calls that have no connection yet
        self._writable: WeakSet[AsyncConnection[Any]] = WeakSet()  # connections, as far as we know
        self._statements: _Statements

    def clone(self) -> PostgresStore:
        """A store on the same records that is not open, for another thread."""
        return PostgresStore(self._given, table=self._table, timeout=self._timeout, connections=1)

    async def open(self) -> None:
        """Connect and bring the schema up to date."""
        if self._pool is not None:
            return
        self._statements = _Statements(
            *map(
                self.named,
                (_ACQUIRE, _RENEW, _FINISH, _RELEASE, _GET, _SCAN, _DELETE, _PURGE, _PURGE_COUNTERS),
            )
        )
        await self._prepare_schema()
        self._pool = AsyncConnectionPool(
            self._url,
            kwargs={"autocommit": True, **self._threshold},
            configure=self._configure,
            min_size=1,
            max_size=self._connections,
            timeout=2 * self._timeout,  # ours is first
            reconnect_timeout=0.1,  # then the next call tries again
            reconnect_failed=self._reconnect_failed,
            open=False,
            name=f"lastcall-once-{self._table}",
        )
        await self._pool.open()
        self._purged = asyncio.get_running_loop().time()

    async def close(self) -> None:
        """Close the connections."""
        pool, self._pool = self._pool, None
        if self._purging is not None:
            await asyncio.wait([self._purging])  # it sees that the store is closed
            self._purging = None
        if pool is not None:
            await pool.close(self._timeout)

    async def acquire(self, attempt: Attempt) -> Outcome:
        """As the protocol says. About once a minute it also begins a purge, beside other calls."""
        now = asyncio.get_running_loop().time()
        if self._pool is not None and now - self._purged > _PURGE_EVERY:
            self._purged = now
            self._purging = own_task(self._purge_beside())
        rows = await self._rows(
            "acquire",
            {
                "key": attempt.key,
                "token": attempt.token,
                "lease": attempt.lease,
                "ttl": attempt.ttl,
                "worker": attempt.worker,
                "fingerprint": attempt.fingerprint,
                "meta": attempt.meta,
                "refuse_unknown": attempt.on_unknown is Policy.REFUSE,
                "refuse_failed": attempt.on_failed is Policy.REFUSE,
            },
        )
        verdict, *fields = rows[0]
        return Outcome(_VERDICTS[verdict], _record(fields))

    async def renew(self, key: str, token: str, *, lease: float, ttl: float) -> bool:
        """As the protocol says."""
        count = await self._count("renew", {"key": key, "token": token, "lease": lease, "ttl": ttl})
        return count == 1

    async def finish(self, key: str, token: str, event: Event, *, ttl: float, result: bytes | None = None) -> bool:
        """As the protocol says."""
        held = {"key": key, "token": token}
        if event is Event.RELEASE:
            count = await self._count("release", held)
        elif event not in _ENDS:
            return False
        else:
            count = await self._count("finish", held | {"state": _ENDS[event].value, "ttl": ttl, "result": result})
        return count == 1

    async def get(self, key: str) -> Record | None:
        """As the protocol says."""
        rows = await self._rows("get", {"key": key})
        return at(_record(rows[0][1:]), rows[0][0]) if rows else None

    async def scan(self, prefix: str = "", *, after: str = "", limit: int = 100) -> Sequence[Record]:
        """As the protocol says."""
        rows = await self._rows(
            "scan",
            {"first": prefix, "prefix": prefix, "after": after, "end": end_of(prefix), "limit": max(limit, 0)},
        )
        found = (at(_record(fields), now) for now, *fields in rows)
        return [record for record in found if record is not None]

    async def delete(self, key: str) -> bool:
        """As the protocol says."""
        rows = await self._rows("delete", {"key": key})
        return bool(rows and rows[0][0])

    async def purge(self) -> int:
        """As the protocol says, in batches; each has the timeout for itself."""
        total = await self._purge("purge")
        await self._purge("purge_counters")
        return total

    async def _purge(self, name: str) -> int:
        total = 0
        while True:
            count = await self._count(name, {"rows": _PURGE_ROWS})
            total += count
            if count < _PURGE_ROWS:
                return total

    async def _purge_beside(self) -> int:
        with contextlib.suppress(StoreError):  # which the callers will hear of from their own calls
            return await self.purge()
        return 0

    # -- one statement ------------------------------------------------------------------------------------------------

    async def _rows(self, name: str, values: Mapping[str, Any]) -> list[Any]:
        """The rows that a statement comes to."""
        return (await self._run(name, values, rows=True))[0]

    async def _count(self, name: str, values: Mapping[str, Any]) -> int:
        """How many rows a statement has touched."""
        return (await self._run(name, values, rows=False))[1]

    async def _run(self, name: str, values: Mapping[str, Any], *, rows: bool) -> tuple[list[Any], int]:
        async def work(connection: AsyncConnection[Any]) -> tuple[list[Any], int]:
            statement = getattr(self._statements, name)
            cursor = await self.execute(connection, statement, values)
            return (await cursor.fetchall() if rows else []), cursor.rowcount

        return await self.run(work)

    async def run(self, work: Callable[[AsyncConnection[Any]], Awaitable[T]]) -> T:
        """Do ``work`` with a connection, which commits each statement outside a transaction. Return its answer.

        Raises StoreError like any step, within the timeout.
        """
        pool = self._pool
        if pool is None:
            raise self._error("it is not open")
        deadline = asyncio.get_running_loop().time() + self._timeout
        try:
            connection = await self._connect(pool, deadline)
            try:
                with _CutAt(deadline, connection):
                    return await work(connection)
            except errors.ReadOnlySqlTransaction:
                self._writable.clear()  # nor are the others, in all likelihood; the next call connects anew
                await connection.close()
                raise
            finally:
                await pool.putconn(connection)
        except (psycopg.Error, OSError, UnicodeError) as exc:
            raise self._failure(exc, deadline) from exc

    async def execute(
        self, connection: AsyncConnection[Any], statement: bytes, values: Mapping[str, Any]
    ) -> AsyncCursor[Any]:
        """Execute a statement, which is prepared at once if nothing speaks against it: it comes again and again."""
        return await connection.execute(statement, values, prepare=None if self._threshold else True, binary=True)

    async def _connect(self, pool: AsyncConnectionPool[AsyncConnection[Any]], deadline: float) -> AsyncConnection[Any]:
        while True:
            async with asyncio.timeout_at(deadline) as scope:
                self._waiting.add(scope)
                try:
                    connection = await pool.getconn()
                finally:
                    self._waiting.discard(scope)
            if connection in self._writable and not _stale(connection):
                return connection
            await connection.close()
            await pool.putconn(connection)  # which makes another

    async def _reconnect_failed(self, pool: AsyncConnectionPool[Any]) -> None:
        """Nobody need wait any longer, if there is no connection at all."""
        if not pool.get_stats()["pool_size"]:
            for scope in self._waiting:
                if not scope.expired():
                    scope.reschedule(0)

    async def _configure(self, connection: AsyncConnection[Any]) -> None:
        """The server stops what takes too long, before we cut the connection: that is kept, and the message better.

        It also ends a transaction, with its locks, whose client has stopped in the middle, and cannot cut anything.
        """
        self._writable.add(connection)
        cursor = await connection.execute(
            "SELECT set_config('statement_timeout', %s, false),"
            " set_config('idle_in_transaction_session_timeout', %s, false),"
            " set_config('default_transaction_isolation', 'read committed', false) WHERE pg_backend_pid() = %s",
            (
                str(max(1, int(self._timeout * 900))),
                str(max(1, int(self._timeout * 1000))),
                connection.info.backend_pid,
            ),
        )
        if cursor.rowcount == 0:
            await self._configure_pooled(connection)

    async def _configure_pooled(self, connection: AsyncConnection[Any]) -> None:
        """What answers is not who greeted us: a pooler is between, and the next statement may go to yet another one.

        So nothing may be left behind there, and nothing expected. Raises StoreError if that does not do.
        """
        if not self._threshold:
            connection.prepare_threshold = None
        cursor = await connection.execute("SELECT current_setting('default_transaction_isolation')")
        row = await cursor.fetchone()
        if row != ("read committed",):
            raise self._error(
                f"default_transaction_isolation is {row[0] if row else 'unknown'}, which cannot be changed behind a "
                "pooler such as PgBouncer: set it to 'read committed' for this user, by ALTER ROLE"
            )

    def _failure(self, exc: Exception, deadline: float) -> StoreError:
        in_time = asyncio.get_running_loop().time() < deadline
        if isinstance(exc, errors.QueryCanceled) or not in_time:
            return self._error(f"no answer within {self._timeout:g} s")
        if isinstance(exc, TimeoutError):
            return self._error("it cannot be reached; the log of psycopg.pool says why")
        if isinstance(exc, errors.ReadOnlySqlTransaction):
            return self._error(f"it is read-only, a standby perhaps ({exc})")
        if isinstance(exc, errors.DiskFull):
            return self._error(f"it is full ({exc})")
        return self._error(str(exc).strip() or type(exc).__name__)

    def _error(self, reason: str) -> StoreError:
        return StoreError(f"PostgreSQL, table {self._table}: {reason}")

    # -- the schema ---------------------------------------------------------------------------------------------------

    def named(self, text: str) -> bytes:
        """A statement with the names in it that it has in braces."""
        path = self._table.split(".")
        names = {
            "table": Identifier(*path),
            "schema": Identifier(*path[:-1], f"{path[-1]}_schema"),
            "index": Identifier(f"{path[-1]}_expires_at"),
            "counters_index": Identifier(f"{path[-1]}_counters_end"),
        }
        for name in ("documents", "streams", "entries", "counters"):
            names[name] = Identifier(*path[:-1], f"{path[-1]}_{name}")
        return SQL(text).format(**names).as_bytes(None)

    async def _prepare_schema(self) -> None:
        deadline = asyncio.get_running_loop().time() + self._timeout
        try:
            async with asyncio.timeout_at(deadline):
                connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True, **self._threshold)
            try:
                with _CutAt(deadline, connection):
                    await self._configure(connection)
                    if await self._version(connection) != len(MIGRATIONS):
                        await self._migrate(connection)
            finally:
                await connection.close()
        except (psycopg.Error, OSError, UnicodeError) as exc:
            raise self._failure(exc, deadline) from exc

    async def _version(self, connection: AsyncConnection[Any]) -> int:
        """The version that is there, 0 for none. Raises StoreError if it is newer than ours."""
        name = self.named("{schema}")
        cursor = await connection.execute("SELECT to_regclass(%s::text) IS NOT NULL", (name.decode(),))
        if (await cursor.fetchone()) != (True,):
            return 0
        cursor = await connection.execute(b"SELECT max(version) FROM " + name)
        row = await cursor.fetchone()
        version = int(row[0] or 0) if row else 0
        if version > len(MIGRATIONS):
            raise self._error(f"it has schema {version}, this release of lastcall knows {len(MIGRATIONS)}: upgrade it")
        return version

    async def _migrate(self, connection: AsyncConnection[Any]) -> None:
        """Do what is to do, once: others who open the store at the same time wait."""
        async with connection.transaction():
            await connection.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended('lastcall.once ' || %s::text, 0))", (self._table,)
            )
            # Before we look: to_regclass alone may answer from a cache that has not heard of what others made.
            create = "CREATE TABLE IF NOT EXISTS {schema} (version integer NOT NULL PRIMARY KEY)"
            await connection.execute(self.named(create))
            for number in range(await self._version(connection), len(MIGRATIONS)):
                await connection.execute(self.named(MIGRATIONS[number]))
                insert = self.named("INSERT INTO {schema} (version) VALUES ")
                await connection.execute(insert + b"(%s)", (number + 1,))


class _CutAt(contextlib.AbstractContextManager[None]):
    """Ends what the connection does at ``deadline`` (the loop's time), by shutting its socket down."""

    def __init__(self, deadline: float, connection: AsyncConnection[Any]) -> None:
        self._timer = asyncio.get_running_loop().call_at(deadline, _cut, connection)

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


def _cut(connection: AsyncConnection[Any]) -> None:
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as copy:
        copy.shutdown(socket.SHUT_RDWR)  # psycopg wakes up, and finds the connection closed


def _without_threshold(url: str) -> tuple[str, dict[str, Any]]:
    """The URL without ``prepare_threshold``, which libpq does not know, and that as psycopg's argument, if it is there.

    Raises ValueError for a value that is none.
    """
    threshold: dict[str, Any] = {}
    if not re.match("postgres(ql)?://", url):
        return url, threshold
    start, _, query = url.partition("?")
    kept = []
    for option in query.split("&"):
        name, _, value = option.partition("=")
        if name != "prepare_threshold":
            kept.append(option)
        elif value.lower() == "none":
            threshold[name] = None
        elif re.fullmatch("[0-9]{1,9}", value):
            threshold[name] = int(value)
        else:
            raise ValueError(f"prepare_threshold={value}: it is a number of executions, from 0 on, or none")
    return "?".join([start, *filter(None, ["&".join(kept)])]), threshold


def _stale(connection: AsyncConnection[Any]) -> bool:
    """Whether an idle connection has something to read: its end, in all likelihood."""
    if connection.closed:
        return True
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def end_of(prefix: str) -> str | None:
    """The first string behind all that begin with ``prefix``; None where there is no simple one."""
    last = ord(prefix[-1]) + 1 if prefix else 0
    return None if not prefix or last > 0x10FFFF or 0xD800 <= last <= 0xDFFF else prefix[:-1] + chr(last)


def _record(fields: Sequence[Any]) -> Record:
    """The record of a row's ``_FIELDS``."""
    key, state, *others = fields
    return Record(key, _STATES[state], *others)
