"""Signals in a worker: its parent's affair, as long as that lives."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from lastcall.channel.messages import Drain, Goodbye, RetireMe
from testing.worker import SECONDS, WorkerProcess

pytestmark = pytest.mark.slow

Make = Callable[..., WorkerProcess]

PARENTS = ("SIGINT", "SIGQUIT", "SIGHUP", "SIGTTIN", "SIGTTOU", "SIGUSR1", "SIGUSR2")


@pytest.mark.parametrize("name", PARENTS)
def test_what_the_process_group_gets_means_nothing(make: Make, name: str) -> None:
    worker = make(timeout_graceful_shutdown=0.5, timeout_cancel=0.1, timeout_lifespan_shutdown=0.1).serving()
    for _ in range(4):
        worker.signal(getattr(signal, name))
        time.sleep(0.55)  # behind the debouncing, so that each would count
    assert worker.get("/").startswith(b"HTTP/1.1 200")
    assert worker.heard(RetireMe) == []


def test_sigterm_asks_for_a_successor_once(make: Make) -> None:
    worker = make(timeout_graceful_shutdown=0.5, timeout_cancel=0.1, timeout_lifespan_shutdown=0.1).serving()
    for _ in range(4):
        worker.signal(signal.SIGTERM)
        time.sleep(0.55)
    assert worker.expect(RetireMe).cause == "SIGTERM"
    assert worker.get("/").startswith(b"HTTP/1.1 200")
    assert len(worker.heard(RetireMe)) == 1


def test_signals_do_not_escalate_a_drain(make: Make) -> None:
    worker = make().serving()
    with worker.connect() as client:
        client.settimeout(SECONDS)
        client.sendall(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
        client.recv(1)
        worker.send(Drain("SIGTERM"))
        for name in ("SIGTERM", "SIGINT", "SIGQUIT"):
            time.sleep(0.55)
            worker.signal(getattr(signal, name))
        assert worker.expect(Goodbye).report["finished"] == 1
    assert worker.wait() == 0
    assert worker.heard(RetireMe) == []


def test_stacks_of_a_loop_that_is_blocked(make: Make) -> None:
    worker = make().serving()
    with worker.connect() as client:
        client.sendall(b"GET /block?2 HTTP/1.1\r\nhost: x\r\n\r\n")
        until_blocked(worker)
        worker.signal(signal.SIGRTMAX - 3)
        client.settimeout(SECONDS)
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    deadline = time.monotonic() + SECONDS
    while 'app.py", line' not in worker.output and time.monotonic() < deadline:
        time.sleep(0.05)
    assert 'app.py", line' in worker.output


def until_blocked(worker: WorkerProcess) -> None:
    """Wait until the heart has not beaten for three beats."""
    while time.monotonic() - worker.beat() < 0.75:
        time.sleep(0.05)


def test_the_heart_beats_stops_and_goes_on(make: Make) -> None:
    worker = make().serving()
    before = worker.beat()
    assert abs(time.monotonic() - before) < 10
    while worker.beat() == before:
        time.sleep(0.02)
    worker.signal(signal.SIGSTOP)
    until_blocked(worker)
    worker.signal(signal.SIGCONT)
    while time.monotonic() - worker.beat() > 0.5:
        time.sleep(0.02)
    assert worker.get("/").startswith(b"HTTP/1.1 200")
    assert worker.heard(RetireMe) == []


def test_a_heart_costs_next_to_nothing(make: Make) -> None:
    worker = make().serving()
    before = cpu(worker.pid)
    time.sleep(3)
    assert cpu(worker.pid) - before < 0.1


def cpu(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
