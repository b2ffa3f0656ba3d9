"""``gunicorn -k lastcall.gunicorn.Worker``: real gunicorn, its signals, its timers, its exit codes."""

from __future__ import annotations

import importlib.metadata
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from testing.peer import Peer, eventually
from testing.process import ServerProcess
from tests.process.conftest import APPS
from tests.process.witness import Client

pytest.importorskip("gunicorn")

Gunicorn = Callable[..., ServerProcess]
READY = re.compile(r"lastcall running on (\S+)")


@pytest.fixture
def gunicorn(tmp_path: Path) -> Iterator[Gunicorn]:
    """Start gunicorn on a free port; the process, with each of its first workers ready, unless ``ready=False``."""
    with ExitStack() as stack:

        def begin(*options: str, app: str = "under_gunicorn:app", ready: bool = True, **env: str) -> ServerProcess:
            command = [sys.executable, "-m", "gunicorn", "-k", "lastcall.gunicorn.Worker", app]
            env["HOME"] = str(tmp_path)  # gunicorn has a socket there
            server = stack.enter_context(
                ServerProcess(["-b", "127.0.0.1:0", *options], None, env, APPS, command=command)
            )
            if ready:
                workers = int(options[options.index("-w") + 1]) if "-w" in options else 1
                server.wait_for(rf"(?s)(lastcall running on .*){{{workers}}}", 20)
            return server

        yield begin


def address(server: ServerProcess) -> str:
    found = server.wait_for(r"Listening at: (http://[\d.:]+)")[1]
    return found


def worker(server: ServerProcess) -> int:
    with Peer(address(server)) as peer:
        return int(peer.get("/").headers["x-pid"])


def booted(server: ServerProcess) -> list[int]:
    return [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", server.stderr)]


def stream(server: ServerProcess, seconds: float) -> Client:
    client = Client(server, f"/stream?n={int(seconds * 4)}&pause=0.25")
    client.wait_for(b"tick")
    return client


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_the_version_whose_habits_are_known() -> None:
    """What the worker does about SIGTERM, the heartbeat and exit codes was seen with this major version."""
    assert importlib.metadata.version("gunicorn").split(".")[0] == "27"


def test_it_serves_and_stops(gunicorn: Gunicorn) -> None:
    server = gunicorn("--access-logfile", "-")
    with Peer(address(server)) as peer:
        assert peer.get("/hello").status == 200
        assert peer.get("/handler").body == b"False", "what sse-starlette polls"
    assert server.stop(20) == 0
    assert "shut down" in server.stderr
    assert '"GET /hello HTTP/1.1" 200' in server.stdout
    assert "Traceback" not in server.stderr
    assert server.stderr.count("graceful_timeout") == 1, "a line says what requests have"


def test_a_worker_that_is_retired_finishes_its_stream(gunicorn: Gunicorn) -> None:
    """TTOU. gunicorn sends SIGTERM each second from then on: it counts once."""
    server = gunicorn("-w", "2", "--graceful-timeout", "20")
    clients = [stream(server, 5) for _ in range(8)]
    server.signal(signal.SIGTTOU)
    server.wait_for("Stopping \\(SIGTERM\\)")
    for client in clients:
        client.wait_ended(20)
        assert client.whole, client.data[-100:]
    server.wait_for("@\\d+ shut down", 15)
    assert server.stderr.count("Stopping (SIGTERM)") == 1
    assert "Cut:" not in server.stderr
    eventually(lambda: sum(gone(pid) for pid in booted(server)) == 1)
    assert worker(server) > 0, "the other one serves"
    assert server.stop(20) == 0


def test_a_reload_cuts_nothing(gunicorn: Gunicorn) -> None:
    server = gunicorn("--graceful-timeout", "20")
    old = worker(server)
    client = stream(server, 5)
    server.signal(signal.SIGHUP)
    eventually(lambda: len(booted(server)) == 2 and worker(server) != old)
    client.wait_ended(20)
    assert client.whole
    eventually(lambda: gone(old))
    assert worker(server) == booted(server)[1]
    assert server.stop(20) == 0


def test_a_stop_waits_for_what_runs(gunicorn: Gunicorn) -> None:
    server = gunicorn("--graceful-timeout", "20")
    client = stream(server, 3)
    assert server.stop(25) == 0
    client.wait_ended()
    assert client.whole
    assert "SIGKILL" not in server.stderr


def test_a_stop_ends_before_gunicorn_kills(gunicorn: Gunicorn) -> None:
    """The stream is longer than all that there is: it is cut, lifespan.shutdown runs, and the exit is our own."""
    server = gunicorn("--graceful-timeout", "10")
    client = stream(server, 60)
    assert server.stop(25) == 0
    client.wait_ended()
    assert not client.whole
    assert "shut down" in server.stderr
    assert "SIGKILL" not in server.stderr
    assert re.search(r"Stopped \(SIGTERM\) after .*GET /stream", server.stderr)


def test_gunicorns_quick_shutdown_cancels(gunicorn: Gunicorn) -> None:
    server = gunicorn("--graceful-timeout", "60")
    client = stream(server, 60)
    began = time.monotonic()
    server.signal(signal.SIGQUIT)
    assert server.wait(30) == 0
    assert time.monotonic() - began < 25, "and not 60 s"
    client.wait_ended()
    assert "shut down" in server.stderr


def test_a_worker_that_blocks_shows_its_stacks_and_is_replaced(gunicorn: Gunicorn) -> None:
    server = gunicorn("--timeout", "3")
    first = worker(server)
    client = Client(server, "/block")
    server.wait_for("WORKER TIMEOUT", 20)
    server.wait_for(r"under_gunicorn.py\", line \d+ in app", 20)
    eventually(lambda: gone(first))
    eventually(lambda: worker(server) != first)
    client.wait_ended()
    assert server.stop(20) == 0


def test_the_heartbeat_goes_on_through_the_drain(gunicorn: Gunicorn) -> None:
    """A drain that is longer than ``timeout``, in which nothing is wrong."""
    server = gunicorn("--timeout", "2", "--graceful-timeout", "30", "-w", "2")
    clients = [stream(server, 6) for _ in range(8)]
    server.signal(signal.SIGTTOU)
    for client in clients:
        client.wait_ended(20)
        assert client.whole
    assert "WORKER TIMEOUT" not in server.stderr
    assert server.stop(25) == 0


def test_a_lifespan_that_fails_at_the_end_does_not_end_the_service(gunicorn: Gunicorn) -> None:
    """Exit code 4 would be "App failed to load" to gunicorn, which stops for that."""
    server = gunicorn("-w", "2", LIFE="shutdown")
    server.signal(signal.SIGTTOU)
    server.wait_for(r"exited with code 1", 20)
    assert worker(server) in booted(server)
    assert "failed to" not in server.stderr.replace("lifespan.shutdown failed", "")
    assert server.returncode is None
    assert server.stop(20) == 0


@pytest.mark.parametrize("code", [3, 4])
def test_an_exit_of_the_application_does_not_end_the_service(gunicorn: Gunicorn, code: int) -> None:
    server = gunicorn()
    client = Client(server, f"/exit?code={code}")
    server.wait_for(r"exited with code 1", 20)
    client.wait_ended()
    eventually(lambda: len(booted(server)) >= 2)
    assert worker(server) == booted(server)[-1]
    assert server.stop(20) == 0


@pytest.mark.parametrize(("life", "code"), [("startup", 3), ("import", 3)])
def test_a_start_that_fails_ends_the_service(gunicorn: Gunicorn, life: str, code: int) -> None:
    server = gunicorn(ready=False, LIFE=life)
    assert server.wait(20) == code
    assert ("no database" if life == "startup" else "a broken deployment") in server.stderr


def test_a_signal_in_the_start(gunicorn: Gunicorn) -> None:
    server = gunicorn(ready=False)
    server.wait_for("Booting worker")
    assert server.stop(20) == 0


def test_recycling(gunicorn: Gunicorn) -> None:
    server = gunicorn("--max-requests", "5")
    pids = set()
    for _ in range(30):
        with suppress(OSError):  # between the two there is nobody
            pids.add(worker(server))
    assert len(pids) > 1
    assert server.stop(20) == 0


def test_settings_are_gunicorns(gunicorn: Gunicorn, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    options = ("--keep-alive", "0", "--limit-request-line", "100", "--limit-request-fields", "3", "--threads", "4")
    environ = ("--env", "LASTCALL_SERVER_HEADER=off", "--env", "LASTCALL_PORT=1")
    server = gunicorn("-b", f"unix:{path}", *options, *environ, app="under_gunicorn:make()")
    with Peer(f"unix:{path}") as peer:
        answer = peer.get("/")
        assert (answer.status, answer.headers.get("connection")) == (200, "close")
        assert "server" not in answer.headers
    with Peer(f"unix:{path}") as peer:
        assert peer.get("/" + "x" * 100).status == 414
    with Peer(f"unix:{path}") as peer:
        assert peer.get("/", "a: b", "c: d", "e: f").status == 431
    assert "gunicorn's threads has no effect" in server.stderr
    assert "port has no effect under gunicorn" in server.stderr
    assert server.stop(20) == 0


def test_tls_is_refused_before_anything_forks(gunicorn: Gunicorn, tmp_path: Path) -> None:
    for name in ("key.pem", "cert.pem"):
        (tmp_path / name).touch()
    files = ("--keyfile", str(tmp_path / "key.pem"), "--certfile", str(tmp_path / "cert.pem"))
    server = gunicorn(*files, ready=False)
    assert server.wait(20) != 0
    assert "TLS" in server.stderr
    assert booted(server) == []


def test_newcomers_are_everybodys(gunicorn: Gunicorn) -> None:
    """The listener is shared: a worker that retires must not keep newcomers from the others by a filter."""
    server = gunicorn("-w", "2")
    clients = [stream(server, 3) for _ in range(4)]
    server.signal(signal.SIGTTOU)
    server.wait_for("Stopping \\(SIGTERM\\)")
    for _ in range(50):
        with socket.create_connection(_host_and_port(server), 5) as sock:
            sock.settimeout(5)
            sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert sock.recv(99).startswith(b"HTTP/1.1 200")
    for client in clients:
        client.wait_ended(20)
    assert server.stop(20) == 0


def _host_and_port(server: ServerProcess) -> tuple[str, int]:
    host, _, port = address(server).removeprefix("http://").rpartition(":")
    return host, int(port)
