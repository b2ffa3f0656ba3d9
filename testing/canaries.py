"""Simulated canaries: seeded traffic, second by second, through the whole procedure.

``random.random`` and ``random.choices`` give the same numbers on every version of Python, so the shares that come out
are the same everywhere; the documentation has them (``tests/supervisor/canary/test_simulation.py``).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

from lastcall.base.options import CanaryOptions
from lastcall.channel.messages import LATENCY_BUCKETS, Census
from lastcall.supervisor.canary.run import CanaryRun, Decision

OPTIONS = CanaryOptions(wanted=True)
Effect = Callable[["Side", int, random.Random], float]


def steady(side: Side, second: int, chance: random.Random) -> float:
    """Every second is like any other."""
    return 1.0


@dataclass(frozen=True)
class Traffic:
    """What the canary and each of ``workers`` old workers get.

    ``rate``: requests per second of one worker. ``median`` and ``spread`` (of the logarithm) of the latencies in
    seconds. ``slow`` and ``failing`` multiply latency and share of 5xx in a second of a worker. 5xx come ``together``
    so many at a time. ``more_errors`` and ``slower`` are the canary's fault.
    """

    workers: int = 2
    rate: float = 1000 / 30
    errors: float = 0.01
    median: float = 0.02
    spread: float = 0.7
    slow: Effect = steady
    failing: Effect = steady
    together: int = 1
    more_errors: float = 0.0
    slower: float = 1.0


class Side:
    """One worker and its counters. ``sick``: how many of its clients send what fails."""

    def __init__(self, traffic: Traffic, chance: random.Random, *, canary: bool) -> None:
        self.traffic = traffic
        self.canary = canary
        self.sick = sum(chance.random() < 0.05 for _ in range(20))
        self.served = self.errors = 0
        self.latency = [0] * (len(LATENCY_BUCKETS) + 1)

    def serve(self, second: int, chance: random.Random) -> None:
        """One second."""
        traffic = self.traffic
        number = _about(traffic.rate, chance)
        share = traffic.errors + (traffic.more_errors if self.canary else 0.0)
        share = min(1.0, share * traffic.failing(self, second, chance))
        groups = _about(number / traffic.together, chance)
        self.served += number
        self.errors += min(number, traffic.together * sum(chance.random() < share for _ in range(groups)))
        times = (traffic.slower if self.canary else 1.0) * traffic.slow(self, second, chance)
        weights = _buckets(round(24 * math.log2(traffic.median * times)), traffic.spread)
        for bucket in chance.choices(range(len(weights)), cum_weights=weights, k=number):
            self.latency[bucket] += 1

    def census(self, second: int) -> Census:
        """What it says of itself."""
        return Census(second, {}, 0, self.served, self.errors, tuple(self.latency), 0)


def simulate(traffic: Traffic, seed: int, options: CanaryOptions = OPTIONS) -> Decision:
    """One canary from its first to its last look."""
    chance = random.Random(seed)
    canary = Side(traffic, chance, canary=True)
    old = [Side(traffic, chance, canary=False) for _ in range(traffic.workers)]
    run = CanaryRun(options, traffic.workers, 0.0)
    second = 0
    while True:
        others = {number: side.census(second) for number, side in enumerate(old)}
        decision = run.take(canary.census(second), others, float(second))
        if decision is not None:
            return decision
        for side in (canary, *old):
            side.serve(second, chance)
        second += 1


def rolled_back(traffic: Traffic, runs: int, first_seed: int = 0) -> int:
    """How many of so many canaries are rolled back."""
    return sum(simulate(traffic, first_seed + n).verdict == "roll back" for n in range(runs))


def _about(mean: float, chance: random.Random) -> int:
    """A whole number whose mean is ``mean``, between half and one and a half of it."""
    return int(mean * (0.5 + chance.random()) + chance.random())


@cache
def _buckets(place: int, spread: float) -> list[float]:
    """Cumulative shares of the buckets for a lognormal latency with the median ``2 ** (place / 24)`` seconds."""
    shape = NormalDist(place / 24 * math.log(2), spread)
    return [*(shape.cdf(math.log(bound)) for bound in LATENCY_BUCKETS), 1.0]


# -- good canaries ----------------------------------------------------------------------------------------------------


def uneven(side: Side, second: int, chance: random.Random) -> float:
    """Some seconds of a worker are slower than others, and in one of fifty it stalls."""
    return 10.0 if chance.random() < 0.02 else 2 ** (chance.random() - 0.5)


def cold(side: Side, second: int, chance: random.Random) -> float:
    """A fresh process is slow for its first seconds."""
    return max(1.0, 10.0 - 2 * second) if side.canary else 1.0


def incident(side: Side, second: int, chance: random.Random) -> float:
    """From the tenth to the fifteenth second a database that all use is slow, and half of all requests fail."""
    return 50.0 if 10 <= second < 15 else 1.0


def sick_clients(side: Side, second: int, chance: random.Random) -> float:
    """Those who send what fails keep their connections: whose they are, theirs are the errors."""
    return float(side.sick)


GOOD = {
    "steady, 1 % 5xx": Traffic(),
    "no 5xx at all": Traffic(errors=0.0, spread=0.1),
    "the old generation fails itself: 30 % 5xx": Traffic(errors=0.3),
    "one old worker": Traffic(workers=1),
    "eight old workers": Traffic(workers=8, rate=12),
    "3 requests a second": Traffic(rate=3),
    "seconds that are slow, and stalls": Traffic(slow=uneven),
    "5xx that come ten at a time": Traffic(together=10),
    "clients whose requests fail, each on its worker": Traffic(workers=4, failing=sick_clients),
    "an incident of all, and a cold start": Traffic(failing=incident, slow=cold),
}
RUNS = 100
"""Of each kind of good canary: 1 000 together."""


def false_alarms(kind: str) -> int:
    """How many good canaries of a kind are rolled back."""
    return rolled_back(GOOD[kind], RUNS, first_seed=RUNS * list(GOOD).index(kind))


# -- bad canaries -----------------------------------------------------------------------------------------------------

POWER_RUNS = 100
ERRORS = (0.0, 0.01, 0.05, 0.1)
RATIOS = (1.3, 1.4, 1.5, 1.75, 2.0, 2.5, 3.0)
"""Tried; the page has the smallest that is found in 90 % of the runs."""
SPREADS = (0.1, 0.7, 1.2)


def found_errors(errors: float) -> float:
    """Share of canaries found that have 5 percentage points more 5xx than the old generation, at 1 000 requests."""
    return rolled_back(Traffic(errors=errors, more_errors=0.05), POWER_RUNS) / POWER_RUNS


def found_slow(ratio: float, spread: float) -> float:
    """Share of canaries found that are so many times slower, at 1 000 requests."""
    return rolled_back(Traffic(slower=ratio, spread=spread), POWER_RUNS) / POWER_RUNS
