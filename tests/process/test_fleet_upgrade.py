"""Another parent takes the listeners over."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testing.manager import Manager
from testing.peer import Peer, eventually
from testing.process import ServerProcess
from testing.service import Service, alive, children
from tests.process.conftest import answers

TWO = ("--workers", "2")


def new_parent(service: Service) -> int:
    """The child that is no worker, once it is there."""
    found: list[int] = []

    def there() -> bool:
        found[:] = [
            pid for pid in service.workers if b"lastcall.cli.worker" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        return bool(found)

    eventually(there)
    return found[0]


def test_an_upgrade_serves_all_the_time(tmp_path: Path) -> None:
    pidfile = tmp_path / "service.pid"
    with Service(tmp_path, *TWO, "--pidfile", str(pidfile)) as service:
        old = service.wait_workers(2)
        address = service.address
        service.deploy(generation="2")
        service.signal(signal.SIGUSR2)
        fresh = new_parent(service)
        try:
            while service.process.returncode is None:
                with Peer(address) as peer:
                    assert peer.get("/generation").status == 200
            assert service.process.returncode == 0
            assert not any(map(alive, old))
            assert int(pidfile.read_text()) == fresh
            for _ in range(20):
                with Peer(address) as peer:
                    assert peer.get("/generation").body == b"2"
            with Peer(str(service.control)) as peer:
                assert json.loads(peer.get("/status").body)["state"] == "serving"
            workers = children(fresh)
            os.kill(fresh, signal.SIGTERM)
            eventually(lambda: not any(map(alive, [fresh, *workers])))
            assert not pidfile.exists()
            assert not service.control.exists()
        finally:
            if alive(fresh):
                os.kill(fresh, signal.SIGKILL)


def test_a_new_parent_that_cannot_start_changes_nothing(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO) as service, service.connect() as peer:
        old = service.wait_workers(2)
        service.deploy(text="import no_such_module")
        service.signal(signal.SIGUSR2)
        service.wait_for("Not upgraded")
        assert service.pids() == old
        assert peer.get("/generation").body == b"1"
        service.deploy(generation="2")
        with Peer(str(service.control)) as control:
            assert control.get("/status").status == 200
        assert service.process.stop() == 0


def test_a_stop_during_an_upgrade_ends_both(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO) as service:
        service.wait_workers(2)
        service.deploy(extra="print('boots', flush=True)\ntime.sleep(60)")
        service.signal(signal.SIGUSR2)
        fresh = new_parent(service)
        assert service.process._stdout.wait(lambda text: "boots" in text, 10)
        time.sleep(0.2)
        everybody = [fresh, *children(fresh), *service.workers]
        assert service.process.stop() == 0
        eventually(lambda: not any(map(alive, everybody)))


def test_the_new_parent_goes_on_where_the_old_one_is_killed(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO) as service:
        old = service.wait_workers(2)
        address = service.address
        service.deploy(generation="2", extra="print('boots', flush=True)\ntime.sleep(1)")
        service.signal(signal.SIGUSR2)
        fresh = new_parent(service)
        assert service.process._stdout.wait(lambda text: "boots" in text, 10)
        os.kill(service.process.pid, signal.SIGKILL)
        try:
            eventually(lambda: not any(map(alive, old)))

            def answered() -> bool:
                with Peer(address) as peer:
                    return peer.get("/generation").body == b"2"

            eventually(answered)
            workers = children(fresh)
            os.kill(fresh, signal.SIGTERM)
            eventually(lambda: not any(map(alive, [fresh, *workers])))
        finally:
            if alive(fresh):
                os.kill(fresh, signal.SIGKILL)


HALF = """
# One worker of the new parent serves already, and the other one never will.
if GENERATION == "2" and int(os.environ["LASTCALL_WORKER_ID"].rpartition("-")[2]) % 2 == 0:
    print("boots", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("address", ["tcp", "unix"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_new_parent_that_ends_half_way_leaves_the_doors_open(tmp_path: Path, address: str, number: int) -> None:
    bind = () if address == "tcp" else ("--bind", f"unix:{tmp_path}/app.sock")
    with Service(tmp_path, *TWO, *bind) as service:
        where = service.address if address == "tcp" else str(tmp_path / "app.sock")

        def answers(path: str = "/generation") -> set[bytes]:
            found = set()
            for _ in range(20):
                with Peer(where) as peer:
                    found.add(peer.get(path).body)
            return found

        eventually(lambda: len(answers("/pid")) == 2)  # both have read the old code

        service.deploy(generation="2", extra=HALF)
        service.signal(signal.SIGUSR2)
        fresh = new_parent(service)
        assert service.process._stdout.wait(lambda text: "boots" in text, 10)
        eventually(lambda: b"2" in answers())
        everybody = [fresh, *children(fresh)]
        os.kill(fresh, number)
        service.wait_for("Not upgraded: the new parent has ended")
        eventually(lambda: not any(map(alive, everybody)))
        assert answers() == {b"1"}
        assert service.process.stop() == 0


def test_the_new_parent_goes_on_with_a_unix_socket_of_a_killed_one(tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    with Service(tmp_path, *TWO, "--bind", f"unix:{path}") as service:
        old = service.workers
        service.deploy(generation="2", extra="print('boots', flush=True)\ntime.sleep(1)")
        service.signal(signal.SIGUSR2)
        fresh = new_parent(service)
        assert service.process._stdout.wait(lambda text: "boots" in text, 10)
        os.kill(service.process.pid, signal.SIGKILL)
        try:
            eventually(lambda: not any(map(alive, old)))
            with Peer(path) as peer:
                assert peer.get("/generation").body == b"2"
            everybody = [fresh, *children(fresh)]
            os.kill(fresh, signal.SIGTERM)
            eventually(lambda: not any(map(alive, everybody)))
            assert not os.path.exists(path)
        finally:
            if alive(fresh):
                os.kill(fresh, signal.SIGKILL)


SLOW_IN_ONE = """
if os.environ.get("LASTCALL_WORKER_ID", "").endswith("{hangs}"):
    print("hangs", flush=True)
    time.sleep(600)
"""


@contextmanager
def upgrading(tmp_path: Path) -> Iterator[tuple[Service, int]]:
    """A service whose new parent has a worker that serves, and one that never becomes ready."""
    with Service(tmp_path, *TWO) as service:
        service.wait_workers(2)
        service.deploy(generation="2", extra=SLOW_IN_ONE.format(hangs=2))
        service.signal(signal.SIGUSR2)
        fresh = new_parent(service)
        try:
            assert service.process._stdout.wait(lambda text: "hangs" in text, 10)
            eventually(lambda: service.ask("/generation") == "2")  # both accept until it is decided
            yield service, fresh
        finally:
            if alive(fresh):
                os.kill(fresh, signal.SIGKILL)


def test_a_new_parent_of_which_one_worker_does_not_start_changes_nothing(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO) as service:
        service.wait_workers(2)
        service.deploy(generation="2", extra=HALF.replace("time.sleep(60)", "time.sleep(1)\n    os._exit(7)"))
        service.signal(signal.SIGUSR2)
        service.wait_for("Not upgraded: the new parent has ended with exit code 3")
        assert {service.ask("/generation") for _ in range(20)} == {"1"}
        assert service.process.stop() == 0


def test_slots_stay_as_they_are_during_an_upgrade(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO) as service:
        service.wait_workers(2)
        service.deploy(generation="2", extra=HALF)
        service.signal(signal.SIGUSR2)
        fresh = new_parent(service)
        service.signal(signal.SIGTTIN)
        service.wait_for("Not scaled: an upgrade is under way")
        service.signal(signal.SIGHUP)
        service.wait_for("Not reloaded: an upgrade is under way")
        os.kill(fresh, signal.SIGKILL)
        service.wait_for("Not upgraded: the new parent has ended")
        service.signal(signal.SIGTTIN)
        service.wait_for("3 slots")
        assert service.process.stop() == 0


def test_an_upgrade_that_does_not_come_to_its_end_is_shown_and_rolled_back(tmp_path: Path) -> None:
    with upgrading(tmp_path) as (service, fresh):
        with Peer(str(service.control)) as control:
            status = json.loads(control.get("/status").body)
            assert status["upgrade"]["pid"] == fresh
            assert str(fresh) in status["doing"]
        service.signal(signal.SIGUSR2)
        service.wait_for("Not upgraded again: .*ctl rollback")
        assert alive(fresh), "a signal that comes twice does not undo"
        with Peer(str(service.control)) as control:
            control.request("/rollback", "Content-Length: 0", method="POST")
            assert b"serves on" in control.answer().body
        assert not alive(fresh)
        service.wait_for("Not upgraded: rolled back by order")
        for _ in range(20):
            assert service.ask("/generation") == "1"
        service.deploy(generation="3")
        service.signal(signal.SIGHUP)
        service.wait_for("(?i)reloaded")
        assert service.ask("/generation") == "3"
        assert service.process.stop() == 0


def test_a_new_parent_that_is_killed_takes_nobody_with_it(tmp_path: Path) -> None:
    """Its workers stop because it is gone, and keep newcomers out: of listeners that are not theirs alone."""
    with upgrading(tmp_path) as (service, fresh):
        workers = children(fresh)
        os.kill(fresh, signal.SIGKILL)
        service.wait_for("Not upgraded")
        eventually(lambda: not any(map(alive, workers)))
        for _ in range(20):
            assert service.ask("/generation") == "1"
        assert service.process.stop() == 0


def test_an_upgrade_under_systemd_keeps_its_sockets_and_is_the_main_process(tmp_path: Path) -> None:
    if shutil.which("systemd-socket-activate") is None:
        pytest.skip("needs systemd-socket-activate, of the Debian package systemd")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    path = str(tmp_path / "app.sock")
    writer = Service(tmp_path, ready=False)  # for its application
    with Manager(tmp_path / "notify") as manager:
        passed = [f"--setenv={name}" for name in os.environ if name.startswith(("PYTHON", "LD_"))]
        command = ["systemd-socket-activate", *passed, f"--setenv=NOTIFY_SOCKET={manager.address}"]
        command += [f"--listen=127.0.0.1:{port}", f"--listen={path}", sys.executable, "-m", "lastcall", "app:app"]
        fresh = 0
        options = [*TWO, "--control-socket", str(writer.control)]
        with ServerProcess(options, None, cwd=tmp_path, command=command) as server:
            try:
                eventually(lambda: answers(path))
                manager.wait_for("READY")
                with Peer(("127.0.0.1", port)) as peer:
                    assert peer.get("/generation").body == b"1"
                writer.deploy(generation="2")
                server.signal(signal.SIGUSR2)
                fresh = int(manager.wait_for("MAINPID")["MAINPID"])
                assert fresh != server.pid
                manager.wait_for("READY")
                eventually(lambda: server.returncode is not None)
                assert server.returncode == 0
                assert alive(fresh)
                for address in (path, ("127.0.0.1", port)):
                    with Peer(address) as peer:
                        assert peer.get("/generation").body == b"2"
                assert all("STOPPING" not in message for message in manager.messages), "of the old one: it goes on"
                writer.deploy(generation="3")
                os.kill(fresh, signal.SIGHUP)
                manager.wait_for("RELOADING")
                manager.wait_for("READY")
                with Peer(path) as peer:
                    assert peer.get("/generation").body == b"3"
                os.kill(fresh, signal.SIGTERM)
                manager.wait_for("STOPPING")
                eventually(lambda: not alive(fresh))
                assert os.path.exists(path), "it is systemd's"
            finally:
                if fresh and alive(fresh):
                    os.kill(fresh, signal.SIGKILL)
