"""What lastcall was made for: an endless stream is held, the process is told to stop, the shutdown code runs."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from testing.process import ServerProcess
from tests.process.conftest import APPS, Stopwatch

BUDGETS = ["timeout_graceful_shutdown=1", "timeout_interrupt=1"]


@contextmanager
def stream_held_by_curl(*options: str) -> Iterator[ServerProcess]:
    command = [sys.executable, str(APPS / "seed.py"), *options]
    with ServerProcess(command=command) as server:
        url = server.wait_ready()[0]
        with subprocess.Popen(["curl", "-sN", url], stdout=subprocess.PIPE) as curl:
            try:
                assert curl.stdout is not None
                assert curl.stdout.readline() == b"data: 1\n"
                yield server
            finally:
                curl.kill()


def check_the_end(server: ServerProcess) -> None:
    assert "the shutdown code ran\n" in server.stdout
    assert "run() returned\n" in server.stdout
    assert server.stdout.endswith("finally ran\nrun() returned\natexit ran\n")
    assert "Traceback" not in server.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_ends_the_stream_runs_the_shutdown_code_and_exits_0(number: signal.Signals) -> None:
    with stream_held_by_curl(*BUDGETS) as server:
        watch = Stopwatch()
        server.signal(number)
        assert server.wait() == 0
        assert 0.85 < watch.seconds < 3  # told to end a margin, a tenth, before the end of the grace
    check_the_end(server)
    assert f"Stopped ({number.name})" in server.stderr
    assert "0 of 1 finished, 1 disconnected; lifespan complete; exit code 0. Cut: GET / (stream, " in server.stderr
