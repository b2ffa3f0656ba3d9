"""How long the slot of a killed worker is without a worker of its own, beside what such a worker needs to boot."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from ..catalogue import Server
from ..session import Session
from .checkout import Checkout
from .clients import Clients
from .roll import IMPORT_SECONDS
from .service import WORKERS, serving

PROBE_SECONDS = 0.002
STEADY_SECONDS = 5.5
"""Before the kill: a worker that dies within 5 s of its readiness is taken for one that cannot serve (back-off)."""

_BOOT_SECONDS = 20.0
_AFTER_SECONDS = 0.5


@dataclass(frozen=True)
class Crash:
    """One kill. All times are seconds.

    `back`: from the kill to the first answer of the killed worker's successor. `boot`: from the start of another new
    worker's process to its first answer. `until_spawn`: from the kill to the start of the successor's process, to
    10 ms. `asked` requests were made before the successor answered, each on a new connection; `lost` of them got no
    answer, and `slowest` is the longest that one of them waited.
    """

    back: float
    boot: float
    until_spawn: float
    slowest: float
    asked: int
    lost: int

    @property
    def added(self) -> float:
        """What the slot waited besides the boot of a worker."""
        return self.back - self.boot


def started(pid: int) -> float:
    """When the process was started, by the monotonic clock; up to 10 ms early, since the kernel counts ticks."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    return ticks / os.sysconf("SC_CLK_TCK") - since_boot


def measure(session: Session, server: Server) -> Crash:
    """Start the service, kill one worker, then have a third one started by SIGTTIN. Raises BenchError."""
    extra = [*server.with_workers(WORKERS), *server.quiet]
    environment = {"BENCH_IMPORT_SECONDS": str(IMPORT_SECONDS)}
    with (
        Checkout("versioned") as checkout,
        serving(
            session, server, "versioned", extra=extra, directory=checkout.directory, environment=environment
        ) as service,
    ):
        return asyncio.run(_crash(service.process.pid, service.port))


async def _crash(parent: int, port: int) -> Crash:
    async with Clients(port) as clients:
        clients.open_loop(PROBE_SECONDS)
        await clients.until(lambda: len(clients.first) == WORKERS, _BOOT_SECONDS, "not all workers answered")
        await asyncio.sleep(STEADY_SECONDS)
        killed = time.monotonic()
        os.kill(next(iter(clients.first)), signal.SIGKILL)
        successor = await _next(clients, WORKERS + 1, "no successor answered")
        back = clients.first[successor].answered
        until_spawn = started(successor) - killed
        await asyncio.sleep(_AFTER_SECONDS)
        waits = [one.answered - one.asked for one in clients.answers if killed < one.asked <= back]
        lost = sum(killed < one.asked <= back for one in clients.lost)
        os.kill(parent, signal.SIGTTIN)
        third = await _next(clients, WORKERS + 2, "no third worker answered")
        boot = clients.first[third].answered - started(third)
    return Crash(back - killed, boot, until_spawn, max(waits, default=0.0), len(waits) + lost, lost)


async def _next(clients: Clients, count: int, what: str) -> int:
    """The process that answered for the first time as the last one of so many."""
    await clients.until(lambda: len(clients.first) >= count, _BOOT_SECONDS, what)
    return list(clients.first)[count - 1]
