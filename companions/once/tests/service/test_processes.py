"""What several processes make of one store, each kind of store, and a service that is away."""

from __future__ import annotations

import http.client as http_client
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from onceonly import ApiError, UnauthorizedError

from companions.once.tests.service.serving import Sdk, Serving, bearer, http, lastcall_once, sdk, serving
from testing.stores import Server

pytestmark = pytest.mark.slow


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a store."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/once.db"
    server: Server = request.getfixturevalue(f"{request.param}_server")
    return server.url


@pytest.fixture
def two(store: str) -> Iterator[tuple[Serving, list[str]]]:
    """Two processes on one store, and their addresses."""
    with ExitStack() as stack:
        service = Serving(store, stack)
        yield service, [service.start(), service.start()]
        service.stop()


def at_once(times: int, work: Callable[[int], None]) -> None:
    """Call ``work(number)`` in as many threads."""
    threads = [threading.Thread(target=work, args=(number,)) for number in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_two_processes_are_one_service(two: tuple[Serving, list[str]]) -> None:
    service, addresses = two
    key = service.key()
    with sdk(addresses[0], key) as one, sdk(addresses[1], key, "async") as other:
        locked: list[bool] = []
        at_once(20, lambda n: locked.append((one if n % 2 else other).client.check_lock("k", ttl=60).locked))
        assert sorted(locked) == [False] * 19 + [True]

        lease = one("ai.lease", "job", ttl=30, metadata={"run_id": "r"})
        assert other("ai.lease", "job")["status"] == "in_progress"
        assert other("ai.extend", "job", lease["lease_id"], ttl=60)["ok"]
        assert other("ai.complete", "job", lease["lease_id"], result={"n": 1})["ok"]
        assert one("ai.result", "job").result == {"n": 1}
        assert one("ai.run_fn", "job", lambda: pytest.fail("it was done")).result == {"n": 1}
        assert [event["type"] for event in one("get_run_timeline", "r")["items"]] == [
            "lease_acquired",
            "lease_completed",
        ]

        one("gov.upsert_policy", {"agent_id": "bot", "max_spend_usd_per_day": 1.0})
        decisions: list[str] = []

        def call(number: int) -> None:
            client = (one if number % 2 else other).client
            told = client.ai.run_tool(agent_id="bot", tool="t", args={"n": number}, spend_usd=0.3)
            decisions.append(told.decision)

        at_once(10, call)
        assert sorted(decisions) == ["allowed"] * 3 + ["blocked"] * 7
        metrics = other("gov.agent_metrics", "bot")
        assert (metrics.total_actions, metrics.blocked_actions, metrics.total_spend_usd) == (10, 7, 0.9)
        one("gov.disable_agent", "bot", reason="enough")
        assert other("ai.run_tool", agent_id="bot", tool="u").policy_reason == "agent_disabled"
        assert len(other("gov.agent_logs", "bot")) == 12
        assert one("gov.create_tool", {"name": "t"})["enabled"]
        assert other("gov.delete_tool", "t")["deleted"]


def test_a_revoked_key_is_of_no_use_anywhere(tmp_path: Path) -> None:
    with serving(f"sqlite:///{tmp_path}/once.db") as (service, address), ExitStack() as stack:
        key = service.key()
        clients = [stack.enter_context(sdk(each, key)) for each in (address, service.start())]
        for client in clients:
            client("me")
        lastcall_once("key", "revoke", key.split("_")[1], "--store", service.store)
        revoked = time.monotonic()
        for client in clients:
            wait_until(partial(is_refused, client))
        assert time.monotonic() - revoked < 5.0


def is_refused(client: Sdk) -> bool:
    """Whether its key is of no use any more."""
    try:
        client("me")
    except UnauthorizedError as exc:
        return "revoked" in str(exc)
    return False


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_service_that_goes_away(tmp_path: Path, mode: str) -> None:
    """``fail_open`` lets a claim through, and nothing else; without it nothing goes through."""
    with serving(f"sqlite:///{tmp_path}/once.db") as (service, address):
        key = service.key()
        with sdk(address, key, mode, fail_open=True) as open_, sdk(address, key, mode, fail_open=False) as shut:
            assert open_("check_lock", "before").locked
            lease = shut("ai.lease", "job")
            service.processes[0].stop()
            through = open_("check_lock", "before", ttl=60, meta={"n": 1})
            assert (through.locked, through.duplicate, through.request_id) == (True, False, "fail-open")
            assert through.raw["reason"] == "request_error"
            with pytest.raises(httpx.ConnectError):
                shut("check_lock", "before")
            for client in (open_, shut):
                with pytest.raises(httpx.ConnectError):
                    client("ai.complete", "job", lease["lease_id"], result={})
        back = service.start()
        with sdk(back, key, mode) as client:
            assert client("check_lock", "before").duplicate
            assert client("ai.complete", "job", lease["lease_id"], result={"n": 1})["ok"], "its lease has survived"
        service.processes.pop(0)


def test_a_store_that_goes_away(redis_server: Server) -> None:
    with serving(redis_server.url) as (service, address):
        key = service.key()
        with sdk(address, key, fail_open=True) as open_, sdk(address, key, fail_open=False) as shut:
            shut("me")
            with redis_server.down():
                assert open_("check_lock", "k").raw["reason"] == "api_5xx"
                for method, words in (("check_lock", ("k",)), ("ai.status", ("k",)), ("usage", ())):
                    with pytest.raises(ApiError) as told:
                        shut(method, *words)
                    assert told.value.status_code == 503
                    assert told.value.detail["code"] == "store_unavailable"
            new = service.key()  # Redis keeps nothing here
            with sdk(address, new) as client:
                assert client("check_lock", "k").locked


def test_a_stop_begins_nothing_and_lets_leases_end(tmp_path: Path) -> None:
    """Requests that were begun before the stop, and whose bodies come after it began."""
    with serving(f"sqlite:///{tmp_path}/once.db", "--health-path", "/-") as (service, address):
        key = service.key()
        with http(address, key) as client:
            assert client.get("/-/ready").status_code == 200
            lease_id = client.post("/v1/ai/lease", json={"key": "k"}).json()["lease_id"]
        with ExitStack() as stack:
            claim = stack.enter_context(Held(address, key, "/v1/check-lock", {"key": "new"}))
            complete = stack.enter_context(Held(address, key, "/v1/ai/complete", {"key": "k", "lease_id": lease_id}))
            wait_until(lambda: claim.begun and complete.begun)
            service.processes[0].signal(signal.SIGTERM)
            service.processes[0].wait_for("drain|[Ss]hutting down|[Ss]topping")
            status, headers, told = claim.finish()
            assert (status, told["code"], headers["retry-after"]) == (503, "draining", "1")
            status, _, told = complete.finish()
            assert (status, told["status"]) == (200, "completed")


class Held:
    """A request whose body is not sent before ``finish``. ``begun``: the server has it, and asks for the body."""

    def __init__(self, address: str, key: str, path: str, body: Any) -> None:
        self._body = json.dumps(body).encode()
        self._connection = http_client.HTTPConnection(address.removeprefix("http://"), timeout=10)
        self._connection.putrequest("POST", path)
        fields = {"Content-Length": str(len(self._body)), "Expect": "100-continue", **bearer(key)}
        for name, value in fields.items():
            self._connection.putheader(name, value)
        self._connection.endheaders()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    @property
    def begun(self) -> bool:
        """Whether 100 (Continue) has come: the application has asked for the body."""
        assert self._connection.sock is not None
        return b"100" in self._connection.sock.recv(4096, socket.MSG_PEEK)

    def finish(self) -> tuple[int, http_client.HTTPMessage, Any]:
        """Send the body; status, headers and document of the answer."""
        self._connection.send(self._body)
        answer = self._connection.getresponse()
        return answer.status, answer.headers, json.loads(answer.read())


def wait_until(true: Callable[[], object]) -> None:
    """Wait for it, ten seconds at most."""
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
