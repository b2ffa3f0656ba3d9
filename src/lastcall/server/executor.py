"""Carries out what the ladder decides: the one place where the drain touches sockets, tasks and the lifespan."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lastcall.asgi.cycle import AppCoroutine
from lastcall.base.record import Record
from lastcall.drain.ladder import Action, Budgets, Census, Input, Phase, State, due, next_deadline, step
from lastcall.drain.report import StopReport

if TYPE_CHECKING:
    from lastcall.asgi.lifespan import Lifespan, LifespanOutcome
    from lastcall.connection.http1 import HTTPService
    from lastcall.drain.ledger import Entry, Ledger
    from lastcall.net.driver import Driver
    from lastcall.net.listeners import Listener

logger = logging.getLogger("lastcall.error")

PROGRESS_SECONDS = 1.0
NAMED_AT_MOST = 3


class Work(Record):
    """What a drain acts upon."""

    ledger: Ledger
    driver: Driver
    service: HTTPService
    lifespan: Lifespan
    listeners: list[Listener]


class Tally:
    """What became of the work.

    ``ran_before`` is the ledger's total at the order, ``running_then`` its count, ``told`` what was then cancelled.
    """

    def __init__(self) -> None:
        self.ran_before = 0
        self.running_then = 0
        self.told: list[Entry] = []
        self.cancelled = 0
        self.abandoned: list[str] = []


class Executor:
    """Runs one server from ready to stopped.

    ``order()`` and ``force()`` belong to the loop's thread. ``on_order(state)`` is called at the stop order, and
    ``on_phase(phase)`` on entering each phase of the stop, before its actions; both are the server's own affair.
    """

    def __init__(
        self,
        work: Work,
        budgets: Budgets,
        *,
        on_order: Callable[[State], None],
        on_phase: Callable[[Phase], None],
    ) -> None:
        self.state = State()
        self._loop = asyncio.get_running_loop()
        self._work = work
        self._budgets = budgets
        self._on_order = on_order
        self._on_phase = on_phase
        self._tally = Tally()
        self._abandoned: set[asyncio.Task[Any]] = set()
        self._wake: asyncio.Future[None] | None = None
        self._lifespan_word = ""
        self._lifespan_code = 0
        self._cancelled = False
        self._fresh_phase = False
        self._said = 0.0

    # -- orders ---------------------------------------------------------------------------------------------------

    def ready(self) -> None:
        """The server serves."""
        self._apply(Input.READY)

    def order(self, cause: str, *, interactive: bool = False) -> None:
        """Start the ladder. Only signals escalate: a second order from elsewhere changes nothing."""
        self._apply(Input.STOP, cause=cause, interactive=interactive)

    def force(self, cause: str) -> None:
        """Jump to ``CANCELLING``."""
        self._apply(Input.FORCE, cause=cause)

    @property
    def abandoned(self) -> set[asyncio.Task[Any]]:
        """Tasks of requests that were given up; the log has named their requests."""
        return self._abandoned

    @property
    def running(self) -> int:
        """How many entries are in the ledger."""
        return self._work.ledger.count

    def wake(self) -> None:
        """Something may have ended: look again."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    # -- the run --------------------------------------------------------------------------------------------------

    async def run(self) -> StopReport:
        """Until ``STOPPED``. A cancellation of this call is a jump to ``CANCELLING``; it is raised at the end."""
        while self.state.phase is not Phase.STOPPED:
            if self._fresh_phase:
                # Even a budget of 0 gives what was just ordered one turn of the loop.
                self._fresh_phase = False
                await self._sleep(0)
                continue
            if self.state.phase is Phase.CLOSING:
                await self._shut_down_lifespan()
                self._apply(Input.CLOSED)
                continue
            now = self._loop.time()
            event = due(self.state, self._census(), now, self._budgets)
            if event is not None:
                self._apply(event)
                continue
            self._say_progress(now)
            await self._sleep(self._until(now))
        report = self._report()
        self._work.service.hub.access.flush()  # the lines of what was cut belong before the last one
        logger.info("%s", report)
        if self._cancelled:
            raise asyncio.CancelledError
        return report

    def _until(self, now: float) -> float:
        """Seconds to the next moment at which there is something to do or to say."""
        deadline = next_deadline(self.state, self._budgets)
        if self.state.phase in (Phase.DRAINING, Phase.CANCELLING):
            deadline = min(deadline, self._said + PROGRESS_SECONDS)
        return deadline - now

    async def _sleep(self, seconds: float) -> None:
        self._wake = self._loop.create_future()
        timer = None
        if seconds <= 0:
            self._loop.call_soon(self.wake)
        elif seconds < math.inf:
            timer = self._loop.call_later(seconds, self.wake)
        try:
            await self._wake
        except asyncio.CancelledError:
            self._cancelled = True
            self.force("cancelled")
        finally:
            if timer is not None:
                timer.cancel()

    def _apply(self, event: Input, *, cause: str = "", interactive: bool = False) -> None:
        before = self.state
        self.state, actions = step(
            before, event, self._loop.time(), self._budgets, cause=cause, interactive=interactive
        )
        if before.phase < Phase.DRAINING <= self.state.phase and before.phase is not Phase.STARTING:
            self._begin()
        if self.state.phase is not before.phase and self.state.phase > Phase.SERVING:
            self._fresh_phase = True
            self._on_phase(self.state.phase)
        for action in actions:
            self._act(action)
        self.wake()

    def _begin(self) -> None:
        ledger = self._work.ledger
        self._tally.running_then = ledger.count
        self._tally.ran_before = ledger.total
        self._said = self._loop.time()
        ledger.when_empty = self.wake
        self._work.driver.on_closed = self.wake
        self._on_order(self.state)

    def _act(self, action: Action) -> None:
        work = self._work
        if action is Action.STOP_ACCEPTING:
            self._close_listeners()
        elif action is Action.LAST_ANSWERS:
            work.service.draining = True
        elif action is Action.CLOSE_IDLE:
            for connection in work.driver.connections:
                connection.close_idle()
        elif action is Action.REFUSE_NEW:
            work.service.refusing = True
        elif action is Action.CANCEL_TASKS:
            self._cancel_tasks()
        elif action is Action.ABANDON:
            self._abandon()
        elif action is Action.CLOSE_CONNECTIONS:
            for connection in work.driver.connections:
                connection.flush_and_close()
        # SHUT_DOWN_LIFESPAN takes time: run() awaits it.

    def _cancel_tasks(self) -> None:
        told = self._tally.told = self._work.ledger.entries()
        self._tally.cancelled = len(told)
        for entry in told:
            entry.cancel()

    def _abandon(self) -> None:
        left = self._work.ledger.entries()
        self._tally.abandoned = [entry.describe() for entry in left]
        self._tally.cancelled -= sum(entry in self._tally.told for entry in left)
        for entry in left:
            entry.give_up()
        if left:
            self._abandoned = {
                task for task in asyncio.all_tasks(self._loop) if isinstance(task.get_coro(), AppCoroutine)
            }
            logger.error(
                "Abandoned, still running %g s after being cancelled: %s",
                self._budgets.cancel,
                ", ".join(self._tally.abandoned[:NAMED_AT_MOST]),
            )

    def _close_listeners(self) -> None:
        """Refuse new connections from now on.

        Clients that are in an accept queue of ours already are let in: closing the listener would reset them. A queue
        that others serve too is theirs.
        """
        work = self._work
        work.driver.stop_accepting()
        if not any(listener.shared for listener in work.listeners):
            work.driver.accept_waiting()
        for listener in work.listeners:
            if not listener.shared:
                listener.close()

    async def _shut_down_lifespan(self) -> None:
        outcome, cancelled = await shut_down(self._work.lifespan, self._budgets.lifespan_shutdown)
        self._cancelled |= cancelled
        self._lifespan_word, self._lifespan_code = outcome.value, outcome.exit_code

    # -- words ----------------------------------------------------------------------------------------------------

    def _census(self) -> Census:
        return Census(running=self._work.ledger.count, connections=len(self._work.driver))

    def _say_progress(self, now: float) -> None:
        if self.state.phase not in (Phase.DRAINING, Phase.CANCELLING) or now < self._said + PROGRESS_SECONDS:
            return
        self._said = now
        entries = self._work.ledger.entries()
        oldest = sorted(entries, key=lambda entry: entry.since)[:NAMED_AT_MOST]
        names = ", ".join(f"{entry.describe()} {now - entry.since:.0f} s" for entry in oldest)
        if len(entries) > NAMED_AT_MOST:
            names += ", …"
        left = next_deadline(self.state, self._budgets) - now
        what = "cancel" if self.state.phase is Phase.DRAINING else "giving up"
        when = f"{max(0.0, left):.0f} s until {what}" if left < math.inf else f"no limit until {what}"
        doing = "draining" if self.state.phase is Phase.DRAINING else "cancelling"
        if entries:
            logger.info("%s: %d left, %s: %s", doing, len(entries), when, names)
        else:  # nothing that could be cancelled
            closing = len(self._work.driver)
            logger.info("%s: %d connection%s still closing", doing, closing, " is" if closing == 1 else "s are")

    def _report(self) -> StopReport:
        tally = self._tally
        arrived = self._work.ledger.total - tally.ran_before
        in_flight = tally.running_then + arrived
        return StopReport(
            cause=self.state.cause,
            exit_code=5 if tally.abandoned else self._lifespan_code,
            seconds=self._loop.time() - self.state.draining_since,
            in_flight=in_flight,
            finished=in_flight - tally.cancelled - len(tally.abandoned),
            cancelled=tally.cancelled,
            abandoned=tuple(tally.abandoned),
            lifespan=self._lifespan_word,
        )


async def shut_down(lifespan: Lifespan, timeout: float) -> tuple[LifespanOutcome, bool]:
    """Run ``lifespan.shutdown``, at most ``timeout`` seconds, also if the caller is cancelled meanwhile.

    Returns its outcome, and whether the caller was cancelled: CancelledError is then still to be raised.
    """
    cancelled = False
    task = asyncio.get_running_loop().create_task(lifespan.shutdown(timeout))
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = True
    return task.result(), cancelled
