"""`idle`: memory and CPU that idle connections cost a server."""

from __future__ import annotations

import dataclasses
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from . import processes, report
from .catalogue import Server, workload
from .errors import BenchError
from .session import Session

STATES = ("fresh", "served")  # never sent anything; had one request answered
SPARE_DESCRIPTORS = 200
ACCEPT_SECONDS = 15.0
SETTLE_SECONDS = 1.0


@dataclass(frozen=True)
class Idle:
    """What `connections` idle ones cost: PSS in bytes for each, and CPU in ms over `seconds`."""

    server: str
    state: str
    connections: int
    pss_each: float
    cpu_ms: float
    seconds: int


def raise_descriptor_limit(connections: int) -> None:
    """Raise the soft limit to the hard one, for this process and the servers. Raises BenchError if that is too low."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < connections + SPARE_DESCRIPTORS:
        raise BenchError(f"at most {hard} descriptors are allowed here: ask for fewer --connections")


def _say(stream: IO[str] | None, text: str) -> None:
    """Write a line to the client."""
    if stream is not None:
        stream.write(text + "\n")
        stream.flush()


def _expect(client: subprocess.Popen[str], word: str, count: int) -> None:
    """Read the client's next line. Raises BenchError unless it reports `count` connections."""
    line = client.stdout.readline() if client.stdout else ""
    if line.split() != [word, str(count)]:
        error = client.stderr.read() if client.stderr and not line else ""
        raise BenchError(f"expected {count} connections {word}, got: {line.strip() or error.strip()}")


def _await_accepted(running: processes.Running, wanted: int) -> None:
    """Return once the server holds `wanted` descriptors. Raises BenchError after ACCEPT_SECONDS."""
    deadline = time.monotonic() + ACCEPT_SECONDS
    while processes.open_descriptors(running.pids) < wanted:
        if time.monotonic() > deadline:
            raise BenchError(f"only {processes.open_descriptors(running.pids)} of {wanted} descriptors are open")
        time.sleep(0.05)


def measure(server: Server, state: str, *, connections: int, seconds: int, session: Session) -> Idle:
    """Open the connections in a process of their own, compare memory before and after, then watch the CPU."""
    client_path = Path(__file__).with_name("idle_client.py")
    extra = [*server.quiet, *server.idle]
    with processes.serving(server, workload("plain"), core=session.server_core, extra=extra) as running:
        pids = running.pids
        memory, descriptors = processes.pss_bytes(pids), processes.open_descriptors(pids)
        argv = [sys.executable, str(client_path), str(running.port), str(connections), state]
        pipe = subprocess.PIPE
        with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as client:
            try:
                _expect(client, "open", connections)
                _await_accepted(running, descriptors + connections)
                time.sleep(SETTLE_SECONDS)
                pss = (processes.pss_bytes(pids) - memory) / connections
                used = processes.cpu_ns(pids)
                time.sleep(seconds)
                used = processes.cpu_ns(pids) - used
                _say(client.stdin, "count")
                _expect(client, "alive", connections)
            finally:
                client.kill()
    return Idle(server.name, state, connections, pss, used / 1e6, seconds)


def result_table(results: Sequence[Idle], labels: dict[str, str]) -> str:
    """A row per server and state of the connections."""
    words = {"fresh": "never sent anything", "served": "had one request answered"}
    rows = []
    for result in results:
        share = result.cpu_ms / 10 / result.seconds
        rows.append(
            [
                labels[result.server],
                words[result.state],
                f"{result.pss_each / 1024:.2f} KiB",
                f"{result.cpu_ms:.1f} ms in {result.seconds} s ({share:.2f} %)",
            ]
        )
    return report.table(["server", "idle connections", "PSS each", "CPU, all connections"], rows)


def run(session: Session, *, connections: int, seconds: int) -> None:
    """Measure both states for every server and publish."""
    session.check_docs("idle")
    raise_descriptor_limit(connections)
    results = []
    for server in list(session.servers):
        for state in STATES:
            try:
                result = measure(server, state, connections=connections, seconds=seconds, session=session)
            except BenchError as exc:
                session.problem(f"{server.name}, {state}: {exc}")
                continue
            results.append(result)
            session.progress(
                f"{server.name:18} {state:7} {result.pss_each:7.0f} B each  {result.cpu_ms:8.2f} ms CPU in {seconds} s"
            )
    if not results:
        raise BenchError("nothing could be measured:\n" + "\n".join(session.problems))
    how = (
        f"{connections} idle connections from another process; memory is the growth of the server's PSS. "
        "The servers' idle timeouts are raised so that none closes a connection: "
        + "; ".join(f"{s.name} `{' '.join(s.idle) or 'as it is'}`" for s in session.servers)
        + "."
    )
    labels = {server.name: server.label for server in session.servers}
    session.publish("idle", how, result_table(results, labels), [dataclasses.asdict(result) for result in results])
