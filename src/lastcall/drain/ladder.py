"""The stop ladder: phases, inputs, one transition table, and what is done on entering each phase. Pure.

Theory of operation
-------------------
A server climbs from ``STARTING`` to ``STOPPED`` and never steps down. Orders (a signal, the API), the clock and the
census are inputs; ``TRANSITIONS`` says where each leads, and a pair that is not in it is a bug of ours. ``due`` looks
at clock and census and says which input, if any, they amount to. ``step`` takes an input and returns the new state and
the actions of every phase on the way, in order: a jump performs what the phases that it passes would have done.
``time_left`` says how long the rest can take. The shutdown controller in ``server`` carries the actions out; nothing
here knows a socket, a task or a clock.

``DRAINING`` is the long phase, and has *drain timers* inside it: inputs that come once, change no phase, and have
actions of their own (``TIMERS``). Those that have not come when the phase is left are made up for then.

All times are seconds on one monotonic clock; budgets may be ``math.inf``. The whole grace counts from the moment when
``DRAINING`` is entered, the delay before it from the stop order.
"""

from __future__ import annotations

import math
from enum import Enum, IntEnum

from lastcall.base.record import Record, replace

TEARDOWN = 1.0
"""Seconds for what comes after ``lifespan.shutdown``: left-over tasks, async generators, threads."""

MARGIN = 2.0
"""At most so many seconds (a tenth of the grace, if that is less) lie between being disconnected and cancelled."""

LINGER = 1.0
"""At most so many seconds (a tenth of the grace, if that is less) idle connections and the listeners stay open."""

IDLE_LINGER = 0.05
"""Seconds that the listeners of a server stay open that has nothing else to do: clients may be in the backlog."""

POLL = 0.6
"""Seconds before a disconnect at which libraries that poll for the stop (each half second) are told of it."""


class Phase(IntEnum):
    """Where a server stands; the order is the ladder's."""

    STARTING = 0
    SERVING = 1
    ANNOUNCED = 2
    DRAINING = 3
    DISCONNECTING = 4
    CANCELLING = 5
    CLOSING = 6
    STOPPED = 7


class Input(Enum):
    """What can move a server."""

    READY = "ready"
    STOP = "a stop order"
    FORCE = "an order to cancel now"
    DELAY_OVER = "the delay is over"
    LINGER_OVER = "the linger is over"
    FAREWELL_OVER = "the time for farewells is over"
    SHOULD_EXIT_DUE = "the last poll before the margin is near"
    MARGIN = "the margin has begun"
    GRACE_OVER = "the grace is over"
    CANCEL_OVER = "the time for cancelling is over"
    CLEAR = "nothing is left"
    CLOSED = "the lifespan has ended"


class Action(Enum):
    """What the shutdown controller is told to do."""

    CLOSE_AFTER_ANSWER = "let every answer close its connection"
    STOP_NEW_CONNECTIONS = "let in only who waits already"
    GIVE_NOTICE = "set the notice"
    CLOSE_LISTENERS = "accept who waits, close the listeners and idle connections"
    DISCONNECT_CLOSING = "disconnect the responses whose policy is close"
    SET_SHOULD_EXIT = "set should_exit, which libraries poll"
    DISCONNECT = "disconnect every response that has started"
    REFUSE_NEW = "answer requests that still come with 503"
    CANCEL_TASKS = "cancel every running task"
    ABANDON = "abandon what still runs"
    CLOSE_CONNECTIONS = "close every connection"
    SHUT_DOWN_LIFESPAN = "lifespan.shutdown"


TRANSITIONS: dict[tuple[Phase, Input], Phase] = {
    (Phase.STARTING, Input.READY): Phase.SERVING,
    # A start-up that is interrupted has nothing to drain, and an application that is not up is not shut down.
    (Phase.STARTING, Input.STOP): Phase.STOPPED,
    (Phase.STARTING, Input.FORCE): Phase.STOPPED,
    (Phase.SERVING, Input.STOP): Phase.ANNOUNCED,
    (Phase.SERVING, Input.FORCE): Phase.CANCELLING,
    (Phase.ANNOUNCED, Input.STOP): Phase.ANNOUNCED,
    (Phase.ANNOUNCED, Input.FORCE): Phase.CANCELLING,
    (Phase.ANNOUNCED, Input.DELAY_OVER): Phase.DRAINING,
    (Phase.DRAINING, Input.STOP): Phase.DRAINING,
    (Phase.DRAINING, Input.FORCE): Phase.CANCELLING,
    (Phase.DRAINING, Input.LINGER_OVER): Phase.DRAINING,
    (Phase.DRAINING, Input.FAREWELL_OVER): Phase.DRAINING,
    (Phase.DRAINING, Input.SHOULD_EXIT_DUE): Phase.DRAINING,
    (Phase.DRAINING, Input.MARGIN): Phase.DISCONNECTING,
    (Phase.DRAINING, Input.CLEAR): Phase.CLOSING,
    (Phase.DISCONNECTING, Input.STOP): Phase.DISCONNECTING,
    (Phase.DISCONNECTING, Input.FORCE): Phase.CANCELLING,
    (Phase.DISCONNECTING, Input.GRACE_OVER): Phase.CANCELLING,
    (Phase.DISCONNECTING, Input.CLEAR): Phase.CLOSING,
    (Phase.CANCELLING, Input.STOP): Phase.CANCELLING,
    (Phase.CANCELLING, Input.FORCE): Phase.CANCELLING,
    (Phase.CANCELLING, Input.CLEAR): Phase.CLOSING,
    (Phase.CANCELLING, Input.CANCEL_OVER): Phase.CLOSING,
    (Phase.CLOSING, Input.STOP): Phase.CLOSING,
    (Phase.CLOSING, Input.FORCE): Phase.CLOSING,
    (Phase.CLOSING, Input.CLOSED): Phase.STOPPED,
    (Phase.STOPPED, Input.STOP): Phase.STOPPED,
    (Phase.STOPPED, Input.FORCE): Phase.STOPPED,
}

ENTRY: dict[Phase, tuple[Action, ...]] = {
    Phase.STARTING: (),
    Phase.SERVING: (),
    Phase.ANNOUNCED: (Action.CLOSE_AFTER_ANSWER,),
    Phase.DRAINING: (Action.CLOSE_AFTER_ANSWER, Action.STOP_NEW_CONNECTIONS, Action.GIVE_NOTICE),
    Phase.DISCONNECTING: (Action.DISCONNECT,),
    Phase.CANCELLING: (Action.REFUSE_NEW, Action.CANCEL_TASKS),
    # CLOSING starts without tasks and connections: lifespan.shutdown must find nobody at work.
    Phase.CLOSING: (Action.ABANDON, Action.CLOSE_CONNECTIONS, Action.SHUT_DOWN_LIFESPAN),
    Phase.STOPPED: (),
}

TIMERS: dict[Input, tuple[Action, ...]] = {
    Input.LINGER_OVER: (Action.CLOSE_LISTENERS,),
    Input.FAREWELL_OVER: (Action.DISCONNECT_CLOSING,),
    Input.SHOULD_EXIT_DUE: (Action.SET_SHOULD_EXIT,),
}
"""What is done at each timer of ``DRAINING``, in the order in which what was left out is made up for."""


class Budgets(Record):
    """How long each part of a stop may take, in seconds: the options of the ladder.

    ``graceful`` is the grace, ``interrupt`` what a Ctrl-C leaves of it. ``delay`` comes before the grace, ``cancel``
    and ``lifespan_shutdown`` after it; ``farewell`` lies within it. Only ``delay`` and ``farewell`` are always finite.
    """

    graceful: float = 20.0
    cancel: float = 2.0
    lifespan_shutdown: float = 5.0
    interrupt: float = 3.0
    delay: float = 0.0
    farewell: float = 1.0

    def grace(self, *, interactive: bool) -> float:
        """The grace, which a SIGINT shortens: somebody sits in front of a terminal and waits."""
        return min(self.graceful, self.interrupt) if interactive else self.graceful

    def worst_case(self, *, interactive: bool = False) -> float:
        """The longest that a stop can take from its order to the exit."""
        delay = 0.0 if interactive else self.delay
        return delay + self.grace(interactive=interactive) + self.cancel + self.lifespan_shutdown + TEARDOWN


class State(Record):
    """Where the stop stands.

    ``entered`` is when the phase began, ``ordered`` when the stop was, ``draining_since`` when ``DRAINING`` did.
    ``delay``, ``grace`` and ``linger`` are what the order left of the budgets; ``passed`` has the timers that are over.
    """

    phase: Phase = Phase.STARTING
    entered: float = 0.0
    ordered: float = math.inf
    draining_since: float = math.inf
    delay: float = 0.0
    grace: float = math.inf
    linger: float = LINGER
    cause: str = ""
    passed: frozenset[Input] = frozenset()

    @property
    def margin(self) -> float:
        """The time to leave between being disconnected and being cancelled."""
        return margin(self.grace)

    @property
    def cancel_at(self) -> float:
        """When what still runs will be cancelled: the end of the grace."""
        return self.draining_since + self.grace

    @property
    def disconnect_at(self) -> float:
        """When responses that have started will be disconnected: the margin before that; never without a limit."""
        return self.draining_since + (self.grace - self.margin if self.grace < math.inf else math.inf)

    def timer_at(self, timer: Input, budgets: Budgets) -> float:
        """When a timer of ``DRAINING`` is due by the clock."""
        since = self.draining_since
        if timer is Input.LINGER_OVER:
            return since + self.linger
        if timer is Input.FAREWELL_OVER:
            return min(since + budgets.farewell, self.disconnect_at)
        return max(since, self.disconnect_at - max(self.margin, POLL))


class Census(Record):
    """What is there: running tasks, and connections that are not closed yet.

    ``lingering`` are those that would lose their last answer if they were closed at once: an upload still comes.
    """

    running: int = 0
    connections: int = 0
    lingering: int = 0

    @property
    def nothing(self) -> bool:
        """Nobody is being served and nobody is connected."""
        return self.running == 0 and self.connections == 0


def margin(grace: float) -> float:
    """The time to leave between being disconnected and being cancelled."""
    return min(MARGIN, grace / 10)


def due(state: State, census: Census, now: float, budgets: Budgets) -> Input | None:
    """What clock and census amount to, or None."""
    match state.phase:
        case Phase.ANNOUNCED:
            found = Input.DELAY_OVER if now >= state.ordered + state.delay else None
        case Phase.DRAINING:
            found = _due_in_draining(state, census, now, budgets)
        case Phase.DISCONNECTING:
            found = Input.CLEAR if census.nothing else Input.GRACE_OVER if now >= state.cancel_at else None
        case Phase.CANCELLING:
            over = now >= state.entered + budgets.cancel
            clear = census.running == 0 and census.lingering == 0
            found = Input.CLEAR if clear else Input.CANCEL_OVER if over else None
        case _:
            found = None
    return found


def _due_in_draining(state: State, census: Census, now: float, budgets: Budgets) -> Input | None:
    for timer in TIMERS:
        if timer not in state.passed and now >= state.timer_at(timer, budgets):
            return timer
    if census.nothing:
        if Input.LINGER_OVER in state.passed:
            return Input.CLEAR
        if now >= state.draining_since + IDLE_LINGER:
            return Input.LINGER_OVER
    return Input.MARGIN if now >= state.disconnect_at else None


def next_deadline(state: State, census: Census, budgets: Budgets) -> float:
    """When ``due`` must be asked again even if nothing happens; ``math.inf``: never."""
    phase = state.phase
    if phase is Phase.ANNOUNCED:
        return state.ordered + state.delay
    if phase is Phase.DRAINING:
        times = [state.timer_at(timer, budgets) for timer in TIMERS if timer not in state.passed]
        if census.nothing and Input.LINGER_OVER not in state.passed:
            times.append(state.draining_since + IDLE_LINGER)
        return min([*times, state.disconnect_at])
    if phase is Phase.DISCONNECTING:
        return state.cancel_at
    if phase is Phase.CANCELLING:
        return state.entered + budgets.cancel
    return math.inf


def next_cut(state: State, budgets: Budgets) -> tuple[float, str]:
    """When, and by what, the work that is left will next be cut short."""
    if state.phase <= Phase.DRAINING:
        at, what = state.disconnect_at, "disconnect"
        return (at, what) if at < state.cancel_at else (state.cancel_at, "cancel")
    if state.phase is Phase.DISCONNECTING:
        return state.cancel_at, "cancel"
    return state.entered + budgets.cancel, "giving up"


def step(
    state: State, event: Input, now: float, budgets: Budgets, *, cause: str = "", interactive: bool = False
) -> tuple[State, tuple[Action, ...]]:
    """The state after ``event``, and the actions of every phase that was entered on the way, in order.

    ``cause`` and ``interactive`` belong to ``STOP`` and ``FORCE``: the first cause stays the stop's cause, and an
    interactive order (SIGINT) ends the delay and the linger, and shortens the grace that is left, never lengthens it.
    Raises KeyError for a pair that is not in the table.
    """
    target = TRANSITIONS[state.phase, event]
    before = state.phase
    actions: list[Action] = []
    if event in state.passed:
        return state, ()  # a timer runs out once
    if event in TIMERS:
        return replace(state, passed=state.passed | {event}), TIMERS[event]
    if before < Phase.ANNOUNCED <= target and before is not Phase.STARTING:
        state = replace(state, **_ordered(now, budgets, cause, interactive))
    elif event is Input.STOP and interactive:
        state = replace(state, **_hurried(state, now, budgets))
    if target is before:
        return state, ()
    if before is not Phase.STARTING:
        for phase in Phase:
            if before < phase <= target:
                if before <= Phase.DRAINING < phase and (missed := set(TIMERS) - state.passed):
                    actions += [action for timer in TIMERS if timer in missed for action in TIMERS[timer]]
                    state = replace(state, passed=frozenset(TIMERS))
                actions += ENTRY[phase]
        if before < Phase.DRAINING <= target:
            state = replace(state, draining_since=now)
    return replace(state, phase=target, entered=now), tuple(actions)


def time_left(state: State, now: float, budgets: Budgets) -> float:
    """The longest that the rest of a stop can take from ``now``, in seconds, to the exit of the process."""
    left = budgets.lifespan_shutdown + TEARDOWN
    if state.phase <= Phase.CANCELLING:
        left += budgets.cancel
    if state.phase <= Phase.ANNOUNCED:
        left += max(0.0, state.ordered + state.delay - now) + state.grace
    elif state.phase <= Phase.DISCONNECTING:
        left += max(0.0, state.cancel_at - now)
    return left


class SignalTimes(Record):
    """How long it takes at most from a stop signal that comes now to the exit of the process, in seconds.

    ``first`` and ``interrupt`` belong to the first signal (``interrupt``: SIGINT), ``second`` to the second;
    ``math.inf``: there is no limit, or nothing that the signal changes.
    """

    first: float = math.inf
    interrupt: float = math.inf
    second: float = math.inf


def signal_times(phase: Phase, budgets: Budgets) -> SignalTimes:
    """What stop signals amount to in ``phase``: said beforehand, for where nobody can be asked when they come."""
    forced = after_grace(budgets)
    match phase:
        case Phase.STARTING:
            start = budgets.cancel + TEARDOWN
            return SignalTimes(start, start, 0.0)
        case Phase.SERVING:
            return SignalTimes(budgets.worst_case(), budgets.worst_case(interactive=True), forced)
        case Phase.ANNOUNCED | Phase.DRAINING | Phase.DISCONNECTING:
            # Ordered without a signal: the first one changes nothing but what SIGINT shortens.
            return SignalTimes(interrupt=budgets.grace(interactive=True) + forced, second=forced)
        case _:
            return SignalTimes()


def after_grace(budgets: Budgets) -> float:
    """The longest that a stop can take from the end of the grace, in seconds."""
    return budgets.cancel + budgets.lifespan_shutdown + TEARDOWN


def _ordered(now: float, budgets: Budgets, cause: str, interactive: bool) -> dict[str, object]:
    grace = budgets.grace(interactive=interactive)
    return {
        "ordered": now,
        "cause": cause,
        "delay": 0.0 if interactive else budgets.delay,
        "grace": grace,
        "linger": 0.0 if interactive else min(LINGER, grace / 10),
    }


def _hurried(state: State, now: float, budgets: Budgets) -> dict[str, object]:
    """What a SIGINT changes in a stop that is under way."""
    if state.phase is Phase.ANNOUNCED:
        return {"delay": 0.0, "linger": 0.0, "grace": min(state.grace, budgets.interrupt)}
    if state.phase in (Phase.DRAINING, Phase.DISCONNECTING):
        return {"linger": 0.0, "grace": min(state.grace, now - state.draining_since + budgets.interrupt)}
    return {}
