"""A server under a service manager: what it says in its life, and the sockets that it is given."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from testing.manager import Manager
from testing.peer import Peer, eventually
from testing.process import ServerProcess
from testing.service import Service, alive, children
from tests.process.conftest import APPS, Start, answers, open_stream


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with Manager(tmp_path / "notify") as manager:
        yield manager


def test_the_life_of_a_service(start: Start, manager: Manager) -> None:
    server = start("whoami:app", env={"NOTIFY_SOCKET": manager.address}, ready=False)
    assert manager.wait_for("READY") == {"READY": "1", "STATUS": "Serving"}
    server.wait_ready()
    with Peer(server.addresses[0]) as peer:
        assert json.loads(peer.get().body)["systemd"] == [], "what the application starts is not the service"
    assert server.stop() == 0
    messages = manager.rest()
    assert messages[0] == {"STATUS": "Starting"}
    assert [list(message) for message in messages].count(["READY", "STATUS"]) == 1
    stopping = [n for n, message in enumerate(messages) if "STOPPING" in message]
    assert len(stopping) == 1
    assert any("EXTEND_TIMEOUT_USEC" in message for message in messages[stopping[0] :])
    assert all("WATCHDOG" not in message for message in messages)


def test_a_long_drain_is_extended_and_told(start: Start, manager: Manager) -> None:
    server = start("behaviours:app", "--timeout-graceful-shutdown", "300", env={"NOTIFY_SOCKET": manager.address})
    with open_stream(server):
        server.signal(signal.SIGTERM)
        extended = int(manager.wait_for("EXTEND_TIMEOUT_USEC")["EXTEND_TIMEOUT_USEC"]) / 1e6
        assert 300 < extended < 330, "the whole time that it may take, and some room"
        manager.wait_for("STOPPING")
        eventually(lambda: manager.wait_for("STATUS")["STATUS"].startswith("draining: 1 left, "))
        assert "/stream" in manager.messages[-1]["STATUS"]
        server.signal(signal.SIGQUIT)
        assert server.wait() in (0, 5)


def test_a_stop_without_a_limit_is_extended_again_and_again(start: Start, manager: Manager) -> None:
    server = start("behaviours:app", "--timeout-graceful-shutdown", "none", env={"NOTIFY_SOCKET": manager.address})
    with open_stream(server):
        server.signal(signal.SIGTERM)
        manager.wait_for("STOPPING")
        for _ in range(3):
            assert int(manager.wait_for("EXTEND_TIMEOUT_USEC")["EXTEND_TIMEOUT_USEC"]) > 60e6
        server.signal(signal.SIGQUIT)
        assert server.wait() in (0, 5)


def test_the_watchdog_hears_of_a_loop_that_turns(start: Start, manager: Manager) -> None:
    env = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "200000"}
    server = start("behaviours:app", env=env)
    for _ in range(4):
        manager.wait_for("WATCHDOG")
    with open_stream(server):
        server.signal(signal.SIGTERM)
        manager.wait_for("STOPPING")
        manager.wait_for("WATCHDOG")
        server.signal(signal.SIGQUIT)
        assert server.wait() in (0, 5)


def test_a_start_that_fails_is_not_ready(start: Start, manager: Manager) -> None:
    server = start("whoami:nothing", env={"NOTIFY_SOCKET": manager.address}, ready=False)
    assert server.wait() == 3
    messages = manager.rest()
    assert all("READY" not in message for message in messages)
    assert messages[-1]["STATUS"].startswith("Error: "), "systemctl status says why"


def test_a_manager_that_is_away(start: Start, tmp_path: Path) -> None:
    env = {"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "100000"}
    server = start("whoami:app", env=env)
    with Peer(server.addresses[0]) as peer:
        assert peer.get().status == 200
    assert server.stop() == 0
    assert "Traceback" not in server.stderr


# -- Sockets ----------------------------------------------------------------------------------------------------------


ACTIVATE = """
import os, sys
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.dup2(int(sys.argv[1]), 3)
os.execv(sys.executable, [sys.executable, "-m", "lastcall", "whoami:app"])
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@pytest.fixture
def activated() -> Iterator[Start]:
    """A server that systemd-socket-activate starts at the first connection to one of the addresses."""
    if shutil.which("systemd-socket-activate") is None:
        pytest.skip("needs systemd-socket-activate, of the Debian package systemd")
    with ExitStack() as stack:

        def begin(listen: list[str], *options: str, between: tuple[str, ...] = ()) -> ServerProcess:
            # It passes no environment but PATH and HOME.
            passed = [f"--setenv={name}" for name in os.environ if name.startswith(("PYTHON", "LD_"))]
            command = ["systemd-socket-activate", *passed, *(f"--listen={one}" for one in listen), *between]
            command += [sys.executable, "-m", "lastcall", "whoami:app"]
            return stack.enter_context(ServerProcess(options, None, cwd=APPS, command=command))

        yield begin


def test_addresses_come_from_systemd_where_nobody_says_others(activated: Start, tmp_path: Path) -> None:
    path, port = str(tmp_path / "app.sock"), free_port()
    server = activated([f"127.0.0.1:{port}", path])
    eventually(lambda: answers(path))
    with Peer(path) as peer:
        found = json.loads(peer.get().body)
    assert found["systemd"] == []
    server.wait_ready(listeners=2)
    assert set(server.addresses) == {f"http://127.0.0.1:{port}", f"unix:{path}"}
    with Peer(("127.0.0.1", port)) as peer:
        assert peer.get().status == 200
    assert server.stop() == 0
    assert os.path.exists(path), "it is systemd's"
    assert "systemd has opened" not in server.stderr


def test_another_address_is_served_and_the_others_are_named(activated: Start, tmp_path: Path) -> None:
    path, port = str(tmp_path / "app.sock"), free_port()
    server = activated([path], "--port", str(port))
    eventually(lambda: answers(path))
    server.wait_ready()
    with Peer(("127.0.0.1", port)) as peer:
        assert peer.get().status == 200
    assert server.stop() == 0
    assert server.stderr.count("systemd has opened sockets that are not served (fd://3)") == 1


def test_a_descriptor_that_is_named(activated: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    server = activated([path], "--fd", "3")
    eventually(lambda: answers(path))
    with Peer(path) as peer:
        assert peer.get().status == 200
    assert server.stop() == 0
    assert "systemd has opened" not in server.stderr


def test_a_program_in_between_that_does_not_exec(activated: Start, tmp_path: Path) -> None:
    path, port = str(tmp_path / "app.sock"), free_port()
    server = activated([path], "--port", str(port), between=("sh", "-c", '"$@"; exit $?', "sh"))
    eventually(lambda: answers(path))
    server.wait_ready()
    server.wait_for("systemd has opened sockets for process .* exec")
    with Peer(("127.0.0.1", port)) as peer:
        pid = json.loads(peer.get().body)["threads"][0]
    os.kill(pid, signal.SIGTERM)  # sh does not pass it on
    assert server.wait() == 0


def test_sockets_of_another_kind(start: Start, tmp_path: Path) -> None:
    """A datagram socket: ``ListenDatagram=`` by mistake."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        command = [sys.executable, "-c", ACTIVATE, str(one.fileno())]
        with ServerProcess([], None, cwd=APPS, command=command, pass_fds=[one.fileno()]) as server:
            assert server.wait() == 3
    assert server.stderr.startswith("Error: cannot listen on fd://3")
    assert server.stderr.count("\n") == 1


# -- A parent and its workers -----------------------------------------------------------------------------------------


def test_a_parent_speaks_for_its_workers(start: Start, manager: Manager) -> None:
    server = start("whoami:app", "--workers", "2", env={"NOTIFY_SOCKET": manager.address}, ready=False)
    manager.wait_for("READY")
    server.wait_ready()
    with Peer(server.addresses[0]) as peer:
        assert json.loads(peer.get().body)["systemd"] == []
    server.signal(signal.SIGHUP)
    server.wait_for("Reloaded")
    assert server.stop() == 0
    messages = manager.rest()
    states = [state for message in messages for state in ("READY", "RELOADING", "STOPPING") if state in message]
    assert states == ["READY", "RELOADING", "READY", "STOPPING"]
    (stopping,) = [n for n, message in enumerate(messages) if "STOPPING" in message]
    assert all("READY" not in message for message in messages[stopping:])


def test_workers_share_the_sockets_of_systemd(activated: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    server = activated([path], "--workers", "2")
    eventually(lambda: answers(path))
    for _ in range(5):
        with Peer(path) as peer:
            assert json.loads(peer.get().body)["systemd"] == []
    assert server.stop() == 0
    assert os.path.exists(path)


def test_a_service_on_the_sockets_of_systemd_is_reloaded_and_upgraded(activated: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    server = activated([path], "--workers", "2")
    eventually(lambda: answers(path))
    server.wait_ready()
    server.signal(signal.SIGHUP)
    server.wait_for("Reloaded: generation 2")
    fresh = upgraded(upgraded(server.pid))
    try:
        with Peer(path) as peer:
            assert peer.get().status == 200
    finally:
        os.kill(fresh, signal.SIGTERM)
        eventually(lambda: not alive(fresh))
    assert os.path.exists(path), "it is systemd's"


def upgraded(pid: int) -> int:
    """Upgrade the parent ``pid``, and wait until it has left; the new parent."""
    before = set(children(pid))
    os.kill(pid, signal.SIGUSR2)
    found: list[int] = []

    def there() -> bool:
        found[:] = [
            one
            for one in set(children(pid)) - before
            if b"lastcall.cli.worker" not in Path(f"/proc/{one}/cmdline").read_bytes()
        ]
        return bool(found)

    eventually(there)
    eventually(lambda: not alive(pid))
    return found[0]


def test_after_an_upgrade_the_new_parent_is_the_service(start: Start, manager: Manager) -> None:
    env = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "200000"}
    server = start("whoami:app", "--workers", "2", env=env)
    manager.wait_for("READY")
    server.signal(signal.SIGUSR2)
    fresh = int(manager.wait_for("MAINPID")["MAINPID"])
    try:
        assert fresh != server.pid
        manager.wait_for("READY")
        eventually(lambda: "WATCHDOG" in manager.wait_for("WATCHDOG") and not alive(server.pid))
        assert server.returncode == 0
        manager.wait_for("WATCHDOG")
        assert all("STOPPING" not in message for message in manager.rest())
    finally:
        os.kill(fresh, signal.SIGTERM)
    manager.wait_for("STOPPING")
    eventually(lambda: not alive(fresh))


def test_a_new_parent_that_fails_tells_the_manager_nothing(tmp_path: Path, manager: Manager) -> None:
    with Service(tmp_path, "--workers", "2", env={"NOTIFY_SOCKET": manager.address}) as service:
        manager.wait_for("READY")
        service.deploy(text="import no_such_module")
        service.signal(signal.SIGUSR2)
        service.wait_for("Not upgraded")
        manager.messages.clear()
        manager.rest()
        assert [message for message in manager.messages if "STATUS" not in message] == []
        assert all("rror" not in message["STATUS"] for message in manager.messages)
        assert service.process.stop() == 0


def test_a_fleet_that_cannot_start_says_why(start: Start, manager: Manager) -> None:
    server = start("whoami:nothing", "--workers", "2", env={"NOTIFY_SOCKET": manager.address}, ready=False)
    assert server.wait() == 3
    assert any("Error: " in message.get("STATUS", "") for message in manager.rest()), "systemctl status says why"
