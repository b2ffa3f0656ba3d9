"""Simulated canaries with fixed seeds: how often a good one is rolled back, and a bad one found.

The figures stand in docs/explanation/canary.md, and are computed again here.
"""

from __future__ import annotations

import pytest

from testing.canaries import (
    ERRORS,
    GOOD,
    POWER_RUNS,
    RATIOS,
    RUNS,
    SPREADS,
    Traffic,
    found_errors,
    found_slow,
    rolled_back,
)
from testing.canaries import false_alarms as rolled_back_of
from testing.pages import page

PAGE = page("docs/explanation/canary.md")
FALSE_ALARMS = {kind: int(number) for kind, number in PAGE.rows("good canaries", f"rolled back, of {RUNS}")}
FOUND = {float(before.rstrip(" %")) / 100: share for before, share in PAGE.rows("5xx of the old generation", "found")}
SMALLEST = {
    float(spread): float(ratio) for spread, ratio in PAGE.rows("spread of the latencies", "smallest ratio found")
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", GOOD)
def test_good_canaries_of_a_kind_are_rolled_back_as_seldom_as_the_page_says(kind: str) -> None:
    assert rolled_back_of(kind) == FALSE_ALARMS[kind]


def test_at_most_ten_of_a_thousand_good_canaries_are_rolled_back() -> None:
    assert FALSE_ALARMS.keys() == GOOD.keys()
    assert len(GOOD) * RUNS == 1000
    assert sum(FALSE_ALARMS.values()) <= 10
    assert f"{sum(FALSE_ALARMS.values())} of 1 000" in PAGE.text
    assert f"good canaries {sum(FALSE_ALARMS.values())} were rolled back" in page("CHANGELOG.md").text


@pytest.mark.slow
@pytest.mark.parametrize("errors", ERRORS)
def test_five_points_more_5xx_at_a_thousand_requests_are_found_as_often_as_the_page_says(errors: float) -> None:
    assert FOUND[errors] == f"{found_errors(errors) * 100:.0f} %"


@pytest.mark.slow
@pytest.mark.parametrize("spread", SPREADS)
def test_the_smallest_latency_ratio_that_is_found_is_the_page_s(spread: float) -> None:
    smallest = RATIOS.index(SMALLEST[spread])
    assert found_slow(RATIOS[smallest], spread) >= 0.9
    assert found_slow(RATIOS[smallest - 1], spread) < 0.9


def test_the_how_to_has_the_same_ratios() -> None:
    text = " ".join(page("docs/how-to/canary-a-risky-upgrade.md").text.split())
    assert f"latencies that are {min(SMALLEST.values()):g} to {max(SMALLEST.values()):g} times as long" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "bad",
    [Traffic(more_errors=0.3), Traffic(slower=3.0), Traffic(slower=3.0, spread=0.1)],
    ids=["30 % 5xx", "3 times slower", "3 times slower, all alike"],
)
def test_thirty_percent_5xx_and_three_times_the_latency_are_always_found(bad: Traffic) -> None:
    assert rolled_back(bad, POWER_RUNS) == POWER_RUNS


@pytest.mark.slow
@pytest.mark.parametrize("median", [0.0006, 0.02, 0.0214, 1.0])
def test_a_fifth_slower_is_tolerated_wherever_the_latencies_lie_in_their_buckets(median: float) -> None:
    assert rolled_back(Traffic(median=median, spread=0.05, slower=1.2, rate=100), 20) == 0
