"""The record of a key: every cell of the table, the clock's edges, and the laws under any order of steps."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall_once._record import replace
from lastcall_once.records import (
    TRANSITIONS,
    Attempt,
    Event,
    Policy,
    Record,
    State,
    Verdict,
    acquire,
    at,
    finish,
    renew,
)

NOW = 1000.0

# What is meant, cell by cell: rows are events, columns states, "." cannot happen.
MEANT = """
           ABSENT LEASED  DONE   FAILED UNKNOWN
ACQUIRE    LEASED .       .      LEASED LEASED
CLAIM      DONE   .       .      DONE   DONE
RENEW      .      LEASED  .      .      LEASED
COMPLETE   .      DONE    .      .      DONE
FAIL       .      FAILED  .      .      FAILED
ABANDON    .      UNKNOWN .      .      UNKNOWN
RELEASE    .      ABSENT  ABSENT ABSENT ABSENT
LEASE_OVER .      UNKNOWN .      .      .
EXPIRE     .      .       ABSENT ABSENT ABSENT
"""


def cells() -> list[tuple[State, Event, State | None]]:
    head, *rows = (line.split() for line in MEANT.strip().splitlines())
    return [
        (State[state], Event[name], None if target == "." else State[target])
        for name, *targets in rows
        for state, target in zip(head, targets, strict=True)
    ]


def test_the_table_is_the_whole_product() -> None:
    assert {(state, event) for state, event, _ in cells()} == set(itertools.product(State, Event))
    assert {(state, event): target for state, event, target in cells() if target is not None} == TRANSITIONS


def record(state: State) -> Record | None:
    """A record in that state at NOW, held by ``t``; a lease lasts 10 s, anything else 100 s."""
    if state is State.ABSENT:
        return None
    return Record("k", state, "t", "w", 900.0, 990.0, NOW + 10.0, NOW + 100.0, 3, 2, "f", b"old", "m")


def attempt(event: Event, **options: object) -> Attempt:
    return replace(Attempt("k", "new", 30.0 if event is Event.ACQUIRE else 0.0, 60.0, "v"), **options)


@pytest.mark.parametrize(("state", "event", "target"), cells(), ids=lambda value: getattr(value, "name", "none"))
def test_every_cell(state: State, event: Event, target: State | None) -> None:
    """Each event by the function that makes it happen; where it cannot, nothing but the count changes."""
    before = record(state)
    if event in (Event.ACQUIRE, Event.CLAIM):
        outcome = acquire(before, attempt(event), NOW)
        assert (outcome.verdict is Verdict.GRANTED) is (target is not None)
        assert outcome.record.state is (state if target is None else target)
        if target is None:
            assert before is not None
            assert outcome.record == replace(before, attempts=4, updated_at=NOW)
        return
    after: Record | None
    if event is Event.RENEW:
        after = renew(before, "t", 30.0, 60.0, NOW)
    elif event is Event.LEASE_OVER:
        after = at(before, NOW + 10.0)
        target = target or (None if state is State.ABSENT else state)
    elif event is Event.EXPIRE:
        after = at(before, NOW + 100.0)
        assert (after is None) is True, "a lease that has run out expires as well"
        return
    else:
        after = finish(before, "t", event, NOW, ttl=50.0, result=b"new")
        if state in (State.DONE, State.FAILED):
            assert after is None, "the first end counts; an operator deletes the key"
            return
    assert (None if after is None else after.state) is target


@pytest.mark.parametrize("event", [Event.RENEW, Event.COMPLETE, Event.FAIL, Event.ABANDON, Event.RELEASE])
@pytest.mark.parametrize("state", State)
def test_another_token_holds_nothing(state: State, event: Event) -> None:
    for token in ("", "T", "tt"):
        if event is Event.RENEW:
            assert renew(record(state), token, 30.0, 60.0, NOW) is None
        else:
            assert finish(record(state), token, event, NOW, ttl=60.0) is None


@pytest.mark.parametrize(
    ("state", "options", "verdict"),
    [
        (State.LEASED, {}, Verdict.IN_FLIGHT),
        (State.DONE, {}, Verdict.DONE),
        (State.FAILED, {}, Verdict.GRANTED),
        (State.FAILED, {"on_failed": Policy.REFUSE}, Verdict.FAILED),
        (State.FAILED, {"on_unknown": Policy.REFUSE}, Verdict.GRANTED),
        (State.UNKNOWN, {}, Verdict.GRANTED),
        (State.UNKNOWN, {"on_unknown": Policy.REFUSE}, Verdict.UNKNOWN),
        (State.UNKNOWN, {"on_failed": Policy.REFUSE}, Verdict.GRANTED),
        *((state, {"fingerprint": "other"}, Verdict.MISMATCH) for state in State if state is not State.ABSENT),
    ],
)
@pytest.mark.parametrize("event", [Event.ACQUIRE, Event.CLAIM])
def test_what_an_attempt_is_told(state: State, options: dict[str, object], verdict: Verdict, event: Event) -> None:
    assert acquire(record(state), attempt(event, **options), NOW).verdict is verdict


def test_the_first_grant_and_the_second() -> None:
    first = acquire(None, attempt(Event.ACQUIRE, fingerprint="f", meta="m"), NOW).record
    assert first == Record("k", State.LEASED, "new", "v", NOW, NOW, NOW + 30, NOW + 90, 1, 1, "f", None, "m")
    claim = acquire(None, attempt(Event.CLAIM), NOW).record
    assert claim == Record("k", State.DONE, "new", "v", NOW, NOW, NOW, NOW + 60, 1, 1)
    again = acquire(record(State.FAILED), attempt(Event.ACQUIRE), NOW).record
    assert (again.first_seen_at, again.attempts, again.executions) == (900.0, 4, 3)
    assert (again.fingerprint, again.result, again.token) == ("f", None, "new")


@pytest.mark.parametrize(
    ("now", "state"), [(1009.999, State.LEASED), (1010.0, State.UNKNOWN), (1099.0, State.UNKNOWN), (1100.0, None)]
)
def test_the_edges_of_a_lease(now: float, state: State | None) -> None:
    found = at(record(State.LEASED), now)
    assert (None if found is None else found.state) is state


def test_a_result_that_is_kept_for_ever() -> None:
    done = finish(record(State.LEASED), "t", Event.COMPLETE, NOW, ttl=math.inf, result=b"x")
    assert done is not None
    assert at(done, 1e18) == done


STEPS = st.one_of(
    st.tuples(st.just("acquire"), st.sampled_from(["a", "b"]), st.sampled_from([0.0, 5.0]), st.sampled_from(Policy)),
    st.tuples(st.just("renew"), st.sampled_from(["a", "b"]), st.just(5.0), st.just(Policy.RETRY)),
    st.tuples(
        st.sampled_from([Event.COMPLETE, Event.FAIL, Event.ABANDON, Event.RELEASE]),
        st.sampled_from(["a", "b"]),
        st.just(0.0),
        st.just(Policy.RETRY),
    ),
)


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0, 5.0, 20.0]), STEPS), max_size=30))
def test_at_most_one_holds_a_lease(script: list[tuple[float, tuple[object, str, float, Policy]]]) -> None:
    """Nobody is granted a key whose lease runs; nothing changes without its token; a result stays until it expires."""
    held: Record | None = None
    now = 0.0
    for seconds, (what, token, lease, policy) in script:
        now += seconds
        before = at(held, now)
        if what == "acquire":
            outcome = acquire(held, Attempt("k", token, lease, 10.0, on_unknown=policy, on_failed=policy), now)
            if before is not None and before.state in (State.LEASED, State.DONE):
                assert outcome.verdict in (Verdict.IN_FLIGHT, Verdict.DONE)
                assert (outcome.record.token, outcome.record.result) == (before.token, before.result)
            assert outcome.record.executions <= outcome.record.attempts
            held = outcome.record
            continue
        after = renew(held, token, 5.0, 10.0, now) if what == "renew" else None
        if isinstance(what, Event):
            after = finish(held, token, what, now, ttl=10.0, result=b"r")
        if after is not None:
            assert before is not None
            assert before.token == token
            assert before.state in (State.LEASED, State.UNKNOWN)
            held = None if after.state is State.ABSENT else after
