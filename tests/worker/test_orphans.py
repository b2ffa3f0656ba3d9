"""No worker outlives its parent, however that goes."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from lastcall.channel.messages import CensusWanted, Drain, Goodbye
from testing.strangers import for_strangers
from testing.worker import SECONDS, WorkerProcess

pytestmark = pytest.mark.slow

Make = Callable[..., WorkerProcess]
HERE = Path(__file__).parent
PARENT = HERE / "parent.py"


@contextlib.contextmanager
def parent(*arguments: str, before: Sequence[str] = ()) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """A parent in a process of its own, with one worker that serves: the process, the worker's pid, the port."""
    process = subprocess.Popen(
        [*before, sys.executable, str(PARENT), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        cwd=HERE.parent.parent,
        env={**os.environ, "PYTHONPATH": str(HERE.parent.parent)},
    )
    worker = 0
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("worker "):
                worker, port = map(int, line.split()[1:])
                break
        else:
            pytest.fail("no worker")
        yield process, worker, port
    finally:
        process.kill()
        process.wait(SECONDS)
        assert process.stdout is not None
        process.stdout.close()
        if worker:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)


def gone(pid: int, timeout: float = SECONDS) -> bool:
    """Whether the process ends in time; it is not our child."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], timeout)[0])
    finally:
        os.close(fd)


def test_the_parent_is_killed_while_it_serves() -> None:
    with parent() as (process, worker, port):
        with socket.create_connection(("127.0.0.1", port), SECONDS) as client:
            client.sendall(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
            client.recv(1)
            process.kill()
            process.wait(SECONDS)
            data = b""
            while piece := client.recv(65536):
                data += piece
            assert data.endswith(b"end\n\r\n0\r\n\r\n"), "the ordinary budgets"
        assert gone(worker)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), SECONDS)


def test_the_parent_is_killed_while_the_worker_imports() -> None:
    with parent("--app", "slow_import:app") as (process, worker, _):
        process.kill()
        process.wait(SECONDS)
        assert gone(worker)


def test_the_parent_is_killed_while_the_loop_is_blocked() -> None:
    with (
        parent("--brief") as (process, worker, port),
        socket.create_connection(("127.0.0.1", port), SECONDS) as client,
    ):
        client.sendall(b"GET /block?3600 HTTP/1.1\r\nhost: x\r\n\r\n")
        time.sleep(0.5)
        process.kill()
        process.wait(SECONDS)
        assert gone(worker), "the watchdog counts the kernel's signal"


def test_a_second_signal_counts_once_the_parent_is_gone() -> None:
    with parent() as (process, worker, port), socket.create_connection(("127.0.0.1", port), SECONDS) as client:
        client.sendall(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")
        time.sleep(0.3)
        process.kill()
        process.wait(SECONDS)
        time.sleep(1)
        os.kill(worker, signal.SIGINT)
        began = time.monotonic()
        assert gone(worker)
        assert time.monotonic() - began < 10, "it did not wait out the grace of 20 s"


def test_the_parent_is_killed_and_the_worker_is_nobodys() -> None:
    with parent("--user", "nobody", before=for_strangers()) as (process, worker, _):
        assert uid_of(worker) != 0
        process.kill()
        process.wait(SECONDS)
        assert gone(worker)


def uid_of(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Uid:"))


def test_loss_of_the_channel_alone(make: Make) -> None:
    worker = make().serving()
    with worker.connect() as client:
        client.settimeout(SECONDS)
        client.sendall(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
        client.recv(1)
        worker.channel.shutdown(socket.SHUT_WR)
        data = b""
        while piece := client.recv(65536):
            data += piece
        assert data.endswith(b"end\n\r\n0\r\n\r\n")
    assert worker.wait() == 0
    # The parent lives, and with it the service: the slot's queue is its affair.
    with contextlib.closing(worker.connect()) as waiting:
        worker.listeners[0].settimeout(SECONDS)
        worker.listeners[0].accept()[0].close()
        assert waiting.fileno() >= 0


def test_a_parent_that_does_not_read_holds_nobody(make: Make) -> None:
    worker = make().serving()
    with contextlib.suppress(BlockingIOError):
        worker.channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    for number in range(2000):
        worker.send(CensusWanted(number))
    worker.send(Drain("SIGTERM"))
    assert worker.wait() == 0


def test_the_report_says_why(make: Make) -> None:
    worker = make().serving()
    worker.channel.shutdown(socket.SHUT_WR)
    # It cannot be sent any more by a channel that is lost.
    assert worker.wait() == 0
    assert worker.heard(Goodbye) == []
