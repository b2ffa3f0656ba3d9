"""The figures: what counts as what, and when retries are said to rise."""

from __future__ import annotations

import json
import logging

import pytest

from lastcall_once._record import replace
from lastcall_once.metrics import MemoryCounters, Observer, OnceEvent, RetryShare
from lastcall_once.records import Outcome, Record, State, Verdict

RECORD = Record("k", State.DONE, attempts=1, executions=1)


class Timer:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def outcome(verdict: Verdict, attempts: int = 1) -> Outcome:
    return Outcome(verdict, replace(RECORD, attempts=attempts))


def test_attempts_are_counted_by_their_outcome() -> None:
    counters = MemoryCounters()
    observer = Observer(counters)
    for verdict in (*Verdict, Verdict.GRANTED):
        observer.attempt("k", outcome(verdict), 0.001)
    observer.attempt("k", outcome(Verdict.DONE, attempts=2), 0.001)
    observer.store_error("k", "acquire", OSError("x"), fail_open=False)
    assert counters.snapshot() == {
        "once_attempts_total{outcome=executed}": 2,
        "once_attempts_total{outcome=replayed}": 3,
        "once_attempts_total{outcome=in_flight}": 1,
        "once_attempts_total{outcome=unknown}": 1,
        "once_attempts_total{outcome=mismatch}": 1,
        "once_attempts_total{outcome=store_error}": 1,
        "once_executions_total": 2,
        "once_replays_total": 3,
        "once_retries_total": 1,
    }


def test_distributions() -> None:
    counters = MemoryCounters()
    for value in (0.001, 0.002, 7.0, 100.0):
        counters.observe("once_store_seconds", value, operation="acquire")
    snapshot = json.loads(json.dumps(counters.snapshot()))
    found = snapshot["once_store_seconds{operation=acquire}"]
    assert (found["count"], found["sum"], found["max"]) == (4, pytest.approx(107.003), 100.0)
    assert (found["le_0.0005"], found["le_0.001"], found["le_0.0025"], found["le_10"], found["le_60"]) == (
        0,
        1,
        2,
        3,
        3,
    )


def test_a_counter_that_was_never_counted_and_a_gauge() -> None:
    counters = MemoryCounters()
    assert counters.value("once_retries_total") == 0.0
    counters.set("once_retry_spike", 1.0)
    assert counters.value("once_retry_spike") == 1.0


def feed(share: RetryShare, start: float, attempts: int, retries: int) -> list[bool]:
    """Some attempts within a second; the states that the spike changed to."""
    changes = []
    for number in range(attempts):
        if share.add(number % attempts < retries, start + number / attempts):
            changes.append(share.spike)
    return changes


def test_a_rise_over_the_own_mean_is_a_spike_and_ends() -> None:
    share = RetryShare()
    for span in range(10):
        assert feed(share, span * 10.0, 50, 5) == []
    assert share.mean == pytest.approx(0.1)
    assert feed(share, 100.0, 50, 40) == [True]
    assert share.share == 0.8
    assert feed(share, 110.0, 50, 2) == [False], "not before the share of the new span says so"


@pytest.mark.parametrize(
    ("past", "now"),
    [
        ((0, 0), (100, 100)),  # no past to compare with
        ((10, 0), (100, 100)),  # hardly any
        ((500, 50), (10, 10)),  # too few now
        ((500, 50), (100, 15)),  # not twice the mean
        ((500, 0), (100, 5)),  # far above nothing, but little
        ((500, 400), (100, 90)),  # always that bad
    ],
)
def test_what_is_no_spike(past: tuple[int, int], now: tuple[int, int]) -> None:
    share = RetryShare()
    assert feed(share, 0.0, *past) == []
    attempts, retries = now
    changes = [
        share.add(number % attempts >= attempts - retries, 10.0 + number / attempts) for number in range(attempts)
    ]
    assert changes == [False] * attempts


def test_the_past_is_forgotten_after_five_minutes_and_when_the_clock_steps_back() -> None:
    share = RetryShare()
    feed(share, 0.0, 100, 0)
    feed(share, 305.0, 100, 50)
    feed(share, 315.0, 1, 0)
    assert share.mean == 0.5, "the first span is too old"
    feed(share, 10.0, 100, 100)
    feed(share, 20.0, 1, 0)
    assert share.mean == 1.0


def test_a_spike_is_one_line_one_event_and_a_gauge(caplog: pytest.LogCaptureFixture) -> None:
    timer, told = Timer(), list[OnceEvent]()
    counters = MemoryCounters()
    observer = Observer(counters, told.append, clock=timer)
    with caplog.at_level(logging.WARNING, "lastcall.once"):
        for _ in range(50):
            observer.attempt("k", outcome(Verdict.GRANTED), 0.0)
        timer.now += 10.0
        for _ in range(50):
            observer.attempt("k", outcome(Verdict.IN_FLIGHT, attempts=3), 0.0)
        assert counters.value("once_retry_spike") == 1.0
        timer.now += 10.0
        for _ in range(50):
            observer.attempt("k", outcome(Verdict.GRANTED), 0.0)
    assert [event.name for event in told if event.name != "attempt"] == ["retry_spike", "retry_spike_over"]
    assert counters.value("once_retry_spike") == 0.0
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_the_log_is_not_flooded(caplog: pytest.LogCaptureFixture) -> None:
    timer = Timer()
    observer = Observer(MemoryCounters(), clock=timer)
    with caplog.at_level(logging.WARNING, "lastcall.once"):
        for _ in range(5):
            observer.store_error("k", "acquire", OSError("down"), fail_open=True)
        observer.lease_lost("k")
        timer.now += 10.0
        observer.store_error("k", "acquire", OSError("down"), fail_open=True)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3
    assert "4 more" in said[2]


def test_an_on_event_that_raises_breaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_event: OnceEvent) -> None:
        raise RuntimeError("no")

    with caplog.at_level(logging.ERROR, "lastcall.once"):
        Observer(MemoryCounters(), broken).attempt("k", outcome(Verdict.GRANTED), 0.0)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [RuntimeError]
