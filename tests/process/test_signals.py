"""How often, and how fast after one another, somebody asks."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator

import pytest

from testing.peer import Peer
from testing.process import ServerProcess
from tests.process.conftest import APPS, Start, Stopwatch, open_stream, wait_for_output
from tests.process.witness import Client, Journal

LONG = ("--timeout-graceful-shutdown", "30", "--timeout-interrupt", "30")
NOT_TOGETHER = 0.6  # seconds: signals that are closer than 0.5 s are one


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_the_second_signal_cancels_now_and_the_shutdown_code_runs(start: Start, number: signal.Signals) -> None:
    server = start("app", *LONG)
    with open_stream(server) as peer:
        server.signal(number)
        server.wait_for("Stopping")
        time.sleep(NOT_TOGETHER)
        assert server.returncode is None
        watch = Stopwatch()
        server.signal(number)
        assert server.wait() == 0
        assert watch.seconds < 1
        with pytest.raises(EOFError):  # cut, and visibly so
            peer.chunk()
    assert "the shutdown code ran" in server.stdout


def test_two_signals_at_once_are_one(start: Start) -> None:
    server = start("app", *LONG)
    peer = Peer(server.addresses[0])
    peer.request("/slow?0.7")
    wait_for_output(server, "slow began")
    for _ in range(2):
        server.signal(signal.SIGTERM)
    assert peer.answer().body == b"slow"
    peer.close()
    assert server.wait() == 0


def test_the_third_signal_leaves_within_a_moment(start: Start) -> None:
    server = start("app", *LONG, "--timeout-cancel", "30")
    with Peer(server.addresses[0]) as peer:
        peer.request("/stubborn")
        wait_for_output(server, "stubborn began")
        server.signal(signal.SIGTERM)
        time.sleep(NOT_TOGETHER)
        server.signal(signal.SIGTERM)
        wait_for_output(server, "stubborn was cancelled")
        time.sleep(NOT_TOGETHER)
        watch = Stopwatch()
        server.signal(signal.SIGTERM)
        assert server.wait() == 5
        assert watch.seconds < 1


def test_the_third_signal_works_on_a_blocked_loop(start: Start) -> None:
    server = start("app", *LONG)
    with Peer(server.addresses[0]) as peer:
        peer.request("/block")
        wait_for_output(server, "block began")
        for _ in range(2):
            server.signal(signal.SIGINT)
            time.sleep(NOT_TOGETHER)
        watch = Stopwatch()
        server.signal(signal.SIGINT)
        assert server.wait() == 5
        assert watch.seconds < 1


def test_sigquit_is_the_first_and_the_second_signal(start: Start) -> None:
    server = start("app", *LONG)
    with open_stream(server):
        watch = Stopwatch()
        server.signal(signal.SIGQUIT)
        assert server.wait() == 0
        assert watch.seconds < 1
    assert "the shutdown code ran" in server.stdout
    assert "Stopped (SIGQUIT)" in server.stderr


def test_an_interrupt_shortens_the_grace(start: Start) -> None:
    server = start("app", "--timeout-graceful-shutdown", "30", "--timeout-interrupt", "0.3")
    with open_stream(server):
        watch = Stopwatch()
        server.signal(signal.SIGINT)
        assert server.wait() == 0
        assert 0.2 < watch.seconds < 1.5


def test_an_idle_loop_hears_of_a_signal_at_once(start: Start) -> None:
    """A handler that only sets a flag would not wake it."""
    server = start("probe:app")
    time.sleep(0.2)
    watch = Stopwatch()
    server.signal(signal.SIGTERM)
    server.wait_for("Stopping")
    assert watch.seconds < 0.2
    assert server.wait() == 0


def test_a_group_that_gets_sigint_while_its_parent_sends_sigterm_is_told_once() -> None:
    command = ["setsid", sys.executable, "-m", "lastcall", "probe:app", "--port", "0", *LONG]
    with ServerProcess(command=command, cwd=APPS) as server:
        server.wait_ready()
        client = Client(server, "/fin?n=8")
        client.wait_for(b"data: 0")
        os.killpg(server.pid, signal.SIGINT)
        server.signal(signal.SIGTERM)
        client.wait_ended()
        assert client.whole
        assert server.wait() == 0
    assert "Stopped (SIGINT)" in server.stderr


def test_the_second_signal_while_tasks_are_cancelled_has_no_effect(start: Start) -> None:
    server = start("probe:app", "--timeout-graceful-shutdown", "0", "--timeout-cancel", "30")
    client = Client(server, "/slow?s=100&cleanup=1")
    wait_for_output(server, "slow began")
    server.signal(signal.SIGTERM)
    wait_for_output(server, "slow CancelledError")
    time.sleep(NOT_TOGETHER)
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    said = Journal(server)
    assert said.of("slow") == ["began", "CancelledError", "finally", "cleaned up"]
    assert said.at("slow cleaned up") < said.at("shutdown began")
    client.close()


def test_the_second_signal_while_the_lifespan_shuts_down_has_no_effect(start: Start) -> None:
    server = start("probe:app", env={"SHUTDOWN": "1"})
    server.signal(signal.SIGTERM)
    wait_for_output(server, "shutdown began")
    time.sleep(NOT_TOGETHER)
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert "shutdown ended" in server.stdout


def test_the_third_signal_while_the_lifespan_shuts_down_ends_the_process(start: Start) -> None:
    server = start("probe:app", "--timeout-lifespan-shutdown", "30", env={"SHUTDOWN": "1000"})
    for _ in range(3):
        watch = Stopwatch()
        server.signal(signal.SIGTERM)
        wait_for_output(server, "shutdown began")
        time.sleep(NOT_TOGETHER)
    assert server.wait() == 5
    assert watch.seconds < NOT_TOGETHER + 0.5
    assert "atexit" not in server.stdout


@pytest.fixture
def draining(start: Start) -> Iterator[tuple[ServerProcess, Client]]:
    """A server that stops because it has served enough requests, in its delay, and a stream that it holds."""
    options = ("--limit-max-requests", "2", "--drain-delay", "30", "--timeout-graceful-shutdown", "30")
    server = start("probe:app", *options, "--timeout-interrupt", "0.4")
    stream = Client(server, "/inf?every=0.01")
    stream.wait_for(b"tick")
    with Peer(server.addresses[0]) as peer:
        assert peer.get().status == 200
    server.wait_for(r"Stopping \(max-requests\): 1 request in flight, done within 68 s")
    yield server, stream
    stream.close()


def test_the_first_signal_in_a_drain_that_was_not_ordered_by_one_changes_nothing(
    draining: tuple[ServerProcess, Client],
) -> None:
    server, stream = draining
    server.signal(signal.SIGTERM)
    time.sleep(NOT_TOGETHER)
    assert not stream.ended
    with Peer(server.addresses[0]) as peer:
        assert peer.get().status == 200, "it is still the delay"
    watch = Stopwatch()
    server.signal(signal.SIGTERM)  # and this is the second
    assert server.wait() == 0
    assert watch.seconds < 1
    assert "Stopped (max-requests)" in server.stderr
    assert Journal(server).of("inf") == ["began", "CancelledError", "finally"]


def test_an_interrupt_in_a_drain_that_was_not_ordered_by_a_signal_ends_the_delay_and_shortens_the_grace(
    draining: tuple[ServerProcess, Client],
) -> None:
    server, stream = draining
    watch = Stopwatch()
    server.signal(signal.SIGINT)
    assert stream.wait_ended() == "FIN"
    assert server.wait() == 0
    assert 0.35 < watch.seconds < 1
    assert re.search(r"\(SIGINT\): .* 8\.4 s", server.stderr)
    assert "Stopped (max-requests)" in server.stderr
    assert Journal(server).of("inf") == ["began", "ClientDisconnected", "finally"]
