"""The report and the last line say what the process ends with, also where that changes late, or nobody can write it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from testing.peer import Peer, eventually
from testing.process import READY_LINE, ServerProcess
from tests.process.conftest import APPS, Start, wait_for_output
from tests.process.witness import Client, report

NOT_TOGETHER = 0.6  # seconds: signals that are closer than 0.5 s are one
LONG = 12.0
SHORT = (
    *("--timeout-graceful-shutdown", "0.3", "--timeout-cancel", "0.2", "--timeout-lifespan-shutdown", "0.2"),
    *("--timeout-interrupt", "0.3"),
)


def ask(server: ServerProcess, path: str) -> None:
    with Peer(server.addresses[0]) as peer:
        assert peer.get(path).status == 200


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [
        ("/thread", 5, "threads that do not end: never-ends; exit code 5"),
        ("/task", 5, "Exit code 5 and not 0: there are tasks that do not end"),
        ("/task /interrupted", 5, "Exit code 5 and not 0: there are tasks that do not end"),
    ],
)
def test_what_is_left_after_the_report_changes_the_report(
    start: Start, tmp_path: Path, path: str, code: int, words: str
) -> None:
    file = tmp_path / "report.json"
    server = start("late_code:app", "--drain-report", str(file))
    for one in path.split():
        ask(server, one)
    assert server.stop() == code
    assert (report(file)["exit_code"], report(file)["outcome"]) == (code, "stopped")
    assert words in server.stderr
    assert server.stderr.index("exit code 0") < server.stderr.index(words), "what was said before is corrected"


def test_the_code_of_a_sys_exit_is_in_the_report_and_in_the_last_line(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    server = start("late_code:app", "--drain-report", str(file))
    ask(server, "/exit")
    assert server.wait() == 3
    assert report(file)["exit_code"] == 3
    assert server.stderr.rstrip().endswith("exit code 3")


def test_an_atexit_function_that_hangs_is_in_the_report(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    server = start("late_code:app", "--drain-report", str(file), *SHORT, env={"ATEXIT": "1000"})
    with Client(server, "/wait").peer:
        wait_for_output(server, "waiting")
        assert server.stop(LONG) == 1
    found = report(file)
    assert (found["cause"], found["outcome"], found["exit_code"]) == ("SIGTERM", "watchdog", 1)
    assert (found["lifespan"], found["in_flight"], found["cancelled"]) == ("complete", {"background": 1}, 1)
    assert found["seconds"] > 2


def test_a_shutdown_that_blocks_is_in_the_report(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    server = start("late_code:app", "--drain-report", str(file), *SHORT, env={"SHUTDOWN": "1000"})
    assert server.stop(LONG) == 1
    found = report(file)
    assert (found["cause"], found["outcome"], found["lifespan"]) == ("SIGTERM", "watchdog", "abandoned")
    assert list(found["phases"]) == ["ANNOUNCED", "DRAINING"]


@pytest.mark.parametrize("where", ["/hold", "import"])
def test_a_signal_that_nobody_heard_is_in_the_report(start: Start, tmp_path: Path, where: str) -> None:
    file = tmp_path / "report.json"
    options = ("--drain-report", str(file), *SHORT)
    if where == "import":
        server = start("unheard:app", *options, ready=False, env={"HOLD": "import"})
    else:
        server = start("unheard:app", *options)
        Client(server, where)
    wait_for_output(server, "holding")
    assert server.stop(LONG) == 1
    found = report(file)
    assert (found["cause"], found["outcome"], found["exit_code"]) == ("unheard", "watchdog", 1)
    assert found["lifespan"] == ("not started" if where == "import" else "abandoned")
    assert 1 < found["seconds"] < LONG


def test_the_third_signal_is_in_the_report_with_what_ran_then(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    server = start("behaviours:app", "--drain-report", str(file), "--timeout-cancel", "30")
    with Client(server, "/stubborn").peer, Client(server, "/stubborn").peer:
        wait_for_output(server, "stubborn began\nstubborn began")
        for _ in range(3):
            assert server.returncode is None
            server.signal(signal.SIGTERM)
            time.sleep(NOT_TOGETHER)
        assert server.wait() == 5
    found = report(file)
    assert (found["cause"], found["outcome"], found["exit_code"]) == ("SIGTERM", "third signal", 5)
    assert (found["in_flight"], found["abandoned"]) == ({"request": 2}, 2)
    assert found["left"] == ["GET /stubborn", "GET /stubborn"]


@pytest.mark.parametrize("paths", [("/thread",), ("/task", "/thread")])
def test_a_pipe_gets_a_second_document_and_no_third_that_says_the_same(
    start: Start, tmp_path: Path, paths: tuple[str, ...]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[dict[str, Any]] = []
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    with open(pipe, "w") as held:  # so that the end of one writer is not the end

        def read() -> None:
            with open(reader) as lines:
                found.extend(json.loads(line) for line in lines)

        thread = threading.Thread(target=read)
        thread.start()
        server = start("late_code:app", "--drain-report", str(pipe))
        for path in paths:
            ask(server, path)
        assert server.stop() == 5
        held.close()
        thread.join(10)
    assert [one["exit_code"] for one in found] == [0, 5]


@pytest.mark.parametrize(
    ("end", "where", "append"),
    [
        ("stop", "/dev/stdout", False),
        ("stop", "/dev/stderr", True),
        ("stop", "the file itself", True),
        ("stop", "a link to it", False),
        ("watchdog", "/dev/stdout", False),
    ],
)
def test_a_log_that_the_report_goes_to_keeps_what_is_in_it(
    tmp_path: Path, end: str, where: str, *, append: bool
) -> None:
    log = tmp_path / "log"
    log.write_text("earlier\n" if append else "")
    link = tmp_path / "link"
    link.symlink_to(log)
    path = {"the file itself": str(log), "a link to it": str(link)}.get(where, where)
    app = "late_code:app" if end == "stop" else "unheard:app"
    command = [sys.executable, "-m", "lastcall", app, "--port", "0", "--drain-report", path, *SHORT]
    with log.open("a" if append else "w") as output:
        server = subprocess.Popen(command, cwd=APPS, stdout=output, stderr=output)
    try:
        eventually(lambda: READY_LINE.search(log.read_text()) is not None)
        found = READY_LINE.search(log.read_text())
        assert found is not None
        with Peer(found[1]) as peer:
            peer.request("/thread" if end == "stop" else "/hold")
            if end == "stop":
                assert peer.answer().status == 200
            else:
                eventually(lambda: "holding" in log.read_text())
            server.send_signal(signal.SIGTERM)
            assert server.wait(LONG) == (5 if end == "stop" else 1)
    finally:
        server.kill()
        server.wait()
    lines = log.read_text().splitlines()
    assert "\0" not in log.read_text()
    reports = [json.loads(line) for line in lines if line.startswith("{")]
    assert [one["exit_code"] for one in reports] == ([0, 5] if end == "stop" else [1])
    assert lines[0].startswith("earlier") is append
    assert any("lastcall running on" in line for line in lines), "nothing is cut off"
    assert any("threads that do not end" in line if end == "stop" else "took longer" in line for line in lines)
    assert sorted(tmp_path.iterdir()) == [link, log], "nor does another file take its place"
