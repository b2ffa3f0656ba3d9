"""The lifespan protocol: one long call of the application that is told of the server's start and stop.

Theory of operation
-------------------
The application is called once with a ``lifespan`` scope, in a task of its own. It takes ``lifespan.startup`` and
answers ``complete`` or ``failed``; much later it takes ``lifespan.shutdown`` and answers in the same way. Everything
that can happen is a row of ``TRANSITIONS``: the server's orders, the application's messages, and the end of its task.
Two rules: all that decides the next state is in that table, and a key that is not there is a protocol error, raised
where it was caused (from ``send()`` when the application caused it).

ASGI leaves it to the application whether it supports lifespan: an exception, or a plain return, before
``startup.complete`` means that it does not. What a task does after ``startup.complete`` is no longer about support: a
return is logged and counts as complete, an exception is logged with its traceback while serving goes on, and shows in
the exit code. Starlette reports such an exception by ``shutdown.failed`` before it raises, so that message is allowed
while serving and means the same thing.

Whatever the application still sends after the server has given up on it (cancelled, timed out) is accepted and
ignored: a clean-up that ends in ``send(...failed)`` must not die of a protocol error.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from lastcall.base.errors import LocalProtocolError, StartupError
from lastcall.base.exit_code import ExitCode
from lastcall.base.lineage import leave_if_child
from lastcall.base.own_task import OwnTask
from lastcall.base.types import ASGIApp, Message

STILL_STARTING_INTERVAL = 10.0
"""Seconds between two "still starting" lines."""
LAST_WORDS = 1.0
"""Seconds that a task gets to end by itself after its final message, before it is cancelled."""
CANCEL_SHARE = 0.25
"""Seconds at the end of shutdown()'s time that are kept for cancelling (at most a tenth of that time)."""
ONE_TURN = 0.01
"""A wait of zero seconds would not even give a cancelled task the loop turn in which it could end."""


class State(Enum):
    """Where the conversation with the application stands."""

    IDLE = "not started"
    OFF = "switched off"
    STARTING = "starting up"
    SERVING = "serving"
    STOPPING = "shutting down"
    INTERRUPTED = "cancelled in starting up"  # which the application may finish all the same
    # The rest are final: nothing but the end of the task can follow.
    UNSUPPORTED = "unsupported"
    STARTUP_FAILED = "failed to start up"
    RETURNED = "returned while serving"
    DIED = "failed while serving"
    COMPLETE = "shut down"
    SHUTDOWN_FAILED = "failed to shut down"
    TIMED_OUT = "cut short in shutting down"
    CANCELLED = "cancelled"


class Event(Enum):
    """What can happen. The messages' values are their ASGI types."""

    SKIP = "skipping lifespan"
    START = "starting"
    SHUTDOWN = "ordering the shutdown"
    CANCEL = "cancelling"
    TIMEOUT = "running out of time"
    STARTUP_COMPLETE = "lifespan.startup.complete"
    STARTUP_FAILED = "lifespan.startup.failed"
    SHUTDOWN_COMPLETE = "lifespan.shutdown.complete"
    SHUTDOWN_FAILED = "lifespan.shutdown.failed"
    RETURNED = "the return of the task"
    RAISED = "an exception of the task"


MESSAGES = {event.value: event for event in Event if event.value.startswith("lifespan.")}
FINAL = frozenset(State) - {State.IDLE, State.STARTING, State.SERVING, State.STOPPING, State.INTERRUPTED}
_GIVEN_UP = frozenset({State.CANCELLED, State.TIMED_OUT})
_ANSWERED = frozenset({State.STARTUP_FAILED, State.DIED, State.COMPLETE, State.SHUTDOWN_FAILED})

TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.IDLE, Event.SKIP): State.OFF,
    (State.IDLE, Event.START): State.STARTING,
    (State.IDLE, Event.CANCEL): State.CANCELLED,
    (State.STARTING, Event.STARTUP_COMPLETE): State.SERVING,
    (State.STARTING, Event.STARTUP_FAILED): State.STARTUP_FAILED,
    (State.STARTING, Event.RETURNED): State.UNSUPPORTED,
    (State.STARTING, Event.RAISED): State.UNSUPPORTED,
    (State.STARTING, Event.TIMEOUT): State.INTERRUPTED,
    (State.STARTING, Event.CANCEL): State.INTERRUPTED,
    (State.INTERRUPTED, Event.CANCEL): State.INTERRUPTED,
    # What it has opened is to be closed, however late it says so.
    (State.INTERRUPTED, Event.STARTUP_COMPLETE): State.SERVING,
    (State.INTERRUPTED, Event.STARTUP_FAILED): State.INTERRUPTED,
    (State.INTERRUPTED, Event.SHUTDOWN_COMPLETE): State.INTERRUPTED,
    (State.INTERRUPTED, Event.SHUTDOWN_FAILED): State.INTERRUPTED,
    (State.INTERRUPTED, Event.RETURNED): State.CANCELLED,
    (State.INTERRUPTED, Event.RAISED): State.CANCELLED,
    (State.SERVING, Event.SHUTDOWN): State.STOPPING,
    (State.SERVING, Event.SHUTDOWN_FAILED): State.DIED,
    (State.SERVING, Event.RETURNED): State.RETURNED,
    (State.SERVING, Event.RAISED): State.DIED,
    (State.SERVING, Event.CANCEL): State.CANCELLED,
    (State.STOPPING, Event.SHUTDOWN_COMPLETE): State.COMPLETE,
    (State.STOPPING, Event.SHUTDOWN_FAILED): State.SHUTDOWN_FAILED,
    (State.STOPPING, Event.RETURNED): State.COMPLETE,
    (State.STOPPING, Event.RAISED): State.SHUTDOWN_FAILED,
    (State.STOPPING, Event.TIMEOUT): State.TIMED_OUT,
    (State.STOPPING, Event.CANCEL): State.TIMED_OUT,
    # A final state stays. Its task may still have to end, or have late words for a server that gave up on it.
    **{(state, Event.CANCEL): state for state in FINAL},
    **{(state, end): state for state in _ANSWERED | _GIVEN_UP for end in (Event.RETURNED, Event.RAISED)},
    **{(state, message): state for state in _GIVEN_UP for message in MESSAGES.values()},
}


def step(state: State, event: Event) -> State:
    """Return the state that follows, or raise :class:`LocalProtocolError` where the table has no row."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise LocalProtocolError(f"{event.value} is out of order: the lifespan is {state.value}") from None


class LifespanOutcome(Enum):
    """How the lifespan ended, for the report; :attr:`exit_code` is its part in the process's exit code."""

    COMPLETE = "complete"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    ABANDONED = "abandoned"
    DIED_WHILE_SERVING = "died while serving"
    UNSUPPORTED = "unsupported"
    OFF = "off"
    NOT_STARTED = "not started"

    @property
    def exit_code(self) -> ExitCode:
        """``LIFESPAN`` (shutdown failed or timed out, or the task had raised while serving) or ``ABANDONED``."""
        if self is LifespanOutcome.ABANDONED:
            return ExitCode.ABANDONED
        failed = self in (self.FAILED, self.TIMED_OUT, self.DIED_WHILE_SERVING)
        return ExitCode.LIFESPAN if failed else ExitCode.STOPPED


_OUTCOMES = {
    State.IDLE: LifespanOutcome.NOT_STARTED,
    State.CANCELLED: LifespanOutcome.NOT_STARTED,
    State.INTERRUPTED: LifespanOutcome.NOT_STARTED,
    State.STARTUP_FAILED: LifespanOutcome.NOT_STARTED,
    State.OFF: LifespanOutcome.OFF,
    State.UNSUPPORTED: LifespanOutcome.UNSUPPORTED,
    State.RETURNED: LifespanOutcome.COMPLETE,
    State.COMPLETE: LifespanOutcome.COMPLETE,
    State.DIED: LifespanOutcome.DIED_WHILE_SERVING,
    State.SHUTDOWN_FAILED: LifespanOutcome.FAILED,
    State.TIMED_OUT: LifespanOutcome.TIMED_OUT,
}


class Lifespan:
    """The lifespan of one application in one event loop (ASGI lifespan spec 2.0).

    Made anywhere, used in one event loop and only there. The caller's obligations, in order::

        lifespan = Lifespan(app, options.lifespan)
        ready = False
        try:
            ready = await lifespan.startup()
        finally:                                  # also when startup() raised or was itself cancelled
            if not ready and not lifespan.ready:
                await lifespan.cancel(timeout_cancel)
            if not ready and lifespan.ready:      # it has completed its start-up all the same
                await lifespan.shutdown(timeout_shutdown)
        ...                                       # serve; every request gets a shallow copy of lifespan.state
        outcome = await lifespan.shutdown(timeout_shutdown)  # once, when no request's task runs any more

    To interrupt a start-up (a signal), call :meth:`interrupt` in the loop's thread: ``startup()`` returns False at
    once. Once the application has said that it is ready, end it by :meth:`shutdown`; :meth:`cancel` would not tell it.

    ``mode`` is ``auto``, ``on`` or ``off``; ``timeout_startup`` is in seconds, inf for none; ``died`` is ``serve`` or
    ``stop``, what the log says of a task that fails while serving (:attr:`on_death` has to do it);
    ``expected``: an earlier start of the application has supported lifespan, so with ``auto`` an exception of a task
    that has taken ``lifespan.startup`` is a start-up that failed, not a lack of support;
    ``still_starting_interval`` exists for tests. Messages go to ``logger``, by default ``lastcall.error``.
    """

    def __init__(
        self,
        app: ASGIApp,
        mode: str = "auto",
        *,
        timeout_startup: float = math.inf,
        died: str = "serve",
        expected: bool = False,
        still_starting_interval: float = STILL_STARTING_INTERVAL,
        logger: logging.Logger | None = None,
    ) -> None:
        self.on_death: Callable[[], object] | None = None
        """Called once, in the loop's thread, if the task fails between start-up and shutdown: it raises, or says
        ``shutdown.failed``, as Starlette does before it raises. A plain return is no death."""
        self.state: dict[str, Any] | None = None
        """What the application put into ``scope["state"]``, once start-up is complete; None without lifespan.
        Each request gets a shallow copy of it."""
        self._app = app
        self._mode = mode
        self._expected = expected
        self._timeout_startup = timeout_startup
        self._then = "stopping" if died == "stop" else "serving goes on, but readiness (--health-path) is 503"
        self._interval = still_starting_interval
        self._logger = logger or logging.getLogger("lastcall.error")
        self._phase = State.IDLE
        self._task: asyncio.Task[None] | None = None
        # Queue.get() takes an item only in the step that returns it, so a cancelled receive() loses none.
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._settled: asyncio.Future[None] | None = None
        self._namespace: dict[str, Any] = {}
        self._error: BaseException | None = None
        self._failure = ""
        self._pid = 0
        self._heard_startup = False
        self._spoke_otherwise = False
        self._dismissed = False
        self._cancelled = False

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The task that runs the application's lifespan call; None before the start and with mode ``off``."""
        return self._task

    @property
    def ready(self) -> bool:
        """Whether the application has completed its start-up, and is still to be told of the shutdown."""
        return self._phase is State.SERVING

    @property
    def failed_while_serving(self) -> bool:
        """True once the task has raised (or reported ``shutdown.failed``) between start-up and shutdown."""
        return self._phase is State.DIED

    async def startup(self) -> bool:
        """Call the application and wait until it is ready. Call it once.

        Returns True when requests may be served (also when lifespan is off or unsupported), False when
        :meth:`interrupt` or :meth:`cancel` ended the wait.

        Raises :class:`StartupError` when the application says ``startup.failed``, calls ``sys.exit()``, needs longer
        than ``timeout_startup``, or does not support lifespan although the mode is ``on``. After that, and when this
        coroutine was cancelled (which cancels the task), the task may still be ending: ``await cancel(timeout)``.
        """
        if self._phase is State.CANCELLED:
            return False
        if self._mode == "off":
            self._advance(Event.SKIP)
            return True
        self._advance(Event.START)
        loop = asyncio.get_running_loop()
        settled = self._settled = loop.create_future()
        self._inbox.put_nowait({"type": "lifespan.startup"})
        self._logger.info("Waiting for application startup.")
        # A task has its own copy of the context, so nothing that the application sets there leaks into the server. Not
        # by the loop's create_task(): its factory is the program's, in an embedded server.
        self._task = asyncio.Task(self._run(), loop=loop, name="lastcall-lifespan")
        try:
            if not await self._wait_for_startup(loop, settled):
                self._advance(Event.TIMEOUT)
                self._cancel_task()
                raise StartupError(
                    f"the application's lifespan.startup did not complete within {self._timeout_startup:g} s "
                    "(--timeout-lifespan-startup)"
                )
            return await self._conclude_startup(self._task)
        except asyncio.CancelledError:
            self.interrupt()
            raise

    def interrupt(self) -> None:
        """Cancel the task without waiting for it, and let a waiting :meth:`startup` return False.

        Does nothing once the application is :attr:`ready`, whether or not ``startup()`` has heard of that, and once the
        lifespan has ended. Not for other threads: use ``loop.call_soon_threadsafe``.
        """
        if not self.ready:
            self._cancel()

    def _cancel(self) -> None:
        self._advance(Event.CANCEL)
        self._cancel_task()

    async def cancel(self, timeout: float) -> bool:
        """Cancel the task, then wait at most ``timeout`` seconds for it (at least one loop turn).

        Returns False if the task goes on all the same; it is then abandoned and named in the log. Where it was starting
        up, and says ``complete`` now, the wait is over, and it is :attr:`ready`: :meth:`shutdown` has to follow.
        """
        self._cancel()
        if self._task is None:
            return True
        if self._phase is State.INTERRUPTED:
            settled = self._settled = asyncio.get_running_loop().create_future()
            return await self._ended_within(self._task, timeout, or_settled=settled)
        return await self._ended_within(self._task, timeout)

    async def shutdown(self, timeout: float, again: Callable[[float], float] = lambda since: 0.0) -> LifespanOutcome:
        """Send ``lifespan.shutdown`` and wait for the answer and the end of the task.

        Call it once, after :meth:`startup` and when no request's task runs any more (ASGI lifespan spec: the server
        has stopped accepting connections and closed all active ones). Never takes longer than ``timeout`` seconds:
        a task that is late is cancelled, one that goes on even then is abandoned and named. Never raises for what the
        application does; without a running lifespan it returns at once. ``again(since)`` is asked when the time is
        over, and may give more: how many seconds on top of those since ``since``, on the loop's clock.
        """
        if self._phase in FINAL or self._phase in (State.IDLE, State.INTERRUPTED):
            task = self._task
            ended = task is None or task.done() or await self.cancel(timeout)
            if not self.ready:
                return _OUTCOMES[self._phase] if ended else LifespanOutcome.ABANDONED
        self._advance(Event.SHUTDOWN)
        loop = asyncio.get_running_loop()
        settled = self._settled = loop.create_future()
        task = self._task
        assert task is not None, "only a task can have brought the lifespan to SERVING"
        end = loop.time() + timeout
        reserve = min(CANCEL_SHARE, timeout / 10)
        self._logger.info("Waiting for application shutdown.")
        self._inbox.put_nowait({"type": "lifespan.shutdown"})
        try:
            await asyncio.wait({settled}, timeout=_seconds(timeout - reserve))
            if not settled.done() and (more := again(end - timeout)):
                end = loop.time() + more
                await asyncio.wait({settled}, timeout=_seconds(more - reserve))
            if not settled.done():
                self._advance(Event.TIMEOUT)
                self._logger.error(
                    "The application's lifespan.shutdown did not complete within %g s: it is cancelled.", timeout
                )
            else:
                await asyncio.wait({task}, timeout=max(0.0, min(LAST_WORDS, end - reserve - loop.time())))
        except asyncio.CancelledError:
            self._cancel()
            raise
        if not task.done():
            self._cancel_task()
            if not await self._ended_within(task, min(LAST_WORDS, end - loop.time())):
                return LifespanOutcome.ABANDONED
        outcome = _OUTCOMES[self._phase]
        if outcome is LifespanOutcome.COMPLETE:
            self._logger.info("Application shutdown complete.")
        return outcome

    # The application's side: these run in its task.

    async def _run(self) -> None:
        """Call the application, and keep every exception from the event loop.

        A task that ends in SystemExit or KeyboardInterrupt raises it out of ``loop.run_forever()``, past every budget
        of the stop. GeneratorExit is the interpreter closing a coroutine that was left behind; nobody is listening.
        """
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._namespace}
        self._pid = os.getpid()
        try:
            await self._app(scope, self._receive, self._send)
        except GeneratorExit:
            raise
        except BaseException as exc:
            leave_if_child(self._pid, exc)
            self._task_ended(exc)
        else:
            leave_if_child(self._pid)
            self._task_ended(None)

    async def _receive(self) -> Message:
        leave_if_child(self._pid)
        if self._phase in _ANSWERED and not self._dismissed and self._task is not None:
            # Nothing can come any more. Cancelling ends a ``while True: await receive()`` now and not a timeout later;
            # once is enough, or one that also swallows CancelledError would spin.
            self._dismissed = True
            self._task.cancel()
        message = await self._inbox.get()
        self._heard_startup = True
        return message

    async def _send(self, message: object) -> None:
        leave_if_child(self._pid)
        kind = message.get("type") if isinstance(message, Mapping) else None
        if not isinstance(message, Mapping) or not isinstance(kind, str):
            raise LocalProtocolError(f"a lifespan message is a dict with a 'type' string, not {message!r:.200}")
        event = MESSAGES.get(kind)
        if event is None:
            self._spoke_otherwise |= not kind.startswith("lifespan.")
            raise LocalProtocolError(f"{kind!r} is not a message that an application can send in lifespan")
        before = self._phase
        after = self._advance(event)
        if event is Event.STARTUP_COMPLETE and after is State.SERVING:
            self.state = self._namespace
            self._cancelled = False  # if it was, it has taken no notice
        elif event is Event.STARTUP_FAILED:
            self._failure = str(message.get("message") or "").rstrip()
        elif event is Event.SHUTDOWN_FAILED and after is not before:
            died = f"lifespan failed while serving ({self._then})"
            what = "shutdown failed" if after is State.SHUTDOWN_FAILED else died
            self._logger.error("%s", _sentence(f"Application {what}", str(message.get("message") or "").rstrip()))
        if after is State.DIED and before is State.SERVING:
            self._tell_of_death()

    def _task_ended(self, error: BaseException | None) -> None:
        before = self._phase
        after = self._advance(Event.RETURNED if error is None else Event.RAISED)
        if before in (State.STARTING, State.STARTUP_FAILED):
            self._error = error  # startup() says what it means
        elif after is before or after is State.CANCELLED:
            self._logger.debug("The lifespan task ended.", exc_info=error)
        elif after is State.RETURNED:
            self._logger.info("The application's lifespan call returned while serving: no lifespan.shutdown for it.")
        elif after is State.COMPLETE:
            self._logger.info("The application's lifespan call returned without sending lifespan.shutdown.complete.")
        elif after is State.DIED:
            self._logger.error("The application's lifespan call raised: %s.", self._then, exc_info=error)
            self._tell_of_death()
        else:
            self._logger.error("Application shutdown failed: its lifespan call raised.", exc_info=error)

    def _tell_of_death(self) -> None:
        if self.on_death is not None:
            self.on_death()

    # The server's side.

    def _advance(self, event: Event) -> State:
        """Take a step, and wake whoever waits for the answer to the last order."""
        before, self._phase = self._phase, step(self._phase, event)
        if self._phase is not before and self._settled is not None and not self._settled.done():
            self._settled.set_result(None)
        return self._phase

    def _cancel_task(self) -> None:
        """Cancel the task, but only once: a second time would hit the clean-up that the first one started."""
        if self._task is not None and not self._cancelled:
            self._cancelled = True
            self._task.cancel()

    async def _wait_for_startup(self, loop: asyncio.AbstractEventLoop, settled: asyncio.Future[None]) -> bool:
        """Wait for an answer to ``lifespan.startup``; return False when there was none in time."""
        begun = loop.time()
        deadline = begun + self._timeout_startup
        next_line = begun + self._interval
        while not settled.done():
            now = loop.time()
            if now >= deadline:
                return False
            if now >= next_line:
                self._logger.info("Still starting: the application's lifespan.startup has run for %.0f s.", now - begun)
                next_line += self._interval
            # asyncio.wait() and not wait_for(): it neither cancels the future nor confuses its timeout with ours.
            await asyncio.wait({settled}, timeout=_seconds(max(0.0, min(deadline, next_line) - now)))
        return True

    async def _conclude_startup(self, task: asyncio.Task[None]) -> bool:
        """Turn the answer to ``lifespan.startup`` into startup()'s result."""
        if self._phase in (State.INTERRUPTED, State.CANCELLED):
            return False
        if self._phase is State.STARTUP_FAILED:
            await asyncio.wait({task}, timeout=LAST_WORDS)
            error, self._error = self._error, None
            if not self._failure and isinstance(error, Exception):
                self._logger.error("Application startup failed.", exc_info=error)
                raise StartupError(f"application startup failed: {_one_line(error)}") from error
            raise StartupError(_sentence("application startup failed", self._failure))
        if self._phase is State.UNSUPPORTED:
            self._go_without()
        else:
            self._logger.info("Application startup complete.")
        return True

    def _go_without(self) -> None:
        """The task ended before ``startup.complete``: no lifespan, or, where that is no answer, StartupError."""
        error, self._error = self._error, None
        exit_ = _find_exit(error)
        if isinstance(exit_, SystemExit):
            raise StartupError(f"the application called sys.exit({exit_.code!r}) in lifespan.startup") from error
        if exit_ is not None:
            raise StartupError("the application's lifespan.startup was ended by KeyboardInterrupt") from error
        took_part = error is not None and self._heard_startup and not self._spoke_otherwise
        if self._mode == "on" or (self._expected and took_part):
            if error is None:
                raise StartupError(
                    "the application does not support lifespan (its lifespan call returned without sending "
                    "lifespan.startup.complete), but --lifespan is 'on'"
                )
            self._logger.error("The application's lifespan call raised in lifespan.startup.", exc_info=error)
            raise StartupError(f"application startup failed: {_one_line(error)}") from error
        if took_part:
            # It took part before it raised, so this may well be a start-up that failed without saying so.
            self._logger.warning(
                "The application's lifespan call raised before lifespan.startup.complete, which means that it does "
                "not support lifespan: serving without (--lifespan on makes this an error).",
                exc_info=error,
            )
        else:
            self._logger.info("The application does not support lifespan: serving without.")
            self._logger.debug("How its lifespan call ended:", exc_info=error)

    async def _ended_within(
        self, task: asyncio.Task[None], timeout: float, or_settled: asyncio.Future[None] | None = None
    ) -> bool:
        """Wait for a cancelled task, and name it if it goes on; but not if it has become ready meanwhile."""
        awaited: set[asyncio.Future[None]] = {task} if or_settled is None else {task, or_settled}
        await asyncio.wait(awaited, timeout=_seconds(max(timeout, ONE_TURN)), return_when=asyncio.FIRST_COMPLETED)
        if self.ready:
            return True
        if or_settled is not None and or_settled.done():  # the step in which it ends
            await asyncio.wait({task}, timeout=ONE_TURN)
        if not task.done():
            self._logger.error("The lifespan task %s did not end when it was cancelled: it is abandoned.", task)
        return task.done()


def _seconds(timeout: float) -> float | None:
    """Asyncio says "no limit" with None, our options with inf."""
    return None if math.isinf(timeout) else timeout


def _find_exit(error: BaseException | None) -> BaseException | None:
    """Return the SystemExit or KeyboardInterrupt that ``error`` is, or contains as an exception group."""
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(_find_exit, error.exceptions)), None)
    return None


def _sentence(what: str, said: str) -> str:
    """Put the application's words behind ours; Starlette's are a whole traceback, which begins on a line of its own."""
    if not said:
        return f"{what}; it gave no reason"
    return f"{what}:\n{said}" if "\n" in said else f"{what}: {said}"


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


async def shut_down(
    lifespan: Lifespan, timeout: float, again: Callable[[float], float] = lambda since: 0.0
) -> tuple[LifespanOutcome, bool]:
    """Run ``lifespan.shutdown``, at most ``timeout`` seconds, also if the caller is cancelled meanwhile.

    Returns its outcome, and whether the caller was cancelled: CancelledError is then still to be raised.
    """
    cancelled = False
    task = OwnTask(lifespan.shutdown(timeout, again), loop=asyncio.get_running_loop())
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = True
    return task.result(), cancelled
