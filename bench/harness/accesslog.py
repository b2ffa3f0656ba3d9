"""`accesslog`: what the access log costs in CPU per request."""

from __future__ import annotations

import time
from collections.abc import Sequence

from . import load, processes, report, wrk
from .catalogue import Server, workload
from .errors import BenchError
from .report import Spread
from .session import Session


def require_lines(server: Server, *, core: int) -> None:
    """Make sure that the server really logs each request with its `logging` arguments. Raises BenchError."""
    with processes.serving(server, workload("plain"), core=core, extra=server.logging) as running:
        deadline = time.monotonic() + 2
        while "GET / " not in running.said():
            if time.monotonic() > deadline:
                raise BenchError(f"no access line with {' '.join(server.logging)}; it said:\n{running.said()}")
            time.sleep(0.02)


def run(session: Session, *, rounds: int, seconds: int, warm_up: int) -> None:
    """Measure the plain workload with the access log on and off, in turns, and publish the differences."""
    session.check_docs("accesslog")
    for server in list(session.servers):
        try:
            require_lines(server, core=session.server_core)
        except BenchError as exc:
            session.problem(f"{server.name}: {exc}")
            session.servers.remove(server)
    found: dict[str, dict[str, list[float]]] = {s.name: {"off": [], "on": []} for s in session.servers}
    for number in range(rounds):
        for server in list(session.servers):
            try:
                off, on = (_cpu(session, server, extra, seconds, warm_up) for extra in (server.quiet, server.logging))
            except BenchError as exc:
                session.problem(f"{server.name}: {exc}")
                session.servers.remove(server)
                continue
            found[server.name]["off"].append(off)
            found[server.name]["on"].append(on)
            session.progress(f"round {number + 1}/{rounds}  {server.name:18} log off {off:6.2f} µs  on {on:6.2f} µs")
    if not session.servers:
        raise BenchError("no server could be measured")
    rows = []
    for server in session.servers:
        without, with_log = found[server.name]["off"], found[server.name]["on"]
        cost = Spread.of(on - off for off, on in zip(without, with_log, strict=True))
        rows.append([server.label, Spread.of(without).text(), Spread.of(with_log).text(), cost.text()])
    how = (
        f"{rounds} interleaved rounds of {seconds} s of the plain workload, the log's stream being /dev/null; "
        "the cost is the median of the rounds' differences. With the log, the commands end differently: "
        + "; ".join(f"{server.name} `{' '.join(server.logging)}`" for server in session.servers)
        + "."
    )
    head = ["server CPU in µs per request: median (min-max)", "log off", "log on", "cost of a line"]
    session.publish("accesslog", how, report.table(head, rows), found)


def _cpu(session: Session, server: Server, extra: Sequence[str], seconds: int, warm_up: int) -> float:
    """CPU in µs per plain request of a server started with `extra`, its output going to /dev/null."""
    plain = workload("plain")
    with processes.serving(server, plain, core=session.server_core, extra=extra, discard=True) as running:
        if warm_up:
            wrk.run(plain, port=running.port, seconds=warm_up, core=session.load_core)
        return load.measure(running, plain, seconds=seconds, core=session.load_core)[0]
