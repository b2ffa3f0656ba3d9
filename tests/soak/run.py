"""One soak: a server process, a process of clients, and samples of what the server holds."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from testing.process import ServerProcess
from tests.soak import scenarios
from tests.soak.load import Outcome
from tests.soak.report import Report, Sample

ROOT = Path(__file__).parents[2]
SAMPLE_SECONDS = 5.0
SETTLE_SECONDS = 6.0  # for the last handlers that sleep, and the last closes that linger
LOAD_SHARE = 0.45  # of a core, for the clients; the server needs less
DRIVER = ("--driver", "native")
TIMEOUTS = (
    *("--port", "0"),
    *("--timeout-header", f"{scenarios.TIMEOUT_HEADER}"),
    *("--timeout-body", f"{scenarios.TIMEOUT_BODY}"),
    *("--timeout-write", f"{scenarios.TIMEOUT_WRITE}"),
    *("--timeout-keep-alive", f"{scenarios.TIMEOUT_KEEP_ALIVE}"),
)
# The access log is on, as it is by default, but nobody wants to keep millions of lines.
COMMAND = ["sh", "-c", 'exec "$@" >/dev/null', "sh", sys.executable, "-m", "lastcall"]


def soak(seconds: float, seed: str, tolerance: int, *, options: Sequence[str] = DRIVER, faults: str = "") -> Report:
    """Soak a server for ``seconds``.

    :param tolerance: as in `Report`.
    :param options: of the server, besides its timeouts.
    :param faults: of the application.
    """
    environment = {"PYTHONWARNINGS": "error::RuntimeWarning,error::ResourceWarning", "SOAK_FAULTS": faults}
    with ServerProcess((*TIMEOUTS, *options), "tests.soak.app:app", environment, ROOT, command=COMMAND) as server:
        url = urlsplit(server.wait_ready()[0])
        assert url.hostname is not None
        assert url.port is not None
        address = (url.hostname, url.port)
        take_sample(address, 0, collect=True)  # the first one fills caches
        time.sleep(0.2)  # until its connection has gone
        start = take_sample(address, 0, collect=True)
        with clients(address, seconds, seed) as process:
            during = list(samples(address, process, seconds))
            outcome = json.loads(process.communicate(timeout=60)[0] or "{}")
        assert process.returncode == 0, "the clients failed"
        load = Outcome(**{**outcome, **{name: Counter(outcome[name]) for name in ("connections", "errors")}})
        end = settled(address, start, seconds)
        began = time.monotonic()
        exit_code = server.stop()
        stop_seconds = time.monotonic() - began
        return Report(
            seconds, seed, start, during, end, load, server.stderr, exit_code, stop_seconds, tolerance, options
        )


@contextmanager
def clients(address: tuple[str, int], seconds: float, seed: str) -> Iterator[subprocess.Popen[str]]:
    """The process of the clients; killed if the block is left early."""
    arguments = [address[0], str(address[1]), str(seconds), seed, str(LOAD_SHARE)]
    command = [sys.executable, "-m", "tests.soak.load", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8") as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def samples(address: tuple[str, int], process: subprocess.Popen[str], seconds: float) -> Iterator[Sample]:
    """A sample every 5 s (more often if there is little time) until shortly before the clients leave."""
    began = time.monotonic()
    step = min(SAMPLE_SECONDS, seconds / 30)
    at = step
    while at < seconds:
        try:
            process.wait(max(0, began + at - time.monotonic()))
        except subprocess.TimeoutExpired:
            yield take_sample(address, time.monotonic() - began)
        at += step


def settled(address: tuple[str, int], start: Sample, seconds: float) -> Sample:
    """The last sample: when everything is as it was at the start, or has had the time to become so."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        sample = take_sample(address, seconds, collect=True)
        same = (sample.fds, sample.tasks, sample.ours) == (start.fds, start.tasks, start.ours)
        if same or time.monotonic() > deadline:
            return sample
        time.sleep(0.2)


def take_sample(address: tuple[str, int], at: float, *, collect: bool = False) -> Sample:
    """Ask the application what the process holds."""
    connection = http.client.HTTPConnection(*address, timeout=10)
    try:
        connection.request("GET", f"/stats?collect={collect:d}", headers={"Connection": "close"})
        return Sample(at, **json.load(connection.getresponse()))
    finally:
        connection.close()
