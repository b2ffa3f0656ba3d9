"""The census: what has been served, and what runs."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.channel.messages import LATENCY_BUCKETS, Census
from lastcall.connection.counts import ResponseCounts
from testing.worker import SECONDS, WorkerProcess

Make = Callable[..., WorkerProcess]


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1000))))
def test_buckets_are_those_of_the_channel(responses: list[tuple[bool, float]]) -> None:
    counts = ResponseCounts()
    expected = [0] * (len(LATENCY_BUCKETS) + 1)
    for failed, seconds in responses:
        counts.count(failed, seconds)
        expected[bisect_left(LATENCY_BUCKETS, seconds)] += 1
    assert counts.latency == tuple(expected)
    assert counts.served == len(responses)
    assert counts.errors == sum(failed for failed, _ in responses)


def test_bounds_belong_to_the_bucket_below() -> None:
    for at, bound in enumerate(LATENCY_BUCKETS):
        counts = ResponseCounts()
        counts.count(False, bound)
        assert counts.latency[at] == 1


@pytest.mark.slow
def test_served_and_errors(make: Make) -> None:
    worker = make(health_path="/-").serving()
    for path in ("/", "/200", "/404", "/500", "/503", "/raise", "/-/ready", "/block?0.01"):
        worker.get(path)
    worker.get("/500", private=True)
    census = worker.census(17)
    assert census.number == 17
    assert (census.served, census.errors) == (7, 3), "neither the health path nor the parent's own count"
    assert sum(census.latency) == 7
    assert sum(census.latency[: LATENCY_BUCKETS.index(0.008)]) < 7, "one took ten milliseconds"
    assert census.in_flight == {}
    assert 1 << 20 < census.rss < 1 << 30


@pytest.mark.slow
def test_a_stream_that_lasts_is_not_slow(make: Make) -> None:
    worker = make().serving()
    assert worker.get("/stream").endswith(b"end\n\r\n0\r\n\r\n"), "two seconds"
    latency = worker.census().latency
    assert sum(latency) == 1
    assert sum(latency[: bisect_left(LATENCY_BUCKETS, 2.0)]) == 1, "its head came at once"


@pytest.mark.slow
def test_what_runs_by_kind_and_by_name(make: Make) -> None:
    worker = make().serving()
    with worker.connect() as waiting, worker.connect() as streaming, worker.connect_private() as private:
        for sock, path in ((waiting, b"/wait"), (streaming, b"/stream"), (private, b"/wait")):
            sock.sendall(b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % path)
        streaming.settimeout(SECONDS)
        streaming.recv(1)
        census = until(worker, lambda census: census.in_flight.get("request") == 1)
        assert census.in_flight == {"request": 1, "stream": 1}
        assert census.connections == 2
        named = worker.census(tasks=True).tasks
        assert {(task["method"], task["path"], task["kind"]) for task in named} == {
            ("GET", "/wait", "request"),
            ("GET", "/stream", "stream"),
        }
        assert all(task["age"] >= 0 for task in named)
        assert {task["client"].rpartition(":")[0] for task in named} == {"127.0.0.1"}


@pytest.mark.slow
def test_a_client_that_leaves_is_no_error_and_a_broken_response_is_one(make: Make) -> None:
    worker = make().serving()
    with worker.connect() as client:
        client.sendall(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
        client.recv(1)
    census = until(worker, lambda census: census.in_flight == {})
    assert (census.served, census.errors) == (0, 0)
    worker.get("/midway")
    census = until(worker, lambda census: census.served == 1)
    assert census.errors == 1


@pytest.mark.slow
def test_before_it_serves(make: Make) -> None:
    worker = make(env={"START": "hang"})
    census = worker.census()
    assert (census.served, census.connections, sum(census.latency)) == (0, 0, 0)


def until(worker: WorkerProcess, true: Callable[[Census], bool]) -> Census:
    deadline = time.monotonic() + SECONDS
    while not true(census := worker.census()):
        assert time.monotonic() < deadline, census
        time.sleep(0.02)
    return census
