"""The PostgreSQL store behind PgBouncer, which gives a client another connection for each transaction, or session."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import AsyncConnection

from lastcall_once.document_stores import document_store_of
from lastcall_once.documents import Charge
from lastcall_once.records import Attempt, Event, State, Verdict
from lastcall_once.store import StoreError
from lastcall_once.stores.postgres import PostgresStore
from testing.stores import PgBouncer, PostgresServer

pytestmark = pytest.mark.slow

STORES = 3
CONNECTIONS = 2  # of each store
SIZES = {"transaction": 2, "session": STORES * CONNECTIONS + 2}


@pytest.fixture(params=SIZES, scope="module")
def pooler(request: pytest.FixtureRequest, postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    server = PgBouncer(postgres_server, request.param, size=SIZES[request.param])
    try:
        server.start()
        yield server
    finally:
        server.remove()


async def lives(store: PostgresStore) -> None:
    """All steps, each of which tells whether it was another one's."""
    key, token = uuid.uuid4().hex, uuid.uuid4().hex
    documents = document_store_of(store)
    assert (await store.acquire(Attempt(key, token, lease=30.0, ttl=60.0))).verdict is Verdict.GRANTED
    await documents.write("c", key, "data")
    held = await store.get(key)
    assert (held and held.token, held and held.state) == (token, State.LEASED)
    assert await documents.charge([Charge(key, 2, 3, keep=60.0)]) is None
    assert await documents.charge([Charge(key, 2, 3, keep=60.0)]) == key
    assert await store.renew(key, token, lease=30.0, ttl=60.0)
    assert await documents.counts([key]) == [2]
    assert await store.finish(key, token, Event.COMPLETE, ttl=60.0, result=key.encode())
    found = await documents.read("c", key)
    assert (found and found.data, found and found.version) == ("data", 1)
    record = await store.get(key)
    assert (record and record.result, record and record.state) == (key.encode(), State.DONE)
    assert [each.key for each in await store.scan(key)] == [key]
    assert await documents.remove("c", key)
    assert await store.delete(key)
    assert await store.get(key) is None


def test_each_statement_is_the_one_that_was_meant(pooler: PgBouncer) -> None:
    async def main() -> None:
        stores = [PostgresStore(pooler.url, timeout=20.0, connections=CONNECTIONS) for _ in range(STORES)]
        await asyncio.gather(*(store.open() for store in stores))
        try:
            for _ in range(5):
                await asyncio.gather(*(lives(store) for store in stores * 4))
                await asyncio.gather(*(store.purge() for store in stores))
        finally:
            await asyncio.gather(*(store.close() for store in stores))

    asyncio.run(main())


def test_what_it_shares_with_others_is_as_it_was(pooler: PgBouncer) -> None:
    """No setting and no prepared statement is left to whoever has the connection next."""

    async def main() -> None:
        store = PostgresStore(pooler.url, timeout=20.0, connections=CONNECTIONS)
        await store.open()
        try:
            await asyncio.gather(*(lives(store) for _ in range(4)))
            with contextlib.closing(pooler.client()) as other:
                for _ in range(4):  # whichever it is given
                    seen = other.execute(
                        "SELECT current_setting('statement_timeout'), current_setting('default_transaction_isolation'),"
                        " current_setting('idle_in_transaction_session_timeout'),"
                        " (SELECT count(*) FROM pg_prepared_statements)"
                    ).fetchone()
                    assert seen == ("0", "read committed", "0", 0)
        finally:
            await store.close()

    asyncio.run(main())


def test_several_make_the_tables_at_once(pooler: PgBouncer) -> None:
    table = f"once_{uuid.uuid4().hex[:12]}"

    async def main() -> None:
        stores = [PostgresStore(pooler.url, table=table, timeout=20.0, connections=1) for _ in range(STORES)]
        await asyncio.gather(*(store.open() for store in stores))
        await asyncio.gather(*(lives(store) for store in stores))
        await asyncio.gather(*(store.close() for store in stores))

    asyncio.run(main())


def test_a_lock_is_not_waited_for_for_ever(pooler: PgBouncer, postgres_server: PostgresServer) -> None:
    """No setting ends the statement: the call is ended here, and PgBouncer gives that connection to nobody else."""

    async def main() -> None:
        store = PostgresStore(pooler.url, timeout=0.5, connections=1)
        await store.open()
        key = uuid.uuid4().hex
        try:
            await store.acquire(Attempt(key, "first", lease=30.0, ttl=60.0))
            with contextlib.closing(postgres_server.client()) as client, client.transaction():
                client.execute("SELECT * FROM once_records WHERE key = %s FOR UPDATE", (key,))
                with pytest.raises(StoreError, match=r"no answer within 0\.5 s"):
                    await store.acquire(Attempt(key, "second", lease=30.0, ttl=60.0))
        finally:
            await store.close()
        again = PostgresStore(pooler.url, timeout=20.0, connections=1)
        await again.open()
        try:
            found = await again.acquire(Attempt(key, "third", lease=30.0, ttl=60.0))
            assert (found.verdict, found.record.token) == (Verdict.IN_FLIGHT, "first")
        finally:
            await again.close()

    asyncio.run(main())


def test_transactions_that_would_be_isolated_otherwise_are_refused(
    pooler: PgBouncer, postgres_server: PostgresServer
) -> None:
    """Attempts at once would fail there, instead of being told of each other, and no setting may be made."""
    name = f"strict_{uuid.uuid4().hex[:8]}"
    with contextlib.closing(postgres_server.client()) as client:
        client.execute(f"CREATE DATABASE {name}".encode())
        client.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'".encode())
    with pytest.raises(StoreError, match="default_transaction_isolation"):
        asyncio.run(PostgresStore(pooler.url.replace("/postgres", f"/{name}"), timeout=5.0).open())

    async def directly() -> None:
        store = PostgresStore(postgres_server.url.replace("/postgres", f"/{name}"), timeout=5.0)
        await store.open()
        try:
            await lives(store)
        finally:
            await store.close()

    asyncio.run(directly())


def test_an_option_that_it_does_not_take_is_named(pooler: PgBouncer) -> None:
    with pytest.raises(StoreError, match="options"):
        asyncio.run(PostgresStore(f"{pooler.url}?options=-csynchronous_commit%3Doff", timeout=5.0).open())


async def prepared(store: PostgresStore) -> int:
    """How many statements the one connection has prepared."""

    async def count(connection: AsyncConnection[Any]) -> int:
        cursor = await connection.execute("SELECT count(*) FROM pg_prepared_statements", prepare=False)
        row = await cursor.fetchone()
        return int(row[0]) if row else 0

    return await store.run(count)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", True),
        ("?prepare_threshold=0", True),
        ("?connect_timeout=9&prepare_threshold=none", False),
        ("?prepare_threshold=None&connect_timeout=9", False),
        ("?prepare_threshold=1000", False),
    ],
)
def test_prepared_statements_as_the_url_says(postgres_server: PostgresServer, query: str, *, expected: bool) -> None:
    async def main() -> None:
        store = PostgresStore(postgres_server.url + query, timeout=20.0, connections=1)
        for opened in (store, store.clone()):
            await opened.open()
            try:
                await lives(opened)
                assert (await prepared(opened) > 0) is expected
            finally:
                await opened.close()

    asyncio.run(main())


def test_prepared_statements_behind_a_pooler_of_sessions(postgres_server: PostgresServer) -> None:
    """There they are in order, as behind one that keeps them apart itself (PgBouncer 1.21): the URL may say so."""

    async def main(url: str) -> None:
        store = PostgresStore(f"{url}?prepare_threshold=0", timeout=20.0, connections=2)
        await store.open()
        try:
            await asyncio.gather(*(lives(store) for _ in range(4)))
            assert await prepared(store) > 0
        finally:
            await store.close()

    server = PgBouncer(postgres_server, "session", size=4)
    try:
        server.start()
        asyncio.run(main(server.url))
    finally:
        server.remove()


@pytest.mark.parametrize("value", ["", "-1", "x", "1.5"])
def test_a_threshold_that_is_none(value: str) -> None:
    with pytest.raises(ValueError, match="prepare_threshold") as caught:
        PostgresStore(f"postgresql://user:secret@localhost/?prepare_threshold={value}")
    assert "secret" not in str(caught.value)
