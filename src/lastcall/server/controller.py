"""Carries out what the ladder decides: the one place where the drain touches sockets, tasks and the lifespan."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from lastcall.asgi.cycle import AppCoroutine
from lastcall.base.record import Record
from lastcall.drain.ladder import (
    Action,
    Budgets,
    Census,
    Input,
    Phase,
    State,
    due,
    next_cut,
    next_deadline,
    step,
)
from lastcall.drain.report import ABANDONED, CANCELLED, CLOSED_BY_POLICY, DISCONNECTED, StopReport, Tally
from lastcall.notice.notice import DrainNotice

if TYPE_CHECKING:
    from lastcall.asgi.lifespan import Lifespan, LifespanOutcome
    from lastcall.connection.http1 import HTTPService
    from lastcall.net.driver import Driver
    from lastcall.net.listeners import Listener
    from lastcall.notice.running import RunningTask, RunningTasks
    from lastcall.notice.signal import DrainSignal

logger = logging.getLogger("lastcall.error")

PROGRESS_SECONDS = 1.0
NAMED_AT_MOST = 3

EXIT_LIFESPAN = 4
EXIT_ABANDONED = 5
EXIT_CUT = 6


class Work(Record):
    """What a drain acts upon."""

    tasks: RunningTasks
    driver: Driver
    service: HTTPService
    lifespan: Lifespan
    listeners: list[Listener]
    signal: DrainSignal


class Callbacks(Record):
    """Who is told of a stop. All are called in the loop's thread.

    ``on_order(state)`` at the stop order; ``on_phase(state)`` on entering each phase after it, before its actions;
    ``on_change(state)`` when a later order changes its times; ``set_should_exit()`` when libraries that poll for the
    stop are to see it; ``progress(text)`` each second while work remains, and with None when that is over;
    ``on_report(report)`` at the end.
    """

    on_order: Callable[[State], None]
    on_phase: Callable[[State], None]
    on_change: Callable[[State], None]
    set_should_exit: Callable[[], None]
    progress: Callable[[str | None], None]
    on_report: Callable[[StopReport], None]


class ShutdownController:
    """Runs one server from ready to stopped. ``order()`` and ``force()`` belong to the loop's thread."""

    def __init__(self, work: Work, budgets: Budgets, callbacks: Callbacks, *, nonzero_on_cut: bool = False) -> None:
        self.state = State()
        self._loop = asyncio.get_running_loop()
        self._work = work
        self._budgets = budgets
        self._callbacks = callbacks
        self._nonzero_on_cut = nonzero_on_cut
        self._tally = Tally()
        self._phases: dict[str, float] = {}
        self._arrived = 0
        self._abandoned: set[asyncio.Task[Any]] = set()
        self._wake: asyncio.Future[None] | None = None
        self._lifespan_word = ""
        self._lifespan_code = 0
        self._cancelled = False
        self._fresh_phase = False
        self._said = 0.0
        self._acts: dict[Action, Callable[[], None]] = {
            Action.CLOSE_AFTER_ANSWER: self._close_after_answer,
            Action.STOP_NEW_CONNECTIONS: self._stop_new_connections,
            Action.GIVE_NOTICE: self._give_notice,
            Action.CLOSE_LISTENERS: self._close_listeners,
            Action.DISCONNECT_CLOSING: self._disconnect_closing,
            Action.SET_SHOULD_EXIT: callbacks.set_should_exit,
            Action.DISCONNECT: self._disconnect,
            Action.REFUSE_NEW: self._refuse_new,
            Action.CANCEL_TASKS: self._cancel_tasks,
            Action.ABANDON: self._abandon,
            Action.CLOSE_CONNECTIONS: self._close_connections,
            Action.SHUT_DOWN_LIFESPAN: lambda: None,  # takes time: run() awaits it
        }

    # -- orders ---------------------------------------------------------------------------------------------------

    def ready(self) -> None:
        """The server serves."""
        self._apply(Input.READY)

    def order(self, cause: str, *, interactive: bool = False) -> None:
        """Start the ladder. Only signals escalate: a second order from elsewhere changes nothing."""
        self._apply(Input.STOP, cause=cause, interactive=interactive)
        if due(self.state, self._census(), self._loop.time(), self._budgets) is Input.DELAY_OVER:
            self._apply(Input.DELAY_OVER)

    def force(self, cause: str) -> None:
        """Jump to ``CANCELLING``."""
        self._apply(Input.FORCE, cause=cause)

    @property
    def abandoned(self) -> set[asyncio.Task[Any]]:
        """Tasks of requests that were given up; the log has named their requests."""
        return self._abandoned

    @property
    def running(self) -> int:
        """How many entries are running."""
        return self._work.tasks.count

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
                self._callbacks.progress(None)
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
        self._work.service.scheduler.access.flush()  # the lines of what was cut belong before the last one
        logger.info("%s", report)
        self._callbacks.on_report(report)
        if self._cancelled:
            raise asyncio.CancelledError
        return report

    def _until(self, now: float) -> float:
        """Seconds to the next moment at which there is something to do or to say."""
        deadline = next_deadline(self.state, self._census(), self._budgets)
        if Phase.ANNOUNCED <= self.state.phase <= Phase.CANCELLING:
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
        now = self._loop.time()
        self.state, actions = step(before, event, now, self._budgets, cause=cause, interactive=interactive)
        climbed = self.state.phase is not before.phase
        if climbed and before.phase > Phase.SERVING:
            name = before.phase.name
            self._phases[name] = self._phases.get(name, 0.0) + now - before.entered
        if before.phase is Phase.SERVING and self.state.phase > Phase.SERVING:
            self._begin()
        if climbed and self.state.phase > Phase.SERVING:
            # With a delay of 0 the announcement is no phase of its own: it must not cost a turn of the loop.
            self._fresh_phase = self.state.phase is not Phase.ANNOUNCED
            self._callbacks.on_phase(self.state)
        elif self.state != before and event is Input.STOP:
            self._give_times()
            self._callbacks.on_change(self.state)
        for action in actions:
            self._guarded(self._acts[action], action.value)
        self.wake()

    def _guarded(self, act: Callable[[], object], what: str) -> None:
        """Whatever goes wrong in one act, and however, the others are done, and the stop goes on."""
        try:
            act()
        except BaseException:
            logger.exception("lastcall: internal error while stopping (%s); please report this", what)

    def _begin(self) -> None:
        tasks = self._work.tasks
        self._tally.begin(tasks.entries(), tasks.total)
        self._said = self._loop.time()
        self._work.signal.stopping = True
        tasks.on_leave = self._task_ended
        self._work.driver.on_closed = self.wake
        self._callbacks.on_order(self.state)

    def _task_ended(self, entry: RunningTask) -> None:
        self._tally.ended(entry)
        if self._work.tasks.count == 0:
            self.wake()

    # -- actions --------------------------------------------------------------------------------------------------

    def _close_after_answer(self) -> None:
        self._work.service.draining = True
        for connection in self._work.driver.connections:
            self._guarded(connection.begin_drain, "a connection")

    def _stop_new_connections(self) -> None:
        work = self._work
        work.service.drained_from = self._loop.time()
        for listener in work.listeners:
            if not listener.shared:
                listener.unlink()
        work.driver.stop_new_connections()

    def _give_notice(self) -> None:
        self._give_times(always=True)
        for entry in self._work.tasks.entries():
            if isinstance(entry, DrainNotice):
                self._guarded(entry.notify, entry.describe())

    def _give_times(self, *, always: bool = False) -> None:
        """Tell the applications when they will be cut; later orders may change that."""
        state = self.state
        if always or self._work.signal.is_set:
            # In a jump DRAINING is passed in no time, and the margin with it.
            disconnect_at = state.disconnect_at if state.phase <= Phase.DISCONNECTING else self._loop.time()
            farewell_at = min(state.draining_since + self._budgets.farewell, disconnect_at)
            self._work.signal.give(disconnect_at, farewell_at, state.margin)

    def _close_listeners(self) -> None:
        """Refuse new connections from now on, and close those that are quiet.

        Clients that are in an accept queue of ours already are let in: closing the listener would reset them.
        """
        work = self._work
        work.service.listeners_closed = True
        self._guarded(work.driver.accept_backlog, "the accept queue")
        for listener in work.listeners:
            if not listener.shared:
                listener.close()
        for connection in work.driver.connections:
            self._guarded(partial(connection.close_idle, work.service.drained_from), "a connection")

    def _disconnect_closing(self) -> None:
        self._work.signal.farewell_over = True
        for entry in self._work.tasks.entries():
            if isinstance(entry, DrainNotice):
                self._guarded(entry.disconnect_if_closing, entry.describe())

    def _disconnect(self) -> None:
        for entry in self._work.tasks.entries():
            if entry.kind == "stream" and not entry.gone:
                self._tally.told(entry, DISCONNECTED, self._loop.time(), Phase.DISCONNECTING.name)
                self._guarded(partial(entry.disconnect_response, DISCONNECTED), entry.describe())

    def _refuse_new(self) -> None:
        self._work.service.refusing = True

    def _cancel_tasks(self) -> None:
        self._work.signal.cancelling = True
        self._give_times()
        for entry in self._work.tasks.entries():
            self._tally.told(entry, CANCELLED, self._loop.time(), Phase.CANCELLING.name)
            self._guarded(entry.cancel, entry.describe())

    def _abandon(self) -> None:
        tasks = self._work.tasks
        # The account is closed: what begins from now on, in lifespan.shutdown say, is the teardown's.
        tasks.on_leave = None
        self._arrived = tasks.total - self._tally.ran_before
        left = tasks.entries()
        if not left:
            return
        for entry in left:
            self._tally.told(entry, ABANDONED, self._loop.time(), Phase.CANCELLING.name)
            self._tally.abandon(entry)
            self._guarded(entry.abandon, entry.describe())
        self._tally.left = tuple(entry.describe() for entry in left)
        self._abandoned = {task for task in asyncio.all_tasks(self._loop) if isinstance(task.get_coro(), AppCoroutine)}
        names = ", ".join(self._tally.left[:NAMED_AT_MOST])
        more = len(left) - NAMED_AT_MOST
        logger.error(
            "Abandoned, still running %g s after being cancelled: %s%s",
            self._budgets.cancel,
            names,
            f" and {more} more" if more > 0 else "",
        )

    def _close_connections(self) -> None:
        for connection in self._work.driver.connections:
            client = connection.peer()
            if (left := connection.flush_and_close()) > 0:
                self._tally.unsent(client, left)

    async def _shut_down_lifespan(self) -> None:
        self._work.signal.tasks = None  # what is tracked from now on is nobody's to wait for
        outcome, cancelled = await shut_down(self._work.lifespan, self._budgets.lifespan_shutdown)
        self._cancelled |= cancelled
        self._lifespan_word, self._lifespan_code = outcome.value, outcome.exit_code

    # -- words ----------------------------------------------------------------------------------------------------

    def _census(self) -> Census:
        return Census(running=self._work.tasks.count, connections=len(self._work.driver))

    def _say_progress(self, now: float) -> None:
        if not Phase.ANNOUNCED <= self.state.phase <= Phase.CANCELLING or now < self._said + PROGRESS_SECONDS:
            return
        self._said = now
        self._callbacks.progress(self._progress(now))

    def _progress(self, now: float) -> str:
        state = self.state
        entries = self._work.tasks.entries()
        if state.phase is Phase.ANNOUNCED:
            left = max(0.0, state.ordered + state.delay - now)
            return f"announced: still accepting for {left:.0f} s, {len(entries)} in flight"
        at, what = next_cut(state, self._budgets)
        when = f"{max(0.0, at - now):.0f} s until {what}" if at < math.inf else "no limit"
        doing = state.phase.name.lower()
        if not entries:  # nothing that could be cancelled
            closing = len(self._work.driver)
            return f"{doing}: {closing} connection{' is' if closing == 1 else 's are'} still closing"
        oldest = sorted(entries, key=lambda entry: entry.since)[:NAMED_AT_MOST]
        names = ", ".join(f"{entry.describe()} {now - entry.since:.0f} s" for entry in oldest)
        return f"{doing}: {len(entries)} left, {when}: {names}{', …' if len(entries) > NAMED_AT_MOST else ''}"

    def _report(self) -> StopReport:
        tally = self._tally
        counts = tally.counts
        code = self._lifespan_code
        if tally.left:
            code = EXIT_ABANDONED
        elif code == 0 and tally.cut and self._nonzero_on_cut:
            code = EXIT_CUT
        return StopReport(
            cause=self.state.cause,
            exit_code=code,
            seconds=self._loop.time() - self.state.ordered,
            lifespan=self._lifespan_word,
            phases=self._phases,
            in_flight=tally.in_flight,
            arrived=self._arrived,
            finished=counts["finished"],
            closed_by_policy=counts[CLOSED_BY_POLICY],
            disconnected=counts[DISCONNECTED],
            cancelled=counts[CANCELLED],
            abandoned=counts[ABANDONED],
            backlog_answered=self._work.service.backlog_answered,
            background_finished=tally.background_finished,
            cut=tally.cut,
            left=tally.left,
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
