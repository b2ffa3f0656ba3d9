"""What only the Redis store has: its server in trouble, its keys, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from lastcall_once import AsyncOnce
from lastcall_once.document_stores import document_store_of
from lastcall_once.records import Attempt, Event, State, Verdict
from lastcall_once.store import StoreError
from lastcall_once.stores.redis import RedisStore
from testing.stores import RedisServer

pytestmark = pytest.mark.slow

Body = Callable[[RedisStore], Coroutine[Any, Any, None]]


def run(url: str, body: Body, **options: Any) -> None:
    """Run ``body`` with a store of its own, open."""

    async def main() -> None:
        store = RedisStore(url, **{"timeout": 5.0, **options})
        await store.open()
        try:
            await body(store)
        finally:
            await store.close()

    asyncio.run(main())


def attempt(key: str = "", *, lease: float = 30.0, ttl: float = 60.0) -> Attempt:
    return Attempt(key or uuid.uuid4().hex, uuid.uuid4().hex, lease=lease, ttl=ttl)


@pytest.fixture
def prefix() -> str:
    return f"{uuid.uuid4().hex}:"


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Any]:
    with contextlib.closing(redis_server.client()) as found:
        yield found


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_down_in_the_middle_and_back(redis_server: RedisServer, how: signal.Signals) -> None:
    async def body(store: RedisStore) -> None:
        await asyncio.gather(*(store.acquire(attempt()) for _ in range(10)))  # ten connections
        with redis_server.down(how):
            started = time.monotonic()
            for call in (store.acquire(attempt()), store.get("k"), store.scan(), store.delete("k")):
                with pytest.raises(StoreError):
                    await call
            assert time.monotonic() - started < 2.0, "refused is known at once"
        # All the connections are dead, and the scripts forgotten.
        found = await asyncio.gather(*(store.acquire(attempt("again")) for _ in range(10)))
        assert [outcome.verdict for outcome in found].count(Verdict.GRANTED) == 1

    run(redis_server.url, body)


def test_work_that_is_done_after_a_restart_that_forgot_it_is_recorded(redis_server: RedisServer) -> None:
    def restart() -> None:
        with redis_server.down(signal.SIGKILL):
            pass

    async def body(store: RedisStore) -> None:
        key = uuid.uuid4().hex
        async with AsyncOnce(store, lease=3600.0) as once:
            async with once.lease(key) as lease:
                await asyncio.to_thread(restart)
                assert await store.get(key) is None
                assert not await store.renew(key, lease.token, lease=3600.0, ttl=3600.0)
                await lease.complete("shipped")
            async with once.lease(key) as again:
                assert (again.verdict, again.result) == (Verdict.DONE, b"shipped")

    run(redis_server.url, body)


def test_no_answer_is_an_error_in_time(redis_server: RedisServer) -> None:
    async def body(store: RedisStore) -> None:
        await store.acquire(attempt())
        with redis_server.frozen():
            started = time.monotonic()
            calls = (store.acquire(attempt()) for _ in range(5))  # more than there are connections
            found = await asyncio.gather(*calls, return_exceptions=True)
            assert time.monotonic() - started < 2.0
            assert {str(error) for error in found} == {
                f"Redis at 127.0.0.1:{redis_server.port}: no answer within 0.3 s"
            }
            assert {type(error) for error in found} == {StoreError}
        late = attempt()
        assert (await store.acquire(late)).record.token == late.token, "not the answer to an earlier question"

    run(redis_server.url, body, timeout=0.3, connections=2)


def test_a_caller_that_leaves_does_not_spoil_a_connection(redis_server: RedisServer) -> None:
    async def body(store: RedisStore) -> None:
        await store.acquire(attempt())
        with redis_server.frozen():
            task = asyncio.create_task(store.acquire(attempt()))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        for _ in range(3):
            mine = attempt()
            assert (await store.acquire(mine)).record.token == mine.token

    run(redis_server.url, body, connections=1)


def test_down_at_first_and_opened_later(redis_server: RedisServer) -> None:
    async def main() -> None:
        store = RedisStore(redis_server.url, timeout=5.0)
        with redis_server.down():
            with pytest.raises(StoreError):
                await store.open()
            with pytest.raises(StoreError):
                await store.acquire(attempt())
        await store.open()
        assert (await store.acquire(attempt())).verdict is Verdict.GRANTED
        await store.close()

    asyncio.run(main())


def test_a_replica_is_read_only(redis_server: RedisServer, client: Any) -> None:
    async def body(store: RedisStore) -> None:
        taken = attempt()
        await store.acquire(taken)
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        try:
            assert await store.get(taken.key) is not None
            with pytest.raises(StoreError, match="read-only"):
                await store.acquire(attempt())
            with pytest.raises(StoreError, match="read-only"):
                await store.finish(taken.key, taken.token, Event.COMPLETE, ttl=60.0)
        finally:
            client.execute_command("REPLICAOF", "NO", "ONE")
        assert await store.renew(taken.key, taken.token, lease=30.0, ttl=60.0)

    run(redis_server.url, body)


@contextlib.contextmanager
def _demoted(old: Any, new: RedisServer) -> Iterator[None]:
    """The two have changed their roles."""
    old.replicaof("127.0.0.1", new.port)
    yield
    old.replicaof("NO", "ONE")


@contextlib.contextmanager
def _cut_off(old: Any, _new: RedisServer) -> Iterator[None]:
    """A replica without its primary, which is not to answer with what is out of date."""
    old.config_set("replica-serve-stale-data", "no")
    old.replicaof("127.0.0.1", 1)
    yield
    old.replicaof("NO", "ONE")
    old.config_set("replica-serve-stale-data", "yes")


@contextlib.contextmanager
def _alone(old: Any, _new: RedisServer) -> Iterator[None]:
    """A primary that has lost its replicas, and takes nothing that it cannot pass on."""
    old.config_set("min-replicas-to-write", 1)
    yield
    old.config_set("min-replicas-to-write", 0)


@pytest.fixture
def other_redis() -> Iterator[RedisServer]:
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.mark.parametrize(
    ("change", "said"), [(_demoted, "read-only"), (_cut_off, "primary|MASTER"), (_alone, "NOREPLICAS")]
)
def test_a_primary_that_is_none_any_more_is_left(
    redis_server: RedisServer,
    other_redis: RedisServer,
    client: Any,
    change: Callable[[Any, RedisServer], AbstractContextManager[None]],
    said: str,
) -> None:
    """Its connections stay open, whatever its name leads to now: the first error closes all of them."""
    name = other_redis.directory / "primary"  # a short path: those of sockets have to be
    name.symlink_to(redis_server.socket)

    async def body(store: RedisStore) -> None:
        await asyncio.gather(*(store.acquire(attempt()) for _ in range(10)))  # ten connections
        with change(client, other_redis):
            name.unlink()
            name.symlink_to(other_redis.socket)
            with pytest.raises(StoreError, match=said):
                await store.acquire(attempt())
            key = uuid.uuid4().hex
            for _ in range(2):
                found = await asyncio.gather(*(store.acquire(attempt(key)) for _ in range(10)))
                assert {outcome.record.token for outcome in found} == {found[0].record.token}
            with contextlib.closing(other_redis.client()) as new:
                assert new.exists(f"once:k:{key}")

    run(f"unix://{name}", body)


def test_one_that_still_loads_is_left(redis_server: RedisServer, other_redis: RedisServer, client: Any) -> None:
    name = other_redis.directory / "primary"  # a short path: those of sockets have to be
    name.symlink_to(redis_server.socket)
    client.execute_command("DEBUG", "POPULATE", "2000", prefix := uuid.uuid4().hex)
    client.config_set("key-load-delay", 10_000)  # microseconds: twenty seconds in all
    client.config_set("loading-process-events-interval-bytes", 1024)

    async def body(store: RedisStore) -> None:
        await asyncio.gather(*(store.acquire(attempt()) for _ in range(10)))
        loading = asyncio.create_task(asyncio.to_thread(client.execute_command, "DEBUG", "RELOAD"))
        with pytest.raises(StoreError, match="load"):  # noqa: PT012 - it may not have begun to
            while not loading.done():
                await store.acquire(attempt())
        name.unlink()
        name.symlink_to(other_redis.socket)
        found = await asyncio.gather(*(store.acquire(attempt()) for _ in range(10)))
        assert {outcome.verdict for outcome in found} == {Verdict.GRANTED}
        with contextlib.closing(redis_server.client()) as quicker:
            quicker.config_set("key-load-delay", 0)  # which may be said while it loads
        await loading

    try:
        run(f"unix://{name}", body, timeout=20.0)
    finally:
        client.config_set("key-load-delay", 0)
        for key in client.scan_iter(match=f"{prefix}*", count=1000):
            client.delete(key)


def test_a_full_one_says_so_and_takes_nothing(redis_server: RedisServer, client: Any) -> None:
    async def body(store: RedisStore) -> None:
        refused = attempt()
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(StoreError, match="full"):
                await store.acquire(refused)
        finally:
            client.config_set("maxmemory", 0)
        assert await store.get(refused.key) is None

    run(redis_server.url, body)


@pytest.mark.parametrize("found", ["2", "many"])
def test_another_schema_is_refused(redis_server: RedisServer, client: Any, prefix: str, found: str) -> None:
    async def main() -> None:
        store = RedisStore(redis_server.url, prefix=prefix)
        with pytest.raises(StoreError, match=f"{prefix}schema .*{found}"):
            await store.open()
        with pytest.raises(StoreError):
            await store.get("k")

    client.set(f"{prefix}schema", found)
    asyncio.run(main())


def test_what_it_writes_has_the_prefix_and_an_end(redis_server: RedisServer, client: Any, prefix: str) -> None:
    async def body(store: RedisStore) -> None:
        kept = [attempt("schema"), attempt("claim", lease=0.0), attempt("for ever", ttl=math.inf)]
        for each in (*kept, attempt("short", lease=0.001, ttl=0.001)):
            await store.acquire(each)
        await store.finish("schema", kept[0].token, Event.COMPLETE, ttl=1000.0, result=b"r")
        deadline = time.monotonic() + 5.0
        while client.exists(f"{prefix}k:short"):
            assert time.monotonic() < deadline
        names = sorted(client.scan_iter(match=f"{prefix}*"))
        assert names == [f"{prefix}{name}".encode() for name in ("k:claim", "k:for ever", "k:schema", "schema")]
        assert 900 < client.ttl(f"{prefix}k:schema") <= 1000
        assert client.ttl(f"{prefix}k:claim") in (59, 60)
        assert client.ttl(f"{prefix}k:for ever") == -1
        await store.finish("for ever", kept[2].token, Event.FAIL, ttl=10.0)
        assert client.ttl(f"{prefix}k:for ever") in (9, 10)

    run(redis_server.url, body, prefix=prefix)


def test_somebody_else_s_key_is_an_error(redis_server: RedisServer, client: Any, prefix: str) -> None:
    async def body(store: RedisStore) -> None:
        client.set(f"{prefix}k:theirs", "string")
        for call in (store.acquire(attempt("theirs")), store.get("theirs")):
            with pytest.raises(StoreError, match="WRONGTYPE"):
                await call
        with pytest.raises(StoreError):
            await store.acquire(attempt("\ud800"))

    run(redis_server.url, body, prefix=prefix)


def test_tls_with_its_certificate_and_not_without(tmp_path: Any) -> None:
    server = RedisServer(tls=True)

    async def body(store: RedisStore) -> None:
        assert (await store.acquire(attempt("k"))).record.state is State.LEASED

    async def distrust() -> None:
        store = RedisStore(server.url.partition("?")[0])
        with pytest.raises(StoreError, match=r"(?i)certificate"):
            await store.open()

    try:
        server.start()
        run(server.url, body)
        asyncio.run(distrust())
    finally:
        server.remove()


@pytest.mark.parametrize("url", ["http://user:secret@localhost", "redis://user:secret@localhost:port/0", "once.db"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(ValueError, match="redis://") as caught:
        RedisStore(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "query", ["decode_responses=True", "decode_responses=yes&encoding=latin-1", "protocol=3", "retry_on_timeout=yes"]
)
def test_options_that_would_change_the_answers_do_not(redis_server: RedisServer, query: str) -> None:
    async def body(store: RedisStore) -> None:
        taken, result = attempt(), bytes(range(256))
        assert (await store.acquire(taken)).verdict is Verdict.GRANTED
        assert await store.finish(taken.key, taken.token, Event.COMPLETE, ttl=60.0, result=result)
        found = await store.acquire(attempt(taken.key))
        assert (found.verdict, found.record.result) == (Verdict.DONE, result)
        assert [record.key for record in await store.scan(taken.key)] == [taken.key]
        documents = document_store_of(store)
        await documents.write("c", taken.key, "ü")
        read = await documents.read("c", taken.key)
        assert read is not None
        assert read.data == "ü"

    run(f"{redis_server.url}?{query}", body)


@pytest.mark.parametrize("policy", ["noeviction", "allkeys-lru", "volatile-ttl"])
def test_a_policy_that_evicts_is_warned_of(
    redis_server: RedisServer, client: Any, caplog: pytest.LogCaptureFixture, policy: str
) -> None:
    async def body(store: RedisStore) -> None:
        other = store.clone()
        await other.open()
        await other.close()

    client.config_set("maxmemory-policy", policy)
    try:
        with caplog.at_level(logging.WARNING, "lastcall.once"):
            run(redis_server.url, body)
    finally:
        client.config_set("maxmemory-policy", "noeviction")
    said = [record.getMessage() for record in caplog.records if "maxmemory-policy" in record.getMessage()]
    assert len(said) == (policy != "noeviction"), "once, and not again for a thread of its own"
    assert all(policy in line for line in said)


def test_a_user_who_may_not_ask_for_the_policy_is_not_stopped(redis_server: RedisServer, client: Any) -> None:
    async def body(store: RedisStore) -> None:
        assert (await store.acquire(attempt())).verdict is Verdict.GRANTED

    client.execute_command("ACL", "SETUSER", "limited", "on", ">secret", "~*", "+@all", "-info", "-config")
    try:
        run(redis_server.url.replace("//", "//limited:secret@"), body)
    finally:
        client.execute_command("ACL", "DELUSER", "limited")


def test_an_option_that_is_none(redis_server: RedisServer) -> None:
    with pytest.raises(StoreError):
        asyncio.run(RedisStore(f"{redis_server.url}?colour=red").open())


def test_a_password_is_not_told(redis_server: RedisServer) -> None:
    store = RedisStore(redis_server.url.replace("//", "//user:secret@"))
    with pytest.raises(StoreError) as caught:
        asyncio.run(store.open())
    assert "secret" not in str(caught.value)
