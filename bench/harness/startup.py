"""`startup`: time from the start of the process to the first complete answer of the plain application."""

from __future__ import annotations

import contextlib
import socket
import time

from . import processes, report
from .catalogue import Server, workload
from .errors import BenchError
from .report import Spread
from .session import Session

_REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
_POLL_SECONDS = 0.0005


def first_answer(server: Server, *, core: int) -> float:
    """Start the server once; seconds until it has answered a request. Raises BenchError after READY_SECONDS."""
    expected = workload("plain").expected
    started = time.monotonic()
    with processes.launched(server, "plain", core=core, extra=server.quiet) as running:
        deadline = started + processes.READY_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", running.port), 1) as client:
                client.sendall(_REQUEST)
                received = b""
                while data := client.recv(4096):
                    received += data
                    if received.startswith(b"HTTP/1.1 200") and received.endswith(expected):
                        return time.monotonic() - started
            if running.process.poll() is not None:
                break
            time.sleep(_POLL_SECONDS)
        raise BenchError(f"no answer after the start:\n{running.said()}")


def run(session: Session, *, starts: int) -> None:
    """Start every server `starts` times in turns, after one start that is not counted, and publish."""
    session.check_docs("startup")
    seconds: dict[str, list[float]] = {server.name: [] for server in session.servers}
    for number in range(starts + 1):
        for server in list(session.servers):
            try:
                taken = first_answer(server, core=session.server_core)
            except BenchError as exc:
                session.problem(f"{server.name}: {exc}")
                session.servers.remove(server)
                continue
            if number:  # the first start compiles bytecode and fills the file cache
                seconds[server.name].append(taken)
            session.progress(f"start {number}/{starts}  {server.name:18}{taken * 1000:8.1f} ms")
    if not session.servers:
        raise BenchError("no server could be started")
    rows = [[s.label, Spread.of(1000 * value for value in seconds[s.name]).text()] for s in session.servers]
    how = f"{starts} interleaved starts of each server with the plain application, polled every half millisecond."
    session.publish("startup", how, report.table(["server", "ms to the first answer: median (min-max)"], rows), seconds)
