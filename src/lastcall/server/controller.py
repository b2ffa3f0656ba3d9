"""The shutdown controller: it takes stop orders, carries out what the ladder decides, and writes the account.

It alone writes the server's DrainState, and it is the one place where a stop touches sockets, tasks and the lifespan.
What the ladder decides is pure (``drain.ladder``); what the outside is told goes through ``Callbacks``, one way.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from lastcall.asgi.lifespan import shut_down
from lastcall.base.exit_code import ExitCode
from lastcall.base.record import replace
from lastcall.drain.ladder import (
    Action,
    Budgets,
    Census,
    Input,
    Phase,
    State,
    due,
    next_deadline,
    step,
    time_left,
)
from lastcall.drain.report import (
    ABANDONED,
    BROKEN_OFF,
    CANCELLED,
    CLOSED_BY_POLICY,
    DISCONNECTED,
    UNHEARD,
    StopReport,
    Tally,
)
from lastcall.server.generators import ClosingGenerators
from lastcall.server.guarding import guarded
from lastcall.server.loops import is_stop
from lastcall.server.progress import progress_of
from lastcall.server.work import Callbacks, Work

if TYPE_CHECKING:
    from lastcall.asgi.lifespan import Lifespan
    from lastcall.connection.stream import Connection
    from lastcall.notice.running import RunningTask
    from lastcall.notice.signal import DrainSignal

logger = logging.getLogger("lastcall.error")

PROGRESS_SECONDS = 1.0
NAMED_AT_MOST = 3
LAST_TURNS = 2
"""Turns of the loop that a task may take to end what it has begun to end: a generator's is made in the second."""
DRAFTED = frozenset({Phase.ANNOUNCED, Phase.DRAINING, Phase.DISCONNECTING, Phase.CANCELLING, Phase.CLOSING})
"""Phases at whose beginning a report is made for the case that they do not end."""


class ShutdownController:
    """Runs one server from its first moment to its report.

    ``give_order()`` may be called from any thread, and in a signal handler; everything else belongs to the loop's.
    """

    def __init__(
        self,
        signal: DrainSignal,
        budgets: Budgets,
        callbacks: Callbacks,
        *,
        nonzero_on_cut: bool = False,
        generators: ClosingGenerators | None = None,
        level: int = logging.INFO,
    ) -> None:
        self.state = State()
        self.budgets = budgets
        self.interrupt: Callable[[], None] | None = None
        """What an order calls while the application starts; None: it has not begun, or is over."""
        self.abandoned: set[asyncio.Task[Any]] = set()
        """Tasks of requests that were given up; the log has named their requests."""
        self.least_code = 0
        """The process's exit code is at least this, whatever the stop comes to."""
        self._signal = signal
        self._drain = signal.state
        self._callbacks = callbacks
        self._nonzero_on_cut = nonzero_on_cut
        self.level = level
        self.report_is_told = False  # by a parent, for the whole service
        """Of what the log gets to hear in every stop."""
        self._generators = ClosingGenerators() if generators is None else generators
        self._generators.on_end = self.wake
        self._turns_left = LAST_TURNS
        self._closing_until = math.inf
        # All of them: cause, level, interactive. They come from other threads and from signal handlers, which may
        # interrupt each other anywhere: nothing but an append is safe without a lock, for which no handler can wait.
        self._orders: list[tuple[str, int, bool]] = []
        self._heard = False  # whether the loop has turned since the first
        self._loop: asyncio.AbstractEventLoop | None = None
        self._work: Work | None = None  # while it serves
        self._rest_is_bounded = False
        self._tally = Tally()
        self._phases: dict[str, float] = {}
        self._arrived = 0
        self._wake: asyncio.Future[None] | None = None
        self._lifespan_word = ""
        self._lifespan_code = ExitCode.STOPPED
        self._cancelled = False
        self._failures: set[str] = set()
        self._fresh_phase = False
        self._said = 0.0
        self._acts: dict[Action, Callable[[Work], object]] = {
            Action.CLOSE_AFTER_ANSWER: self._close_after_answer,
            Action.STOP_NEW_CONNECTIONS: self._stop_new_connections,
            Action.GIVE_NOTICE: self._give_notice,
            Action.CLOSE_LISTENERS: self._close_listeners,
            Action.DISCONNECT_CLOSING: self._disconnect_closing,
            Action.SET_SHOULD_EXIT: lambda _: callbacks.set_should_exit(),
            Action.DISCONNECT: self._disconnect,
            Action.REFUSE_NEW: self._refuse_new,
            Action.CANCEL_TASKS: self._cancel_tasks,
            Action.ABANDON: self._abandon,
            Action.CLOSE_CONNECTIONS: self._close_connections,
            Action.SHUT_DOWN_LIFESPAN: lambda _: None,  # takes time: run() awaits it
        }

    # -- orders ---------------------------------------------------------------------------------------------------

    def give_order(self, cause: str, level: int = 1, *, interactive: bool | None = None) -> None:
        """Order the stop (``level`` 1), or that what still runs is cancelled (2). From any thread, and in a handler.

        ``interactive``: somebody waits for the end, so that it has to come soon; None: that is so after SIGINT.
        """
        interactive = cause == "SIGINT" if interactive is None else interactive
        order = (cause, level, interactive)
        self._orders.append(order)
        if cause == "SIGINT":
            self._callbacks.on_interrupt()
        if self._work is not None and self._orders[0] is order:
            # A loop that is blocked does not hear of it, maybe for ever. When it does, the time begins anew.
            self._bound(self.budgets.worst_case(interactive=interactive))
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: all is over
                self._loop.call_soon_threadsafe(self._obey, *order)
        if self._work is not None:
            # A handler that runs inside a request: the driver would go on for a while before the loop gets its turn.
            self._work.service.tasks.end_turn()

    def fail(self, exc: BaseException) -> None:
        """An exception came out of the loop, which runs on: cancel what runs, and stop. In the loop's thread.

        What it has left undone cannot be known, so nothing is waited for that might depend on it.
        """
        stopped = is_stop(exc)
        cause = "loop.stop()" if stopped else type(exc).__name__
        if (told := repr(exc)) not in self._failures:
            self._failures.add(told)
            logger.error(
                "%s: stopping, and cancelling what runs.",
                "The application stopped the event loop" if stopped else "An exception came out of the event loop",
                exc_info=None if stopped else exc,
            )
        if self._loop is not None:
            self._loop.set_debug(False)  # whose checks may be what has failed
        if not self.forced:
            self.give_order(cause, 2)

    @property
    def ordered(self) -> bool:
        """Whether the stop was ordered."""
        return bool(self._orders)

    @property
    def unheard(self) -> bool:
        """Whether the stop was ordered, and the loop has not turned since."""
        return self.ordered and not self._heard

    @property
    def forced(self) -> bool:
        """Whether it was ordered that what still runs is cancelled."""
        return any(level >= 2 for _, level, _ in self._orders)

    @property
    def serving(self) -> bool:
        """Whether the server has become ready."""
        return self._work is not None

    def start(self) -> None:
        """The server's coroutine runs: orders reach this loop from now on."""
        self._loop = asyncio.get_running_loop()
        self._hand_draft(StopReport(UNHEARD, ExitCode.ERROR, 0.0, "not started"))

    def serve(self, work: Work, on_ready: Callable[[], None] = lambda: None) -> None:
        """The server serves: ``on_ready()`` is called. Then the orders that came meanwhile are obeyed."""
        self._work = work
        self._apply(Input.READY)
        self._hand_draft(StopReport(UNHEARD, ExitCode.ERROR, 0.0, "abandoned"))
        on_ready()
        for order in tuple(self._orders):
            self._obey(*order)

    def _obey(self, cause: str, level: int, interactive: bool) -> None:
        """In the loop's thread: hand an order to whoever is in charge of the phase.

        Only signals escalate: one that is the first while a drain is under way for another reason changes nothing but
        what SIGINT shortens.
        """
        self._heard = True
        if self._work is None:
            if self.interrupt is not None:
                self.interrupt()
            return
        guarded(self._callbacks.on_order, "the terminal")
        if level >= 2:
            self._apply(Input.FORCE, cause=cause)
        else:
            self._apply(Input.STOP, cause=cause, interactive=interactive)
            if due(self.state, self._census(), self._time(), self.budgets) is Input.DELAY_OVER:
                self._apply(Input.DELAY_OVER)

    # -- the run --------------------------------------------------------------------------------------------------

    async def run(self) -> StopReport:
        """Until ``STOPPED``. A cancellation of this call is a jump to ``CANCELLING``; it is raised at the end."""
        work = self._serving()
        while self.state.phase is not Phase.STOPPED:
            if self._fresh_phase:
                # Even a budget of 0 gives what was just ordered one turn of the loop.
                self._fresh_phase = False
                await self._sleep(0)
                continue
            if self.state.phase is Phase.CLOSING:
                self._callbacks.progress(None)
                await self._shut_down_lifespan(work)
                self._apply(Input.CLOSED)
                continue
            now = self._time()
            event = due(self.state, self._census(), now, self.budgets)
            if event is Input.CANCEL_OVER and self._callbacks.again(self.budgets.cancel, self.state.entered):
                self._begin_again(now)
                continue
            if event is not None:
                seconds = self._generators_take(now) if event in (Input.CLEAR, Input.CANCEL_OVER) else None
                if seconds is None:
                    self._apply(event)
                else:
                    await self._sleep(seconds)
                continue
            self._turns_left = LAST_TURNS
            self._say_progress(now)
            await self._sleep(self._until(now))
        report = self._report(work)
        work.service.scheduler.access.flush()  # the lines of what was cut belong before the last one
        # Also for who reads warnings only: what no policy has asked for is to be seen.
        loud = bool(report.cut) and not self.report_is_told
        logger.log(logging.WARNING if loud else self.level, "%s", report)
        self._callbacks.on_report(report)
        self._hand_draft(report)
        if self._cancelled:
            raise asyncio.CancelledError
        return report

    async def close_unserved(self, lifespan: Lifespan) -> None:
        """The application is up, but is not or cannot be served: shut it down all the same.

        Raises CancelledError at the end if the caller was cancelled meanwhile.
        """
        closing = State(Phase.CLOSING)
        self._callbacks.on_phase(closing)
        self._bound(time_left(closing, self._time(), self.budgets))
        if self._orders:
            self._hand_draft(StopReport(self._orders[0][0], ExitCode.ERROR, 0.0, "abandoned"))
        began = self._time()
        timeout = self.budgets.lifespan_shutdown
        outcome, cancelled = await shut_down(lifespan, timeout, partial(self._callbacks.again, timeout))
        self._lifespan_word, self._lifespan_code = outcome.value, outcome.exit_code
        self._phases[Phase.CLOSING.name] = self._time() - began
        if cancelled:
            raise asyncio.CancelledError

    def interrupted(self) -> StopReport:
        """An order came before the server served: there is nothing to stop, or ``close_unserved()`` has done so."""
        cause = self._orders[0][0] if self._orders else "api"
        code = max(self._lifespan_code, ExitCode.ERROR if self._failures else ExitCode.STOPPED, self.least_code)
        word = self._lifespan_word
        ended = f"the server served; lifespan {word}; exit code {code}" if word else "the application had started."
        logger.log(self.level, "Stopped (%s) before %s", cause, ended)
        report = StopReport(cause, code, sum(self._phases.values()), word or "not started", self._phases)
        self._callbacks.on_report(report)
        self._hand_draft(report)
        return report

    def wake(self) -> None:
        """Something may have ended: look again."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _serving(self) -> Work:
        assert self._work is not None, "only a server that serves is stopped by the ladder"
        return self._work

    def _time(self) -> float:
        assert self._loop is not None, "start() comes first"
        return self._loop.time()

    def _until(self, now: float) -> float:
        """Seconds to the next time at which there is something to do or to say."""
        deadline = next_deadline(self.state, self._census(), self.budgets)
        if Phase.ANNOUNCED <= self.state.phase <= Phase.CANCELLING:
            deadline = min(deadline, self._said + PROGRESS_SECONDS)
        return deadline - now

    def _generators_take(self, now: float) -> float | None:
        """How long they are waited for where nothing else holds ``lifespan.shutdown`` back; None: no longer.

        The ``finally`` of an async generator may run in a task that nobody knows of; see ``server.generators``. One in
        a reference cycle is found by a collection only. At most ``--timeout-cancel``, and not beyond it in CANCELLING.
        """
        if not self._generators.watching:
            return None
        if self._turns_left == LAST_TURNS:
            began = self.state.entered if self.state.phase is Phase.CANCELLING else now
            self._closing_until = began + self.budgets.cancel
            if self._serving().service.left_open:
                gc.collect()  # 0.2 s for a million objects, once in a stop; --gc-freeze spares those of the start
        if self._turns_left:
            self._turns_left -= 1
            return 0.0
        if len(self._generators) and now < self._closing_until:
            return self._closing_until - now
        if len(self._generators):
            names = ", ".join(self._generators.names()[:NAMED_AT_MOST])
            logger.warning("Async generators that are not closed yet, and no longer waited for: %s", names)
        return None

    async def _sleep(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._wake = loop.create_future()
        timer = None
        if seconds <= 0:
            loop.call_soon(self.wake)
        elif seconds < math.inf:
            timer = loop.call_later(seconds, self.wake)
        try:
            await self._wake
        except asyncio.CancelledError:
            self._cancelled = True
            self._apply(Input.FORCE, cause="cancelled")
        finally:
            if timer is not None:
                timer.cancel()

    def _apply(self, event: Input, *, cause: str = "", interactive: bool = False) -> None:
        work = self._serving()
        before = self.state
        now = self._time()
        self.state, actions = step(before, event, now, self.budgets, cause=cause, interactive=interactive)
        climbed = self.state.phase is not before.phase
        self._drain.phase = self.state.phase
        self._drain.since = self.state.draining_since
        if climbed and before.phase > Phase.SERVING:
            name = before.phase.name
            self._phases[name] = self._phases.get(name, 0.0) + now - before.entered
        if before.phase is Phase.SERVING and self.state.phase > Phase.SERVING:
            self._begin(work)
        if climbed and self.state.phase > Phase.SERVING:
            # With a delay of 0 the announcement is no phase of its own: it must not cost a turn of the loop.
            self._fresh_phase = self.state.phase is not Phase.ANNOUNCED
            if event is Input.FORCE:
                self._rest_is_bounded = False  # C counts from now on, for one who hears of it late, too
            self._bound_the_rest()
            self._callbacks.on_phase(self.state)
        elif self.state != before and event is Input.STOP:
            self._give_times()
            if self.state.phase < Phase.CANCELLING:
                left = time_left(self.state, now, self.budgets)
                sooner = "Stopping sooner (SIGINT): done within %g s.%s"
                logger.log(self.level, sooner, round(left, 1), self._ask_again(work))
            self._bound_the_rest()
        for action in actions:
            guarded(partial(self._acts[action], work), action.value)
        if climbed and self.state.phase in DRAFTED and self._callbacks.on_draft is not None:
            guarded(self._draft, "the report")
        self.wake()

    def _begin_again(self, now: float) -> None:
        """The phase has its time anew."""
        name = self.state.phase.name
        self._phases[name] = self._phases.get(name, 0.0) + now - self.state.entered
        self.state = replace(self.state, entered=now)

    def _begin(self, work: Work) -> None:
        tasks = work.service.tasks
        if not self._orders:
            self._orders.append((self.state.cause, 1, False))
        self._tally.begin(list(tasks), tasks.total)
        self._said = self._time()
        tasks.on_end = self._task_ended
        work.driver.on_closed = self.wake
        left = time_left(self.state, self._time(), self.budgets)
        logger.log(
            self.level,
            "Stopping (%s): %d request%s in flight, %s.%s",
            self.state.cause,
            tasks.count,
            "" if tasks.count == 1 else "s",
            f"done within {round(left, 1):g} s" if left < math.inf else "no limit to the wait",
            self._ask_again(work) if self.state.cause == "SIGINT" else "",
        )

    def _ask_again(self, work: Work) -> str:
        """What a person at a terminal can do who does not want to wait."""
        return " Ctrl-C again cancels what still runs." if work.service.tasks.count else ""

    def _task_ended(self, task: RunningTask) -> None:
        self._tally.ended(task, self._time(), self.state.phase.name)
        if self._serving().service.tasks.count == 0:
            self.wake()

    # -- the bound ------------------------------------------------------------------------------------------------

    def _bound(self, seconds: float) -> None:
        if seconds < math.inf:
            self._callbacks.bound(seconds)

    def _bound_the_rest(self) -> None:
        """Say how long the stop can take, until that was said of all that is left."""
        if not self._rest_is_bounded:
            left = time_left(self.state, self._time(), self.budgets)
            self._rest_is_bounded = left < math.inf
            self._callbacks.bound(left)

    # -- actions --------------------------------------------------------------------------------------------------

    def _close_after_answer(self, work: Work) -> None:
        for connection in work.driver.connections:
            guarded(connection.begin_drain, "a connection")

    def _stop_new_connections(self, work: Work) -> None:
        work.doors.stop_newcomers()

    def _give_notice(self, work: Work) -> None:
        self._give_times(always=True)
        for task in work.service.tasks:
            guarded(task.notify, task.describe())

    def _give_times(self, *, always: bool = False) -> None:
        """Tell the applications when they will be cut; later orders may change that."""
        state = self.state
        if always or self._signal.is_set:
            # In a jump DRAINING is passed in no time, and the margin with it.
            disconnect_at = state.disconnect_at if state.phase <= Phase.DISCONNECTING else self._time()
            farewell_at = min(state.draining_since + self.budgets.farewell, disconnect_at)
            self._drain.margin = state.margin
            self._drain.farewell = self.budgets.farewell
            self._signal.give(disconnect_at, farewell_at)

    def _close_listeners(self, work: Work) -> None:
        """Refuse new connections from now on, and close those that are idle."""
        self._drain.listeners_closed = True
        guarded(work.doors.close, "the listeners")
        for connection in work.driver.connections:
            guarded(partial(connection.close_idle, self._drain.since), "a connection")

    def _disconnect_closing(self, work: Work) -> None:
        self._drain.farewell_over = True
        for task in work.service.tasks:
            guarded(task.disconnect_if_closing, task.describe())

    def _disconnect(self, work: Work) -> None:
        if self._drain.mover is not None:  # from here on this is a drain without a successor
            guarded(self._drain.mover.stop, "idle connections")
        for task in work.service.tasks:
            if task.disconnectable:
                self._end(task, DISCONNECTED, Phase.DISCONNECTING, partial(task.disconnect_response, DISCONNECTED))

    def _refuse_new(self, _work: Work) -> None:
        self._drain.refusing = True

    def _cancel_tasks(self, work: Work) -> None:
        self._give_times()
        for task in work.service.tasks:
            self._end(task, CANCELLED, Phase.CANCELLING, task.cancel)

    def _end(self, task: RunningTask, outcome: str, phase: Phase, act: Callable[[], object]) -> None:
        """Account for what is about to be done to ``task``, and do it."""
        told = partial(self._tally.told, task, outcome, self._time(), phase.name)
        guarded(told, task.describe())
        guarded(act, task.describe())

    def _abandon(self, work: Work) -> None:
        tasks = work.service.tasks
        # The account is closed: what begins from now on, in lifespan.shutdown say, is the teardown's.
        tasks.on_end = None
        self._arrived = tasks.total - self._tally.ran_before
        left = tasks.snapshot()
        if not left:
            return
        for task in left:
            act = partial(self._tally.abandon, task, self._time(), Phase.CANCELLING.name)
            self._end(task, ABANDONED, Phase.CANCELLING, act)
            guarded(task.abandon, task.describe())  # which answers 503 where it can
        self._tally.left = tuple(task.describe() for task in left)
        self.abandoned = {task.task for task in left if isinstance(task.task, asyncio.Task)}
        names = ", ".join(self._tally.left[:NAMED_AT_MOST])
        more = len(left) - NAMED_AT_MOST
        logger.error(
            "Abandoned, still running %g s after being cancelled: %s%s",
            self.budgets.cancel,
            names,
            f" and {more} more" if more > 0 else "",
        )

    def _close_connections(self, work: Work) -> None:
        for connection in work.driver.connections:
            guarded(partial(self._close_connection, connection), "a connection")

    def _close_connection(self, connection: Connection) -> None:
        client = connection.peer()
        if (left := connection.flush_and_close()) > 0:
            self._tally.unsent(client, left)

    async def _shut_down_lifespan(self, work: Work) -> None:
        self._signal.tasks = None  # what is tracked from now on is nobody's to wait for
        timeout = self.budgets.lifespan_shutdown
        outcome, cancelled = await shut_down(work.lifespan, timeout, partial(self._callbacks.again, timeout))
        self._cancelled |= cancelled
        self._lifespan_word, self._lifespan_code = outcome.value, outcome.exit_code

    # -- words ----------------------------------------------------------------------------------------------------

    def _census(self) -> Census:
        work = self._serving()
        lingering = 0
        if self.state.phase is Phase.CANCELLING:  # nobody else asks
            lingering = sum(connection.lingering for connection in work.driver.connections)
        return Census(running=work.service.tasks.count, connections=len(work.driver), lingering=lingering)

    def _say_progress(self, now: float) -> None:
        if not Phase.ANNOUNCED <= self.state.phase <= Phase.CANCELLING or now < self._said + PROGRESS_SECONDS:
            return
        self._said = now
        work = self._serving()
        running = work.service.tasks.snapshot()
        self._callbacks.progress(progress_of(self.state, self.budgets, running, len(work.driver), now))

    def _hand_draft(self, report: StopReport) -> None:
        if self._callbacks.on_draft is not None:
            self._callbacks.on_draft(report)

    def _draft(self) -> None:
        """Have the report ready for the case that the process is ended in this phase."""
        work = self._serving()
        report = self._report(work)
        left = self._tally.left or tuple(task.describe() for task in work.service.tasks.snapshot())
        if self.state.phase < Phase.CLOSING:
            report = replace(report, arrived=work.service.tasks.total - self._tally.ran_before)
        missing = report.total - sum(self._tally.counts.values())
        self._hand_draft(replace(report, lifespan="abandoned", abandoned=report.abandoned + max(0, missing), left=left))

    def _report(self, work: Work) -> StopReport:
        tally = self._tally
        counts = tally.counts
        code = self._lifespan_code
        if tally.left:
            code = ExitCode.ABANDONED
        elif code == ExitCode.STOPPED and self._failures:
            code = ExitCode.ERROR
        elif code == ExitCode.STOPPED and tally.cut and self._nonzero_on_cut:
            code = ExitCode.CUT
        return StopReport(
            cause=self.state.cause,
            exit_code=max(code, self.least_code),
            seconds=self._time() - self.state.ordered,
            lifespan=self._lifespan_word,
            phases=self._phases,
            in_flight=tally.in_flight,
            arrived=self._arrived,
            finished=counts["finished"],
            closed_by_policy=counts[CLOSED_BY_POLICY],
            broken_off=counts[BROKEN_OFF],
            disconnected=counts[DISCONNECTED],
            cancelled=counts[CANCELLED],
            abandoned=counts[ABANDONED],
            backlog_answered=work.service.backlog_answered,
            moved=self._drain.moved,
            background_finished=tally.background_finished,
            cut=tally.cut,
            left=tally.left,
        )
