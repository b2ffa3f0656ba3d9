"""How often, and how fast after one another, somebody asks."""

from __future__ import annotations

import signal
import time

import pytest

from tests.process.conftest import Start, Stopwatch, open_stream, wait_for_output
from tests.support.peer import Peer

LONG = ("--timeout-graceful-shutdown", "30", "--timeout-interrupt", "30")
NOT_TOGETHER = 0.6  # seconds: signals that are closer than 0.5 s are one


@pytest.mark.parametrize(
    ("first", "second"), [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)], ids=["TERM", "INT+TERM"]
)
def test_the_second_signal_cancels_now(start: Start, first: signal.Signals, second: signal.Signals) -> None:
    server = start("app", *LONG)
    with open_stream(server) as peer:
        server.signal(first)
        server.wait_for("Stopping")
        time.sleep(NOT_TOGETHER)
        assert server.returncode is None
        watch = Stopwatch()
        server.signal(second)
        assert server.wait() == 0
        assert watch.seconds < 1
        with pytest.raises(EOFError):  # cut, and visibly so
            peer.chunk()
    assert "the shutdown code ran" in server.stdout


@pytest.mark.parametrize(
    "pair", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)], ids=["same", "two"]
)
def test_two_signals_at_once_are_one(start: Start, pair: tuple[signal.Signals, signal.Signals]) -> None:
    server = start("app", *LONG)
    peer = Peer(server.addresses[0])
    peer.request("/slow?1")
    wait_for_output(server, "slow began")
    for number in pair:
        server.signal(number)
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
        assert watch.seconds < 0.5
    assert "third stop signal" in server.stderr


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
        assert watch.seconds < 0.5


def test_sigquit_is_the_first_and_the_second_signal(start: Start) -> None:
    server = start("app", *LONG)
    with open_stream(server):
        watch = Stopwatch()
        server.signal(signal.SIGQUIT)
        assert server.wait() == 0
        assert watch.seconds < 1
    assert "the shutdown code ran" in server.stdout
    assert "Stopped (SIGQUIT)" in server.stderr


def test_an_interrupt_shortens_the_grace_that_a_term_began(start: Start) -> None:
    server = start("app", "--timeout-graceful-shutdown", "30", "--timeout-interrupt", "0.3")
    with open_stream(server):
        watch = Stopwatch()
        server.signal(signal.SIGINT)
        assert server.wait() == 0
        assert 0.2 < watch.seconds < 1.5
