"""What a stop says: lines while it goes on, one at the end, the same as JSON; and the exit codes that follow."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from testing.peer import Peer, eventually
from testing.process import READY_LINE
from tests.process.conftest import APPS, Start, answers, wait_for_output
from tests.process.witness import Client, Journal, cuts, report

SHORT = ("--timeout-graceful-shutdown", "0.3", "--timeout-cancel", "0.2")


def test_one_line_at_the_order_one_a_second_and_one_at_the_end(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "log"
    file = tmp_path / "report.json"
    options = ("--timeout-graceful-shutdown", "2.4", "--drain-report", str(file), "--no-access-log")
    server = start("probe:app", *options)
    clients = [Client(server, f"/{path}") for path in ("infr", "inf", "quiet", "fin?n=4", "mute")]
    for name in ("infr", "inf", "quiet", "fin", "mute"):
        wait_for_output(server, f"{name} began")
    for client in clients[:4]:
        client.wait_for(b"\r\n\r\n")  # before its head a stream counts as a request
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    for client in clients:
        client.wait_ended()
    log.write_text(server.stderr)
    lines = [line.partition(":")[2].strip() for line in server.stderr.splitlines()]
    lines = lines[lines.index("Stopping (SIGTERM): 5 requests in flight, done within 10.4 s.") :]
    progress = [line for line in lines if line.startswith("draining: ")]
    assert len(progress) == 2
    first = re.fullmatch(
        r"draining: 4 left, 1 s until disconnect: (GET /\w+) 1 s, (GET /\w+) 1 s, (GET /\w+) 1 s, …", progress[0]
    )
    assert first is not None, progress
    last = lines[-1]
    assert last.startswith(
        "Stopped (SIGTERM) after 2.4 s: 1 of 5 finished, 3 disconnected, 1 cancelled; lifespan complete"
    )
    assert re.search(r"exit code 0\. Cut: .*GET /quiet \(stream, 2\.\d s, 5 bytes, disconnected\)", last)
    assert re.search(r"GET /mute \(request, 2\.\d s, 0 bytes, cancelled\)", last)
    for path in ("/infr", "/inf", "/quiet", "/mute"):
        assert f"GET {path} (" in last, "every cut response is named"
    # The same for programs.
    found = report(file)
    assert (found["cause"], found["exit_code"], found["lifespan"]) == ("SIGTERM", 0, "complete")
    assert found["in_flight"] == {"stream": 4, "request": 1}
    assert (found["finished"], found["disconnected"], found["cancelled"]) == (1, 3, 1)
    assert 2.39 < found["seconds"] < 2.8
    assert list(found["phases"]) == ["ANNOUNCED", "DRAINING", "DISCONNECTING", "CANCELLING", "CLOSING"]
    assert sum(found["phases"].values()) == pytest.approx(found["seconds"], abs=0.01)
    assert cuts(found, "method", "path", "phase") == [
        ("GET", "/inf", "DISCONNECTING"),
        ("GET", "/infr", "DISCONNECTING"),
        ("GET", "/mute", "CANCELLING"),
        ("GET", "/quiet", "DISCONNECTING"),
    ]
    for cut in found["cut"]:
        assert 2.1 < cut["age"] < 3.5
        assert re.fullmatch(r"127\.0\.0\.1:\d+", cut["client"])
    assert {cut["path"]: cut["bytes_sent"] for cut in found["cut"]}["/quiet"] == 5
    # And nothing for terminals where there is none.
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", server.stderr)


@pytest.mark.parametrize(("policy", "lines"), [("finish", 1), ("close", 0)])
def test_with_warnings_alone_a_cut_leaves_a_line_and_what_was_asked_for_none(
    start: Start, tmp_path: Path, policy: str, lines: int
) -> None:
    path = str(tmp_path / "socket")  # the ready line is none of the warnings
    options = ("--uds", path, "--log-level", "warning", "--timeout-graceful-shutdown", "1", "--drain-farewell", "0")
    server = start("probe:app", *options, f"--drain-{policy}", "/inf", ready=False)
    eventually(lambda: answers(path))
    with Peer(f"unix:{path}") as peer:
        peer.request("/inf")
        peer.head()
        assert server.stop() == 0
    found = server.stderr.splitlines()
    assert len(found) == lines
    assert all(re.fullmatch(r"WARNING:  Stopped \(SIGTERM\) .*GET /inf \(stream, .*", line) for line in found)


def test_a_report_of_an_earlier_stop_is_replaced_and_a_failed_one_changes_no_exit_code(
    start: Start, tmp_path: Path
) -> None:
    file = tmp_path / "report.json"
    file.write_text("an earlier one, and much longer than what comes now" * 100)
    assert start("probe:app", "--drain-report", str(file)).stop() == 0
    assert report(file)["in_flight"] == {}
    file = tmp_path / "removed" / "report.json"
    file.parent.mkdir()
    server = start("probe:app", "--drain-report", str(file))
    file.parent.rmdir()
    assert server.stop() == 0
    assert any(str(file) in line for line in server.stderr.splitlines() if line.startswith("ERROR:"))


def test_the_report_tells_who_came_during_the_drain_and_what_background_work_became(
    start: Start, tmp_path: Path
) -> None:
    file = tmp_path / "report.json"
    server = start("probe:app", "--drain-delay", "0.3", "--timeout-graceful-shutdown", "3", "--drain-report", str(file))
    with Peer(server.addresses[0]) as peer:
        assert peer.get("/bg?s=0.8").status == 200
        assert peer.get("/track?s=0.8").status == 200
        server.signal(signal.SIGTERM)
        server.wait_for("Stopping")
        with Peer(server.addresses[0]) as late:
            assert late.get("/ok").status == 200
    assert server.wait() == 0
    found = report(file)
    assert found["in_flight"] == {"background": 1, "app task": 1}
    assert (found["arrived"], found["finished"], found["background_finished"]) == (1, 3, 1)
    assert found["cut"] == []


def test_a_log_that_goes_to_a_file_has_no_control_characters(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-m", "lastcall", "probe:app", "--port", "0", *SHORT]
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=APPS, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        try:
            eventually(lambda: READY_LINE.search(log.read_text()) is not None)
            found = READY_LINE.search(log.read_text())
            assert found is not None
            with Peer(found[1]) as peer:
                peer.request("/infr?id=%1b%5b2K")  # nor does a request smuggle one in
                peer.head()
                process.send_signal(signal.SIGTERM)
                assert process.wait(10) == 0
        finally:
            process.kill()
            process.wait()
    text = re.sub(r"^@.*\n", "", log.read_text(), flags=re.MULTILINE)  # without the application's own words
    assert "Stopped (SIGTERM)" in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)


# Exit codes.

CUT = "--exit-nonzero-on-cut"


@pytest.mark.parametrize(
    ("app", "path", "options", "code"),
    [
        ("app", "/quiet", (), 0),
        ("app", "/quiet", (CUT,), 6),
        ("app", "/fin?n=1", (CUT,), 0),
        ("app", "/track?s=100", (CUT,), 0),
        ("app_failing", "/quiet", (CUT,), 4),
        ("app_failing", "/stubborn", (CUT,), 5),
    ],
    ids=[
        "a cut",
        "a cut that counts",
        "finished",
        "a task is no cut",
        "4 before 6",
        "5 before 4 and 6",
    ],
)
def test_exit_codes_and_which_of_them_wins(
    start: Start, app: str, path: str, options: tuple[str, ...], code: int
) -> None:
    server = start(f"probe:{app}", *SHORT, *options)
    client = Client(server, path)
    name = path[1:].partition("?")[0]
    wait_for_output(server, f"{name} began")
    assert server.stop() == code
    assert f"; exit code {code}" in server.stderr
    assert Journal(server).all("shutdown began"), "the shutdown code runs in every case"
    assert Journal(server).all("atexit")
    client.close()


def test_a_cut_in_the_python_api_is_the_reports_exit_code(tmp_path: Path) -> None:
    script = """
import json, threading, lastcall
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    threading.Timer(0.1, server.drain, ["maintenance"]).start()
    await receive()
    await receive()
server = lastcall.Server(lastcall.Config(app, port=0, lifespan="off", timeout_graceful_shutdown=0.5,
                                         exit_nonzero_on_cut=True, access_log=False))
report = server.run()
print(report.as_json())
print(report)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        assert process.stderr is not None
        while (found := READY_LINE.search(line := process.stderr.readline())) is None:
            assert line
        begun = time.monotonic()
        with Peer(found[1]) as peer:
            peer.request("/x")
            assert peer.head()[0] == 200
            stdout, _ = process.communicate(timeout=10)
        assert 0.4 < time.monotonic() - begun < 2
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, "a library does not exit"
    line, words = stdout.splitlines()
    told = json.loads(line)
    assert (told["exit_code"], told["cause"], told["disconnected"]) == (6, "maintenance", 1)
    assert words.startswith(
        "Stopped (maintenance) after 0.5 s: 0 of 1 finished, 1 disconnected; lifespan off; exit code 6"
    )
