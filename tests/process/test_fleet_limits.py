"""Where descriptors run out, who may ask, whose processes they are, and files that stay behind."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from testing.peer import Peer, eventually
from testing.service import Service, alive
from testing.strangers import for_strangers

TWO = ("--workers", "2")


def order(service: Service, name: str, **arguments: object) -> tuple[int, dict[str, object]]:
    """Give an order by the control socket; the status, and how it was settled."""
    with Peer(str(service.control)) as peer:
        peer.sock.settimeout(60)
        peer.request(f"/{name}", "Accept: application/json", method="POST", body=json.dumps(arguments).encode())
        answer = peer.answer()
        return answer.status, json.loads(answer.body)


def test_where_no_descriptor_is_left_for_a_slot_the_service_goes_on(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO) as service:
        old = service.wait_workers(2)
        hard = resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE)[1]
        used = len(os.listdir(f"/proc/{service.process.pid}/fd"))
        resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (used + 4, hard))
        status, answer = order(service, "scale", workers=9)
        assert status == 409, answer
        assert "Too many open files" in str(answer["text"])
        assert service.pids() >= old
        resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (hard, hard))
        assert order(service, "scale", workers=3)[0] == 200
        service.wait_workers(3)
        assert service.process.stop() == 0


def test_where_no_descriptor_is_left_for_a_successor_the_old_one_goes_on(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO) as service:
        old = service.wait_workers(2)
        hard = resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE)[1]
        used = len(os.listdir(f"/proc/{service.process.pid}/fd"))
        resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (used + 1, hard))
        service.signal(signal.SIGHUP)
        service.wait_for("Too many open files")
        assert service.pids() == old
        resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (hard, hard))
        service.deploy(generation="2")
        service.signal(signal.SIGHUP)
        eventually(lambda: {service.ask("/generation") for _ in range(10)} == {"2"}, 20)
        assert service.process.stop() == 0


def test_what_runs_in_all_workers(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO, "--timeout-graceful-shutdown", "1") as service:
        service.wait_workers(2)
        peers = [service.connect() for _ in range(6)]
        for peer in peers:
            peer.request("/slow/60")
        assert service.process._stdout.wait(lambda text: text.count("slow began") == 6, 10)
        with Peer(str(service.control)) as control:
            found = json.loads(control.get("/inflight").body)["inflight"]
            rows = json.loads(control.get("/status").body)["workers"]
        assert [one["path"] for one in found] == ["/slow/60"] * 6
        assert {one["worker"] for one in found} <= {1, 2}
        assert sum(row["in_flight"].get("request", 0) for row in rows) == 6
        assert sum(row["served"] for row in rows) >= 40  # those of wait_workers
        assert all(row["rss"] > 2**20 and row["errors"] == 0 for row in rows)
        for peer in peers:
            peer.close()
        assert service.process.stop() == 0


def test_the_status_does_not_wait_for_a_worker_whose_loop_is_blocked(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO, "--timeout-graceful-shutdown", "1") as service:
        service.wait_workers(2)
        with service.connect() as peer, Peer(str(service.control)) as control:
            peer.request("/block/4")
            assert service.process._stdout.wait(lambda text: "block began" in text, 10)
            rows = json.loads(control.get("/status").body)["workers"]
            assert sorted(row["served"] is None for row in rows) == [False, True]
            assert all(row["rss"] > 2**20 for row in rows)
            assert peer.answer().status == 200
        assert service.process.stop() == 0


def test_stacks_of_all_workers(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO) as service:
        service.wait_workers(2)
        assert order(service, "stacks")[0] == 200
        eventually(lambda: service.process.stderr.count("most recent call first") >= 2)
        assert len(service.wait_workers(2)) == 2
        assert service.process.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_workers_become_another_user_and_none_outlives_the_parent(tmp_path: Path) -> None:
    place = Path(tempfile.mkdtemp())  # that others can reach, unlike those of pytest
    place.chmod(0o755)
    python = (*for_strangers(), sys.executable)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, place)
        service = stack.enter_context(Service(place, *TWO, "--user", "nobody", python=python))
        workers = service.wait_workers(2)
        assert {os.stat(f"/proc/{pid}").st_uid for pid in workers} != {0}
        assert order(service, "scale", workers=3)[0] == 200
        workers = service.wait_workers(3)
        peers = [stack.enter_context(service.connect()) for _ in range(6)]
        for peer in peers:
            peer.request("/slow/1")
        assert service.process._stdout.wait(lambda text: text.count("slow began") == 6, 10)
        service.signal(signal.SIGKILL)
        assert [peer.answer().body for peer in peers] == [b"1"] * 6
        eventually(lambda: not any(map(alive, workers)))


def test_a_control_socket_and_a_pidfile_of_a_killed_parent_are_replaced(tmp_path: Path) -> None:
    pidfile = tmp_path / "service.pid"
    options = (*TWO, "--pidfile", str(pidfile))
    with Service(tmp_path, *options) as service:
        service.wait_workers(2)
        service.signal(signal.SIGKILL)
        service.process.wait()
    assert service.control.exists()
    with Service(tmp_path, *options) as service:
        assert int(pidfile.read_text()) == service.process.pid
        with Peer(str(service.control)) as control:
            assert control.get("/status").status == 200
        with Service(tmp_path, *options, ready=False) as other:
            assert other.process.wait() == 3
        assert service.process.stop() == 0
    assert not pidfile.exists()


def test_a_unix_socket_is_shared_by_all_workers(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with Service(tmp_path, *TWO, "--uds", str(path)) as service, service.connect() as kept:
        service.wait_workers(2)
        assert kept.get("/generation").body == b"1"
        service.deploy(generation="2")
        service.signal(signal.SIGHUP)
        service.wait_for("(?i)reloaded")  # ten answers may all be the first new worker's: nothing spreads them evenly
        assert {service.ask("/generation") for _ in range(10)} == {"2"}
        eventually(lambda: kept.get("/generation").body == b"2")  # it may be on its way still
        assert service.process.stop() == 0
    assert not path.exists()


def test_a_program_may_run_a_service_and_go_on(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import lastcall, signal\n"
        "if __name__ == '__main__':\n"
        f"    lastcall.run('app:app', port=0, workers=2, control_socket={str(tmp_path / 'c.sock')!r})\n"
        "    import ssl\n"
        "    print('goes on', signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, flush=True)\n"
    )
    from testing.process import ServerProcess  # noqa: PLC0415

    Service(tmp_path)  # writes the application
    with ServerProcess(command=[sys.executable, "program.py"], cwd=tmp_path) as process:
        process.wait_ready()
        assert process.stop() == 0
    assert "goes on True" in process.stdout


def test_an_option_that_no_worker_could_have_is_refused(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import lastcall\n"
        "if __name__ == '__main__':\n"
        "    lastcall.run('app:app', port=0, workers=2, loop=lambda: None)\n"
    )
    from testing.process import ServerProcess  # noqa: PLC0415

    Service(tmp_path)
    with ServerProcess(command=[sys.executable, "program.py"], cwd=tmp_path) as process:
        assert process.wait() == 2
    assert "loop" in process.stderr
    assert "Traceback" not in process.stderr
