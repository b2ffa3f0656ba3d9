"""From SIGHUP to a service all of whose workers run the new version, and the requests that were lost on the way."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..catalogue import Server
from ..session import Session
from .checkout import Checkout
from .clients import Answer, Clients
from .service import WORKERS, serving

KEPT, FRESH = 8, 8
PAUSE_SECONDS = 0.02
IMPORT_SECONDS = 0.3
STEADY_SECONDS = 1.0
"""Before the signal, and after the roll: so long all answers have to come from new processes."""

ROLL_SECONDS = 40.0
_BOOT_SECONDS = 20.0


@dataclass(frozen=True)
class Rolled:
    """One roll. `seconds` from the signal until it was complete, `own` of them in the application's imports.

    `lost` counts the requests without an answer, by the kind of their connection; `reconnects` are the kept-alive
    clients'; `answers` is how many there were, and `slowest` seconds is what one had to be waited for at most: a server
    that ends its workers before the new ones serve loses nothing either, and answers nobody meanwhile.
    """

    seconds: float
    own: float
    lost: dict[str, int]
    reconnects: int
    answers: int
    slowest: float

    @property
    def beyond(self) -> float:
        """Seconds that are not the application's own."""
        return self.seconds - self.own


def complete_at(first: Mapping[int, Answer], last: Mapping[str, float], version: str, workers: int) -> float | None:
    """When a roll to `version` was complete as seen from outside; None while it is not.

    By then `workers` processes of that version have answered, and nothing else answers afterwards.
    """
    new = sorted(answer.answered for answer in first.values() if answer.version == version)
    if len(new) < workers:
        return None
    return max([new[workers - 1], *(when for other, when in last.items() if other != version)])


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Seconds in which at least one of these intervals was under way.

    So imports one after the other count in full, and imports at the same time once.
    """
    total, end = 0.0, float("-inf")
    for start, stop in sorted(intervals):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def measure(session: Session, server: Server) -> Rolled:
    """Start the service, reload it once under load. Raises BenchError when the roll is never complete."""
    extra = [*server.with_workers(WORKERS), *server.quiet]
    environment = {"BENCH_IMPORT_SECONDS": str(IMPORT_SECONDS)}
    with Checkout("versioned") as checkout:
        directory = checkout.directory
        with serving(
            session, server, "versioned", extra=extra, directory=directory, environment=environment
        ) as service:
            return asyncio.run(_roll(service.process.pid, service.port, checkout))


async def _roll(parent: int, port: int, checkout: Checkout) -> Rolled:
    async with Clients(port) as clients:
        clients.closed_loop(kept=KEPT, fresh=FRESH, pause=PAUSE_SECONDS)
        await clients.until(lambda: len(clients.first) >= WORKERS, _BOOT_SECONDS, "not all workers answered")
        await asyncio.sleep(STEADY_SECONDS)
        checkout.save("1")
        lost, reconnects, answers = len(clients.lost), clients.reconnects, len(clients.answers)
        ordered = time.monotonic()
        os.kill(parent, signal.SIGHUP)

        def steady() -> bool:
            complete = complete_at(clients.first, clients.last, "1", WORKERS)
            return complete is not None and clients.last["1"] >= complete + STEADY_SECONDS

        await clients.until(steady, ROLL_SECONDS, "SIGHUP did not replace all workers")
        complete = complete_at(clients.first, clients.last, "1", WORKERS)
        assert complete is not None, "it was steady"
    imports = [(answer.began, answer.ended) for answer in clients.first.values() if answer.version == "1"]
    kinds: dict[str, int] = {"kept": 0, "fresh": 0}
    for one in clients.lost[lost:]:
        kinds["kept" if one.kept else "fresh"] += 1
    during = clients.answers[answers:]
    return Rolled(
        complete - ordered,
        covered(imports),
        kinds,
        clients.reconnects - reconnects,
        len(during),
        max(answer.answered - answer.asked for answer in during),
    )
