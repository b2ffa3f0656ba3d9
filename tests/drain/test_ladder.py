"""The stop ladder: every cell of the table, every jump, every budget, and its laws under any order of inputs."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.base.record import replace
from lastcall.drain.ladder import (
    ENTRY,
    IDLE_LINGER,
    LINGER,
    MARGIN,
    POLL,
    TEARDOWN,
    TIMERS,
    TRANSITIONS,
    Action,
    Budgets,
    Census,
    Input,
    Phase,
    SignalTimes,
    State,
    due,
    margin,
    next_cut,
    next_deadline,
    signal_times,
    step,
    time_left,
)

INF = math.inf
ORDERS = (Input.STOP, Input.FORCE)


@pytest.mark.parametrize("phase", Phase, ids=lambda phase: phase.name)
@pytest.mark.parametrize("event", Input, ids=lambda event: event.name)
def test_a_cell_is_a_step_that_climbs_and_a_pair_without_one_is_a_bug_of_whoever_asks(
    phase: Phase, event: Input
) -> None:
    if (phase, event) in TRANSITIONS:
        assert phase <= step(State(phase), event, 1.0, Budgets())[0].phase == TRANSITIONS[phase, event]
    else:
        with pytest.raises(KeyError):
            step(State(phase), event, 1.0, Budgets())


@pytest.mark.parametrize("phase", Phase, ids=lambda phase: phase.name)
def test_an_order_is_heard_in_every_phase(phase: Phase) -> None:
    stopped, forced = (step(State(phase), order, 1.0, Budgets()) for order in ORDERS)
    if phase is Phase.STARTING:
        assert (stopped[0].phase, forced[0].phase) == (Phase.STOPPED, Phase.STOPPED)
        assert stopped[1] == forced[1] == (), "there is nothing to drain, and nothing to shut down"
        return
    assert stopped[0].phase is max(phase, Phase.ANNOUNCED)
    assert stopped[1] == (ANNOUNCE if phase is Phase.SERVING else ())
    assert forced[0].phase is max(phase, Phase.CANCELLING)
    assert phase < Phase.CANCELLING or forced[1] == (), "it has no effect any more"


# -- actions -----------------------------------------------------------------------------------------------------------

ANNOUNCE = (Action.CLOSE_AFTER_ANSWER,)
DRAIN = (Action.CLOSE_AFTER_ANSWER, Action.STOP_NEW_CONNECTIONS, Action.GIVE_NOTICE)
MISSED = (Action.CLOSE_LISTENERS, Action.DISCONNECT_CLOSING, Action.SET_SHOULD_EXIT)
DISCONNECT = (Action.DISCONNECT,)
CANCEL = (Action.REFUSE_NEW, Action.CANCEL_TASKS)
CLOSE = (Action.ABANDON, Action.CLOSE_CONNECTIONS, Action.SHUT_DOWN_LIFESPAN)

WALK = (*(Input.STOP, Input.DELAY_OVER, *TIMERS, Input.MARGIN, Input.GRACE_OVER, Input.CANCEL_OVER),)
"""What comes to a stop with work that never ends: the way through every phase."""

JUMPS = [(phase, event) for (phase, event), target in TRANSITIONS.items() if phase < target and phase > Phase.STARTING]


@pytest.mark.parametrize(("phase", "event"), JUMPS, ids=[f"{phase.name}-{event.name}" for phase, event in JUMPS])
def test_a_jump_does_what_the_phases_on_the_way_do(phase: Phase, event: Input) -> None:
    """Filter, backlog, notice, listeners, disconnect, cancel: in the ladder's order, however far the jump goes."""
    state, actions = step(State(phase), event, 1.0, Budgets())
    walked = State(phase)
    on_the_way: list[Action] = []
    for one in WALK:
        if walked.phase < min(state.phase, Phase.CLOSING) and (walked.phase, one) in TRANSITIONS:
            walked, done = step(walked, one, 1.0, Budgets())
            on_the_way += done
    assert actions == tuple(on_the_way)


@pytest.mark.parametrize("event", [Input.MARGIN, Input.FORCE, Input.CLEAR], ids=lambda event: event.name)
@pytest.mark.parametrize("passed", [subset for n in range(4) for subset in itertools.combinations(TIMERS, n)])
def test_leaving_the_drain_makes_up_for_the_timers_that_have_not_run_out(
    event: Input, passed: tuple[Input, ...]
) -> None:
    state = State(Phase.DRAINING, passed=frozenset(passed))
    state, actions = step(state, event, 1.0, Budgets())
    made_up = [action for timer in TIMERS if timer not in passed for action in TIMERS[timer]]
    assert [action for action in actions if action in MISSED] == made_up
    assert state.passed == set(TIMERS)


@pytest.mark.parametrize("timer", list(TIMERS), ids=lambda event: event.name)
def test_a_timer_runs_out_once_and_changes_no_phase(timer: Input) -> None:
    before = State(Phase.DRAINING, entered=5.0, draining_since=5.0, cause="SIGTERM")
    after, actions = step(before, timer, 9.0, Budgets())
    assert actions == TIMERS[timer]
    assert after == replace(before, passed=frozenset({timer}))
    assert step(after, timer, 10.0, Budgets()) == (after, ())


def test_every_action_but_one_belongs_to_one_place() -> None:
    """CLOSE_AFTER_ANSWER comes twice: what had come by the announcement, and by the drain, is answered."""
    places = Counter(itertools.chain(*ENTRY.values(), *TIMERS.values()))
    assert places == {action: 2 if action is Action.CLOSE_AFTER_ANSWER else 1 for action in Action}


# -- budgets -----------------------------------------------------------------------------------------------------------


def test_the_defaults_fit_under_thirty_seconds() -> None:
    assert Budgets().worst_case() == 20 + 2 + 5 + TEARDOWN == 28
    assert Budgets(delay=7).worst_case() == 35
    assert Budgets(delay=7).worst_case(interactive=True) == 3 + 2 + 5 + TEARDOWN == 11, "Ctrl-C has no delay"
    assert Budgets(graceful=1).worst_case(interactive=True) == 9, "SIGINT never lengthens"
    assert Budgets(graceful=INF).worst_case() == INF
    assert Budgets(graceful=INF).worst_case(interactive=True) == 11
    assert Budgets(graceful=INF, interrupt=INF).worst_case(interactive=True) == INF
    assert Budgets(cancel=INF).worst_case() == INF
    assert Budgets(lifespan_shutdown=INF).worst_case() == INF


def ordered(now: float, budgets: Budgets, *, interactive: bool = False) -> State:
    """The state right after the stop order."""
    cause = "SIGINT" if interactive else "SIGTERM"
    return step(State(Phase.SERVING), Input.STOP, now, budgets, cause=cause, interactive=interactive)[0]


def drained(now: float, budgets: Budgets, *, interactive: bool = False) -> State:
    """The state when the drain begins, at ``now``."""
    return step(ordered(now, budgets, interactive=interactive), Input.DELAY_OVER, now, budgets)[0]


def pressed(state: State, now: float, budgets: Budgets) -> State:
    """The state after a Ctrl-C."""
    return step(state, Input.STOP, now, budgets, cause="SIGINT", interactive=True)[0]


BUSY = Census(running=1, connections=1)
IDLE = Census(running=0, connections=1)
NOBODY = Census()


@pytest.mark.parametrize(
    ("grace", "expected"), [(0.0, 0.0), (0.5, 0.05), (3.0, 0.3), (20.0, 2.0), (25.0, 2.0), (3600.0, 2.0), (INF, 2.0)]
)
def test_the_margin_is_a_tenth_of_the_grace_and_two_seconds_at_most(grace: float, expected: float) -> None:
    assert margin(grace) == pytest.approx(expected)
    assert margin(grace) <= MARGIN


@pytest.mark.parametrize(
    ("grace", "linger"), [(0.0, 0.0), (1.0, 0.1), (5.0, 0.5), (10.0, 1.0), (60.0, 1.0), (INF, 1.0)]
)
def test_the_linger_is_a_tenth_of_the_grace_and_a_second_at_most(grace: float, linger: float) -> None:
    state = drained(100.0, Budgets(graceful=grace))
    assert state.linger == pytest.approx(linger)
    assert state.linger <= LINGER
    assert state.timer_at(Input.LINGER_OVER, Budgets()) == pytest.approx(100.0 + linger)


@pytest.mark.parametrize(
    ("grace", "farewell", "expected"),
    [
        (20.0, 1.0, 1.0),
        (20.0, 0.0, 0.0),
        (20.0, 18.0, 18.0),
        (20.0, 19.0, 18.0),  # clamped to G - M: later it would be no farewell of its own
        (20.0, 500.0, 18.0),
        (1.0, 1.0, 0.9),
        (0.0, 1.0, 0.0),
        (INF, 500.0, 500.0),
    ],
)
def test_the_farewell_ends_with_the_margin_at_the_latest(grace: float, farewell: float, expected: float) -> None:
    budgets = Budgets(graceful=grace, farewell=farewell)
    assert drained(100.0, budgets).timer_at(Input.FAREWELL_OVER, budgets) == pytest.approx(100.0 + expected)


@pytest.mark.parametrize(
    ("grace", "expected"),
    [(20.0, 16.0), (10.0, 8.0), (6.0, 4.8), (3.0, 2.1), (1.0, 0.3), (0.5, 0.0), (0.1, 0.0), (0.0, 0.0), (INF, INF)],
)
def test_pollers_see_the_stop_a_margin_and_a_poll_before_the_disconnect(grace: float, expected: float) -> None:
    """max(0, G - M - max(M, 0.6)): libraries that look each half second get one look in before it."""
    budgets = Budgets(graceful=grace)
    state = drained(100.0, budgets)
    at = state.timer_at(Input.SHOULD_EXIT_DUE, budgets)
    assert at == pytest.approx(100.0 + expected)
    assert at in (100.0, INF) or state.disconnect_at - at >= POLL - 1e-9


@pytest.mark.parametrize(
    ("grace", "disconnect", "cancel"), [(20.0, 18.0, 20.0), (1.0, 0.9, 1.0), (0.0, 0.0, 0.0), (INF, INF, INF)]
)
def test_disconnecting_and_cancelling_count_from_the_drain(grace: float, disconnect: float, cancel: float) -> None:
    budgets = Budgets(graceful=grace, delay=7.0)
    state = ordered(90.0, budgets)
    assert (state.disconnect_at, state.cancel_at) == (INF, INF), "not before the drain has begun"
    state = step(state, Input.DELAY_OVER, 97.5, budgets)[0]
    assert state.draining_since == 97.5, "late, so everything is late"
    assert state.disconnect_at == pytest.approx(97.5 + disconnect)
    assert state.cancel_at == pytest.approx(97.5 + cancel)


# -- due, next_deadline ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.SERVING, Phase.CLOSING, Phase.STOPPED])
def test_in_the_quiet_phases_nothing_is_due(phase: Phase) -> None:
    for census in (NOBODY, IDLE, BUSY):
        assert due(State(phase), census, 1e9, Budgets(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)) is None
        assert next_deadline(State(phase), census, Budgets()) == INF


@pytest.mark.parametrize("census", [NOBODY, IDLE, BUSY])
def test_the_delay_is_waited_for_also_with_nobody_there(census: Census) -> None:
    """Its point is those who come: the balancer has not heard yet."""
    budgets = Budgets(delay=7.0)
    state = ordered(100.0, budgets)
    assert due(state, census, 106.999, budgets) is None
    assert next_deadline(state, census, budgets) == 107.0
    assert due(state, census, 107.0, budgets) is Input.DELAY_OVER


def test_without_a_delay_the_drain_begins_at_the_order() -> None:
    assert due(ordered(100.0, Budgets()), BUSY, 100.0, Budgets()) is Input.DELAY_OVER


def plan(state: State, census: Census, now: float, budgets: Budgets) -> tuple[State, tuple[Action, ...]]:
    """All that is due at one look: the timers of the drain that have run out, or one phase further."""
    before = state.phase
    done: list[Action] = []
    while state.phase is before and (event := due(state, census, now, budgets)) is not None:
        state, actions = step(state, event, now, budgets)
        done += actions
    return state, tuple(done)


def times(state: State, census: Census, budgets: Budgets) -> list[tuple[float, str]]:
    """What a controller does that wakes up at ``next_deadline`` and at no other time: when, and by which input."""
    found, now, start = [], state.entered, state.entered
    while True:
        while (event := due(state, census, now, budgets)) is not None:
            found.append((round(now - start, 6), event.name))
            state = step(state, event, now, budgets)[0]
        deadline = next_deadline(state, census, budgets)
        if deadline == INF:
            return found
        assert deadline > now, "a deadline that has passed is due"
        now = deadline


@pytest.mark.parametrize(
    ("budgets", "interactive", "expected"),
    [
        (
            Budgets(delay=7.0),
            False,
            [
                (7.0, "DELAY_OVER"),
                (8.0, "LINGER_OVER"),
                (8.0, "FAREWELL_OVER"),
                (23.0, "SHOULD_EXIT_DUE"),
                (25.0, "MARGIN"),
                (27.0, "GRACE_OVER"),
                (29.0, "CANCEL_OVER"),
            ],
        ),
        (
            Budgets(delay=7.0),
            True,
            [
                (0.0, "DELAY_OVER"),
                (0.0, "LINGER_OVER"),
                (1.0, "FAREWELL_OVER"),
                (2.1, "SHOULD_EXIT_DUE"),
                (2.7, "MARGIN"),
                (3.0, "GRACE_OVER"),
                (5.0, "CANCEL_OVER"),
            ],
        ),
        (
            Budgets(graceful=0.0, cancel=0.0),
            False,
            [
                (0.0, "DELAY_OVER"),
                (0.0, "LINGER_OVER"),
                (0.0, "FAREWELL_OVER"),
                (0.0, "SHOULD_EXIT_DUE"),
                (0.0, "MARGIN"),
                (0.0, "GRACE_OVER"),
                (0.0, "CANCEL_OVER"),
            ],
        ),
        (
            Budgets(graceful=INF, farewell=30.0),
            False,
            [(0.0, "DELAY_OVER"), (1.0, "LINGER_OVER"), (30.0, "FAREWELL_OVER")],
        ),
        (
            Budgets(graceful=1.0, cancel=INF),
            False,
            [
                (0.0, "DELAY_OVER"),
                (0.1, "LINGER_OVER"),
                (0.3, "SHOULD_EXIT_DUE"),
                (0.9, "FAREWELL_OVER"),
                (0.9, "MARGIN"),
                (1.0, "GRACE_OVER"),
            ],
        ),
    ],
    ids=["SIGTERM", "SIGINT", "G and C are 0", "G is none", "C is none"],
)
def test_a_stop_with_work_that_never_ends(
    budgets: Budgets, interactive: bool, expected: list[tuple[float, str]]
) -> None:
    assert times(ordered(100.0, budgets, interactive=interactive), BUSY, budgets) == expected


def test_a_stop_with_nobody_there_keeps_its_listeners_for_fifty_milliseconds() -> None:
    assert times(ordered(100.0, Budgets()), NOBODY, Budgets()) == [
        (0.0, "DELAY_OVER"),
        (IDLE_LINGER, "LINGER_OVER"),
        (IDLE_LINGER, "CLEAR"),
    ]
    for budgets, interactive in ((Budgets(), True), (Budgets(graceful=0.0), False)):
        assert times(ordered(100.0, budgets, interactive=interactive), NOBODY, budgets)[:2] == [
            (0.0, "DELAY_OVER"),
            (0.0, "LINGER_OVER"),
        ]


def test_who_leaves_late_is_not_waited_for_again() -> None:
    """The linger is over once; after it, nothing left means the end."""
    budgets = Budgets()
    state = drained(100.0, budgets)
    assert due(state, NOBODY, 100.01, budgets) is None, "clients may be in the backlog"
    assert due(state, NOBODY, 100.4, budgets) is Input.LINGER_OVER
    state = step(state, Input.LINGER_OVER, 100.4, budgets)[0]
    assert due(state, IDLE, 100.4, budgets) is None
    assert due(state, BUSY, 100.9, budgets) is None, "somebody was in the backlog"
    assert due(state, NOBODY, 101.0, budgets) is Input.FAREWELL_OVER
    state = step(state, Input.FAREWELL_OVER, 101.0, budgets)[0]
    assert due(state, NOBODY, 101.0, budgets) is Input.CLEAR


@pytest.mark.parametrize("census", [IDLE, BUSY, Census(running=1)], ids=["connection", "both", "background task"])
def test_quiet_connections_and_background_work_both_hold_the_drain(census: Census) -> None:
    budgets = Budgets()
    state = plan(drained(100.0, budgets), census, 102.0, budgets)[0]
    assert due(state, census, 102.0, budgets) is None
    state = plan(state, census, 118.0, budgets)[0]
    assert state.phase is Phase.DISCONNECTING
    assert due(state, census, 119.999, budgets) is None
    assert due(state, NOBODY, 118.0, budgets) is Input.CLEAR


def test_cancelling_waits_for_tasks_only() -> None:
    budgets = Budgets()
    state = step(drained(100.0, budgets), Input.FORCE, 101.0, budgets)[0]
    assert due(state, IDLE, 101.0, budgets) is Input.CLEAR, "CLOSING closes the connections that are left"
    assert due(state, BUSY, 102.999, budgets) is None
    assert due(state, BUSY, 103.0, budgets) is Input.CANCEL_OVER
    assert next_deadline(state, BUSY, budgets) == 103.0, "C counts from the cancelling, not from the order"


def test_each_phase_is_due_by_itself() -> None:
    """What was just ordered gets a turn of the loop, whatever the clock says."""
    budgets = Budgets(graceful=0.0, cancel=0.0)
    state, now, phases = ordered(100.0, budgets), 1e6, []
    while state.phase < Phase.CLOSING:
        state, actions = plan(state, BUSY, now, budgets)
        phases.append((state.phase, actions))
    assert phases == [
        (Phase.DRAINING, DRAIN),
        (Phase.DISCONNECTING, MISSED + DISCONNECT),
        (Phase.CANCELLING, CANCEL),
        (Phase.CLOSING, CLOSE),
    ]
    assert plan(state, BUSY, now, budgets) == (state, ()), "the lifespan's end is no matter of clock or census"


def test_all_timers_that_have_run_out_are_due_in_one_phase() -> None:
    budgets = Budgets()
    state, actions = plan(drained(100.0, budgets), BUSY, 116.5, budgets)
    assert (state.phase, actions) == (Phase.DRAINING, MISSED)
    assert plan(state, BUSY, 116.5, budgets) == (state, ())


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (100.0, (118.0, "disconnect")),
        (118.0, (120.0, "cancel")),
        (120.0, (122.0, "giving up")),
    ],
)
def test_what_comes_next_for_the_work_that_is_left(at: float, expected: tuple[float, str]) -> None:
    budgets = Budgets()
    state = drained(100.0, budgets)
    while (after := plan(state, BUSY, at, budgets)[0]).phase is not state.phase:
        state = after
    assert next_cut(state, budgets) == expected


def test_what_comes_next_without_a_margin_or_a_limit() -> None:
    none = Budgets(graceful=INF)
    assert next_cut(drained(100.0, none), none)[0] == INF
    zero = Budgets(graceful=0.0)
    assert next_cut(drained(100.0, zero), zero) == (100.0, "cancel")


# -- time_left ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interactive", [False, True])
@pytest.mark.parametrize("delay", [0.0, 7.0])
def test_at_the_order_the_worst_case_is_left(delay: float, interactive: bool) -> None:
    budgets = Budgets(delay=delay)
    state = ordered(100.0, budgets, interactive=interactive)
    assert time_left(state, 100.0, budgets) == budgets.worst_case(interactive=interactive)


def test_the_time_that_is_left_goes_down_with_the_clock_and_the_phases() -> None:
    """7 s of delay, 20 of grace, 2 to cancel, 5 for the lifespan, 1 to leave."""
    budgets = Budgets(delay=7.0)
    state = ordered(100.0, budgets)
    assert time_left(state, 103.0, budgets) == 4 + 20 + 2 + 5 + 1
    assert time_left(state, 110.0, budgets) == 20 + 2 + 5 + 1, "the grace begins with the drain, which is late"
    state = step(state, Input.DELAY_OVER, 110.0, budgets)[0]
    assert time_left(state, 110.0, budgets) == 20 + 2 + 5 + 1
    assert time_left(state, 125.0, budgets) == 5 + 2 + 5 + 1
    state = step(state, Input.MARGIN, 128.0, budgets)[0]
    assert time_left(state, 129.0, budgets) == 1 + 2 + 5 + 1
    assert time_left(state, 131.0, budgets) == 0 + 2 + 5 + 1
    state = step(state, Input.GRACE_OVER, 130.0, budgets)[0]
    assert time_left(state, 130.0, budgets) == 2 + 5 + 1
    state = step(state, Input.CANCEL_OVER, 132.0, budgets)[0]
    assert time_left(state, 132.0, budgets) == 5 + 1 == time_left(State(Phase.CLOSING), 0.0, budgets)


def test_a_ctrl_c_leaves_less_time() -> None:
    budgets = Budgets(graceful=INF)
    state = drained(100.0, budgets)
    assert time_left(state, 101.0, budgets) == INF
    assert time_left(pressed(state, 101.0, budgets), 101.0, budgets) == 3 + 2 + 5 + 1


@pytest.mark.parametrize("name", ["graceful", "cancel", "lifespan_shutdown"])
def test_a_part_without_a_limit_leaves_none_until_it_is_over(name: str) -> None:
    budgets = replace(Budgets(), **{name: INF})
    state, found = drained(100.0, budgets), []
    for event in (Input.MARGIN, Input.GRACE_OVER, Input.CANCEL_OVER):
        found.append(time_left(state, 100.0, budgets))
        state = step(state, event, 100.0, budgets)[0]
    found.append(time_left(state, 100.0, budgets))
    limited = {"graceful": 2, "cancel": 1, "lifespan_shutdown": 0}[name]
    assert [left < INF for left in found] == [False] * (4 - limited) + [True] * limited


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------


def test_ctrl_c_as_the_order_has_no_delay_no_linger_and_a_short_grace() -> None:
    state = ordered(100.0, Budgets(delay=7.0), interactive=True)
    assert (state.cause, state.delay, state.linger, state.grace) == ("SIGINT", 0.0, 0.0, 3.0)
    assert ordered(100.0, Budgets(graceful=2.0), interactive=True).grace == 2.0, "never longer"


def test_ctrl_c_while_announced_ends_the_delay() -> None:
    budgets = Budgets(delay=7.0)
    state = pressed(ordered(100.0, budgets), 104.0, budgets)
    assert (state.cause, state.delay, state.linger, state.grace) == ("SIGTERM", 0.0, 0.0, 3.0)
    state = plan(state, BUSY, 104.0, budgets)[0]
    assert (state.phase, state.draining_since, state.cancel_at) == (Phase.DRAINING, 104.0, 107.0)


@pytest.mark.parametrize(("at", "until"), [(101.0, 104.0), (116.9, 119.9), (118.0, 120.0), (125.0, 120.0)])
def test_ctrl_c_in_a_drain_shortens_what_is_left(at: float, until: float) -> None:
    budgets = Budgets()
    state = pressed(drained(100.0, budgets), at, budgets)
    assert state.cancel_at == pytest.approx(until)
    assert state.cause == "SIGTERM", "the first cause stays"
    assert state.disconnect_at == pytest.approx(until - margin(until - 100.0))
    assert due(state, IDLE, at, budgets) is Input.LINGER_OVER


def test_ctrl_c_while_disconnecting_shortens_the_margin_that_is_left() -> None:
    budgets = Budgets(interrupt=0.5)
    state = plan(drained(100.0, budgets), BUSY, 118.0, budgets)[0]
    state = pressed(state, 118.2, budgets)
    assert state.phase is Phase.DISCONNECTING
    assert state.cancel_at == pytest.approx(118.7)
    assert pressed(state, 118.6, budgets).cancel_at == pytest.approx(118.7), "pressed again, it is not longer"


@pytest.mark.parametrize("event", [Input.FORCE, Input.CLEAR])
def test_ctrl_c_later_changes_nothing(event: Input) -> None:
    budgets = Budgets()
    state = step(drained(100.0, budgets), event, 101.0, budgets)[0]
    assert pressed(state, 101.5, budgets) == state


def test_ctrl_c_ends_a_grace_without_limit() -> None:
    budgets = Budgets(graceful=INF)
    state = plan(drained(100.0, budgets), BUSY, 150.0, budgets)[0]
    assert due(state, BUSY, 1e9, budgets) is None
    state = pressed(state, 150.0, budgets)
    assert (state.cancel_at, state.disconnect_at) == (153.0, 151.0)
    assert plan(state, BUSY, 150.0, budgets)[1] == (Action.SET_SHOULD_EXIT,), "at once: a poll has to fit in"


def test_a_second_order_that_is_no_ctrl_c_changes_nothing() -> None:
    budgets = Budgets(delay=7.0)
    state = ordered(100.0, budgets)
    for at in (101.0, 107.0, 125.0, 127.0):
        assert step(state, Input.STOP, at, budgets, cause="api") == (state, ())
        state = plan(state, BUSY, at, budgets)[0]


# -- laws --------------------------------------------------------------------------------------------------------------

FINITE = st.one_of(st.just(0.0), st.floats(0, 100))
SECONDS = st.one_of(st.just(INF), FINITE)
BUDGETS = st.builds(
    Budgets,
    graceful=SECONDS,
    cancel=SECONDS,
    lifespan_shutdown=st.floats(0.1, 100),
    interrupt=SECONDS,
    delay=FINITE,
    farewell=FINITE,
)
CENSUS = st.builds(Census, running=st.integers(0, 2), connections=st.integers(0, 2))


def check_order(done: Sequence[Action]) -> None:
    """Each action at most once, but for CLOSE_AFTER_ANSWER (announced, and draining), in the ladder's order.

    The three timers of the drain have no order among themselves: their times depend on the options.
    """
    counts = Counter(done)
    assert counts.pop(Action.CLOSE_AFTER_ANSWER, 0) <= 2
    assert set(counts.values()) <= {1}
    ranks = {
        Action.CLOSE_AFTER_ANSWER: 0,
        **{action: rank for rank, action in enumerate(Action, 1)},
        **dict.fromkeys(MISSED, 5),
    }
    after_notice = [ranks[action] for action in done[done.index(Action.GIVE_NOTICE) :]] if counts else []
    assert after_notice == sorted(after_notice)
    if Action.SHUT_DOWN_LIFESPAN in counts:
        assert tuple(done[-3:]) == CLOSE, "nobody is at work then: abandoned, or gone before"


@given(
    budgets=BUDGETS,
    script=st.lists(st.tuples(st.floats(0, 50), CENSUS, st.sampled_from([None, *Input]), st.booleans()), max_size=40),
)
def test_any_order_of_inputs(budgets: Budgets, script: list[tuple[float, Census, Input | None, bool]]) -> None:
    """Phases only climb, each action happens once and in its order; a wrong input changes nothing."""
    state, now = State(), 0.0
    done: list[Action] = []
    for seconds, census, event, interactive in script:
        now += seconds
        wanted = event if event is not None else due(state, census, now, budgets)
        if wanted is None:
            continue
        before = state
        try:
            state, actions = step(before, wanted, now, budgets, cause="test", interactive=interactive)
        except KeyError:
            assert event is not None, "what due() says is always in the table"
            assert (before.phase, wanted) not in TRANSITIONS
            continue
        assert state.phase >= before.phase
        assert state.entered == (before.entered if state.phase is before.phase else now)
        assert state.passed >= before.passed
        if before.phase >= Phase.ANNOUNCED:
            assert (state.ordered, state.cause) == (before.ordered, before.cause)
            assert state.grace <= before.grace
            assert state.delay <= before.delay
            assert state.linger <= before.linger
            assert state.cancel_at <= before.cancel_at
            assert state.disconnect_at <= before.disconnect_at
        if before.phase >= Phase.DRAINING:
            assert state.draining_since == before.draining_since
        done += actions
    check_order(done)
    assert (Action.SHUT_DOWN_LIFESPAN in done) == (state.phase >= Phase.CLOSING and bool(done))
    assert (Action.GIVE_NOTICE in done) == (state.phase >= Phase.DRAINING and bool(done))


@given(
    budgets=BUDGETS,
    first=st.tuples(st.sampled_from(ORDERS), st.booleans()),
    orders=st.lists(st.tuples(st.floats(0, 300), st.sampled_from(ORDERS), st.booleans()), max_size=3),
    censuses=st.lists(CENSUS, max_size=20),
    naps=st.lists(st.floats(0, 5), max_size=20),
    leaves=st.one_of(st.just(INF), st.floats(0, 300)),
)
def test_the_budget_is_kept_whatever_runs(
    budgets: Budgets,
    first: tuple[Input, bool],
    orders: list[tuple[float, Input, bool]],
    censuses: list[Census],
    naps: list[float],
    leaves: float,
) -> None:
    """A controller that wakes up at ``next_deadline``, and at any other time, is in CLOSING after D + G + C at most.

    The census is an adversary's: at each look something else is there, then work that ends ``leaves`` seconds after the
    order or not at all. What still runs when the lifespan is shut down was cancelled, and then given up.
    """
    start = now = 10.0
    event, interactive = first
    state, actions = step(State(Phase.SERVING), event, now, budgets, cause="x", interactive=interactive)
    allowed = budgets.worst_case(interactive=interactive) - budgets.lifespan_shutdown - TEARDOWN
    done = list(actions)
    pending = sorted(
        ((start + after, order, ctrl_c) for after, order, ctrl_c in orders), reverse=True, key=lambda x: x[0]
    )
    looks, spurious = list(censuses), list(naps)
    census = BUSY
    while state.phase < Phase.CLOSING:
        census = looks.pop() if looks else (BUSY if now < start + leaves else NOBODY)
        before = state
        if now == state.entered or state.phase < Phase.CANCELLING:
            left = time_left(state, now, budgets)
            assert now - start + left <= allowed + budgets.lifespan_shutdown + TEARDOWN + 1e-6, "never more than before"
        state, actions = plan(state, census, now, budgets)
        assert before.phase <= state.phase
        done += actions
        if state.phase is not before.phase:
            continue
        deadline = next_deadline(state, census, budgets)
        assert deadline > now
        wakes = [deadline, start + leaves if now < start + leaves else INF]
        wakes += [pending[-1][0]] if pending else []
        wakes += [now + spurious.pop()] if spurious else []
        wake = max(now, min(wakes))
        if wake == INF and not looks:
            assert allowed == INF, "only an option can make a stop endless"
            return
        now = now if wake == INF else wake
        while pending and pending[-1][0] <= now:
            _, order, ctrl_c = pending.pop()
            state, actions = step(state, order, now, budgets, interactive=ctrl_c)
            done += actions
    assert now - start <= allowed + 1e-6
    check_order(done)
    assert set(done) == set(Action), "every one was performed on the way"
    assert done.index(Action.CANCEL_TASKS) < done.index(Action.ABANDON) < done.index(Action.SHUT_DOWN_LIFESPAN)
    if census.running:
        assert now >= state.entered >= start
    state, actions = step(state, Input.CLOSED, now, budgets)
    assert (state.phase, actions) == (Phase.STOPPED, ())


# -- what is said beforehand -------------------------------------------------------------------------------------------


@given(
    graceful=st.sampled_from([0.0, 3.0, 20.0, math.inf]),
    delay=st.sampled_from([0.0, 4.0]),
    cause=st.sampled_from(["SIGTERM", "SIGINT"]),
    elapsed=st.floats(0, 30),
)
def test_what_signals_will_mean_is_what_they_come_to_when_they_are_heard(
    graceful: float, delay: float, cause: str, elapsed: float
) -> None:
    """The deadline that is set where nobody hears of the signal is the one that would be set if somebody did."""
    budgets = Budgets(graceful=graceful, delay=delay)
    interactive = cause == "SIGINT"
    serving, _ = step(State(), Input.READY, 0.0, budgets)
    said = signal_times(serving.phase, budgets)
    stopping, _ = step(serving, Input.STOP, 10.0, budgets, cause=cause, interactive=interactive)
    assert time_left(stopping, 10.0, budgets) == (said.interrupt if interactive else said.first)
    # In a drain that began without a signal the first one changes nothing, but for SIGINT; the second cancels.
    draining, _ = step(serving, Input.STOP, 10.0, budgets, cause="api")
    now = 10.0 + elapsed
    said = signal_times(draining.phase, budgets)
    hurried, _ = step(draining, Input.STOP, now, budgets, cause=cause, interactive=interactive)
    expected = min(time_left(draining, now, budgets), said.interrupt if interactive else said.first)
    assert time_left(hurried, now, budgets) == pytest.approx(expected)
    forced, _ = step(draining, Input.FORCE, now, budgets, cause=cause)
    assert time_left(forced, now, budgets) == said.second
    assert signal_times(forced.phase, budgets) == SignalTimes()


def test_a_start_has_no_grace_and_a_second_signal_ends_it() -> None:
    assert signal_times(Phase.STARTING, Budgets(cancel=4.0)) == SignalTimes(5.0, 5.0, 0.0)
