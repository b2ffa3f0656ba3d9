"""The stop ladder: phases, inputs, one transition table, and what is done on entering each phase. Pure.

Theory of operation
-------------------
A server climbs from ``STARTING`` to ``STOPPED`` and never steps down. Orders (a signal, the API), the clock and the
census are inputs; ``TRANSITIONS`` says where each leads, and a pair that is not in it is a bug of ours. ``due`` looks
at clock and census and says which input, if any, they amount to. ``step`` takes an input and returns the new state and
the actions of every phase on the way, in order: a jump performs what the phases that it passes would have done. An
executor in ``server`` carries the actions out; nothing here knows a socket, a task or a clock.

All times are seconds on one monotonic clock; budgets may be ``math.inf``. The whole grace counts from the moment when
``DRAINING`` is entered.
"""

from __future__ import annotations

import math
from enum import Enum, IntEnum

from lastcall.base.record import Record, replace

TEARDOWN = 1.0
"""Seconds for what comes after ``lifespan.shutdown``: left-over tasks, async generators, threads."""


class Phase(IntEnum):
    """Where a server stands; the order is the ladder's."""

    STARTING = 0
    SERVING = 1
    DRAINING = 2
    CANCELLING = 3
    CLOSING = 4
    STOPPED = 5


class Input(Enum):
    """What can move a server."""

    READY = "ready"
    STOP = "a stop order"
    FORCE = "an order to cancel now"
    CLEAR = "nothing is left"
    GRACE_OVER = "the grace is over"
    CANCEL_OVER = "the time for cancelling is over"
    CLOSED = "the lifespan has ended"


class Action(Enum):
    """What the executor is told to do."""

    STOP_ACCEPTING = "stop accepting"
    LAST_ANSWERS = "let every answer close its connection"
    CLOSE_IDLE = "close idle connections"
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
    (Phase.SERVING, Input.STOP): Phase.DRAINING,
    (Phase.SERVING, Input.FORCE): Phase.CANCELLING,
    (Phase.DRAINING, Input.STOP): Phase.DRAINING,
    (Phase.DRAINING, Input.FORCE): Phase.CANCELLING,
    (Phase.DRAINING, Input.GRACE_OVER): Phase.CANCELLING,
    (Phase.DRAINING, Input.CLEAR): Phase.CLOSING,
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
    Phase.DRAINING: (Action.STOP_ACCEPTING, Action.LAST_ANSWERS, Action.CLOSE_IDLE),
    Phase.CANCELLING: (Action.REFUSE_NEW, Action.CANCEL_TASKS),
    # CLOSING starts without tasks and connections: lifespan.shutdown must find nobody at work.
    Phase.CLOSING: (Action.ABANDON, Action.CLOSE_CONNECTIONS, Action.SHUT_DOWN_LIFESPAN),
    Phase.STOPPED: (),
}


class Budgets(Record):
    """How long each part of a stop may take, in seconds: G, C and L of the ladder, and G after Ctrl-C."""

    graceful: float = 20.0
    cancel: float = 2.0
    lifespan_shutdown: float = 5.0
    interrupt: float = 3.0

    def grace(self, *, interactive: bool) -> float:
        """G, which a SIGINT shortens: somebody sits in front of a terminal and waits."""
        return min(self.graceful, self.interrupt) if interactive else self.graceful

    def worst_case(self, *, interactive: bool = False) -> float:
        """The longest that a stop can take from its order to the exit."""
        return self.grace(interactive=interactive) + self.cancel + self.lifespan_shutdown + TEARDOWN


class State(Record):
    """Where the stop stands. ``entered`` is when the phase began, ``draining_since`` when ``DRAINING`` did."""

    phase: Phase = Phase.STARTING
    entered: float = 0.0
    draining_since: float = math.inf
    grace: float = math.inf
    cause: str = ""


class Census(Record):
    """What is there: running tasks, and connections that are not closed yet."""

    running: int = 0
    connections: int = 0


def due(state: State, census: Census, now: float, budgets: Budgets) -> Input | None:
    """What clock and census amount to, or None."""
    if state.phase is Phase.DRAINING:
        if census.running == 0 and census.connections == 0:
            return Input.CLEAR
        if now >= state.draining_since + state.grace:
            return Input.GRACE_OVER
    elif state.phase is Phase.CANCELLING:
        if census.running == 0:
            return Input.CLEAR
        if now >= state.entered + budgets.cancel:
            return Input.CANCEL_OVER
    return None


def next_deadline(state: State, budgets: Budgets) -> float:
    """When ``due`` must be asked again even if nothing happens; ``math.inf``: never."""
    if state.phase is Phase.DRAINING:
        return state.draining_since + state.grace
    if state.phase is Phase.CANCELLING:
        return state.entered + budgets.cancel
    return math.inf


def step(
    state: State, event: Input, now: float, budgets: Budgets, *, cause: str = "", interactive: bool = False
) -> tuple[State, tuple[Action, ...]]:
    """The state after ``event``, and the actions of every phase that was entered on the way, in order.

    ``cause`` and ``interactive`` belong to ``STOP`` and ``FORCE``: the first cause stays the stop's cause, and an
    interactive order (SIGINT) shortens the grace that is left, never lengthens it. Raises KeyError for a pair that is
    not in the table.
    """
    target = TRANSITIONS[state.phase, event]
    actions: list[Action] = []
    if target is not state.phase:
        if state.phase is not Phase.STARTING:
            for phase in Phase:
                if state.phase < phase <= target:
                    actions += ENTRY[phase]
        if state.phase < Phase.DRAINING <= target:
            state = replace(state, draining_since=now, grace=budgets.grace(interactive=interactive), cause=cause)
        state = replace(state, phase=target, entered=now)
    elif event is Input.STOP and interactive and state.phase is Phase.DRAINING:
        state = replace(state, grace=min(state.grace, now - state.draining_since + budgets.interrupt))
    return state, tuple(actions)
