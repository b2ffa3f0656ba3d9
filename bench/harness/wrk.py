"""wrk: its command line, and what it prints."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

from .catalogue import BENCH, Workload
from .errors import BenchError

CONNECTIONS = 64

_REQUESTS = re.compile(r"^\s*(\d+) requests in ([\d.]+)(us|ms|s|m|h),", re.MULTILINE)
_RATE = re.compile(r"^Requests/sec:\s+([\d.]+)", re.MULTILINE)
_BAD = re.compile(r"^\s*Non-2xx or 3xx responses: (\d+)", re.MULTILINE)
_SOCKET = re.compile(r"^\s*Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", re.MULTILINE)
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class WrkResult:
    """What one run of wrk counted: answered requests, its length in seconds, answers per second, and failures."""

    requests: int
    seconds: float
    per_second: float
    bad_responses: int = 0
    socket_errors: int = 0


def parse(output: str) -> WrkResult:
    """Read wrk's report. Raises BenchError when it is none."""
    requests, rate = _REQUESTS.search(output), _RATE.search(output)
    if requests is None or rate is None:
        raise BenchError(f"cannot read wrk's output:\n{output.strip()}")
    bad, errors = _BAD.search(output), _SOCKET.search(output)
    return WrkResult(
        requests=int(requests[1]),
        seconds=float(requests[2]) * _UNITS[requests[3]],
        per_second=float(rate[1]),
        bad_responses=int(bad[1]) if bad else 0,
        socket_errors=sum(map(int, errors.groups())) if errors else 0,
    )


def arguments(workload: Workload, *, port: int, seconds: int, connections: int = CONNECTIONS) -> list[str]:
    """wrk's command line: one thread, whole seconds (wrk knows no fractions)."""
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
    for name, value in workload.headers:
        argv += ["-H", f"{name}: {value}"]
    if workload.script:
        argv += ["-s", str(BENCH / "wrk" / workload.script)]
    return [*argv, f"http://127.0.0.1:{port}/"]


def require_tools() -> None:
    """Raise BenchError with the package to install when wrk or taskset is missing."""
    for tool, package in (("wrk", "wrk"), ("taskset", "util-linux")):
        if shutil.which(tool) is None:
            raise BenchError(f"{tool} is not installed: on Debian and Ubuntu, apt-get install {package}")


def run(workload: Workload, *, port: int, seconds: int, core: int | str, connections: int = CONNECTIONS) -> WrkResult:
    """Load the server on `port` for `seconds` from `core`, or from several. Raises BenchError if any request failed."""
    argv = ["taskset", "-c", str(core), *arguments(workload, port=port, seconds=seconds, connections=connections)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 30, check=False)
    if done.returncode != 0:
        raise BenchError(f"wrk failed: {done.stderr.strip() or done.stdout.strip()}")
    result = parse(done.stdout)
    if result.requests == 0 or result.bad_responses or result.socket_errors:
        raise BenchError(
            f"{result.requests} answers, {result.bad_responses} of them not 2xx or 3xx, "
            f"{result.socket_errors} socket errors under load"
        )
    return result
