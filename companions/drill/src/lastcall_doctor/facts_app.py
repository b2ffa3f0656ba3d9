"""Runs the application under lastcall in a process of its own, lets clients leave, and stops it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from lastcall_doctor.facts import Probe, Start
from lastcall_drill.record import Record

START: Final = 30.0
"""Seconds for the application to become ready."""
STOP: Final = 30.0
"""At most so many seconds for a stop that has no limit of its own."""
ANSWER: Final = 5.0
"""Seconds for the head of the probed answer."""
A_LITTLE: Final = 1.0
"""Seconds for the beginning of the probed answer's body, before its client leaves."""
CLOSELY: Final = 0.2
"""Seconds in which more of the body counts as being sent at once."""
SETTLE: Final = 1.0
"""Seconds between the last thing that should end a task and the look whether it has."""
LONGEST_LOOK: Final = 10.0
"""``--timeout-disconnect`` is waited for at most so many seconds."""
WITHOUT_LIMIT: Final = 5.0
"""Seconds that a task is given where ``--timeout-disconnect`` is none."""

OVERRIDDEN: Final = frozenset(
    {
        *("bind", "host", "port", "uds", "fd"),
        *("access_log", "log_config", "log_level", "use_colors"),
        *("drain_delay", "drain_report", "exit_nonzero_on_cut", "timeout_cancel", "timeout_graceful_shutdown"),
        *("limit_concurrency", "limit_connections", "limit_max_requests", "limit_max_requests_jitter"),
    }
)
"""Options that are the doctor's here: it has to find the server, hear it, and stop it soon."""

_OPTIONS: Final = (
    "--bind=127.0.0.1:0",
    "--log-level=info",
    "--no-access-log",
    "--no-use-colors",
    "--timeout-graceful-shutdown=0.5",
    "--timeout-cancel=0.5",
)
_READY: Final = re.compile(r"lastcall running on http://127\.0\.0\.1:(\d+)")
_REPLACED: Final = re.compile(r"The application has replaced the handler of (.+?): lastcall")
_RAISED: Final = "raised before lifespan.startup.complete"
_TASKS: Final = ("request", "stream", "websocket", "background")


class Trial(Record):
    """What to run: the application, options as words of the command line, the environment, and the path to probe.

    ``disconnect`` and ``lifespan_shutdown`` are what the options say of these budgets, in seconds.
    """

    app: str
    words: tuple[str, ...] = ()
    environ: Mapping[str, str] = {}
    probe: str | None = None
    disconnect: float = 3.0
    lifespan_shutdown: float = 5.0


def run(trial: Trial) -> tuple[Start, Probe | None]:
    """Start the application, probe it if asked to, stop it, and return what was seen. Leaves no process behind."""
    with tempfile.TemporaryDirectory(prefix="lastcall-doctor-") as directory:
        report = Path(directory, "stopped.json")
        command = [sys.executable, "-m", "lastcall", trial.app, *trial.words, *_OPTIONS, f"--drain-report={report}"]
        with _Child(command, trial.environ) as child:
            port = child.wait_ready(START)
            if port is None:
                return Start(trial.app, ready=False, error=failure(child.output, child.code)), None
            probe = None
            if trial.probe is not None:
                probe = _probe(port, trial.probe, trial.disconnect)
            child.terminate()
            code = child.wait(min(trial.lifespan_shutdown, STOP) + 6.0)
            child.join()
        found = _read_report(report)
        if probe is not None and probe.streams:
            probe = _with_running(probe, found)
        return started(trial.app, code, child.output, found), probe


def started(app: str, code: int | None, output: str, report: Mapping[str, Any]) -> Start:
    """What exit code, output and report of a server say that became ready."""
    replaced = _REPLACED.search(output)
    return Start(
        app=app,
        ready=True,
        error=(output.strip().splitlines() or [""])[-1].strip(),
        exit_code=code,
        lifespan=str(report.get("lifespan", "")),
        raised=_RAISED in output,
        left=tuple(map(str, report.get("left", ()))),
        replaced=replaced[1] if replaced else "",
    )


def failure(output: str, code: int | None) -> str:
    """Why a server did not become ready, in one line: its own error, and the last line of a traceback in it."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    first = next((number for number, line in enumerate(lines) if line.startswith("Error: ")), None)
    if first is None:
        what = "it was not ready" if code is None else f"it ended with exit code {code}"
        return f"{what} within {START:g} s" + (f"; its last line was: {lines[-1]}" if lines else "")
    said = lines[first].removeprefix("Error: ")
    if lines[-1] == lines[first]:
        return said
    kind = lines[-1].partition(":")[0]  # the last line of a traceback begins with what the first has named
    return f"{said.removesuffix(f': {kind}')}: {lines[-1]}"


def kept_environment(
    environ: Mapping[str, str], more: Mapping[str, str], names: Iterable[str | None]
) -> dict[str, str]:
    """``environ`` and ``more`` without the variables called ``names``, and without what would start several servers."""
    dropped = {*names, "WEB_CONCURRENCY", "LASTCALL_APP"}
    return {name: value for name, value in {**environ, **more}.items() if name not in dropped}


# -- the process ------------------------------------------------------------------------------------------------------


class _Child:
    """A server in a session of its own, whose output a thread collects."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            env={**environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="backslashreplace",
            start_new_session=True,
        )
        self._lines: list[str] = []
        self._ended = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # and what the application has started
        self._process.wait()
        self.join()
        if not self._reader.is_alive() and self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def output(self) -> str:
        with self._changed:
            return "".join(self._lines)

    @property
    def code(self) -> int | None:
        return self._process.poll()

    def wait_ready(self, timeout: float) -> int | None:
        """The port, or None if the server has ended or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or _READY.search("".join(self._lines)), timeout)
        match = _READY.search(self.output)
        if match is None and self._ended:
            self.wait(1.0)
        return int(match[1]) if match else None

    def terminate(self) -> None:
        self._process.terminate()

    def wait(self, timeout: float) -> int | None:
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def join(self) -> None:
        """Wait until all output was read; not for long: a process that the application started may hold the pipe."""
        self._reader.join(1.0)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def _read_report(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


# -- the probe --------------------------------------------------------------------------------------------------------


class _Visit:
    """One client: asks, reads a little, and can leave."""

    def __init__(self, port: int, path: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER)
        self.status = 0
        self.headers: dict[str, str] = {}
        self.complete = False
        self._response: http.client.HTTPResponse | None = None
        try:
            self.connection.request("GET", path, headers={"Accept": "text/event-stream, */*"})
            self._response = self.connection.getresponse()
            self.status = self._response.status
            self.headers = {name.lower(): value for name, value in self._response.getheaders()}
            self.complete = self._read_a_little(self._response)
        except (OSError, http.client.HTTPException):
            pass  # what was seen until then is what there is to tell

    def leave(self) -> None:
        """Close the connection as a browser does whose tab is closed."""
        if self._response is not None:
            self._response.close()
        self.connection.close()

    def _read_a_little(self, response: http.client.HTTPResponse) -> bool:
        """Wait for the beginning of the body, read what follows it closely; whether that was all of it."""
        wait = A_LITTLE
        while self.connection.sock is not None:  # None: the response has taken the connection over
            self.connection.sock.settimeout(wait)
            try:
                if not response.read1(65536):
                    return True
            except TimeoutError:
                return False
            if wait == CLOSELY:
                break
            wait = CLOSELY
        return response.isclosed()


def _probe(port: int, path: str, disconnect: float) -> Probe:
    """Two clients open ``path`` and leave at different times; then wait until it is time to look."""
    first = _Visit(port, path)
    if first.status != 200 or first.complete:
        first.leave()
        return Probe(path, began=first.status != 0, status=first.status, headers=first.headers, complete=first.complete)
    second = _Visit(port, path)
    between = min(disconnect, LONGEST_LOOK) if disconnect != float("inf") else WITHOUT_LIMIT
    first.leave()
    time.sleep(between)
    second.leave()
    time.sleep(SETTLE)
    return Probe(
        path, began=True, status=first.status, headers=first.headers, early=between + SETTLE, late=SETTLE, running=0
    )


def _with_running(probe: Probe, report: Mapping[str, Any]) -> Probe:
    in_flight = report.get("in_flight")
    running = sum(in_flight.get(kind, 0) for kind in _TASKS) if isinstance(in_flight, dict) else 0
    return Probe(**{**vars(probe), "running": running})
