"""A parent and its workers: start, stop, signals, exit codes."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from testing.clock import Stopwatch
from testing.peer import Peer, eventually
from testing.service import Service, alive

LONG = ("--timeout-graceful-shutdown", "30", "--timeout-interrupt", "30")
NOT_TOGETHER = 0.6  # seconds: signals that are closer than 0.5 s are one
TWO = ("--workers", "2")


def test_two_workers_serve_and_stop(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO) as service:
        pids = service.wait_workers(2)
        assert pids == set(service.workers)
        names = {service.ask("/number") for _ in range(40)}
        assert {name.rpartition("-")[2] for name in names} == {"1", "2"}
        elsewhere = tmp_path / "another"
        elsewhere.mkdir()
        with Service(elsewhere, *TWO) as another:  # it may share a database with the first
            assert not names & {another.ask("/number") for _ in range(40)}
        assert service.process.stop() == 0
        assert not any(map(alive, pids))
    assert service.process.stdout.count("the shutdown code ran") == 2
    assert "2 workers" in service.process.stderr
    assert str(service.control) in service.process.stderr
    assert not service.control.exists()


def test_one_worker_under_a_parent(tmp_path: Path) -> None:
    with Service(tmp_path, "--supervise") as service:
        assert int(service.ask("/pid")) != service.process.pid
        assert service.process.stop() == 0


def test_workers_have_the_flags_of_the_interpreter_and_nothing_to_read(tmp_path: Path) -> None:
    with Service(
        tmp_path, "--supervise", python=(sys.executable, "-OO", "-X", "importtime=0", "-X", "utf8")
    ) as service:
        assert service.ask("/flags") == repr((2, False, {"importtime": "0", "utf8": True}, ""))
        assert service.process.stop() == 0


def test_a_ctrl_c_that_the_process_group_doubles_counts_once(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO, *LONG) as service:
        workers = service.wait_workers(2)
        with service.connect() as peer:
            peer.request("/slow/1")
            assert service.process._stdout.wait(lambda text: "slow began" in text, 10)
            for pid in (service.process.pid, *workers, service.process.pid, *workers):
                os.kill(pid, signal.SIGINT)
            assert peer.answer().body == b"1"
        assert service.process.wait() == 0


def test_the_second_signal_cancels_in_every_worker(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO, *LONG) as service:
        service.wait_workers(2)
        peers = [service.connect() for _ in range(8)]
        for peer in peers:
            peer.request("/slow/60")
        assert service.process._stdout.wait(lambda text: text.count("slow began") == 8, 10)
        service.signal(signal.SIGTERM)
        time.sleep(NOT_TOGETHER)
        assert service.process.returncode is None
        watch = Stopwatch()
        service.signal(signal.SIGTERM)
        assert service.process.wait() == 0
        assert watch.seconds < 5
        for peer in peers:
            peer.close()
    assert service.process.stdout.count("the shutdown code ran") == 2


def test_the_third_signal_kills_everybody(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO, *LONG, "--timeout-cancel", "30") as service:
        workers = service.wait_workers(2)
        with service.connect() as peer:
            peer.request("/stubborn")
            assert service.process._stdout.wait(lambda text: "stubborn began" in text, 10)
            service.signal(signal.SIGTERM)
            time.sleep(NOT_TOGETHER)
            service.signal(signal.SIGTERM)
            assert service.process._stdout.wait(lambda text: "stubborn was cancelled" in text, 10)
            time.sleep(NOT_TOGETHER)
            service.signal(signal.SIGTERM)
            assert service.process.wait() == 5
        eventually(lambda: not any(map(alive, workers)))
    # The stacks of the parent and of the worker that is left.
    assert service.process.stderr.count("most recent call first") >= 2


def test_the_third_signal_works_where_the_parents_loop_hangs(tmp_path: Path) -> None:
    (tmp_path / "hang.py").write_text(
        "import asyncio, sys, time\n"
        "from lastcall.supervisor.service import ParentService\n"
        "ParentService.scale_by = lambda self, more: (print('hangs', flush=True), time.sleep(60))\n"
        "from lastcall.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    from testing.process import ServerProcess  # noqa: PLC0415

    Service(tmp_path)  # writes the application
    command = [sys.executable, "hang.py"]
    options = ["app:app", *TWO, "--port", "0", "--control-socket", str(tmp_path / "c.sock")]
    with ServerProcess(options, None, None, tmp_path, command=command) as process:
        process.wait_ready()
        from testing.service import children  # noqa: PLC0415

        workers = children(process.pid)
        assert len(workers) == 2
        process.signal(signal.SIGTTIN)
        assert process._stdout.wait(lambda text: "hangs" in text, 10)
        for _ in range(3):
            process.signal(signal.SIGTERM)
            time.sleep(NOT_TOGETHER)
        assert process.wait() == 5
        eventually(lambda: not any(map(alive, workers)))


def test_the_report_is_one_for_the_service(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    with Service(tmp_path, *TWO, "--drain-report", str(report)) as service:
        service.wait_workers(2)
        peers = [service.connect() for _ in range(10)]
        for peer in peers:
            peer.request("/slow/0.7")
        assert service.process._stdout.wait(lambda text: text.count("slow began") == 10, 10)
        service.signal(signal.SIGTERM)
        assert [peer.answer().body for peer in peers] == [b"1"] * 10
        assert service.process.wait() == 0
        for peer in peers:
            peer.close()
    found = json.loads(report.read_text())
    assert (found["cause"], found["exit_code"], found["outcome"]) == ("SIGTERM", 0, "stopped")
    assert found["finished"] == sum(found["in_flight"].values()) == 10
    assert {one["worker"] for one in found["workers"]} == {1, 2}


def test_a_taken_port_is_found_before_anything_is_started(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with Service(tmp_path, *TWO, "--port", port, ready=False) as service:
            assert service.process.wait() == 3
    assert f"cannot listen on 127.0.0.1:{port}" in service.process.stderr
    assert "startup" not in service.process.stderr


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("import no_such_module", "No module named 'no_such_module'"),
        ("1 / 0", "ZeroDivisionError"),
        ("sys.exit(7)", "sys.exit(7) while"),
    ],
    ids=["import", "module", "exit"],
)
def test_what_cannot_start_ends_with_3_and_one_traceback(tmp_path: Path, extra: str, said: str) -> None:
    with Service(tmp_path, *TWO, extra=extra, ready=False) as service:
        assert service.process.wait() == 3
    assert said in service.process.stderr
    assert service.process.stderr.count("Traceback") <= 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
@pytest.mark.parametrize(
    "extra",
    [
        "print('boots', flush=True)\ntime.sleep(60)",
        "async def startup():\n    print('boots')\n    await asyncio.sleep(60)",
    ],
    ids=["import", "lifespan"],
)
def test_a_signal_while_it_boots(tmp_path: Path, number: signal.Signals, extra: str) -> None:
    with Service(tmp_path, *TWO, extra=extra, ready=False) as service:
        assert service.process._stdout.wait(lambda text: text.count("boots") == 2, 10)
        workers = service.workers
        service.signal(number)
        assert service.process.wait() == 0
        assert not any(map(alive, workers))


def test_scaling_by_signals(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO) as service:
        service.wait_workers(2)
        service.signal(signal.SIGTTIN)
        service.wait_workers(3)
        with service.connect() as peer:
            assert peer.get("/generation").status == 200
            service.signal(signal.SIGTTOU)
            time.sleep(NOT_TOGETHER)
            service.signal(signal.SIGTTOU)
            service.wait_workers(1)
            assert peer.get("/generation").status == 200
        assert service.process.stop() == 0


def test_what_a_signal_has_ordered_is_said_once(tmp_path: Path) -> None:
    with Service(tmp_path, "--supervise") as service:
        service.signal(signal.SIGTTIN)
        service.wait_for("Scaled: 2 slots")
        service.signal(signal.SIGHUP)
        service.wait_for("Reloaded: ")
        service.deploy(extra="raise RuntimeError('broken')")
        service.signal(signal.SIGHUP)
        service.wait_for("Reload failed: ")
        assert service.process.stop() == 0
    for said in ("2 slots.", "Reloaded: ", "Reload failed: "):
        assert service.process.stderr.count(said) == 1, service.process.stderr


def test_what_the_parent_asks_is_in_no_access_log(tmp_path: Path) -> None:
    with Service(tmp_path, "--supervise", "--smoke", "/pid", "--smoke", "/nothing=404") as service:
        assert service.ask("/number").endswith("-1")
        with Peer(str(service.control)) as control:
            assert control.get("/status").status == 200
        assert service.process.stop() == 0
    lines = [line for line in service.process.stdout.splitlines() if "HTTP/1.1" in line]
    assert ["/number" in line for line in lines] == [True], lines


def test_ctl_stop(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO) as service, Peer(str(service.control)) as peer:
        status = json.loads(peer.get("/status").body)
        assert [slot["slot"] for slot in status["slots"]] == [0, 1]
        peer.request("/stop", method="POST")
        assert service.process.wait() == 0
