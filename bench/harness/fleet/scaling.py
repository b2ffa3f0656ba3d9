"""What two workers are worth: requests per second of a handler that burns CPU, with one worker and with two."""

from __future__ import annotations

from .. import processes, wrk
from ..catalogue import Server, Workload
from ..session import Session
from .service import cores

CONNECTIONS = 16
"""Few, but so many that no worker is left without one: the kernel draws lots."""

BURN = Workload("burn", "burn", b"Hello, World!", 0.0)


def per_second(session: Session, server: Server, workers: int, *, seconds: int) -> float:
    """Requests per second with so many workers, after a second that is not counted. Raises BenchError.

    All share both cores: server and wrk. At 2 ms a request wrk uses some per cent of one.
    """
    extra = [*server.with_workers(workers), *server.quiet]
    with processes.serving(server, BURN, core=cores(session), extra=extra) as running:
        for duration in (1, seconds):
            result = wrk.run(BURN, port=running.port, seconds=duration, core=cores(session), connections=CONNECTIONS)
    return result.per_second
