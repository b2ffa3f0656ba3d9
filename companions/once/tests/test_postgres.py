"""What only the PostgreSQL store has: its server in trouble, its table and schema."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import psycopg
import pytest

from lastcall_once.document_stores import document_store_of
from lastcall_once.documents import Charge
from lastcall_once.records import Attempt, Event, Verdict
from lastcall_once.store import StoreError
from lastcall_once.stores import postgres
from lastcall_once.stores.postgres import MIGRATIONS, PostgresStore
from testing.stores import PostgresServer

pytestmark = pytest.mark.slow

Body = Callable[[PostgresStore], Coroutine[Any, Any, None]]


def run(url: str, body: Body, **options: Any) -> None:
    """Run ``body`` with a store of its own, open."""

    async def main() -> None:
        store = PostgresStore(url, **{"timeout": 5.0, **options})
        await store.open()
        try:
            await body(store)
        finally:
            await store.close()

    asyncio.run(main())


def attempt(key: str = "", *, lease: float = 30.0, ttl: float = 60.0) -> Attempt:
    return Attempt(key or uuid.uuid4().hex, uuid.uuid4().hex, lease=lease, ttl=ttl)


@pytest.fixture
def client(postgres_server: PostgresServer) -> Iterator[psycopg.Connection[Any]]:
    with contextlib.closing(postgres_server.client()) as found:
        yield found


@pytest.fixture
def table() -> str:
    return f"once_{uuid.uuid4().hex[:12]}"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_down_in_the_middle_and_back(postgres_server: PostgresServer, how: signal.Signals) -> None:
    async def body(store: PostgresStore) -> None:
        await asyncio.gather(*(store.acquire(attempt()) for _ in range(30)))  # all connections
        with postgres_server.down(how):
            started = time.monotonic()
            for call in (store.acquire(attempt()), store.get("k"), store.scan(), store.delete("k")):
                with pytest.raises(StoreError):
                    await call
            assert time.monotonic() - started < 4.0, "refused is known at once, nearly"
        key = uuid.uuid4().hex
        found = await asyncio.gather(*(store.acquire(attempt(key)) for _ in range(10)))
        assert [outcome.verdict for outcome in found].count(Verdict.GRANTED) == 1

    run(postgres_server.url, body, connections=4)


def test_a_restart_between_calls_is_not_noticed(postgres_server: PostgresServer) -> None:
    async def body(store: PostgresStore) -> None:
        await asyncio.gather(*(store.acquire(attempt()) for _ in range(30)))
        with postgres_server.down():
            pass
        assert (await store.acquire(attempt())).verdict is Verdict.GRANTED

    run(postgres_server.url, body)


def test_no_answer_is_an_error_in_time(postgres_server: PostgresServer) -> None:
    async def body(store: PostgresStore) -> None:
        await store.acquire(attempt())
        with postgres_server.frozen():
            started = time.monotonic()
            calls = (store.acquire(attempt()) for _ in range(5))  # more than there are connections
            found = await asyncio.gather(*calls, return_exceptions=True)
            assert time.monotonic() - started < 2.0
            assert {str(error) for error in found} == {"PostgreSQL, table once_records: no answer within 0.3 s"}
            assert {type(error) for error in found} == {StoreError}
        deadline = time.monotonic() + 10.0
        while True:  # the server works off what was asked of it
            late = attempt()
            try:
                assert (await store.acquire(late)).record.token == late.token
                break
            except StoreError:
                assert time.monotonic() < deadline

    run(postgres_server.url, body, timeout=0.3, connections=2)


def test_a_lock_is_waited_for_and_not_for_ever(
    postgres_server: PostgresServer, client: psycopg.Connection[Any]
) -> None:
    async def body(store: PostgresStore) -> None:
        taken = attempt()
        await store.acquire(taken)
        with client.transaction():
            client.execute("SELECT * FROM once_records WHERE key = %s FOR UPDATE", (taken.key,))
            with pytest.raises(StoreError):
                await store.acquire(attempt(taken.key))
            assert (await store.acquire(attempt())).verdict is Verdict.GRANTED
        found = await store.acquire(attempt(taken.key))
        assert (found.verdict, found.record.attempts) == (Verdict.IN_FLIGHT, 2), "what was stopped has not counted"

    run(postgres_server.url, body, timeout=0.5)


def test_a_caller_that_leaves_does_not_spoil_a_connection(
    postgres_server: PostgresServer, client: psycopg.Connection[Any]
) -> None:
    async def body(store: PostgresStore) -> None:
        taken = attempt()
        await store.acquire(taken)
        with client.transaction():
            client.execute("SELECT * FROM once_records WHERE key = %s FOR UPDATE", (taken.key,))
            task = asyncio.create_task(store.acquire(attempt(taken.key)))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        for _ in range(3):
            mine = attempt()
            assert (await store.acquire(mine)).record.token == mine.token

    run(postgres_server.url, body, connections=1)


def test_down_at_first_and_opened_later(postgres_server: PostgresServer) -> None:
    async def main() -> None:
        store = PostgresStore(postgres_server.url, timeout=5.0)
        with postgres_server.down():
            with pytest.raises(StoreError, match="refused"):
                await store.open()
            with pytest.raises(StoreError):
                await store.acquire(attempt())
        await store.open()
        assert (await store.acquire(attempt())).verdict is Verdict.GRANTED
        await store.close()

    asyncio.run(main())


def test_a_read_only_database(postgres_server: PostgresServer, client: psycopg.Connection[Any]) -> None:
    async def body(store: PostgresStore) -> None:
        taken = attempt()
        await store.acquire(taken)
        client.execute("CREATE ROLE reader LOGIN IN ROLE pg_read_all_data")
        client.execute("ALTER ROLE reader SET default_transaction_read_only = on")
        url = postgres_server.url.replace("once@", "reader@")
        reader = PostgresStore(url)
        await reader.open()  # there is nothing to migrate
        try:
            assert await reader.get(taken.key) == await store.get(taken.key)
            for call in (
                reader.acquire(attempt()),
                reader.finish(taken.key, taken.token, Event.COMPLETE, ttl=1.0),
                reader.finish(taken.key, taken.token, Event.RELEASE, ttl=1.0),
            ):
                with pytest.raises(StoreError, match="read-only"):
                    await call
        finally:
            await reader.close()
        with pytest.raises(StoreError, match="read-only"):
            await PostgresStore(url, table="another").open()

    run(postgres_server.url, body)


def test_connections_that_became_read_only_are_left(
    postgres_server: PostgresServer, client: psycopg.Connection[Any]
) -> None:
    """As those to a primary that was demoted, or through a proxy to a standby: the first error closes all."""
    role = f"writer_{uuid.uuid4().hex[:8]}"

    async def body(_: PostgresStore) -> None:
        client.execute(f"CREATE ROLE {role} LOGIN IN ROLE pg_read_all_data, pg_write_all_data".encode())
        read_only = f"ALTER ROLE {role} SET default_transaction_read_only = "
        client.execute(f"{read_only}on".encode())
        store = PostgresStore(postgres_server.url.replace("once@", f"{role}@"), timeout=5.0, connections=4)
        await store.open()
        documents = document_store_of(store)
        try:
            calls: list[Callable[[], Awaitable[Any]]] = [
                lambda: store.acquire(attempt()),
                lambda: documents.write("c", "n", "d"),
                lambda: documents.charge([Charge("c", 1, None, keep=60.0)]),
            ]
            for call in calls:
                await asyncio.gather(*(store.get("k") for _ in range(20)))  # all connections
                client.execute(f"{read_only}off".encode())
                with pytest.raises(StoreError, match="read-only"):
                    await call()
                found = await asyncio.gather(*(store.acquire(attempt()) for _ in range(20)))
                assert {outcome.verdict for outcome in found} == {Verdict.GRANTED}
                client.execute(f"{read_only}on".encode())
                await store.close()
                await store.open()
        finally:
            await store.close()

    run(postgres_server.url, body)


def test_a_newer_schema_is_refused(
    postgres_server: PostgresServer, client: psycopg.Connection[Any], table: str
) -> None:
    async def body(store: PostgresStore) -> None:
        client.execute(f"INSERT INTO {table}_schema VALUES ({len(MIGRATIONS) + 1})".encode())
        newer = PostgresStore(postgres_server.url, table=table)
        with pytest.raises(StoreError, match=f"schema {len(MIGRATIONS) + 1}"):
            await newer.open()
        with pytest.raises(StoreError):
            await newer.get("k")

    run(postgres_server.url, body, table=table)


def test_an_older_schema_is_brought_up_to_date_once(
    postgres_server: PostgresServer, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(store: PostgresStore) -> None:
        await store.acquire(attempt("kept"))
        step = "ALTER TABLE {table} ADD COLUMN colour text"  # fails the second time
        monkeypatch.setattr(postgres, "MIGRATIONS", (*MIGRATIONS, step))
        others = [PostgresStore(postgres_server.url, table=table) for _ in range(5)]
        await asyncio.gather(*(other.open() for other in others))
        assert await others[0].get("kept") is not None
        await asyncio.gather(*(other.close() for other in others))

    run(postgres_server.url, body, table=table)


def test_five_that_open_an_empty_database_make_one_table(
    postgres_server: PostgresServer, client: psycopg.Connection[Any]
) -> None:
    client.execute("CREATE SCHEMA app")

    async def main() -> None:
        stores = [PostgresStore(postgres_server.url, table="app.Records", timeout=5.0) for _ in range(5)]
        await asyncio.gather(*(store.open() for store in stores))
        await stores[0].acquire(attempt("k"))
        assert await stores[1].get("k") is not None
        await asyncio.gather(*(store.close() for store in stores))

    asyncio.run(main())
    assert client.execute('SELECT count(*) FROM app."Records"').fetchone() == (1,)
    steps = client.execute('SELECT version FROM app."Records_schema" ORDER BY version').fetchall()
    assert steps == [(number + 1,) for number in range(len(MIGRATIONS))]


def test_what_has_expired_is_removed_in_batches_and_by_itself(
    postgres_server: PostgresServer, client: psycopg.Connection[Any], table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_PURGE_ROWS", 3)

    async def body(store: PostgresStore) -> None:
        for _ in range(7):
            await store.acquire(attempt(lease=0.0, ttl=0.0))
        await store.acquire(attempt("kept", lease=30.0, ttl=0.0))
        assert await store.purge() == 7
        await store.acquire(attempt(lease=0.0, ttl=0.0))
        monkeypatch.setattr(postgres, "_PURGE_EVERY", 0.0)
        deadline = time.monotonic() + 5.0
        while client.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() != (1,):
            await store.acquire(attempt("kept"))
            await asyncio.sleep(0.01)
            assert time.monotonic() < deadline
        await store.acquire(attempt("kept"))  # one that runs while the store is closed

    run(postgres_server.url, body, table=table)


def test_what_cannot_be_stored(postgres_server: PostgresServer) -> None:
    async def body(store: PostgresStore) -> None:
        for key in ("\0", "\ud800"):
            with pytest.raises(StoreError):
                await store.acquire(attempt(key))
        result = bytes(range(256)) * 4096
        taken = attempt()
        await store.acquire(taken)
        assert await store.finish(taken.key, taken.token, Event.COMPLETE, ttl=60.0, result=result)
        assert (await store.acquire(attempt(taken.key))).record.result == result

    run(postgres_server.url, body)


@pytest.mark.parametrize("url", ["postgresql://user:secret@localhost:5432x/?y", "postgresql://user:secret@[::1"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(ValueError, match="postgresql://") as caught:
        PostgresStore(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("table", ["", "a.b.c", "a b", 'x"y', "1st", "x" * 49])
def test_a_table_that_is_none(table: str) -> None:
    with pytest.raises(ValueError, match="table"):
        PostgresStore("postgresql://localhost/", table=table)


def test_no_such_database_and_a_password_that_is_not_told(postgres_server: PostgresServer) -> None:
    url = postgres_server.url.replace("once@", "once:secret@").replace("/postgres", "/nowhere")
    with pytest.raises(StoreError, match='"nowhere"') as caught:
        asyncio.run(PostgresStore(url).open())
    assert "secret" not in str(caught.value)
