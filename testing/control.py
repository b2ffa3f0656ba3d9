"""A stand-in for the parent behind a real control socket, in a thread of the test's own process."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lastcall.supervisor.control import Outcome
from lastcall.supervisor.control_server import ControlServer

PATIENCE = 10.0


class StandIn:
    """A ``control.Service`` that does what a test says.

    ``answers``: the document of each question; ``taken``: the orders that came. An order waits for ``settle(outcome)``
    if its name is in ``slow``, and comes to ``outcomes[name]`` otherwise.
    """

    def __init__(self) -> None:
        self.answer: dict[str, Any] = {"workers": []}
        self.requests: list[dict[str, Any]] = []
        self.taken: list[tuple[str, dict[str, Any]]] = []
        self.outcomes: dict[str, Outcome] = {}
        self.slow: set[str] = set()
        self.settled: list[str] = []
        self.begun = threading.Event()
        self.loop: asyncio.AbstractEventLoop | None = None
        self._gates: list[asyncio.Future[Outcome]] = []

    def doing(self) -> str:
        """As the parent's."""
        return str(self.answer.get("doing") or "")

    async def status(self) -> dict[str, Any]:
        """As the parent's."""
        return self.answer

    async def inflight(self) -> list[dict[str, Any]]:
        """As the parent's."""
        return self.requests

    async def order(self, name: str, /, **arguments: Any) -> Outcome:
        """As the parent's."""
        self.taken.append((name, arguments))
        logging.getLogger("lastcall.error").warning("begun: %s", name)
        outcome = self.outcomes.get(name, Outcome(True, f"{name} is done"))
        if name in self.slow:
            gate: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            self._gates.append(gate)
            self.begun.set()
            outcome = await gate
        self.settled.append(name)
        return outcome

    def settle(self, outcome: Outcome) -> None:
        """End the order that has waited longest, from any thread."""
        assert self.begun.wait(PATIENCE)
        assert self.loop is not None
        self.loop.call_soon_threadsafe(self._gates.pop(0).set_result, outcome)

    def abandon(self) -> None:
        """End what is unsettled, in the loop."""
        for gate in self._gates:
            gate.set_result(Outcome(False, "abandoned"))
        self._gates.clear()


class Serving:
    """What ``serving()`` gives: the stand-in, its server, and a way to run something in their loop."""

    def __init__(self, service: StandIn, server: ControlServer, loop: asyncio.AbstractEventLoop) -> None:
        self.service = service
        self.server = server
        self.loop = loop

    @property
    def path(self) -> str:
        """Where the socket is."""
        return self.server.path

    def close(self) -> None:
        """Close the server, as the parent does at its end."""
        asyncio.run_coroutine_threadsafe(self.server.close(), self.loop).result(PATIENCE)


@contextmanager
def serving(path: str | None = None, *, service: StandIn | None = None, **options: Any) -> Iterator[Serving]:
    """Serve until the block is left; ``options`` are ``ControlServer``'s."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="parent", daemon=True)
    thread.start()
    stand_in = StandIn() if service is None else service
    stand_in.loop = loop

    async def begin() -> ControlServer:
        server = ControlServer(stand_in, path, **options)
        server.start()
        return server

    try:
        found = Serving(stand_in, asyncio.run_coroutine_threadsafe(begin(), loop).result(PATIENCE), loop)
        try:
            yield found
        finally:
            found.close()
    finally:
        loop.call_soon_threadsafe(stand_in.abandon)
        loop.call_soon_threadsafe(loop.call_soon, loop.stop)
        thread.join(PATIENCE)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
