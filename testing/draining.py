"""A stop in memory: a bench with the server's real controller, over a driver and listeners that only keep books."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from lastcall.asgi.lifespan import Lifespan
from lastcall.base.progress import Progress
from lastcall.base.types import ASGIApp, Receive, Scope, Send
from lastcall.connection.service import HTTPService
from lastcall.connection.stream import Connection
from lastcall.drain.ladder import Budgets, Phase, State
from lastcall.drain.policy import PolicyTable
from lastcall.drain.report import StopReport
from lastcall.net.driver import Driver
from lastcall.net.listener import Listener, Owner
from lastcall.notice.signal import DrainSignal
from lastcall.server.controller import ShutdownController
from lastcall.server.doors import OwnDoors
from lastcall.server.work import Callbacks, Work
from testing.memory import Bench, Client


class Diary:
    """What happened, in order: words, each with the loop's time since the stop order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.ordered = loop.time()
        self.lines: list[tuple[float, str]] = []

    def note(self, word: str) -> None:
        """Write ``word`` down."""
        self.lines.append((round(self._loop.time() - self.ordered, 3), word))

    @property
    def words(self) -> list[str]:
        """The words alone."""
        return [word for _, word in self.lines]

    def at(self, word: str) -> float:
        """When ``word`` was written, for the first time."""
        return next(time for time, found in self.lines if found == word)


class MemoryDriver:
    """The controller's view of connections. A socket's end wakes the controller; here somebody has to look."""

    LOOK_SECONDS = 0.01

    def __init__(self, loop: asyncio.AbstractEventLoop, diary: Diary) -> None:
        self.clients: list[Client] = []
        self.on_closed: Any = None
        self._loop = loop
        self._diary = diary
        self._before = 0

    @property
    def connections(self) -> list[Connection]:
        """The open connections."""
        return [client.connection for client in self.clients if not client.stream.closed]

    def __len__(self) -> int:
        return len(self.connections)

    def stop_new_connections(self) -> None:
        """As ``Driver.stop_new_connections``."""
        self._diary.note("stop new connections")
        self._look()

    def accept_backlog(self) -> None:
        """As ``Driver.accept_backlog``."""
        self._diary.note("accept backlog")

    def _look(self) -> None:
        if self._before and not len(self):
            self.on_closed()
        self._before = len(self)
        self._loop.call_later(self.LOOK_SECONDS, self._look)


class FakeListener:
    """A listener of our own."""

    owner = Owner.OURS

    def __init__(self, diary: Diary) -> None:
        self._diary = diary

    def unlink(self) -> None:
        """As ``Listener.unlink``."""
        self._diary.note("unlink")

    def close(self) -> None:
        """As ``Listener.close``."""
        self._diary.note("close listener")


class StoppableBench(Bench):
    """A worker that can be stopped. ``budgets`` are those of its stop; ``close`` and ``finish`` its globs."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        budgets: Budgets | None = None,
        close: tuple[str, ...] = (),
        finish: tuple[str, ...] = (),
        timeout_disconnect: float = 3.0,
        nonzero_on_cut: bool = False,
        **bench: Any,
    ) -> None:
        super().__init__(app, **bench)
        self.budgets = budgets or Budgets()
        self.diary = Diary(self.loop)
        self.signal = DrainSignal(self.loop.time)
        self.signal.tasks = self.tasks
        self.service = HTTPService(
            app,
            self.tasks,
            self.scheduler,
            self.options,
            signal=self.signal,
            policies=PolicyTable(close, finish) if close or finish else None,
            timeout_disconnect=timeout_disconnect,
        )
        self.driver = MemoryDriver(self.loop, self.diary)
        self.polled = False
        self.progress: list[Progress | None] = []
        self.reports: list[StopReport] = []
        self.bounds: list[float] = []
        self.drafts: list[StopReport] = []
        self._nonzero_on_cut = nonzero_on_cut
        self.loop.call(self._begin)

    def _begin(self) -> None:
        silent = logging.Logger("silent")  # a test may leave in the middle of a stop
        silent.addHandler(logging.NullHandler())
        lifespan = Lifespan(self._lifespan, "on", logger=silent)
        listeners = cast("list[Listener]", [FakeListener(self.diary)])
        driver = cast(Driver, self.driver)
        self.controller = ShutdownController(
            self.signal,
            self.budgets,
            Callbacks(
                bound=self.bounds.append,
                again=lambda seconds, since: 0.0,
                on_draft=self.drafts.append,
                on_phase=self._phase,
                set_should_exit=self._set_should_exit,
                on_interrupt=lambda: None,
                on_order=lambda: None,
                progress=self.progress.append,
                on_report=self.reports.append,
            ),
            nonzero_on_cut=self._nonzero_on_cut,
        )
        self.controller.start()
        doors = OwnDoors(driver, listeners, lambda listener: None, backlog=1)
        self._work = Work(driver, self.service, lifespan, doors)
        self.task = self.loop.create_task(self._run(lifespan))

    async def _run(self, lifespan: Lifespan) -> StopReport:
        await lifespan.startup()
        self.controller.serve(self._work)
        return await self.controller.run()

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.diary.note("lifespan.shutdown")
        await send({"type": "lifespan.shutdown.complete"})

    def _phase(self, state: State) -> None:
        self.diary.note(state.phase.name)

    def _set_should_exit(self) -> None:
        self.polled = True
        self.diary.note("poll")

    def connect(self, **stream: Any) -> Client:
        """A new connection, which the stop will know of."""
        client = super().connect(**stream)
        self.driver.clients.append(client)
        return client

    @property
    def phase(self) -> Phase:
        """Where the server stands."""
        return self.controller.state.phase

    def order(self, cause: str = "SIGTERM") -> None:
        """Give a stop order; SIGINT is a person's at a terminal."""
        self._order(cause, 1)

    def force(self, cause: str = "SIGTERM") -> None:
        """Give the order to cancel now."""
        self._order(cause, 2)

    def _order(self, cause: str, level: int) -> None:
        if self.phase is Phase.SERVING:
            self.diary.ordered = self.loop.time()
        self.loop.call(self.controller.give_order, cause, level)

    def reach(self, seconds: float) -> None:
        """Let time pass until ``seconds`` after the stop order."""
        left = self.diary.ordered + seconds - self.loop.time()
        assert left >= 0, "that moment has passed"
        self.advance(left)

    def stopped(self) -> StopReport:
        """The report, which must be there; the books must balance."""
        assert self.task.done(), f"still {self.phase.name}, with {self.tasks.snapshot()} and {len(self.driver)} clients"
        report = self.task.result()
        assert self.reports == [report]
        outcomes = (report.finished, report.closed_by_policy, report.broken_off, report.disconnected)
        assert sum(outcomes) + report.cancelled + report.abandoned == report.total
        assert self.tasks.count == report.abandoned
        assert len(self.driver) == 0
        return report

    def finish(self) -> StopReport:
        """Let the stop come to its end, however long that takes on this clock; see ``stopped``."""
        self.loop.run(asyncio.wait({self.task}))
        self.settle()
        return self.stopped()


@pytest.fixture
def stoppable() -> Iterator[Callable[..., StoppableBench]]:
    """Make stoppable benches, and close them with a look at what went wrong."""
    made: list[StoppableBench] = []

    def make(*args: Any, **options: Any) -> StoppableBench:
        made.append(StoppableBench(*args, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
