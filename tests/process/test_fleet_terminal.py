"""A service of several workers at a terminal: one list for all of them, Ctrl-C, and a window that is closed."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from testing.peer import Peer, eventually
from testing.service import Service, alive, children
from testing.terminal import AtTerminal

pytestmark = pytest.mark.slow

LIST = re.compile(r"draining: (\d+) left in 2 workers, \d+ s")


class Shown:
    """The service at a terminal, with ``streams`` that never end, in all workers."""

    def __init__(self, stack: ExitStack, directory: Path, *options: str, extra: str = "") -> None:
        Service(directory, ready=False, extra=extra)  # writes the application
        command = [sys.executable, "-m", "lastcall", "app:app", "--port", "0", "--no-access-log", *options]
        command += ["--control-socket", str(directory / "control.sock")]
        env = {**os.environ, "TERM": "xterm-256color", "NO_COLOR": "1"}
        self.terminal = stack.enter_context(AtTerminal(command, cwd=directory, env=env))
        self.terminal.wait_for("A stop takes")
        found = re.search(r"running on (http://127\.0\.0\.1:\d+)", self.terminal.text)
        assert found is not None
        self.pid = self.terminal.process.pid
        self.workers = children(self.pid)
        self.streams: list[Peer] = []
        seen: set[int] = set()
        while len(seen) < len(self.workers):
            peer = stack.enter_context(Peer(found[1]))
            pid = int(peer.get("/pid").body)
            if pid in seen:
                peer.close()
                continue
            seen.add(pid)
            peer.request("/stream")
            assert peer.head()[0] == 200
            assert peer.chunk()
            self.streams.append(peer)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


LONG = ("--timeout-graceful-shutdown", "60", "--timeout-interrupt", "60", "--timeout-cancel", "5")


def test_two_ctrl_c_with_streams_in_two_workers(stack: ExitStack, tmp_path: Path) -> None:
    shown = Shown(stack, tmp_path, "--workers", "2", *LONG)
    terminal, count = shown.terminal, len(shown.streams)
    terminal.type("\x03")
    terminal.wait_until(lambda rows: any(LIST.search(row) for row in rows), "the list of all workers")
    terminal.wait_until(lambda rows: sum("/stream" in row for row in rows) == count, "each stream")
    (row,) = [row for row in terminal.rows if LIST.search(row)]
    found = LIST.search(row)
    assert found is not None
    assert int(found[1]) == count
    terminal.type("\x03")
    assert terminal.wait() == 0, terminal.text
    rows = terminal.rows
    (place,) = [n for n, row in enumerate(rows) if "Stopped (SIGINT)" in row]
    assert not [row for row in rows[:place] if "draining:" in row or "/stream" in row], "the list is taken away"
    assert sum("^C" in row for row in rows) == 2
    assert all(row.strip() == "^C" for row in rows if "^C" in row), "a Ctrl-C has its own line"
    assert sum(row == "the shutdown code ran" for row in rows) == 2
    assert not any(map(alive, shown.workers))


QUIET = """
async def startup(): pass
async def shutdown(): pass
"""


@pytest.mark.parametrize("workers", ["2", "1"])
def test_a_window_that_is_closed_stops_the_service(stack: ExitStack, tmp_path: Path, workers: str) -> None:
    report = tmp_path / "report.json"
    shown = Shown(stack, tmp_path, "--supervise", "--workers", workers, "--drain-report", str(report), extra=QUIET)
    shown.terminal.hang_up()
    assert shown.terminal.process.wait(20) == 0
    eventually(lambda: not any(map(alive, shown.workers)))
    assert json.loads(report.read_text())["cause"] == "SIGHUP", "and it is no reload"
