"""What the table of bad input in docs/reference/once.md promises, where no other test shows it."""

from __future__ import annotations

import asyncio
import sqlite3
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from companions.once.tests.backends import Backend, backend
from companions.once.tests.calls import BrittleStore, Call, Handler, Setting, call, until
from lastcall_once import AsyncOnce
from lastcall_once._types import Scope
from lastcall_once.metrics import OnceEvent
from lastcall_once.middleware import IdempotencyMiddleware
from lastcall_once.records import Attempt, State, Verdict
from lastcall_once.store import Store, StoreError
from lastcall_once.stores.postgres import PostgresStore
from lastcall_once.stores.redis import RedisStore
from lastcall_once.stores.sqlite import SQLiteStore
from lastcall_once.stores.sqlite_schema import MIGRATIONS
from testing.loop import VirtualLoop
from testing.stores import RedisServer, Server

Run = Callable[[Callable[[Setting], Coroutine[Any, Any, None]]], None]
HOUR = 3600.0


@pytest.fixture
def run() -> Iterator[Run]:
    loop = VirtualLoop()

    async def begin(body: Callable[[Setting], Coroutine[Any, Any, None]]) -> None:
        await body(Setting(loop))

    yield lambda body: loop.run(begin(body))
    assert loop.errors == []
    loop.finish()


# -- stores ------------------------------------------------------------------------------------------------------------


async def _held(path: Path, store: SQLiteStore) -> Callable[[], object]:
    await store.open()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other.close


async def _full(_path: Path, store: SQLiteStore) -> Callable[[], object]:
    await store.open()
    await store.acquire(Attempt("fill", "t", HOUR, HOUR))
    await store.work(lambda c, _: c.execute("PRAGMA max_page_count = 1").fetchone(), writes=False)  # as it is now
    number = 0
    for size in (200, 0):  # then what is left of the pages
        try:
            while number < 1000:
                number += 1
                await store.acquire(Attempt(f"fill{number:06}", "t", HOUR, HOUR, meta="x" * size))
        except StoreError as exc:
            assert "no space left" in str(exc)  # noqa: PT017 - one of a thousand raises it
    return lambda: None


async def _newer(path: Path, store: SQLiteStore) -> Callable[[], object]:
    await store.open()
    await store.close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    return connection.close


async def _foreign(path: Path, _store: SQLiteStore) -> Callable[[], object]:
    path.write_bytes(b"no database, whatever its name says" * 100)
    return lambda: None


async def _no_directory(path: Path, _store: SQLiteStore) -> Callable[[], object]:
    path.parent.rmdir()
    return lambda: None


@pytest.mark.parametrize("fail_open", [False, True], ids=["closed", "open"])
@pytest.mark.parametrize("fault", [_held, _full, _newer, _foreign, _no_directory])
def test_a_file_that_cannot_be_used(
    tmp_path: Path, fault: Callable[[Path, SQLiteStore], Awaitable[Callable[[], object]]], fail_open: bool
) -> None:
    """503 before the handler runs, or an unguarded run, and the same for the next request."""
    path = tmp_path / "dir" / "once.db"
    path.parent.mkdir()

    async def body() -> None:
        store = SQLiteStore(path, timeout=0.1)
        end = await fault(path, store)
        handler = Handler()
        app = IdempotencyMiddleware(handler, store, fail_open=fail_open)
        try:
            answers = [await call(app) for _ in range(2)]
        finally:
            end()
            await app.aclose()
            await store.close()
        if fail_open:
            assert [answer.body for answer in answers] == [b"run 1", b"run 2"]
        else:
            assert [(answer.status, answer.code) for answer in answers] == [(503, "once_store_down")] * 2
            assert handler.runs == 0

    asyncio.run(body())


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_full_server_still_replays(redis_server: RedisServer) -> None:
    async def body() -> None:
        handler = Handler()
        app = IdempotencyMiddleware(handler, RedisStore(redis_server.url, timeout=10.0), namespace=uuid.uuid4().hex)
        assert not (await call(app)).replayed
        with closing(redis_server.client()) as client:
            client.config_set("maxmemory", 1)
            try:
                again, new = await call(app), await call(app, "new")
            finally:
                client.config_set("maxmemory", 0)
        assert again.replayed
        assert new.code == "once_store_down"
        assert handler.runs == 1
        await app.aclose()

    asyncio.run(body())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["redis", "postgres"])
def test_a_server_that_is_slow_or_down(request: pytest.FixtureRequest, kind: str) -> None:
    """503 within the store's timeout. When it is back, a retry executes, once its lease is over if it has got one.

    A server that was only slow may carry out what nobody waits for any more: that lease is given back.
    """
    server: Server = request.getfixturevalue(f"{kind}_server")
    make: Callable[..., Store] = RedisStore if kind == "redis" else PostgresStore
    slow, down = uuid.uuid4().hex, uuid.uuid4().hex

    async def body() -> None:
        handler = Handler()
        app = IdempotencyMiddleware(handler, make(server.url, timeout=0.4), lease=0.5)
        assert (await call(app, f"{slow}before")).status == 200
        for runs, (trouble, key) in enumerate(((server.frozen, slow), (server.down, down)), 2):
            with trouble():
                began = time.monotonic()
                refused = await call(app, key)
                assert (refused.status, refused.code) == (503, "once_store_down")
                assert time.monotonic() - began < 5.0
            await _executed_in_the_end(app, key)
            assert (await call(app, key)).replayed
            assert handler.runs == runs
        await app.aclose()

    asyncio.run(body())


async def _executed_in_the_end(app: IdempotencyMiddleware, key: str) -> None:
    async with asyncio.timeout(10):
        while (made := await call(app, key)).status != 200:
            assert made.code in ("once_store_down", "once_in_flight")  # a pool may need a moment too
            await asyncio.sleep(0.05)
    assert not made.replayed


# -- clocks ------------------------------------------------------------------------------------------------------------


class Stepping:
    """A store's clock that can be set."""

    def __init__(self, at: Setting) -> None:
        self.offset = 0.0
        at.store = BrittleStore(lambda: at.loop.time() + self.offset)


def test_a_clock_that_steps_forward_ends_leases_early(run: Run) -> None:
    """The retry runs beside the first; the first's client has its answer, the record has the second's."""

    async def body(at: Setting) -> None:
        clock = Stepping(at)
        events: list[OnceEvent] = []
        app = at.guard(on_event=events.append)
        at.handler.go.clear()
        first = Call(app)
        await until(lambda: at.handler.runs == 1)
        clock.offset = HOUR
        second = Call(app)
        await until(lambda: at.handler.runs == 2)
        at.handler.go.set()
        await asyncio.gather(first.task, second.task)
        assert (first.body, second.body) == (b"run 1", b"run 2")
        assert (await call(app)).body == b"run 2"
        assert [event.name for event in events].count("lease_lost") == 1

    run(body)


def test_a_lease_that_is_renewed_after_the_step_goes_on(run: Run) -> None:
    async def body(at: Setting) -> None:
        clock = Stepping(at)
        app = at.guard()
        at.handler.go.clear()
        first = Call(app)
        await until(lambda: at.handler.runs == 1)
        clock.offset = HOUR
        await asyncio.sleep(11)  # a third of the lease, and a little
        assert (await call(app)).code == "once_in_flight"
        at.handler.go.set()
        await first.task
        assert (await call(app)).replayed
        assert at.handler.runs == 1

    run(body)


def test_a_clock_that_steps_forward_forgets_records_early(run: Run) -> None:
    async def body(at: Setting) -> None:
        clock = Stepping(at)
        app = at.guard(ttl=60.0)
        assert (await call(app)).body == b"run 1"
        clock.offset = HOUR
        assert (await call(app)).body == b"run 2"

    run(body)


def test_a_clock_that_steps_back_makes_them_last_longer(run: Run) -> None:
    """A dead worker's lease by as much as the step; it still ends."""

    async def body(at: Setting) -> None:
        clock = Stepping(at)
        await at.store.open()
        dead = Attempt("k", "dead", 30.0, HOUR)
        await at.store.acquire(dead)
        clock.offset = -100.0
        retry = Attempt("k", "t", 30.0, HOUR)
        await asyncio.sleep(120)
        assert (await at.store.acquire(retry)).verdict is Verdict.IN_FLIGHT
        await asyncio.sleep(11)
        assert (await at.store.acquire(retry)).verdict is Verdict.GRANTED

    run(body)


# -- services that do not agree ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_two_services_with_different_ttls(kind: str) -> None:
    """The record lives as long as the one says who has executed, whoever asks; leases are the holder's too."""
    made: Backend = backend(kind)

    async def body() -> None:
        async with made.opened() as store:
            brief, lasting = AsyncOnce(store, ttl=60.0, lease=5.0), AsyncOnce(store, ttl=HOUR, lease=600.0)
            async with brief.lease("k") as lease:
                await lease.complete("brief")
            await made.pass_(30)
            async with lasting.lease("k") as lease:
                assert (lease.granted, lease.result) == (False, b"brief")
            await made.pass_(31)
            async with lasting.lease("k") as lease:
                assert lease.granted, "that the other one asked has not made it last"
                await lease.complete("lasting")
            await made.pass_(61)
            async with brief.lease("k") as lease:
                assert (lease.granted, lease.result) == (False, b"lasting")
            dead = brief.lease("dead")
            await store.acquire(dead._attempt)
            await made.pass_(6)
            async with lasting.lease("dead") as lease:
                assert lease.granted, "a dead holder's lease is as long as the holder's"
                await lease.complete(None)

    asyncio.run(body())


# -- callers, bodies and clients ---------------------------------------------------------------------------------------


def test_a_caller_function_that_raises_runs_nothing(run: Run) -> None:
    async def body(at: Setting) -> None:
        def caller(_scope: Scope) -> str:
            raise LookupError("no such tenant")

        made = Call(at.guard(caller=caller))
        with pytest.raises(LookupError):
            await made.task
        assert (made.messages, at.handler.runs, at.store.opened) == ([], 0, 0)

    run(body)


def test_a_body_over_the_cap(run: Run) -> None:
    """It reaches the handler whole. Beyond the cap only its length can tell two of them apart."""

    async def body(at: Setting) -> None:
        app = at.guard(max_body=10)
        first = b"a" * 10 + b"first"
        assert (await call(app, body=first)).status == 200
        assert at.handler.bodies == [first]
        assert (await call(app, body=b"a" * 10 + b"other")).replayed
        assert (await call(app, body=b"b" * 15)).code == "once_mismatch"
        length = (b"content-length", b"15"), (b"content-length", b"16")
        assert (await call(app, "2", body=first, headers=length[:1])).status == 200
        assert (await call(app, "2", body=first + b"x", headers=length[1:])).code == "once_mismatch"

    run(body)


def test_a_client_that_leaves_while_it_waits(run: Run) -> None:
    async def body(at: Setting) -> None:
        app = at.guard(wait=60.0)
        at.handler.go.clear()
        first, second = Call(app), Call(app)
        await asyncio.sleep(1)
        second.leave()
        second.task.cancel()  # as a server does
        with pytest.raises(asyncio.CancelledError):
            await second.task
        assert (await at.record()).state is State.LEASED
        at.handler.go.set()
        await first.task
        assert (first.body, at.handler.runs) == (b"run 1", 1)
        assert (await call(app)).replayed

    run(body)
