"""What people and programs read of a canary."""

from __future__ import annotations

import math

import pytest

from lastcall.channel.messages import LATENCY_BUCKETS
from lastcall.supervisor.canary import report
from lastcall.supervisor.canary.verdict import Counts, Evidence, Look

BUCKETS = len(LATENCY_BUCKETS) + 1


def histogram(*buckets: int) -> tuple[int, ...]:
    return tuple(buckets.count(bucket) for bucket in range(BUCKETS))


def test_percentiles_are_the_bounds_of_their_buckets() -> None:
    latency = histogram(*[0] * 50, *[3] * 49, BUCKETS - 1)
    assert report.percentile(latency, 50) == LATENCY_BUCKETS[0]
    assert report.percentile(latency, 51) == report.percentile(latency, 99) == LATENCY_BUCKETS[3]
    assert report.percentile(latency, 100) == math.inf
    assert math.isnan(report.percentile((), 50))


def test_the_distributions_name_what_failed_and_in_how_many_requests() -> None:
    look = Look(
        Counts(200, 60, histogram(*[15] * 200)),
        {1: Counts(400, 1, histogram(*[15] * 400)), 2: Counts(600, 1, histogram(*[15] * 600))},
    )
    evidence = Evidence(clear=1).after(look)
    made = report.make(
        evidence,
        verdict="roll back",
        reason=report.worse(evidence, "errors"),
        state="roll back",
        seconds=7.0,
        workers=2,
    )
    assert "30.0% of 200 requests" in made["reason"]
    canary, old = report.distributions(made).splitlines()
    assert "200 requests, 60 with 5xx (30.0%)" in canary
    assert "1000 requests, 2 with 5xx (0.2%)" in old
    assert "p50 16 ms" in old
    assert made["canary"]["histogram"] == [[0.016, 200]]
    assert made["evidence"]["errors"] > made["evidence"]["worse_at"] == 400


@pytest.mark.parametrize("served", [0, 1])
def test_nothing_to_show_is_shown_as_nothing(served: int) -> None:
    evidence = Evidence().after(Look(Counts(served), {}))
    made = report.make(evidence, verdict="", reason="", state="hold", seconds=0.0, workers=1)
    assert made["canary"]["error_share"] == (0 if served else None)
    assert f"{served} request{'' if served == 1 else 's'}, 0 with 5xx" in report.distributions(made)
    assert "p50 -" in report.distributions(made)
