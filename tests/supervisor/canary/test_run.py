"""The procedure: sequences of looks and orders, and where they lead. No clock but the argument."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.base.options import CanaryOptions
from lastcall.channel.messages import LATENCY_BUCKETS, Census
from lastcall.supervisor.canary import report
from lastcall.supervisor.canary.run import FINAL, HOLDS_AT_MOST, TRANSITIONS, CanaryRun, Decision, Input, State

BUCKETS = len(LATENCY_BUCKETS) + 1
OPTIONS = CanaryOptions(wanted=True, hold=30.0, min_requests=100)
ASKING = CanaryOptions(wanted=True, hold=30.0, min_requests=100, approve=True)


class Worker:
    """Counters that only grow; ``rate`` requests a second, of them ``failing`` with 5xx, all in one bucket."""

    def __init__(self, rate: int = 20, failing: int = 0, bucket: int = 10, served: int = 0) -> None:
        self.rate, self.failing, self.bucket = rate, failing, bucket
        self.served, self.errors, self.latency = served, served, [served] + [0] * (BUCKETS - 1)

    def second(self) -> None:
        self.served += self.rate
        self.errors += self.failing
        self.latency[self.bucket] += self.rate

    @property
    def census(self) -> Census:
        return Census(0, {}, 0, self.served, self.errors, tuple(self.latency), 0)


class Fleet:
    """A run with its workers; the clock goes where the run wants to be looked at."""

    def __init__(self, canary: Worker, *old: Worker, options: CanaryOptions = OPTIONS) -> None:
        self.now = 1000.0
        self.canary, self.old = canary, dict(enumerate(old, 1))
        self.run = CanaryRun(options, len(old), self.now)
        assert self.look() is None

    def look(self) -> Decision | None:
        self.now = self.run.next_deadline()
        return self.run.take(self.canary.census, {n: worker.census for n, worker in self.old.items()}, self.now)

    def go(self, looks: int) -> Decision | None:
        """So many looks, unless one decides."""
        for _ in range(looks):
            for worker in (self.canary, *self.old.values()):
                worker.second()
            if (decision := self.look()) is not None:
                return decision
        return None

    def ended(self, most: int = 400) -> Decision:
        decision = self.go(most)
        assert decision is not None
        return decision

    @property
    def lasted(self) -> float:
        return self.now - 1000.0


def test_a_good_canary_is_promoted_at_the_end_of_the_hold() -> None:
    fleet = Fleet(Worker(), Worker(), Worker())
    decision = fleet.ended()
    assert decision.verdict == "promote"
    assert fleet.lasted == 30.0
    assert decision.report["canary"]["requests"] == 600  # type: ignore[index]
    assert fleet.run.next_deadline() == math.inf


def test_what_workers_did_before_the_hold_does_not_count() -> None:
    fleet = Fleet(Worker(), Worker(served=10_000))
    assert fleet.ended().verdict == "promote"
    assert (fleet.run.evidence.old.served, fleet.run.evidence.old.errors) == (600, 0)


def test_a_canary_that_fails_is_rolled_back_before_the_hold_is_over() -> None:
    fleet = Fleet(Worker(failing=20), Worker(), Worker())
    decision = fleet.ended()
    assert decision.verdict == "roll back"
    assert fleet.lasted < 10
    assert "100.0% of" in decision.reason


def test_a_slow_canary_is_rolled_back() -> None:
    decision = Fleet(Worker(bucket=15), Worker(), Worker()).ended()
    assert decision.verdict == "roll back"
    assert "slower" in decision.reason


def test_nothing_is_worse_before_the_minimum_of_requests() -> None:
    fleet = Fleet(Worker(rate=4, failing=4), Worker(rate=4))
    assert fleet.ended().verdict == "roll back"
    assert fleet.lasted == 25.0  # the 100th request


def test_a_slow_start_is_forgiven() -> None:
    fleet = Fleet(Worker(bucket=30), Worker())
    assert fleet.go(5) is None
    fleet.canary.bucket = 10
    assert fleet.ended().verdict == "promote"


def test_too_few_requests_extend_the_hold_until_there_are_enough() -> None:
    fleet = Fleet(Worker(rate=2), Worker(rate=2))
    assert fleet.go(30) is None
    assert fleet.run.state is State.EXTENDED
    assert "60 requests" in str(fleet.run.status(fleet.now)["reason"])
    assert fleet.ended().verdict == "promote"
    assert fleet.lasted == 50.0


def test_an_old_generation_without_enough_requests_extends_the_hold_too() -> None:
    fleet = Fleet(Worker(), Worker(rate=1))
    assert fleet.ended().verdict == "promote"
    assert fleet.lasted == 100.0


@pytest.mark.parametrize("failing", [0, 1])
def test_after_ten_holds_too_few_requests_are_inconclusive(failing: int) -> None:
    fleet = Fleet(Worker(rate=0), Worker(rate=20))
    fleet.go(3)
    fleet.canary.rate, fleet.canary.failing = 1, failing
    fleet.go(1)
    fleet.canary.rate = fleet.canary.failing = 0
    decision = fleet.ended()
    assert decision.verdict == ("roll back" if failing else "promote")
    assert "inconclusive: it had 1 request," in str(decision.report["warning"])
    assert fleet.lasted == 300.0


def test_without_any_client_a_canary_is_promoted_with_a_warning() -> None:
    decision = Fleet(Worker(rate=0), Worker(rate=0)).ended()
    assert decision.verdict == "promote"
    assert decision.report["warning"]


def test_a_failing_canary_with_nobody_to_compare_it_with_is_rolled_back() -> None:
    fleet = Fleet(Worker(failing=20))
    decision = fleet.ended()
    assert decision.verdict == "roll back"
    assert "the old generation had 0 requests" in decision.reason


def test_old_workers_may_come_and_go() -> None:
    fleet = Fleet(Worker(), Worker(), Worker())
    fleet.go(10)
    del fleet.old[1]  # it ended
    fleet.go(5)
    fleet.old[9] = Worker(served=7777)  # somebody whose beginning was not seen
    assert fleet.ended().verdict == "promote"
    assert fleet.run.evidence.old.served == 20 * (10 + 30 + 14)
    assert fleet.run.evidence.old.errors == 0


def test_looks_without_an_answer_of_the_canary_lose_nothing() -> None:
    fleet = Fleet(Worker(), Worker())
    for _ in range(5):
        fleet.canary.second()
        fleet.old[1].second()
        assert fleet.run.take(None, {1: fleet.old[1].census}, fleet.run.next_deadline()) is None
    fleet.go(1)
    assert fleet.run.evidence.canary.served == 120


def test_a_person_is_waited_for_and_the_looks_go_on() -> None:
    fleet = Fleet(Worker(), Worker(), options=ASKING)
    assert fleet.go(1000) is None
    assert fleet.run.state is State.APPROVAL
    assert fleet.run.status(fleet.now)["state"] == "approval"
    assert fleet.run.next_deadline() == fleet.now + 1.0
    decision = fleet.run.approve(fleet.now)
    assert (decision.verdict, decision.reason) == ("promote", "approved")


def test_a_canary_that_goes_bad_while_a_person_is_waited_for_is_rolled_back() -> None:
    fleet = Fleet(Worker(), Worker(), options=ASKING)
    fleet.go(60)
    fleet.canary.failing = 20
    assert fleet.ended().verdict == "roll back"
    assert fleet.lasted < 90


def test_an_inconclusive_canary_that_is_approved_keeps_its_warning() -> None:
    fleet = Fleet(Worker(rate=0), Worker(), options=ASKING)
    assert fleet.go(400) is None
    assert "inconclusive" in fleet.run.approve(fleet.now).reason


@pytest.mark.parametrize("looks", [0, 10, 40])
def test_a_person_may_refuse_and_a_canary_may_die_at_any_time(looks: int) -> None:
    for give_up in ("refuse", "lost"):
        fleet = Fleet(Worker(rate=2), Worker(rate=2), options=ASKING)
        fleet.go(looks)
        decision = fleet.run.refuse(fleet.now) if give_up == "refuse" else fleet.run.lost("SIGSEGV", fleet.now)
        assert decision.verdict == "roll back"
        assert decision.reason == ("refused" if give_up == "refuse" else "the canary ended: SIGSEGV")


def test_a_person_may_promote_before_any_verdict() -> None:
    assert Fleet(Worker(), Worker()).run.approve(1001.0).verdict == "promote"


@pytest.mark.parametrize("hold", [0.5, 1.0, 3.0])
def test_a_short_hold_finds_a_canary_that_always_fails(hold: float) -> None:
    options = CanaryOptions(wanted=True, hold=hold, min_requests=20)
    fleet = Fleet(Worker(failing=20), Worker(), options=options)
    assert fleet.ended().verdict == "roll back"
    assert fleet.lasted <= hold


def test_a_look_that_comes_after_all_holds_decides() -> None:
    run = CanaryRun(OPTIONS, 1, 0.0)
    assert run.take(Worker().census, {1: Worker().census}, 0.0) is None
    failed = Worker(rate=1, failing=1)
    failed.second()
    decision = run.take(failed.census, {1: Worker().census}, 1e6)
    assert decision is not None
    assert decision.verdict == "roll back"


class Dice(Worker):
    """A worker whose seconds are drawn."""

    def __init__(self, seconds: Iterable[tuple[int, int, int]]) -> None:
        super().__init__()
        self.seconds = list(seconds) or [(0, 0, 0)]
        self.number = 0

    def second(self) -> None:
        self.rate, failing, self.bucket = self.seconds[self.number % len(self.seconds)]
        self.failing = min(self.rate, failing)
        self.number += 1
        super().second()


dice = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(0, BUCKETS - 1)), max_size=12)


@given(dice, st.lists(dice, max_size=3), st.floats(0.1, 20), st.integers(1, 10**6))
def test_whatever_comes_the_decision_is_reached_within_ten_holds(
    canary: list[tuple[int, int, int]], old: list[list[tuple[int, int, int]]], hold: float, least: int
) -> None:
    options = CanaryOptions(wanted=True, hold=hold, min_requests=least)
    fleet = Fleet(Dice(canary), *(Dice(seconds) for seconds in old), options=options)
    decision = fleet.ended()
    assert fleet.lasted <= HOLDS_AT_MOST * hold + 1e-6
    assert decision.verdict in ("promote", "roll back")
    assert json.loads(json.dumps(decision.report, allow_nan=False)) == decision.report
    assert len(report.distributions(decision.report).splitlines()) == 2


@given(dice, dice, st.integers(1, 300))
def test_a_canary_that_is_rolled_back_is_so_with_more_errors_too(
    canary: list[tuple[int, int, int]], old: list[tuple[int, int, int]], more: int
) -> None:
    before = Fleet(Dice(canary), Dice(old))
    after = Fleet(Dice((rate, failing + more, bucket) for rate, failing, bucket in canary), Dice(old))
    if before.ended().verdict == "roll back":
        assert after.ended().verdict == "roll back"
        assert after.lasted <= before.lasted


def test_the_table_ends() -> None:
    assert {State.PROMOTE, State.ROLL_BACK} == FINAL
    for state in set(State) - FINAL:
        for order in (Input.APPROVED, Input.REFUSED, Input.LOST, Input.WORSE):
            assert TRANSITIONS[state, order] in FINAL


def test_after_the_end_nothing_may_be_asked() -> None:
    fleet = Fleet(Worker(), Worker())
    fleet.run.refuse(fleet.now)
    with pytest.raises(KeyError):
        fleet.run.approve(fleet.now)
