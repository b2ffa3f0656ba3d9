"""The middleware in real servers that are stopped, killed and started again, with SQLite."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest

from lastcall.once.records import Record
from lastcall.once.stores import store_from_url
from tests.support.peer import Answer, Peer
from tests.support.process import ServerProcess

pytestmark = pytest.mark.slow
APPS = Path(__file__).with_name("apps")


class Service:
    """Servers of the sample application, one after another or together, on one store."""

    def __init__(self, home: Path, stack: ExitStack) -> None:
        self.url = f"sqlite:///{home}/once.db"
        self.env = {"STORE": self.url, "EFFECTS": str(home / "effects"), "PYTHONPATH": str(APPS)}
        self._effects = home / "effects"
        self._stack = stack

    def start(self, *options: str, **env: str) -> ServerProcess:
        server = ServerProcess(["--no-access-log", *options], "charges:app", self.env | env, APPS)
        self._stack.enter_context(server).wait_ready()
        return server

    def peer(self, server: ServerProcess) -> Peer:
        return self._stack.enter_context(Peer(server.addresses[0]))

    @property
    def effects(self) -> int:
        return len(self._effects.read_text().splitlines()) if self._effects.exists() else 0

    def record(self, key: str) -> Record:
        async def look() -> Record | None:
            store = store_from_url(self.url)
            await store.open()
            try:
                return await store.get(f"http:-:{key}")
            finally:
                await store.close()

        found = asyncio.run(look())
        assert found is not None
        return found


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with ExitStack() as stack:
        yield Service(tmp_path, stack)


def charge(peer: Peer, key: str, path: str = "/charge") -> None:
    peer.request(path, f"Idempotency-Key: {key}", method="POST", body=b"{}")


def charged(peer: Peer, key: str, path: str = "/charge") -> Answer:
    charge(peer, key, path)
    return peer.answer()


def began(server: ServerProcess, times: int = 1, word: str = "began") -> None:
    assert server._stdout.wait(lambda text: text.count(word) >= times, 10.0), server.stderr


def code(answer: Answer) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.body.decode().partition('"code": "')[2].partition('"')[0]


def eventually(true: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_stop_lets_it_finish_and_the_next_server_replays(service: Service) -> None:
    first = service.start()
    peer = service.peer(first)
    charge(peer, "k", "/charge?0.7")
    began(first)
    first.signal(signal.SIGTERM)
    answer = peer.answer()
    assert (answer.status, answer.body) == (201, b"charged by %d" % first.pid)
    assert first.wait() == 0
    again = charged(service.peer(service.start()), "k", "/charge?0.7")
    assert (again.status, again.body) == (answer.status, answer.body)
    assert again.headers["x-charge"] == answer.headers["x-charge"]
    assert again.headers["idempotent-replayed"] == "true"
    assert service.effects == 1


def test_a_killed_server_holds_no_key_beyond_its_lease(service: Service) -> None:
    first = service.start(LEASE="1.5")
    charge(service.peer(first), "k", "/charge?100")
    began(first)
    time.sleep(1.0)  # the lease has been renewed meanwhile
    first.kill()
    killed = time.monotonic()
    second = service.start(LEASE="1.5")
    peer = service.peer(second)
    eventually(lambda: service.effects == 1)
    while True:
        charge(peer, "k", "/charge?100")
        peer.sock.settimeout(0.3)
        try:
            answer = peer.answer()
        except TimeoutError:
            break
        assert (answer.status, code(answer)) == (409, "once_in_flight")
        assert time.monotonic() - killed < 1.5 + 0.5
    assert time.monotonic() - killed < 1.5 + 1.0
    assert service.effects == 2
    assert service.record("k").executions == 2


def test_a_waiting_retry_takes_over_from_a_killed_server(service: Service) -> None:
    first, second = service.start(LEASE="1.5"), service.start(LEASE="1.5", WAIT="20")
    charge(service.peer(first), "k", "/charge?0.8")
    began(first)
    peer = service.peer(second)
    charge(peer, "k", "/charge?0.8")
    time.sleep(0.2)
    first.kill()
    assert peer.answer().body == b"charged by %d" % second.pid
    assert service.effects == 2


def test_new_keys_are_refused_during_the_drain(service: Service) -> None:
    server = service.start(WAIT="20")
    done, running, waiting, new = (service.peer(server) for _ in range(4))
    answer = charged(done, "done")
    new.get("/")
    charge(running, "running", "/charge?2")
    began(server, 3)
    charge(waiting, "running", "/charge?2")
    eventually(lambda: service.record("running").attempts == 2)
    server.signal(signal.SIGTERM)
    refused = waiting.answer()
    assert (refused.status, code(refused)) == (503, "once_draining")
    refused = charged(new, "new")
    assert (refused.status, code(refused), refused.headers["retry-after"]) == (503, "once_draining", "1")
    assert charged(done, "done").body == answer.body
    assert running.answer().status == 201
    assert server.wait() == 0
    assert service.effects == 3
    assert "Traceback" not in server.stderr


def test_work_that_the_stop_cancels_is_unknown_at_once(service: Service) -> None:
    server = service.start("--timeout-graceful-shutdown", "0.5")
    peer = service.peer(server)
    charge(peer, "k", "/charge?100")
    began(server)
    server.signal(signal.SIGTERM)
    assert peer.answer().status == 503
    assert server.wait() == 0
    assert service.record("k").state.value == "unknown"
    assert "Traceback" not in server.stderr


def test_a_client_that_leaves_a_stream_does_not_end_it(service: Service) -> None:
    server = service.start("--timeout-disconnect", "0.2")
    peer = service.peer(server)
    charge(peer, "k", "/stream?1.5")
    began(server)
    peer.close()
    began(server, word="ended")
    again = charged(service.peer(server), "k", "/stream?1.5")
    assert again.body == b"charging, charged by %d" % server.pid
    assert again.headers["idempotent-replayed"] == "true"
    assert service.effects == 1
    assert server.stop() == 0
    assert "Traceback" not in server.stderr


@pytest.mark.parametrize("graceful", ["1", "none"])
def test_a_stop_does_end_it(service: Service, graceful: str) -> None:
    """At the end of its grace, or with the second signal."""
    server = service.start("--timeout-disconnect", "0.2", "--timeout-graceful-shutdown", graceful)
    peer = service.peer(server)
    charge(peer, "k", "/stream?1000")
    began(server)
    peer.close()
    time.sleep(0.6)
    assert service.record("k").state.value == "leased"
    server.signal(signal.SIGTERM)
    if graceful == "none":
        time.sleep(0.6)  # two signals closer than that count as one
        assert server.returncode is None
        server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert service.record("k").state.value == "unknown"
    assert "Traceback" not in server.stderr


@pytest.mark.skipif(find_spec("uvicorn") is None, reason="uvicorn is not installed")
def test_another_server(service: Service) -> None:
    command = [sys.executable, "-m", "uvicorn", "charges:app", "--port", "0", "--no-access-log"]
    with ServerProcess((), None, service.env | {"WAIT": "20"}, APPS, command=command) as server:
        address = server.wait_for(r"running on (http://[\d.:]+)")[1]
        with Peer(address) as one, Peer(address) as two, Peer(address) as three:
            charge(one, "k", "/charge?1")
            began(server)
            charge(two, "k", "/charge?1")
            charge(three, "gone", "/stream?1")
            began(server, 2)
            three.close()
            first, second = one.answer(), two.answer()
            assert first.body == second.body
            assert second.headers["idempotent-replayed"] == "true"
            began(server, 2, "ended")
            assert charged(two, "gone", "/stream?1").headers["idempotent-replayed"] == "true"
            assert charged(two, "gone").status == 422
        server.signal(signal.SIGTERM)
        server.wait()
    assert service.effects == 2
    assert "Traceback" not in server.stderr
