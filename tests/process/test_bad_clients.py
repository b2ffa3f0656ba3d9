"""Clients that do what they should not: each is bounded by its own timeout, and by the grace if that is shorter."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from testing.peer import Peer, request
from tests.process.conftest import Start, Stopwatch, wait_for_output
from tests.process.witness import Client, Journal

LATE = 0.5  # what a busy machine may add
# A stalled writer is looked at twice: the time begins anew if it took a byte. Behind a 400 comes a lingering close.
BOUNDS = pytest.mark.parametrize(
    ("grace", "timeout", "least", "most"),
    [("30", "0.5", 0.4, 0.5 + 1), ("1", "60", 0.9, 1)],
    ids=["its timeout", "the grace"],
)


@contextmanager
def dripping(peer: Peer, data: bytes, every: float) -> Iterator[None]:
    """Send ``data`` byte by byte, until it is sent or nobody takes it."""
    over = threading.Event()

    def drip() -> None:
        for byte in data:
            if over.wait(every):
                return
            try:
                peer.send(bytes([byte]))
            except OSError:
                return

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@BOUNDS
def test_a_client_that_never_reads_holds_a_stop_for_its_timeout_or_the_grace(
    start: Start, grace: str, timeout: str, least: float, most: float
) -> None:
    server = start("probe:app", "--timeout-graceful-shutdown", grace, "--timeout-write", timeout)
    with Peer(server.addresses[0], receive_buffer=4096) as bad:
        bad.request("/big?n=50000000")
        wait_for_output(server, "big began")
        good = Client(server, "/slow?s=0.3")
        wait_for_output(server, "slow began")
        watch = Stopwatch()
        assert server.stop() == 0
        assert least < watch.seconds < most + LATE
        good.wait_ended()
        assert good.answer.body == b"slow"
        assert bad.ended() == "RST", "what it has read is visibly not all"
    assert Journal(server).of("big") == ["began", "ClientDisconnected", "finally"]
    assert "Traceback" not in server.stderr


@BOUNDS
def test_a_client_that_does_not_read_the_end_of_its_answer_holds_a_stop_for_its_timeout_or_the_grace(
    start: Start, grace: str, timeout: str, least: float, most: float
) -> None:
    """The task has ended; its last bytes have not arrived."""
    server = start("probe:app", "--timeout-graceful-shutdown", grace, "--timeout-write", timeout)
    with Peer(server.addresses[0], receive_buffer=4096) as bad:
        bad.request("/whole?n=8000000")
        wait_for_output(server, "whole finally")
        watch = Stopwatch()
        assert server.stop() == 0
        assert least < watch.seconds < most + LATE
        assert bad.ended() == "RST"


@BOUNDS
def test_a_client_that_sends_its_head_a_byte_at_a_time_holds_a_stop_for_its_timeout_or_the_grace(
    start: Start, grace: str, timeout: str, least: float, most: float
) -> None:
    """It begins when the stop has begun: one that began before is closed after the linger."""
    server = start("probe:app", "--timeout-graceful-shutdown", grace, "--timeout-header", timeout)
    with Peer(server.addresses[0]) as bad:
        assert bad.get().status == 200
        watch = Stopwatch()
        server.signal(signal.SIGTERM)
        server.wait_for("Stopping")
        with dripping(bad, request("/ok"), 0.05):
            assert server.wait() == 0
        assert least < watch.seconds < most + LATE
    assert "Traceback" not in server.stderr


def test_a_client_that_stops_sending_its_body_holds_a_stop_for_its_timeout(start: Start) -> None:
    server = start("probe:app", "--timeout-graceful-shutdown", "30", "--timeout-body", "0.5")
    with Peer(server.addresses[0]) as bad:
        bad.send(request("/echo", method="POST", body=b"x" * 100)[:-50])
        wait_for_output(server, "echo began")
        watch = Stopwatch()
        assert server.stop() == 0
        assert 0.4 < watch.seconds < 0.5 + 1 + LATE
        assert bad.answer().status == 400


def test_a_client_that_sends_its_body_a_byte_at_a_time_holds_a_stop_until_the_grace_is_over(start: Start) -> None:
    server = start("probe:app", "--timeout-graceful-shutdown", "1", "--timeout-body", "0.5")
    with Peer(server.addresses[0]) as bad:
        ask = request("/echo", method="POST", body=b"x" * 100)
        bad.send(ask[:-100])
        wait_for_output(server, "echo began")
        watch = Stopwatch()
        server.signal(signal.SIGTERM)
        with dripping(bad, ask[-100:], 0.1):
            answer = bad.answer()
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert 0.99 < watch.seconds < 1 + LATE
            assert bad.ended() == "FIN"
    assert server.wait() == 0


def test_a_client_that_keeps_pipelining_gets_what_had_come_and_holds_nothing(start: Start) -> None:
    server = start("probe:app", "--timeout-graceful-shutdown", "5")
    with Peer(server.addresses[0]) as bad:
        over = threading.Event()

        def pipeline() -> None:
            while not over.is_set():
                try:
                    bad.send(request("/ok") * 20)
                except OSError:
                    return

        sender = threading.Thread(target=pipeline)
        answers = [bad.get("/ok")]
        sender.start()
        try:
            while len(answers) < 50:
                answers.append(bad.answer())
            good = Client(server, "/slow?s=0.3")
            wait_for_output(server, "slow began")
            watch = Stopwatch()
            server.signal(signal.SIGTERM)
            while "connection" not in answers[-1].headers:
                answers.append(bad.answer())
            assert bad.rest() == b"", "nothing comes behind the last answer"
            good.wait_ended()
            assert good.answer.body == b"slow"
        finally:
            over.set()
            bad.close()
            sender.join()
        assert server.wait() == 0
        assert watch.seconds < 2
    assert {answer.status for answer in answers} == {200}


def test_kept_alive_clients_that_go_on_asking_get_one_more_answer_each(start: Start) -> None:
    """While another request holds the drain."""
    server = start("probe:app", "--timeout-graceful-shutdown", "5")
    held = Client(server, "/slow?s=0.8")
    wait_for_output(server, "slow began")
    peers = [Peer(server.addresses[0]) for _ in range(5)]
    for peer in peers:
        assert peer.get().status == 200
    server.signal(signal.SIGTERM)
    server.wait_for("Stopping")
    for peer in peers:
        answer = peer.get()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
    for peer in peers:
        peer.request("/mute")
        assert peer.ended() == "FIN"
        peer.close()
    held.wait_ended()
    assert held.answer.body == b"slow"
    assert server.wait() == 0
    assert "mute began" not in server.stdout
