"""Leases of workers of this service that have died: over as soon as a retry meets them, on every store."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from companions.once.tests.backends import Backend
from companions.once.tests.calls import call
from lastcall.base import lost_workers as server_side
from lastcall_once import AsyncOnce, InFlight, Policy, Refused
from lastcall_once._types import Receive, Scope, Send
from lastcall_once.lost_workers import name_of_this_worker
from lastcall_once.middleware import IdempotencyMiddleware
from lastcall_once.records import Attempt, State, Verdict
from lastcall_once.store import Store

DEAD, ALIVE = "host-1-7/4711", "host-1-8/4712"
HOUR = 3600.0


@pytest.fixture(autouse=True)
def lost() -> Iterator[None]:
    """One worker of the service has died, and another has not."""
    server_side.add_lost([DEAD])
    yield
    server_side._lost.clear()


@asynccontextmanager
async def leased_by(backend: Backend, worker: str) -> AsyncIterator[tuple[Store, str]]:
    """An open store, and a key in it that a worker has leased for an hour."""
    async with backend.opened() as store:
        key = f"{backend.prefix}k"
        assert (await store.acquire(Attempt(key, "theirs", HOUR, HOUR, worker))).verdict is Verdict.GRANTED
        yield store, key


def test_the_next_attempt_gets_the_key_of_a_dead_worker_at_once(store: Backend) -> None:
    async def main() -> None:
        async with leased_by(store, DEAD) as (opened, key):
            async with AsyncOnce(opened).lease(key) as lease:
                assert lease.granted
            assert not await opened.renew(key, "theirs", lease=HOUR, ttl=HOUR)

    asyncio.run(main())


def test_what_the_work_of_a_dead_worker_came_to_is_unknown(store: Backend) -> None:
    async def main() -> None:
        async with leased_by(store, DEAD) as (opened, key):
            async with AsyncOnce(opened, on_unknown=Policy.REFUSE).lease(key) as lease:
                with pytest.raises(Refused):
                    lease.replay()
            record = await opened.get(key)
            assert record is not None
            assert record.state is State.UNKNOWN

    asyncio.run(main())


def test_a_worker_that_lives_keeps_its_lease(store: Backend) -> None:
    async def main() -> None:
        async with leased_by(store, ALIVE) as (opened, key), AsyncOnce(opened).lease(key) as lease:
            with pytest.raises(InFlight):
                lease.replay()

    asyncio.run(main())


def test_who_waits_goes_on_when_the_holder_dies(store: Backend) -> None:
    async def main() -> None:
        async with leased_by(store, ALIVE) as (opened, key):
            asyncio.get_running_loop().call_later(0.1, server_side.add_lost, [ALIVE])
            async with AsyncOnce(opened).lease(key, wait=20) as lease:
                assert lease.granted

    asyncio.run(main())


def test_a_retry_of_a_request_runs_instead_of_being_told_to_wait(store: Backend) -> None:
    async def main() -> None:
        async with store.opened() as opened:
            runs: list[int] = []

            async def app(scope: Scope, receive: Receive, send: Send) -> None:
                runs.append(1)
                if len(runs) == 1:
                    raise ZeroDivisionError
                await send({"type": "http.response.start", "status": 201, "headers": []})
                await send({"type": "http.response.body", "body": b"done"})

            guarded = IdempotencyMiddleware(
                app, opened, caller=lambda _: "me", wait=20, namespace=store.prefix.replace("/", "-")
            )
            with pytest.raises(ZeroDivisionError):
                await call(guarded)
            (record,) = await opened.scan(store.prefix.replace("/", "-"))
            again = Attempt(record.key, "theirs", HOUR, HOUR, ALIVE, record.fingerprint)
            assert (await opened.acquire(again)).verdict is Verdict.GRANTED
            asyncio.get_running_loop().call_later(0.1, server_side.add_lost, [ALIVE])
            answer = await call(guarded)
            assert (answer.status, answer.body) == (201, b"done")
            await opened.delete(record.key)

    asyncio.run(main())


def test_a_process_that_a_worker_has_started_is_called_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LASTCALL_WORKER_ID", "host-1-7")
    assert name_of_this_worker() == f"host-1-7/{os.getpid()}" == server_side.own_name()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, name_of_this_worker().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100).decode() == f"host-1-7/{child}"
    os.close(reading)
    os.close(writing)


def test_only_the_latest_are_remembered() -> None:
    server_side.add_lost(f"w/{n}" for n in range(server_side.KEPT + 10))
    assert len(server_side.lost_workers()) == server_side.KEPT
    assert f"w/{server_side.KEPT + 9}" in server_side.lost_workers()
    assert "w/9" not in server_side.lost_workers()
