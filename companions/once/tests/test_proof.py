"""What ``once`` promises, shown with real servers that share a store, on each store that they can share."""

from __future__ import annotations

import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from companions.once.tests.charging import Service, began, charge, charged, code, eventually
from testing.peer import Answer
from testing.stores import Server

pytestmark = pytest.mark.slow
STORES = ["sqlite", "redis", "postgres"]


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    """The name of a store."""
    return str(request.param)


@pytest.fixture
def service(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    server: Server | None = None if kind == "sqlite" else request.getfixturevalue(f"{kind}_server")
    with ExitStack() as stack:
        yield Service(tmp_path, stack, "" if server is None else server.url)


@pytest.fixture
def down(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], AbstractContextManager[None]]:
    """Make the store fail, as long as the block lasts: a file by holding its lock, a server by stopping it."""
    if kind == "sqlite":
        return lambda: held(tmp_path / "once.db")
    server: Server = request.getfixturevalue(f"{kind}_server")
    return server.down


@contextmanager
def held(path: Path) -> Iterator[None]:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


def told(answer: Answer) -> tuple[int, str, str, bytes]:
    """What a retry has to get again."""
    return answer.status, answer.headers["content-type"], answer.headers["x-charge"], answer.body


def test_fifty_retries_at_two_servers_are_one_execution_and_49_replays(service: Service) -> None:
    servers = service.start_all(WAIT="20")
    peers = [service.peer(servers[number % 2]) for number in range(50)]
    for peer in peers:
        charge(peer, "k", "/charge?0.3")
    answers = [peer.answer() for peer in peers]
    assert service.effects == 1
    assert len({told(answer) for answer in answers}) == 1
    assert Counter(answer.headers.get("idempotent-replayed") for answer in answers) == {None: 1, "true": 49}
    assert service.record("k").executions == 1


def test_two_callers_large_answers_and_streams(service: Service) -> None:
    first, second = (service.peer(server) for server in service.start_all())
    for number, path in enumerate(["/charge", "/large", "/pieces"], 1):
        one = charged(first, "k" + path, path, "Authorization: Bearer one")
        two = charged(second, "k" + path, path, "Authorization: Bearer two")
        assert service.effects == 2 * number
        assert one.status == two.status == 201
        for peer in (first, second):
            for caller, answer in (("one", one), ("two", two)):
                again = charged(peer, "k" + path, path, f"Authorization: Bearer {caller}")
                assert told(again) == told(answer)
                assert again.headers["idempotent-replayed"] == "true"
        assert service.effects == 2 * number
        assert one.body != two.body
    assert len(one.body) > 270_000


def test_a_stop_lets_it_finish_and_the_next_server_replays(service: Service) -> None:
    first = service.start()
    one, other = service.peer(first), service.peer(first)
    charge(one, "k", "/charge?0.7")
    charge(other, "stream", "/pieces?0.7")
    began(first, 2)
    first.signal(signal.SIGTERM)
    answers = {("k", "/charge?0.7"): one.answer(), ("stream", "/pieces?0.7"): other.answer()}
    one.close()
    other.close()
    assert first.wait() == 0
    assert "Traceback" not in first.stderr
    peer = service.peer(service.start())
    for (key, path), answer in answers.items():
        again = charged(peer, key, path)
        assert answer.headers["x-charge"] == str(first.pid)
        assert told(again) == told(answer)
        assert again.headers["idempotent-replayed"] == "true"
    assert service.effects == 2


def test_a_killed_server_holds_no_key_beyond_its_lease(service: Service) -> None:
    lease = 1.2
    first, second = service.start_all(LEASE=str(lease))
    charge(service.peer(first), "k", "/charge?100")
    began(first)
    until = service.record("k").lease_until
    eventually(lambda: service.record("k").lease_until > until)  # the heartbeat is at work
    first.kill()
    killed = time.monotonic()
    peer = service.peer(second)
    refusals = 0
    while True:
        charge(peer, "k", "/charge?100")
        peer.sock.settimeout(0.3)
        try:
            answer = peer.answer()
        except TimeoutError:
            break  # it runs
        assert (answer.status, code(answer)) == (409, "once_in_flight")
        refusals += 1
        assert time.monotonic() - killed < lease + 1.0
        time.sleep(0.02)
    began(second)
    assert refusals
    assert service.effects == 2
    assert service.record("k").executions == 2


@pytest.mark.parametrize("fail_open", ["0", "1"])
def test_a_store_that_is_down(
    service: Service, kind: str, down: Callable[[], AbstractContextManager[None]], fail_open: str
) -> None:
    if kind == "sqlite":
        service.env["STORE"] += "?timeout=0.2"
    server = service.start(FAIL_OPEN=fail_open)
    peer = service.peer(server)
    before = charged(peer, "before")
    readable = kind == "sqlite"  # another process holds the file, and only writing has to wait
    with down():
        for key in ("before", "during", "during"):
            answer = charged(peer, key)
            if key == "before" and readable:
                assert (answer.body, answer.headers["idempotent-replayed"]) == (before.body, "true")
            elif fail_open == "1":
                assert (answer.status, answer.body) == (201, before.body)
                assert "idempotent-replayed" not in answer.headers
            else:
                assert (answer.status, code(answer)) == (503, "once_store_down")
                assert answer.headers["retry-after"] == "1"
        assert service.effects == (1 + 2 + (not readable) if fail_open == "1" else 1)
        assert peer.get("/").status == 201, "who has no key does not notice"
    effects = service.effects
    eventually(lambda: charged(peer, "after").status == 201)
    assert charged(peer, "after").headers["idempotent-replayed"] == "true"
    assert service.effects == effects + 1
    peer.close()
    assert server.stop() == 0
    assert "Traceback" not in server.stderr
    assert ("fail_open is set" if fail_open == "1" else "the store failed, and a request was refused") in server.stderr
