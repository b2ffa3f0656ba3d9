"""The stop ladder: the whole table, and its laws under every order of inputs and clocks."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.drain.ladder import (
    ENTRY,
    TEARDOWN,
    TRANSITIONS,
    Action,
    Budgets,
    Census,
    Input,
    Phase,
    State,
    due,
    next_deadline,
    step,
)

INF = math.inf
ORDERS = (Input.STOP, Input.FORCE)

# What is meant, cell by cell: rows are phases, columns inputs, "." is a bug of whoever asks.
PHASES = ["STARTING", "SERVING", "DRAINING", "CANCELLING", "CLOSING", "STOPPED"]
MEANT = """
              READY    STOP        FORCE       CLEAR    GRACE_OVER  CANCEL_OVER  CLOSED
STARTING      SERVING  STOPPED     STOPPED     .        .           .            .
SERVING       .        DRAINING    CANCELLING  .        .           .            .
DRAINING      .        DRAINING    CANCELLING  CLOSING  CANCELLING  .            .
CANCELLING    .        CANCELLING  CANCELLING  CLOSING  .           CLOSING      .
CLOSING       .        CLOSING     CLOSING     .        .           .            STOPPED
STOPPED       .        STOPPED     STOPPED     .        .           .            .
"""


def cells() -> list[tuple[Phase, Input, Phase | None]]:
    head, *rows = (line.split() for line in MEANT.strip().splitlines())
    return [
        (Phase[phase], Input[name], None if target == "." else Phase[target])
        for phase, *targets in rows
        for name, target in zip(head, targets, strict=True)
    ]


@pytest.mark.parametrize(("phase", "event", "target"), cells(), ids=lambda value: getattr(value, "name", "none"))
def test_every_cell_of_the_table(phase: Phase, event: Input, target: Phase | None) -> None:
    if target is None:
        with pytest.raises(KeyError):
            step(State(phase), event, 1.0, Budgets())
    else:
        assert step(State(phase), event, 1.0, Budgets())[0].phase is target


def test_the_table_is_the_whole_product() -> None:
    assert [phase.name for phase in Phase] == PHASES
    assert {(phase, event) for phase, event, _ in cells()} == set(itertools.product(Phase, Input))
    assert {(phase, event) for phase, event, target in cells() if target is not None} == set(TRANSITIONS)
    assert set(ENTRY) == set(Phase)


# -- actions -----------------------------------------------------------------------------------------------------------

DRAIN = (Action.STOP_ACCEPTING, Action.LAST_ANSWERS, Action.CLOSE_IDLE)
CANCEL = (Action.REFUSE_NEW, Action.CANCEL_TASKS)
CLOSE = (Action.ABANDON, Action.CLOSE_CONNECTIONS, Action.SHUT_DOWN_LIFESPAN)


@pytest.mark.parametrize(
    ("phase", "event", "actions"),
    [
        (Phase.STARTING, Input.READY, ()),
        (Phase.STARTING, Input.STOP, ()),
        (Phase.STARTING, Input.FORCE, ()),
        (Phase.SERVING, Input.STOP, DRAIN),
        (Phase.SERVING, Input.FORCE, DRAIN + CANCEL),
        (Phase.DRAINING, Input.STOP, ()),
        (Phase.DRAINING, Input.FORCE, CANCEL),
        (Phase.DRAINING, Input.GRACE_OVER, CANCEL),
        (Phase.DRAINING, Input.CLEAR, CANCEL + CLOSE),
        (Phase.CANCELLING, Input.STOP, ()),
        (Phase.CANCELLING, Input.FORCE, ()),
        (Phase.CANCELLING, Input.CLEAR, CLOSE),
        (Phase.CANCELLING, Input.CANCEL_OVER, CLOSE),
        (Phase.CLOSING, Input.STOP, ()),
        (Phase.CLOSING, Input.CLOSED, ()),
        (Phase.STOPPED, Input.FORCE, ()),
    ],
)
def test_a_jump_does_what_the_phases_on_the_way_do(phase: Phase, event: Input, actions: tuple[Action, ...]) -> None:
    assert step(State(phase), event, 1.0, Budgets())[1] == actions


# -- budgets -----------------------------------------------------------------------------------------------------------


def test_the_defaults_fit_under_thirty_seconds() -> None:
    assert Budgets().worst_case() == 20 + 2 + 5 + TEARDOWN == 28
    assert Budgets().worst_case(interactive=True) == 3 + 2 + 5 + TEARDOWN == 11
    assert Budgets(graceful=1).worst_case(interactive=True) == 9, "SIGINT never lengthens"
    assert Budgets(graceful=INF).worst_case() == INF
    assert Budgets(graceful=INF, interrupt=INF).worst_case(interactive=True) == INF


def drained(now: float, budgets: Budgets, *, interactive: bool = False) -> State:
    return step(State(Phase.SERVING), Input.STOP, now, budgets, cause="SIGTERM", interactive=interactive)[0]


BUSY = Census(running=1, connections=1)


@pytest.mark.parametrize(("interactive", "grace"), [(False, 20.0), (True, 3.0)])
def test_the_grace_counts_from_the_order(interactive: bool, grace: float) -> None:
    budgets = Budgets()
    state = drained(100.0, budgets, interactive=interactive)
    assert next_deadline(state, budgets) == 100 + grace
    assert due(state, BUSY, 100 + grace - 0.001, budgets) is None
    assert due(state, BUSY, 100 + grace, budgets) is Input.GRACE_OVER


def test_ctrl_c_in_a_drain_shortens_what_is_left() -> None:
    budgets = Budgets()
    for pressed, until in ((101.0, 104.0), (116.9, 119.9), (118.0, 120.0), (125.0, 120.0)):
        state = step(drained(100.0, budgets), Input.STOP, pressed, budgets, cause="SIGINT", interactive=True)[0]
        assert next_deadline(state, budgets) == pytest.approx(until)
        assert state.cause == "SIGTERM", "the first cause stays"


def test_ctrl_c_ends_a_grace_without_limit() -> None:
    budgets = Budgets(graceful=INF)
    state = drained(100.0, budgets)
    assert next_deadline(state, budgets) == INF
    assert due(state, BUSY, 1e9, budgets) is None
    assert next_deadline(step(state, Input.STOP, 150.0, budgets, interactive=True)[0], budgets) == 153.0


def test_no_grace_cancels_at_once_and_no_cancel_time_gives_up_at_once() -> None:
    budgets = Budgets(graceful=0.0, cancel=0.0)
    state = drained(100.0, budgets)
    assert due(state, BUSY, 100.0, budgets) is Input.GRACE_OVER
    state, actions = step(state, Input.GRACE_OVER, 100.0, budgets)
    assert actions == CANCEL
    assert due(state, BUSY, 100.0, budgets) is Input.CANCEL_OVER


def test_what_is_clear_waits_for_no_clock() -> None:
    for budgets in (Budgets(), Budgets(graceful=0.0, cancel=0.0), Budgets(graceful=INF, cancel=INF)):
        state = drained(100.0, budgets)
        assert due(state, Census(), 100.0, budgets) is Input.CLEAR
        state = step(state, Input.FORCE, 100.0, budgets)[0]
        assert due(state, Census(connections=5), 100.0, budgets) is Input.CLEAR, "CLOSING closes what is left"


def test_a_drain_waits_for_connections_that_still_flush() -> None:
    budgets = Budgets()
    assert due(drained(0.0, budgets), Census(connections=1), 1.0, budgets) is None


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.SERVING, Phase.CLOSING, Phase.STOPPED])
def test_in_the_other_phases_nothing_is_due(phase: Phase) -> None:
    for census in (Census(), BUSY):
        assert due(State(phase), census, 1e9, Budgets(0.0, 0.0, 0.0, 0.0)) is None
    assert next_deadline(State(phase), Budgets()) == INF


# -- laws --------------------------------------------------------------------------------------------------------------

SECONDS = st.one_of(st.just(0.0), st.just(INF), st.floats(0, 100))
BUDGETS = st.builds(Budgets, graceful=SECONDS, cancel=SECONDS, lifespan_shutdown=st.floats(0.1, 100), interrupt=SECONDS)
CENSUS = st.builds(Census, running=st.integers(0, 2), connections=st.integers(0, 2))


@given(
    budgets=BUDGETS,
    script=st.lists(st.tuples(st.floats(0, 50), CENSUS, st.sampled_from([None, *Input]), st.booleans()), max_size=30),
)
def test_any_order_of_inputs(budgets: Budgets, script: list[tuple[float, Census, Input | None, bool]]) -> None:
    """Phases only climb, each action happens at most once and in its order; a wrong input changes nothing."""
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
        if before.phase >= Phase.DRAINING:
            assert state.grace <= before.grace
            assert state.draining_since == before.draining_since
            assert state.cause == before.cause
        done += actions
    order = list(Action)
    assert [order.index(action) for action in done] == sorted({order.index(action) for action in done})
    if Action.SHUT_DOWN_LIFESPAN in done:
        assert {Action.ABANDON, Action.CLOSE_CONNECTIONS} <= set(done[: done.index(Action.SHUT_DOWN_LIFESPAN)])
    assert (Action.SHUT_DOWN_LIFESPAN in done) == (state.phase >= Phase.CLOSING and bool(done))


@given(
    budgets=BUDGETS,
    interactive=st.booleans(),
    lasts=st.one_of(st.just(INF), st.floats(0, 200)),
    orders=st.lists(st.tuples(st.floats(0, 200), st.sampled_from(ORDERS), st.booleans()), max_size=4),
    swallows=st.booleans(),
)
def test_the_budget_is_kept(
    budgets: Budgets,
    interactive: bool,
    lasts: float,
    orders: list[tuple[float, Input, bool]],
    swallows: bool,
) -> None:
    """An executor that acts when ``next_deadline`` says so is in ``CLOSING`` after G + C at the latest, whatever runs,
    and a running task has been cancelled before it is abandoned."""
    now = 10.0
    state, actions = step(State(Phase.SERVING), Input.STOP, now, budgets, cause="x", interactive=interactive)
    allowed = budgets.grace(interactive=interactive) + budgets.cancel
    pending = sorted(((now + after, event, pressed) for after, event, pressed in orders), key=lambda order: -order[0])
    cancelled_at = INF
    done = list(actions)
    while state.phase < Phase.CLOSING:
        ends = 10.0 + lasts if swallows or cancelled_at == INF else cancelled_at
        census = Census(running=int(now < ends), connections=int(now < ends))
        event = due(state, census, now, budgets)
        if event is None:
            wake = min(next_deadline(state, budgets), ends, pending[-1][0] if pending else INF)
            if wake == INF:
                assert INF in (budgets.graceful, budgets.cancel, budgets.interrupt)
                return
            assert wake >= now
            now = wake
            if pending and pending[-1][0] <= now:
                _, order, pressed = pending.pop()
                state, actions = step(state, order, now, budgets, interactive=pressed)
                done += actions
        else:
            state, actions = step(state, event, now, budgets)
            done += actions
            if event is Input.CANCEL_OVER:
                assert Action.CANCEL_TASKS in done
        if Action.CANCEL_TASKS in done and cancelled_at == INF:
            cancelled_at = now
    assert now - 10.0 <= allowed + 1e-6
    assert done == list(Action)
