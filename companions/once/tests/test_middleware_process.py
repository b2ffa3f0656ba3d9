"""The middleware in real servers that are stopped, killed and started again, with SQLite."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest

from companions.once.tests.charging import APPS, Service, began, charge, charged, code, eventually
from testing.peer import Peer
from testing.process import ServerProcess

pytestmark = pytest.mark.slow


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with ExitStack() as stack:
        yield Service(tmp_path, stack)


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


@pytest.mark.parametrize("below", ["0", "1"])
def test_a_stop_waits_for_a_stream_whose_client_has_left(service: Service, below: str) -> None:
    """Also where a BaseHTTPMiddleware outside of once has cancelled it again and again."""
    server = service.start("--timeout-disconnect", "0.2", BELOW=below)
    peer = service.peer(server)
    charge(peer, "k", "/stream?4")
    began(server)
    peer.close()
    time.sleep(1)  # by then --timeout-disconnect has cancelled it
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert service.record("k").state.value == "done"
    assert "ended" in server.stdout
    assert "Traceback" not in server.stderr


@pytest.mark.parametrize("below", ["0", "1"])
def test_and_cancels_it_at_the_end_of_its_grace(service: Service, below: str) -> None:
    server = service.start("--timeout-disconnect", "0.2", "--timeout-graceful-shutdown", "1", BELOW=below)
    peer = service.peer(server)
    charge(peer, "k", "/stream?1000")
    began(server)
    peer.close()
    time.sleep(1)  # by then --timeout-disconnect has cancelled it
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert service.record("k").state.value == "unknown"
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
