"""What ``once`` counts: attempts by outcome, executions, replays, latencies, and whether retries rise.

Names, with their labels:

- ``once_attempts_total{outcome}``: ``executed``, ``replayed``, ``in_flight``, ``mismatch``, ``unknown`` or
  ``store_error``
- ``once_executions_total``, ``once_replays_total``
- ``once_retries_total``: attempts on a key that has been seen before
- ``once_fail_open_total{operation}``: what was allowed, or not written down, because the store failed
- ``once_leases_lost_total``
- ``once_undelivered_total``: answers that are in the record, and whose client had left: its retry gets them
- ``once_store_seconds{operation}``, ``once_lease_age_seconds``: distributions, in seconds
- ``once_retry_spike``: 1 while the retry share is far above its own recent mean
"""

from __future__ import annotations

import logging
import math
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from typing import Protocol

from lastcall_once._record import Record
from lastcall_once.records import Outcome, Verdict

logger = logging.getLogger("lastcall.once")

OUTCOMES = {
    Verdict.GRANTED: "executed",
    Verdict.DONE: "replayed",
    Verdict.FAILED: "replayed",
    Verdict.IN_FLIGHT: "in_flight",
    Verdict.MISMATCH: "mismatch",
    Verdict.UNKNOWN: "unknown",
}
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Counters(Protocol):
    """Where figures go. Called from any thread; must not raise, nor take long."""

    def add(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter, which never falls."""

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add one value to a distribution."""


class Distribution:
    """Values by size: ``buckets[i]`` counts those up to ``BOUNDS[i]``, the last one those above all."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.most = 0.0
        self.buckets = [0] * (len(BOUNDS) + 1)

    def add(self, value: float) -> None:
        """Count one value."""
        self.count += 1
        self.total += value
        self.most = max(self.most, value)
        self.buckets[bisect_left(BOUNDS, value)] += 1


_Name = tuple[str, tuple[tuple[str, str], ...]]


class MemoryCounters:
    """Figures in this process's memory: what :class:`Counters` asks for, and ``snapshot`` to read them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[_Name, float] = {}
        self._distributions: dict[_Name, Distribution] = {}

    def add(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        full = (name, tuple(sorted(labels.items())))
        with self._lock:
            self._numbers[full] = self._numbers.get(full, 0.0) + amount

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        with self._lock:
            self._numbers[name, tuple(sorted(labels.items()))] = value

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add one value to a distribution."""
        full = (name, tuple(sorted(labels.items())))
        with self._lock:
            found = self._distributions.get(full)
            if found is None:
                found = self._distributions[full] = Distribution()
            found.add(value)

    def value(self, name: str, **labels: str) -> float:
        """A counter's or a gauge's value; 0 for what was never counted."""
        with self._lock:
            return self._numbers.get((name, tuple(sorted(labels.items()))), 0.0)

    def snapshot(self) -> dict[str, float | dict[str, float]]:
        """Everything, for JSON: ``{"once_attempts_total{outcome=executed}": 3.0, …}``.

        A distribution is ``{"count": …, "sum": …, "max": …}``, and for each bound (seconds) how many were not above it.
        """
        with self._lock:
            found: dict[str, float | dict[str, float]] = {_shown(full): n for full, n in self._numbers.items()}
            for full, one in self._distributions.items():
                figures = {"count": float(one.count), "sum": one.total, "max": one.most}
                so_far = 0
                for bound, count in zip(BOUNDS, one.buckets, strict=False):
                    so_far += count
                    figures[f"le_{bound:g}"] = float(so_far)
                found[_shown(full)] = figures
        return dict(sorted(found.items()))


def _shown(full: _Name) -> str:
    name, labels = full
    return f"{name}{{{','.join(f'{key}={value}' for key, value in labels)}}}" if labels else name


class RetryShare:
    """The share of attempts that are retries, now and in the recent past. Pure: time is an argument, in seconds.

    Attempts are counted in spans of ``span`` seconds. There is a spike while the current span has at least ``least``
    attempts, its share is twice the mean of the ``spans`` before it and 0.1 above it, and that is no accident (three
    standard deviations). Without ``least`` attempts to compare with there is none: who has just started has no past.
    """

    def __init__(self, *, span: float = 10.0, spans: int = 30, least: int = 20) -> None:
        self._span = span
        self._least = least
        self._past: deque[tuple[int, int, int]] = deque()  # number of the span, attempts, retries
        self._spans = spans
        self._now = (0, 0, 0)
        self._attempts = self._retries = 0  # the sums of the past
        self.spike = False

    @property
    def share(self) -> float:
        """The share in the current span, 0 to 1."""
        return self._now[2] / self._now[1] if self._now[1] else 0.0

    @property
    def mean(self) -> float:
        """The share in the spans before it."""
        return self._retries / self._attempts if self._attempts else 0.0

    def add(self, retry: bool, now: float) -> bool:
        """Count an attempt; return whether ``spike`` has changed."""
        number = int(now // self._span)
        if number != self._now[0]:
            if self._now[1]:
                self._past.append(self._now)
                self._attempts += self._now[1]
                self._retries += self._now[2]
            while self._past and not 0 < number - self._past[0][0] <= self._spans:
                _, attempts, retries = self._past.popleft()
                self._attempts -= attempts
                self._retries -= retries
            self._now = (number, 0, 0)
        self._now = (number, self._now[1] + 1, self._now[2] + retry)
        if self._now[1] < self._least:
            return False  # too few to say; what was found in the last span holds
        before, mean, attempts = self.spike, self.mean, self._now[1]
        chance = 3 * math.sqrt((mean * (1 - mean) + 1 / attempts) / attempts)
        self.spike = self._attempts >= self._least and self.share >= mean + max(mean, 0.1, chance)
        return self.spike is not before


class OnceEvent(Record):
    """What ``on_event`` is called with.

    ``name`` is ``attempt``, ``completed``, ``failed``, ``abandoned``, ``released``, ``lease_lost``, ``undelivered``,
    ``fail_open``, ``retry_spike`` or ``retry_spike_over``; ``outcome`` that of an attempt; ``seconds`` what the attempt
    took in the store, or the age of the lease that ended.
    """

    name: str
    key: str = ""
    outcome: str = ""
    attempts: int = 0
    executions: int = 0
    seconds: float = 0.0
    detail: str = ""


class Observer:
    """GilHandoff what happens into figures, events and log lines. ``clock`` is monotonic, in seconds."""

    _QUIET = 10.0  # seconds between two log lines about the same thing

    def __init__(
        self,
        counters: Counters,
        on_event: Callable[[OnceEvent], object] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counters = counters
        self.retries = RetryShare()
        self._on_event = on_event
        self._clock = clock
        self._logged: dict[str, float] = {}
        self._unlogged: dict[str, int] = {}

    def attempt(self, key: str, outcome: Outcome, seconds: float) -> None:
        """An attempt got its verdict."""
        word, record = OUTCOMES[outcome.verdict], outcome.record
        counters = self.counters
        counters.add("once_attempts_total", outcome=word)
        if word == "executed":
            counters.add("once_executions_total")
        elif word == "replayed":
            counters.add("once_replays_total")
        retry = record.attempts > 1
        if retry:
            counters.add("once_retries_total")
        if self.retries.add(retry, self._clock()):
            self._spike()
        if self._on_event is not None:
            self.tell(
                OnceEvent("attempt", key, word, record.attempts, record.executions, seconds, outcome.verdict.value)
            )

    def store_error(self, key: str, operation: str, error: Exception, *, fail_open: bool) -> None:
        """The store failed; with ``fail_open`` the work goes on without it."""
        if operation == "acquire":
            self.counters.add("once_attempts_total", outcome="store_error")
            if not fail_open:
                self.tell(OnceEvent("attempt", key, "store_error", detail=str(error)))
        if fail_open:
            self.counters.add("once_fail_open_total", operation=operation)
            self.tell(OnceEvent("fail_open", key, "store_error", detail=str(error)))
            what = "work runs unguarded" if operation == "acquire" else f"{operation} was not written down"
            self.warn("fail_open", "The store of once failed, and fail_open is set: %s (%s)", what, error)

    def lease_lost(self, key: str) -> None:
        """Somebody else has the key now: the lease ran out, or an operator took it away."""
        self.counters.add("once_leases_lost_total")
        self.warn("lease_lost", "A lease was lost while its work ran: the work may run twice (key %r)", key)
        self.tell(OnceEvent("lease_lost", key))

    def undelivered(self, key: str) -> None:
        """The server has told that the client left before it had the answer, which is recorded: expect its retry."""
        self.counters.add("once_undelivered_total")
        self.tell(OnceEvent("undelivered", key))

    def ended(self, name: str, key: str, age: float) -> None:
        """A lease was ended by its holder, ``age`` seconds after it was granted."""
        self.counters.observe("once_lease_age_seconds", age)
        if self._on_event is not None:
            self.tell(OnceEvent(name, key, seconds=age))

    def took(self, operation: str, seconds: float) -> None:
        """An operation of the store has ended."""
        self.counters.observe("once_store_seconds", seconds, operation=operation)

    def warn(self, about: str, message: str, *values: object) -> None:
        """Log, but not more than one line in ten seconds about the same thing; the next one counts those left out."""
        now = self._clock()
        if about in self._logged and now - self._logged[about] < self._QUIET:
            self._unlogged[about] = self._unlogged.get(about, 0) + 1
            return
        self._logged[about] = now
        left_out = self._unlogged.pop(about, 0)
        logger.warning(message + (f", and {left_out} more" if left_out else ""), *values)

    def tell(self, event: OnceEvent) -> None:
        """Call ``on_event``. What it raises is logged and goes no further: the work is not its business."""
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception:
            logger.exception("on_event failed for %s", event.name)

    def _spike(self) -> None:
        share = self.retries
        self.counters.set("once_retry_spike", float(share.spike))
        if share.spike:
            logger.warning(
                "Retries rise: %.0f %% of the attempts now, %.0f %% in the last minutes",
                share.share * 100,
                share.mean * 100,
            )
        self.tell(OnceEvent("retry_spike" if share.spike else "retry_spike_over", detail=f"{share.share:.3f}"))
