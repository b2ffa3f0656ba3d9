"""The two tests that compare the canary: exact against enumeration, monotone, and bounded whatever the counts are."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.channel.messages import LATENCY_BUCKETS
from lastcall.supervisor.canary.verdict import (
    BURST_AT_MOST,
    CLEAR,
    ODDS,
    SLOWNESS,
    TOLERATED,
    Counts,
    Evidence,
    Look,
    burst,
    error_gain,
    latency_gains,
    rank_sum,
    shifted,
)

BUCKETS = len(LATENCY_BUCKETS) + 1

counts = st.one_of(st.integers(0, 30), st.integers(0, 10**15))
histograms = st.dictionaries(st.integers(0, BUCKETS - 1), st.integers(0, 50), max_size=6).map(
    lambda some: tuple(some.get(bucket, 0) for bucket in range(BUCKETS))
)


@st.composite
def sides(draw: st.DrawFn) -> Counts:
    served = draw(counts)
    return Counts(served, draw(st.integers(0, served)), draw(histograms))


looks = st.builds(Look, sides(), st.dictionaries(st.integers(1, 3), sides(), max_size=3), st.booleans())


def evidence_of(some: list[Look]) -> Evidence:
    evidence = Evidence()
    for look in some:
        evidence = evidence.after(look)
    return evidence


def histogram(*buckets: int) -> tuple[int, ...]:
    return tuple(buckets.count(bucket) for bucket in range(BUCKETS))


# -- under the null hypothesis no bet is expected to win --------------------------------------------------------------


@pytest.mark.parametrize("odds", ODDS)
@pytest.mark.parametrize(("n", "others"), [(1, 1), (3, 3), (5, 12), (12, 5), (30, 60)])
def test_the_mean_of_an_error_bet_is_at_most_one_for_every_number_of_failures(odds: float, n: int, others: int) -> None:
    for failed in range(n + others + 1):
        mean = 0.0
        for x in range(max(0, failed - others), min(n, failed) + 1):  # Fisher's exact distribution
            chance = Fraction(math.comb(n, x) * math.comb(others, failed - x), math.comb(n + others, failed))
            mean += float(chance) * math.exp(error_gain(odds, Counts(n, x), Counts(others, failed - x)))
        assert mean <= 1 + 1e-9


@pytest.mark.parametrize(
    "pooled",
    [(0, 1, 2, 3, 4, 5, 6, 7), (3, 3, 3, 3, 3, 3, 3, 3), (0, 0, 0, 5, 5, 5, 9, 9), (1, 1, 1, 1, 1, 1, 1, 40)],
)
@pytest.mark.parametrize("n", [1, 3, 4, 6])
def test_the_mean_of_a_latency_bet_is_at_most_one_for_every_way_to_deal_the_requests(
    pooled: tuple[int, ...], n: int
) -> None:
    """Every choice of who is the canary's is as probable; it is slower by what is tolerated, the worst case."""
    means = [0.0] * len(SLOWNESS)
    deals = list(combinations(range(len(pooled)), n))
    for deal in deals:
        canary = histogram(*(pooled[i] + TOLERATED for i in deal))
        old = histogram(*(bucket for i, bucket in enumerate(pooled) if i not in deal))
        for number, gain in enumerate(latency_gains(canary, old)):
            means[number] += math.exp(gain) / len(deals)
    assert max(means) <= 1 + 1e-9


@given(
    st.lists(st.integers(0, BUCKETS - 1), min_size=1, max_size=30),
    st.lists(st.integers(0, BUCKETS - 1), min_size=1, max_size=30),
)
def test_the_rank_sum_counts_pairs(ours: list[int], theirs: list[int]) -> None:
    pairs = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in ours for b in theirs)
    assert rank_sum(histogram(*ours), histogram(*theirs)) == pairs


def test_the_whole_stake_is_one_before_anything_was_seen_and_stays_one_if_nothing_is() -> None:
    evidence = evidence_of([Look(Counts(), {})] * 300)
    assert evidence.errors.value == pytest.approx(1)
    assert evidence.latency.value == pytest.approx(1)


# -- what is worse ----------------------------------------------------------------------------------------------------

FAST = histogram(*[10] * 100)


def test_a_canary_that_fails_always_is_worse_after_the_looks_that_are_clear() -> None:
    look = Look(Counts(100, 100, FAST), {1: Counts(100, 0, FAST), 2: Counts(100, 0, FAST)})
    assert evidence_of([look] * (CLEAR - 1)).worse(100) == ""
    assert evidence_of([look] * CLEAR).worse(100) == "errors"


def test_three_times_the_latency_is_worse_also_where_all_requests_take_the_same_time() -> None:
    slow = histogram(*[14] * 100)  # 2.5 to 3.2 times
    look = Look(Counts(100, 0, slow), {1: Counts(100, 0, FAST)})
    assert evidence_of([look] * CLEAR).worse(100) == "latency"


@pytest.mark.parametrize("failures", [0, 1, 100, 500, 1000])
def test_an_old_generation_that_fails_as_often_makes_the_canary_no_worse(failures: int) -> None:
    look = Look(Counts(1000, failures, FAST), {1: Counts(1000, failures, FAST)})
    assert evidence_of([look] * 300).worse(100) == ""


def test_a_bucket_slower_is_tolerated_however_many_requests_show_it() -> None:
    look = Look(Counts(10**6, 0, histogram(*[11] * 100)), {1: Counts(10**6, 0, FAST)})
    assert evidence_of([look] * 300).worse(100) == ""


def test_a_tenth_more_failures_is_tolerated_however_many_requests_show_it() -> None:
    look = Look(Counts(10**6, 11_000, FAST), {1: Counts(10**6, 10_000, FAST)})
    assert evidence_of([look] * 300).worse(100) == ""


def test_a_canary_that_is_better_or_faster_is_not_worse() -> None:
    better = Look(Counts(1000, 0, FAST), {1: Counts(1000, 900, histogram(*[30] * 100))})
    assert evidence_of([better] * 300).worse(100) == ""


@pytest.mark.parametrize("nobody", [{}, {1: Counts()}])
def test_without_an_old_generation_to_compare_with_nothing_is_worse(nobody: dict[int, Counts]) -> None:
    assert evidence_of([Look(Counts(1000, 1000, FAST), nobody)] * 300).worse(100) == ""


def test_one_stalled_second_and_one_burst_do_not_decide() -> None:
    good = Look(Counts(100, 0, FAST), {1: Counts(100, 0, FAST)})
    stalled = Look(Counts(100, 100, histogram(*[45] * 100)), {1: Counts(100, 0, FAST)})
    assert evidence_of([good, stalled, *[good] * 28]).worse(100) == ""


def test_a_canary_that_goes_bad_late_in_the_hold_is_found() -> None:
    good = Look(Counts(100, 1, FAST), {1: Counts(100, 1, FAST)})
    slow = Look(Counts(100, 1, histogram(*[14] * 100)), {1: Counts(100, 1, FAST)})
    failing = Look(Counts(100, 30, FAST), {1: Counts(100, 1, FAST)})
    assert evidence_of([good] * 18 + [slow] * 12).worse(100) == "latency"
    assert evidence_of([good] * 18 + [failing] * 12).worse(100) == "errors"


def test_an_incident_of_both_sides_is_not_the_canarys_although_it_has_more_requests_in_it() -> None:
    """Over the whole time the canary fails more often (Simpson): it had its clients when the database was away."""
    before = Look(Counts(10, 0, FAST), {1: Counts(1000, 0, FAST)})
    incident = Look(Counts(500, 250, FAST), {1: Counts(500, 250, FAST)})
    evidence = evidence_of([before] * 20 + [incident] * 10)
    assert evidence.canary.errors / evidence.canary.served > 2 * evidence.old.errors / evidence.old.served
    assert evidence.worse(100) == ""


def test_a_cold_look_has_errors_and_no_latencies() -> None:
    slow = histogram(*[40] * 100)
    assert evidence_of([Look(Counts(100, 0, slow), {1: Counts(100, 0, FAST)}, warm=False)] * 30).worse(100) == ""
    assert evidence_of([Look(Counts(100, 100), {1: Counts(100, 0)}, warm=False)] * 30).worse(100) == "errors"


# -- whatever comes ---------------------------------------------------------------------------------------------------


@given(st.lists(looks, max_size=8))
def test_no_counts_break_it_and_the_minimum_is_kept(some: list[Look]) -> None:
    evidence = evidence_of(some)
    for stakes in (evidence.errors, evidence.latency):
        assert 0 <= stakes.value < math.inf
    assert evidence.worse(evidence.canary.served + 1) == ""
    assert evidence.canary.served == sum(look.canary.served for look in some)
    assert 1 <= burst(evidence.workers.values()) <= BURST_AT_MOST


@given(st.lists(looks, min_size=1, max_size=8), st.data())
def test_more_errors_never_make_the_canary_look_better(some: list[Look], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(some) - 1))
    look = some[place]
    errors = data.draw(st.integers(look.canary.errors, look.canary.served))
    worse = [*some]
    worse[place] = Look(Counts(look.canary.served, errors, look.canary.latency), look.old, look.warm)
    assert evidence_of(worse).errors.value >= evidence_of(some).errors.value * (1 - 1e-6)


@given(st.lists(looks, min_size=1, max_size=8), st.data())
def test_slower_requests_never_make_the_canary_look_faster(some: list[Look], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(some) - 1))
    look = some[place]
    slower = shifted(look.canary.latency, data.draw(st.integers(0, BUCKETS)))
    worse = [*some]
    worse[place] = Look(Counts(look.canary.served, look.canary.errors, slower), look.old, look.warm)
    assert evidence_of(worse).latency.value >= evidence_of(some).latency.value * (1 - 1e-6)


@given(histograms, histograms)
def test_the_rank_sum_is_the_same_seen_from_either_side(ours: tuple[int, ...], theirs: tuple[int, ...]) -> None:
    assert rank_sum(ours, theirs) + rank_sum(theirs, ours) == sum(ours) * sum(theirs)


@given(st.lists(sides(), max_size=5))
def test_the_order_of_the_old_workers_does_not_matter(some: list[Counts]) -> None:
    assert burst(some) == pytest.approx(burst(some[::-1]))


def test_workers_that_differ_more_than_chance_has_it_make_errors_count_less() -> None:
    alike = [Counts(1000, 10), Counts(1000, 12), Counts(1000, 9)]
    bursty = [Counts(1000, 0), Counts(1000, 31), Counts(1000, 0)]
    assert burst(alike) == 1
    assert burst(bursty) > 10
    assert burst([Counts(1000, 1000), Counts(10**9, 0)]) == BURST_AT_MOST


@given(histograms, st.integers(0, 60))
def test_a_shifted_histogram_has_the_same_requests(latency: tuple[int, ...], buckets: int) -> None:
    moved = shifted(latency, buckets)
    assert (len(moved), sum(moved)) == (len(latency), sum(latency))
