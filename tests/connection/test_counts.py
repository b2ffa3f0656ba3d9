"""What a worker counts of its responses, for the parent's comparison of two generations."""

from __future__ import annotations

import math
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.channel.messages import LATENCY_BUCKETS
from lastcall.connection.counts import ResponseCounts


def bucket(seconds: float) -> int:
    counts = ResponseCounts()
    counts.count(False, seconds)
    assert sum(counts.latency) == 1
    return counts.latency.index(1)


def test_there_is_a_bucket_for_each_bound_and_one_for_what_took_longer() -> None:
    assert len(ResponseCounts().latency) == len(LATENCY_BUCKETS) + 1
    assert bucket(0.0) == bucket(-1.0) == 0
    assert bucket(1e9) == len(LATENCY_BUCKETS)


@given(st.floats(0, 1000))
def test_a_time_is_in_the_bucket_whose_bound_it_reaches(seconds: float) -> None:
    assert LATENCY_BUCKETS[max(0, bucket(seconds) - 1)] * (1 - 1e-12) <= seconds or bucket(seconds) == 0
    assert seconds <= ([*LATENCY_BUCKETS, math.inf])[bucket(seconds)] * (1 + 1e-12)


@pytest.mark.parametrize("bound", LATENCY_BUCKETS)
def test_near_a_bound_the_bucket_is_the_one_that_a_search_finds(bound: float) -> None:
    for seconds in (bound * (1 - 1e-9), bound * (1 + 1e-9)):
        assert bucket(seconds) == bisect_left(LATENCY_BUCKETS, seconds)


def test_failures_are_counted_beside_the_rest() -> None:
    counts = ResponseCounts()
    for failed in (False, True, True):
        counts.count(failed, 0.001)
    assert (counts.served, counts.errors, sum(counts.latency)) == (3, 2, 3)
