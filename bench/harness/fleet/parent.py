"""What a parent costs: its memory, and its CPU while nobody asks anything."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

from .. import processes
from ..catalogue import Server
from ..errors import BenchError
from ..session import Session
from .service import WORKERS, serving

SETTLE_SECONDS = 3.0


@dataclass(frozen=True)
class Idle:
    """A parent over `seconds` without a request: RSS in bytes, CPU of it and of its workers in ns, its wake-ups."""

    rss: int
    cpu_ns: int
    wakeups: int
    workers_cpu_ns: int
    seconds: float


def status(pid: int, field: str) -> int:
    """A number of /proc/PID/status, without its unit."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise BenchError(f"/proc/{pid}/status has no {field}")


def measure(session: Session, servers: list[Server], *, seconds: float) -> dict[str, Idle]:
    """Each server with two workers of the plain application, all at the same time. Failures are reported."""
    found = {}
    with contextlib.ExitStack() as stack:
        parents = {}
        for server in servers:
            extra = [*server.with_workers(WORKERS), *server.quiet]
            try:
                running = stack.enter_context(serving(session, server, "plain", extra=extra))
            except BenchError as exc:
                session.problem(f"{server.name}, parent: {exc}")
                continue
            parents[server.name] = running
        time.sleep(SETTLE_SECONDS)
        began = time.monotonic()
        before = {name: _figures(running) for name, running in parents.items()}
        time.sleep(seconds)
        for name, running in parents.items():
            cpu, wakeups, workers = (now - then for now, then in zip(_figures(running), before[name], strict=True))
            rss = status(running.process.pid, "VmRSS") * 1024
            found[name] = Idle(rss, cpu, wakeups, workers, time.monotonic() - began)
            session.progress(
                f"parent  {name:18} {rss / 2**20:6.1f} MiB  {cpu / 1e6:8.3f} ms CPU and {wakeups} wake-ups "
                f"in {seconds:g} s; its workers {workers / 1e6:.1f} ms"
            )
    return found


def _figures(running: processes.Running) -> tuple[int, int, int]:
    """CPU of the parent, how often it has slept and woken, and CPU of all processes below it."""
    parent = running.process.pid
    wakeups = sum(status(int(thread.name), "voluntary_ctxt_switches") for thread in _threads(parent))
    below = [pid for pid in running.pids if pid != parent]
    return processes.cpu_ns([parent]), wakeups, processes.cpu_ns(below)


def _threads(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").iterdir())
