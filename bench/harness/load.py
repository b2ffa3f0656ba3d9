"""`load`: CPU per request and requests per second of every server under every workload, in interleaved rounds."""

from __future__ import annotations

import time
from collections.abc import Sequence

from . import processes, wrk
from .catalogue import Server, Workload
from .errors import BenchError
from .report import Sample, load_table
from .session import Session


def measure(running: processes.Running, workload: Workload, *, seconds: int, core: int) -> tuple[float, float, float]:
    """Load a running server once: its CPU in µs per request, requests/s, and the share of its core it was busy.

    The processes are looked up on both sides: a worker that was replaced meanwhile makes the figure worthless.
    """
    before = sorted(running.pids)
    started, used = time.monotonic(), processes.cpu_ns(before)
    result = wrk.run(workload, port=running.port, seconds=seconds, core=core)
    used = processes.cpu_ns(before) - used
    elapsed = time.monotonic() - started
    if sorted(running.pids) != before:
        raise BenchError("the server's processes changed under load")
    return used / 1000 / result.requests, result.per_second, used / 1e9 / elapsed


def run(session: Session, workloads: Sequence[Workload], *, rounds: int, seconds: int, warm_up: int) -> None:
    """Measure and publish. Every sample has a server of its own, started afresh, checked and warmed up.

    A server that fails under a workload is reported and left out of that workload's later rounds.
    """
    session.check_docs("load")
    samples: list[Sample] = []
    out: set[tuple[str, str]] = set()
    for number in range(rounds):
        for workload in workloads:
            # each round starts with another server, so that none always follows the same neighbour's heat
            turn = number % len(session.servers)
            for server in session.servers[turn:] + session.servers[:turn]:
                if (server.name, workload.name) in out or (server.workloads and workload.name not in server.workloads):
                    continue
                try:
                    sample, busy = _sample(session, server, workload, number, seconds, warm_up)
                except BenchError as exc:
                    out.add((server.name, workload.name))
                    session.problem(f"{server.name}, {workload.name}: {exc}")
                    continue
                samples.append(sample)
                session.progress(
                    f"round {number + 1}/{rounds}  {workload.name:8} {server.name:18}"
                    f"{sample.cpu_us:9.2f} µs {sample.per_second:9.0f}/s  core {busy:4.0%} busy"
                )
    if not samples:
        raise BenchError("nothing could be measured:\n" + "\n".join(session.problems))
    how = (
        f"{rounds} interleaved round{'s' if rounds > 1 else ''} of {seconds} s after {warm_up} s of warm-up, "
        f"wrk with {wrk.CONNECTIONS} connections on the other core; one worker and no access log everywhere."
    )
    session.publish("load", how, load_table(samples, session.servers, workloads), samples)


def _sample(
    session: Session, server: Server, workload: Workload, number: int, seconds: int, warm_up: int
) -> tuple[Sample, float]:
    """Start, check, warm up, measure, stop."""
    with processes.serving(server, workload, core=session.server_core, extra=server.quiet) as running:
        if warm_up:
            wrk.run(workload, port=running.port, seconds=warm_up, core=session.load_core)
        cpu, per_second, busy = measure(running, workload, seconds=seconds, core=session.load_core)
    return Sample(server.name, workload.name, number, cpu, per_second), busy
