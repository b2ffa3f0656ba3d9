"""Output that nobody can read fails no request and no stop, and changes no exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testing.peer import Peer, eventually
from tests.process.conftest import APPS, answers


@contextmanager
def served(redirection: str, *, stdout: int, stderr: int) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server under a shell's redirection, on a unix socket, since its ready line cannot be read."""
    path = str(Path(tempfile.gettempdir(), f"lastcall-test-{os.getpid()}.socket"))
    command = [sys.executable, "-m", "lastcall", "quiet:app", "--uds", path]
    process = subprocess.Popen(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *command],
        cwd=APPS,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
    )
    try:
        eventually(lambda: answers(path))
        yield process, path
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        Path(path).unlink(missing_ok=True)


def use_and_stop(process: subprocess.Popen[bytes], path: str) -> int:
    with Peer(path) as peer:
        for _ in range(5):
            assert peer.get().body == b"ok"
        peer.request("/error")  # logs a traceback
        assert peer.answer().status == 500
    process.send_signal(signal.SIGTERM)
    return process.wait(10)


@pytest.mark.parametrize(
    "redirection",
    [">&-", "2>&-", ">&- 2>&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>&1"],
)
def test_closed_or_full_output_fails_nothing(redirection: str) -> None:
    with served(redirection, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as (process, path):
        assert use_and_stop(process, path) == 0
        assert not os.path.exists(path)


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_reader_that_has_gone_fails_nothing(name: str) -> None:
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, name: subprocess.PIPE}
    with served("", **pipes) as (process, path):
        pipe = getattr(process, name)
        pipe.close()
        assert use_and_stop(process, path) == 0


def test_a_reader_that_does_not_read_fails_nothing() -> None:
    with served("", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as (process, path):
        with Peer(path) as peer:
            for _ in range(2000):  # some 100 KB of access lines: more than a pipe holds
                assert peer.get().status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
