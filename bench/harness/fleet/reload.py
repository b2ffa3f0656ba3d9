"""From the save of a source file to the first answer of the new code, with `--reload`."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from ..catalogue import Server
from ..session import Session
from .checkout import Checkout
from .clients import Clients
from .service import serving

APPS = {"versioned": "no framework", "versioned_fastapi": "FastAPI"}
PROBE_SECONDS = 0.01
SETTLE_SECONDS = 2.0
"""Before each save: the watch has begun, and the last reload is over."""

_RELOAD_SECONDS = 20.0


@dataclass(frozen=True)
class Reloaded:
    """One save: seconds to the first new answer and to the begin of the import, and requests lost until the answer."""

    seconds: float
    until_import: float
    lost: int


def measure(session: Session, server: Server, app: str, *, saves: int) -> list[Reloaded]:
    """Start the server and save so many times. Raises BenchError when a save has no effect."""
    extra = [*server.quiet, *server.reload]
    with (
        Checkout(app) as checkout,
        serving(session, server, app, extra=extra, directory=checkout.directory) as service,
    ):
        return asyncio.run(_save(service.port, checkout, saves))


async def _save(port: int, checkout: Checkout, saves: int) -> list[Reloaded]:
    found = []
    async with Clients(port) as clients:
        clients.open_loop(PROBE_SECONDS)
        for number in range(1, saves + 1):
            version = str(number)
            await asyncio.sleep(SETTLE_SECONDS)
            lost, saved = len(clients.lost), time.monotonic()
            checkout.save(version)
            await clients.until(lambda new=version: new in clients.last, _RELOAD_SECONDS, "the save had no effect")  # type: ignore[misc]
            first = next(one for one in clients.answers if one.version == version)
            found.append(Reloaded(first.answered - saved, first.began - saved, len(clients.lost) - lost))
    return found
