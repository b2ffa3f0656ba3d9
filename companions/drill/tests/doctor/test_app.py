"""The doctor starts real applications under lastcall, lets clients leave them, and stops them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lastcall_doctor.cli import doctor_command
from lastcall_doctor.facts import Facts, Probe, Server, Start
from lastcall_doctor.facts_app import failure, kept_environment, started
from lastcall_doctor.findings import examine
from lastcall_doctor.output import as_text

APP = """
import asyncio, os, pathlib, signal, threading

MODE = os.environ.get("MODE", "")
pathlib.Path("pid").write_text(str(os.getpid()))
if MODE == "import":
    import a_module_that_is_not_there


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    else:
        await answer(scope, receive, send)


async def lifespan(receive, send):
    if MODE == "no lifespan":
        raise RuntimeError("http only")
    await receive()
    if MODE == "raises":
        raise RuntimeError("no database")
    if MODE == "startup":
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        return
    if MODE == "handler":
        signal.signal(signal.SIGINT, lambda number, frame: None)
    await send({"type": "lifespan.startup.complete"})
    if MODE == "thread":
        threading.Thread(target=threading.Event().wait, args=(60,)).start()
    await receive()
    if MODE == "shutdown":
        raise RuntimeError("cannot close")
    await send({"type": "lifespan.shutdown.complete"})


HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8")]
KIND = [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]


async def answer(scope, receive, send):
    path = scope["path"]
    await receive()
    status = 404 if path == "/nowhere" else 200
    headers = HEADERS if path == "/bare" else HEADERS + KIND
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if path in ("/once", "/nowhere"):
        await send({"type": "http.response.body", "body": b"data: 1\\n\\n"})
        return
    await send({"type": "http.response.body", "body": b"data: 1\\n\\n", "more_body": True})
    if path == "/deaf":
        await asyncio.Event().wait()
    while path == "/stubborn":
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
    while (await receive())["type"] != "http.disconnect":
        pass
"""

NGINX = "server { location / { proxy_pass http://127.0.0.1:8000; } }\n"
GOOD_NGINX = NGINX.replace("; }", "; proxy_read_timeout 1h; }", 1)


class Doctor:
    """The command, beside the application."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self._monkeypatch = monkeypatch
        (directory / "app.py").write_text(APP, encoding="utf-8")
        (directory / "nginx.conf").write_text(NGINX, encoding="utf-8")

    def __call__(self, *args: str, mode: str = "") -> tuple[int, list[dict[str, Any]]]:
        self._monkeypatch.chdir(self.directory)
        self._monkeypatch.setenv("MODE", mode)
        done = CliRunner().invoke(doctor_command, ["app:app", "--json", *args])
        return done.exit_code, json.loads(done.output)["findings"]

    @property
    def server_is_gone(self) -> bool:
        """Whether the application's process has ended."""
        pid = int((self.directory / "pid").read_text(encoding="utf-8"))
        return not Path(f"/proc/{pid}").exists()


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    for name in [name for name in os.environ if name.startswith("LASTCALL_")]:
        monkeypatch.delenv(name)
    return Doctor(tmp_path, monkeypatch)


@pytest.mark.slow
def test_a_good_project_has_no_findings(doctor: Doctor) -> None:
    """As a user runs it; options that would hide the server from the doctor are put aside."""
    (doctor.directory / "good.conf").write_text(GOOD_NGINX, encoding="utf-8")
    options = ["--timeout-disconnect", "1.1", "--port", "1", "--limit-concurrency", "1", "--log-level", "critical"]
    done = subprocess.run(
        [sys.executable, "-m", "lastcall", "doctor", "app:app", "--probe", "/events", "--proxy", "good.conf", *options],
        cwd=doctor.directory,
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("No findings: options, good.conf, app:app /events.\n", "")
    assert done.returncode == 0
    assert doctor.server_is_gone


@pytest.mark.slow
def test_a_stream_that_goes_on_after_its_client_left(doctor: Doctor) -> None:
    code, (finding,) = doctor("--probe", "/stubborn", "--timeout-disconnect", "1.1")
    assert (finding["id"], finding["severity"], finding["where"]) == ("stream-goes-on", "error", "/stubborn")
    assert "still ran 2.1 s after its client had left, although 1.1 s after that lastcall cancels it" in finding["text"]
    assert code == 1
    assert doctor.server_is_gone


@pytest.mark.slow
def test_a_stream_that_only_a_cancel_ends(doctor: Doctor) -> None:
    code, (finding,) = doctor("--probe", "/deaf", "--timeout-disconnect", "1.1")
    assert (finding["id"], finding["severity"]) == ("stream-ends-late", "note")
    assert code == 0


@pytest.mark.slow
def test_headers_and_proxy_of_an_event_stream(doctor: Doctor) -> None:
    code, found = doctor("--probe", "/bare", "--proxy", "nginx.conf", "--timeout-disconnect", "0")
    assert [(one["id"], one["severity"]) for one in found] == [
        ("proxy-buffering", "error"),
        ("proxy-read-timeout", "note"),
        ("stream-headers", "note"),
    ]
    assert found[0]["where"] == "nginx.conf:1: location /"
    assert found[2]["lines"] == ["Cache-Control: no-cache"]
    assert code == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "args", "name", "severity", "said"),
    [
        ("import", [], "start-failed", "error", "No module named 'a_module_that_is_not_there'"),
        ("startup", [], "start-failed", "error", "no database"),
        ("raises", [], "lifespan-missing", "warning", "raised before lifespan.startup.complete"),
        ("no lifespan", [], "lifespan-missing", "note", "does not support lifespan"),
        ("shutdown", [], "stop-failed", "error", "its lifespan.shutdown failed (exit code 4)"),
        ("thread", [], "stop-failed", "error", "exit code 5"),
        ("handler", [], "handler-replaced", "warning", "SIGINT"),
        ("", ["--probe", "/nowhere"], "probe-unusable", "warning", "answered 404"),
        ("", ["--probe", "/once"], "probe-unusable", "note", "complete at once"),
    ],
)
def test_an_application_with_one_thing_wrong(
    doctor: Doctor, mode: str, args: list[str], name: str, severity: str, said: str
) -> None:
    code, (finding,) = doctor(*args, mode=mode)
    assert (finding["id"], finding["severity"]) == (name, severity)
    assert said in finding["text"]
    assert code == (1 if severity == "error" else 0)
    assert doctor.server_is_gone


@pytest.mark.slow
def test_the_unit_says_how_the_application_is_started(doctor: Doctor) -> None:
    unit = "[Service]\nExecStart=lastcall app:app --lifespan on --uds /run/app.sock\nEnvironment=MODE=raises\n"
    (doctor.directory / "app.service").write_text(f"{unit}KillMode=mixed\nRestart=always\n", encoding="utf-8")
    _, (finding,) = doctor("--unit", "app.service")
    assert finding["id"] == "start-failed"


# -- the decisions, without a process ---------------------------------------------------------------------------------

OWN = Server("the command line")
STREAM = Probe("/s", began=True, status=200, early=4.0, late=1.0)


def decided(probe: Probe, disconnect: float = 3.0) -> list[tuple[str, str]]:
    own = Server("the command line", disconnect=disconnect)
    return [(one.id, one.severity.value) for one in examine(Facts(own, probe=probe))]


@pytest.mark.parametrize(
    ("running", "disconnect", "expected"),
    [
        (0, 3.0, []),
        (1, 3.0, [("stream-ends-late", "note")]),
        (2, 3.0, [("stream-goes-on", "error")]),
        (1, 0.5, []),  # the one that left last was cancelled soon after it: nothing can be told
        (0, float("inf"), []),
        (1, float("inf"), []),
        (2, float("inf"), [("stream-goes-on", "error")]),
        (2, 60.0, [("stream-goes-on", "error")]),
    ],
)
def test_what_still_runs_decides(running: int, disconnect: float, expected: list[tuple[str, str]]) -> None:
    probe = Probe(**{**vars(STREAM), "running": running})
    assert decided(probe, disconnect) == expected


def test_a_path_that_does_not_answer() -> None:
    assert decided(Probe("/s", began=False)) == [("probe-unusable", "warning")]


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (started("a:b", 0, "", {"lifespan": "complete"}), []),
        (started("a:b", None, "", {}), ["stop-failed"]),
        (started("a:b", 1, "", {}), ["stop-failed"]),
        (started("a:b", 4, "", {"lifespan": "timed out"}), ["stop-failed"]),
        (started("a:b", 0, "The application has replaced the handler of SIGTERM and SIGINT: lastcall does not", {}),
         ["handler-replaced"]),
        (Start("a:b", ready=False, error="no"), ["start-failed"]),
    ],
)  # fmt: skip
def test_how_a_start_ended_decides(start: Start, expected: list[str]) -> None:
    assert [one.id for one in examine(Facts(OWN, start=start))] == expected


def test_a_stubborn_stream_is_not_a_failed_stop_too() -> None:
    probe = Probe(**{**vars(STREAM), "running": 2})
    start = started("a:b", 5, "", {"lifespan": "complete", "left": ["GET /s"]})
    assert [one.id for one in examine(Facts(OWN, start=start, probe=probe))] == ["stream-goes-on"]


@pytest.mark.parametrize(
    ("output", "code", "expected"),
    [
        ("INFO:     x\nError: no such module\n", 3, "no such module"),
        (
            "Error: importing 'a' failed: KeyError\nTraceback\n  x\nKeyError: 1\n",
            3,
            "importing 'a' failed: KeyError: 1",
        ),
        ("one\ntwo\n", -9, "it ended with exit code -9 within 30 s; its last line was: two"),
        ("", None, "it was not ready within 30 s"),
    ],
)
def test_why_it_did_not_start(output: str, code: int | None, expected: str) -> None:
    assert failure(output, code) == expected


def test_the_environment_of_the_application() -> None:
    here = {
        "PATH": "/bin",
        "WEB_CONCURRENCY": "4",
        "LASTCALL_APP": "x:y",
        "LASTCALL_PORT": "1",
        "LASTCALL_LIFESPAN": "on",
    }
    kept = kept_environment(here, {"MODE": "x", "LASTCALL_FD": "3"}, ["LASTCALL_PORT", "LASTCALL_FD", None])
    assert kept == {"PATH": "/bin", "LASTCALL_LIFESPAN": "on", "MODE": "x"}


def test_paint_is_for_the_severity_only() -> None:
    text = as_text(examine(Facts(OWN, lb_idle=75)), ["options"], lambda text, severity: f"<{text}>")
    assert text.startswith("<error> keep-alive: the command line\n    lastcall closes idle connections after 75 s, ")
    assert "\n        --timeout-keep-alive 90\n" in text
    assert text.endswith("\n\n1 error: options.")
