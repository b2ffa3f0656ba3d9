"""An exception that comes out of the event loop ends what runs, and nothing else: the stop goes its way from there."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from testing.peer import Peer, eventually
from testing.process import ServerProcess
from tests.process.conftest import Start, wait_for_output
from tests.process.witness import report

LOOPS = ("auto", "asyncio", "uvloop")


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("way", ["stop", "stops"])
def test_the_ladder_runs_from_cancelling_on_with_exit_code_1(start: Start, tmp_path: Path, way: str, loop: str) -> None:
    breaks_out(start, tmp_path, way, loop)


@pytest.mark.parametrize("loop", ["auto", "asyncio"])
@pytest.mark.parametrize("way", ["signal", "debug"])
def test_so_it_does_where_only_asyncio_lets_it_out(start: Start, tmp_path: Path, way: str, loop: str) -> None:
    breaks_out(start, tmp_path, way, loop)


def test_uvloop_only_logs_what_a_signal_handler_raises(start: Start) -> None:
    server = start("breaks_out:app", "--loop", "uvloop")
    with Peer(server.addresses[0]) as peer:
        assert peer.get("/signal").status == 200
        wait_for_output(server, "handler set")
        server.signal(signal.SIGUSR1)
        server.wait_for("Odd: from a signal handler")
        assert peer.get("/").status == 200
    assert server.stop() == 0


def breaks_out(start: Start, tmp_path: Path, way: str, loop: str) -> None:
    file = tmp_path / "report.json"
    server = start("breaks_out:app", "--no-access-log", "--loop", loop, "--drain-report", str(file))
    with Peer(server.addresses[0]) as slow, Peer(server.addresses[0]) as other:
        slow.request("/slow")
        wait_for_output(server, "slow began")
        other.request(f"/{way}")
        if way == "signal":
            assert other.answer().status == 200
            wait_for_output(server, "handler set")
            wait_until_it_waits(server)
            server.signal(signal.SIGUSR1)
        assert slow.answer().status == 503
    assert server.wait() == 1
    said = server.stdout.replace("handler set\n", "").splitlines()
    assert said == ["slow began", "slow was cancelled", "shutdown began", "the shutdown code ran"]
    found = report(file)
    assert (found["exit_code"], found["lifespan"]) == (1, "complete")
    assert found["in_flight"]["request"] >= 1
    assert found["cancelled"] >= 1
    assert server.stderr.count("stopping, and cancelling what runs") == 1


def wait_until_it_waits(server: ServerProcess) -> None:
    """Until the loop waits: in the middle of a callback the exception would be that callback's."""

    def waits() -> bool:
        return Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"

    eventually(waits)


@pytest.mark.parametrize("loop", LOOPS)
def test_while_the_application_starts_it_ends_the_start(start: Start, loop: str) -> None:
    server = start("breaks_out:app", "--loop", loop, ready=False, env={"STARTING": "/stop"})
    assert server.wait() == 1
    assert "before the application had started" in server.stderr
    assert "Traceback" not in server.stderr


@pytest.mark.parametrize("loop", LOOPS)
def test_an_exception_handler_that_exits_is_an_order_to_stop(start: Start, loop: str) -> None:
    server = start("loop_settings:app", "--no-access-log", "--loop", loop, env={"SETTING": "exiting handler"})
    with Peer(server.addresses[0]) as peer:
        peer.request("/breaks")
        assert server.wait() == 9
    assert "Stopped (SystemExit)" in server.stderr
    assert "the shutdown code ran" in server.stdout


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("when", ["startup", "request", "shutdown", "teardown"])
def test_who_cancels_all_tasks_orders_a_stop_and_cuts_none(start: Start, tmp_path: Path, when: str, loop: str) -> None:
    """``for task in asyncio.all_tasks(): task.cancel()``: the server's own are among them."""
    file = tmp_path / "report.json"
    options = ("--loop", loop, "--drain-report", str(file))
    server = start("cancels_all:app", *options, env={"WHEN": when}, ready=when != "startup")
    if when == "request":
        with Peer(server.addresses[0]) as peer:
            peer.request("/")
            assert server.wait() == 0
    elif when == "startup":
        assert server.wait() == 0
    else:
        assert server.stop() == 0
    found = report(file)
    assert (found["outcome"], found["exit_code"]) == ("stopped", 0)
    assert found["cause"] == ("cancelled" if when in ("startup", "request") else "SIGTERM")
    assert found["lifespan"] == ("not started" if when == "startup" else "complete")
    assert ("the shutdown code ran" in server.stdout) is (when != "startup")
    assert "Traceback" not in server.stderr
    assert "does not end" not in server.stderr
    assert "Stopped (" in server.stderr.splitlines()[-1]
