"""Applications that do what they should not: each is bounded, named, and takes nothing from the others.

In every test a neighbour has a request of its own in flight. It is answered, and the shutdown code runs, whatever else
happens.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testing.peer import Peer
from testing.process import ServerProcess
from tests.process.conftest import Start, Stopwatch, wait_for_output
from tests.process.witness import Client, Journal, cuts, report

BUDGETS = (
    *("--timeout-graceful-shutdown", "1", "--timeout-cancel", "0.3", "--timeout-lifespan-shutdown", "1"),
    *("--exit-nonzero-on-cut", "--no-access-log"),
)
BLOCKED = (
    *("--timeout-graceful-shutdown", "0.6", "--timeout-cancel", "0.2", "--timeout-lifespan-shutdown", "0.2"),
    "--no-access-log",
)
TEARDOWN = 1.0


@contextmanager
def neighbour(server: ServerProcess, seconds: float = 0.5) -> Iterator[None]:
    """Somebody else's request: in flight before the block, and answered by the end of it."""
    client = Client(server, f"/slow?s={seconds:g}&id=neighbour")
    wait_for_output(server, "neighbour began")
    yield
    client.wait_ended()
    assert client.answer.body == b"slow"


def shut_down_in_order(server: ServerProcess) -> Journal:
    """The lifespan ended after everybody else, and so did the interpreter."""
    said = Journal(server)
    assert said.at("neighbour finally") < said.at("shutdown began") < said.at("atexit")
    return said


@pytest.mark.parametrize("body", ["", "body"], ids=["before its response", "in its response"])
def test_an_application_that_swallows_every_cancel_is_abandoned_and_named(
    start: Start, tmp_path: Path, body: str
) -> None:
    file = tmp_path / "report.json"
    server = start("probe:app", *BUDGETS, "--drain-report", str(file))
    bad = Client(server, f"/stubborn?{body}")
    wait_for_output(server, "stubborn began")
    with neighbour(server):
        watch = Stopwatch()
        server.signal(signal.SIGTERM)
    assert server.wait() == 5
    assert watch.seconds < 1 + 0.3 + TEARDOWN + 0.5
    bad.wait_ended()
    if body:
        assert not bad.whole
    else:
        assert bad.answer.status == 503, "its client is answered when the time for cancelling is over"
    shut_down_in_order(server)
    found = report(file)
    assert (found["finished"], found["abandoned"], found["exit_code"]) == (1, 1, 5)
    assert found["left"] == ["GET /stubborn"]
    assert cuts(found, "path", "outcome") == [("/stubborn", "abandoned")]
    named = [line for line in server.stderr.splitlines() if line.startswith("ERROR:") and "GET /stubborn" in line]
    assert len(named) == 1
    assert "Traceback" not in server.stderr


def test_an_application_that_blocks_the_loop_delays_the_others_and_loses_none(start: Start) -> None:
    server = start("probe:app", *BUDGETS)
    with neighbour(server):
        blocking = Client(server, "/block?s=0.8")
        wait_for_output(server, "block began")
        server.signal(signal.SIGTERM)
    blocking.wait_ended()
    assert blocking.answer.body == b"block"
    assert server.wait() == 0
    shut_down_in_order(server)
    assert "2 of 2 finished" in server.stderr or "1 of 1 finished" in server.stderr


def test_an_application_that_blocks_the_loop_for_ever_is_ended_by_the_watchdog_with_its_stack(start: Start) -> None:
    """Armed when the order is heard: here the block comes behind it."""
    server = start("probe:app", *BLOCKED)
    with neighbour(server, 0.1):
        client = Client(server, "/block/later?s=1000&delay=0.4")
        wait_for_output(server, "block/later waits")
        watch = Stopwatch()
        server.signal(signal.SIGTERM)
    assert server.wait() == 1
    assert 0.6 + 0.2 + 0.2 + TEARDOWN < watch.seconds < 0.6 + 0.2 + 0.2 + TEARDOWN + 0.5 + 1
    assert "the stop took longer than it can" in server.stderr
    assert "probe.py" in server.stderr
    assert "in block" in server.stderr
    client.close()


def test_a_loop_that_is_blocked_when_the_signal_comes_is_ended_by_the_watchdog_too(start: Start) -> None:
    """The order is never heard: armed by the handler, which runs as long as Python does."""
    server = start("probe:app", *BLOCKED)
    client = Client(server, "/block?s=1000")
    wait_for_output(server, "block began")
    watch = Stopwatch()
    server.signal(signal.SIGTERM)
    assert server.wait() == 1
    assert 0.6 + 0.2 + 0.2 + TEARDOWN < watch.seconds < 0.6 + 0.2 + 0.2 + TEARDOWN + 0.5 + 1
    assert "the stop took longer than it can" in server.stderr
    assert "in block" in server.stderr
    client.close()


def test_an_order_that_is_heard_late_has_its_whole_budget(start: Start) -> None:
    """The loop was blocked for most of the time until the watchdog would come: who is in flight has G all the same."""
    graces = ("--timeout-graceful-shutdown", "1.5", "--timeout-cancel", "0.2", "--timeout-lifespan-shutdown", "0.2")
    server = start("probe:app", *graces)
    with neighbour(server, 3.8):
        client = Client(server, "/block?s=2.8")
        wait_for_output(server, "block began")
        server.signal(signal.SIGTERM)
    client.wait_ended()
    assert client.answer.body == b"block"
    assert server.wait() == 0
    shut_down_in_order(server)


def test_an_application_that_spawns_tracked_tasks_for_ever_is_ended_by_the_cancel(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    server = start("probe:app", *BUDGETS, "--drain-report", str(file))
    with Peer(server.addresses[0]) as peer:
        assert peer.get("/spawn?tracked&late").status == 200
    with neighbour(server):
        watch = Stopwatch()
        server.signal(signal.SIGTERM)
    assert server.wait() == 5
    assert watch.seconds < 1 + 0.3 + TEARDOWN + 0.5
    shut_down_in_order(server)
    found = report(file)
    assert found["abandoned"] >= 1
    assert found["left"][0].startswith("task spawn-")
    assert any(found["left"][0] in line for line in server.stderr.splitlines() if line.startswith("ERROR:"))


def test_what_is_tracked_while_tasks_are_cancelled_is_cancelled_too(start: Start, tmp_path: Path) -> None:
    """So that nobody has to be abandoned who only goes on by leaving the next one behind."""
    file = tmp_path / "report.json"
    server = start("probe:app", *BUDGETS, "--drain-report", str(file))
    with Peer(server.addresses[0]) as peer:
        assert peer.get("/spawn?tracked").status == 200
    with neighbour(server):
        watch = Stopwatch()
        server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert 0.99 < watch.seconds < 1 + 0.3
    shut_down_in_order(server)
    found = report(file)
    assert (found["abandoned"], found["cut"]) == (0, [])
    assert found["cancelled"] >= 1


def test_an_application_that_spawns_tasks_for_ever_beside_its_requests_is_bounded_and_named(start: Start) -> None:
    server = start("probe:app", *BUDGETS)
    with Peer(server.addresses[0]) as peer:
        assert peer.get("/spawn").status == 200
    with neighbour(server, 0.2):
        watch = Stopwatch()
        server.signal(signal.SIGTERM)
    assert server.wait() == 5
    assert watch.seconds < 0.2 + TEARDOWN + 0.5
    shut_down_in_order(server)
    assert "name='spawn-" in server.stderr
    assert "was destroyed but it is pending" not in server.stderr


def test_a_task_beside_the_requests_is_cancelled_when_the_lifespan_has_ended(start: Start) -> None:
    server = start("probe:app", *BUDGETS)
    with Peer(server.addresses[0]) as peer:
        assert peer.get("/untracked").status == 200
    with neighbour(server, 0.2):
        server.signal(signal.SIGTERM)
    assert server.wait() == 0
    said = shut_down_in_order(server)
    assert said.of("untracked") == ["began", "CancelledError", "finally"]
    assert said.at("shutdown ended") < said.at("untracked CancelledError") < said.at("atexit")


def test_an_application_that_never_reads_receive_is_cut_and_named(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    server = start("probe:app", *BUDGETS, "--drain-report", str(file))
    bad = Client(server, "/quiet")
    bad.wait_for(b"first")
    with neighbour(server):
        watch = Stopwatch()
        server.signal(signal.SIGTERM)
    assert server.wait() == 6
    assert 0.99 < watch.seconds < 1.5
    said = shut_down_in_order(server)
    assert said.of("quiet") == ["began", "CancelledError", "finally"]
    assert cuts(report(file), "path", "outcome") == [("/quiet", "disconnected")]


@pytest.mark.parametrize(
    ("app", "words"),
    [
        ("app_raising", "RuntimeError: the pool would not close"),
        ("app_failing", "the database did not close"),
        ("app", "within 1 s"),
    ],
    ids=["raises", "fails", "hangs"],
)
def test_a_lifespan_that_ends_badly_is_bounded_and_told_with_exit_code_4(start: Start, app: str, words: str) -> None:
    server = start(f"probe:{app}", *BUDGETS, env={"SHUTDOWN": "1000"})
    with neighbour(server, 0.2):
        watch = Stopwatch()
        server.signal(signal.SIGTERM)
    assert server.wait() == 4
    assert watch.seconds < 0.2 + 1 + 0.5
    shut_down_in_order(server)
    assert words in server.stderr
    assert "exit code 4" in server.stderr


def test_an_application_that_calls_sys_exit_in_a_drain_ends_only_its_own_request(start: Start) -> None:
    server = start("probe:app", *BUDGETS)
    with neighbour(server):
        bad = Peer(server.addresses[0])
        assert bad.get().status == 200
        server.signal(signal.SIGTERM)
        server.wait_for("Stopping")
        bad.request("/leave")
        assert bad.answer().status == 500
        bad.close()
    assert server.wait() == 0
    shut_down_in_order(server)
    assert any("GET /leave: " in line for line in server.stderr.splitlines())


def test_an_application_that_puts_a_handler_before_the_servers_is_told_and_so_is_the_server(start: Start) -> None:
    server = start("probe:app", *BUDGETS)
    with Peer(server.addresses[0]) as peer:
        assert peer.get("/replace?chain").status == 200
    with neighbour(server):
        server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert len(shut_down_in_order(server).all("the application's own handler")) == 1


def test_an_application_that_replaces_the_signal_handler_is_named_and_other_orders_still_work(start: Start) -> None:
    server = start("probe:app_replacing", *BUDGETS)
    server.wait_for(r"WARNING: .*SIGTERM")
    with neighbour(server):
        server.signal(signal.SIGTERM)
        wait_for_output(server, "the application's own handler")
        time.sleep(0.1)
        assert "Stopping" not in server.stderr, "it is the application's signal now"
        server.signal(signal.SIGINT)
    assert server.wait() == 0
    shut_down_in_order(server)
    assert "Stopped (SIGINT)" in server.stderr
