"""Whether the canary is worse than the old generation: two sequential tests, exact at any number of looks. Pure.

Theory of operation
-------------------
Every look brings what the canary and each worker of the old generation have answered since the look before. The
*null hypothesis* says that it was chance which of a look's requests went to the canary. For each look there is a number
whose mean under the null is at most 1 (an *e-value*): a bet against the null that can win only if it is wrong. The
product of the e-values is what a stake of 1 has become. That it ever reaches ``1/ALPHA`` has at most the probability
``ALPHA`` (Ville's inequality), over all looks together and whenever one stops: looking each second, extending the hold
and going on to look while a person makes up their mind cost nothing. Chance is within one look only, so a failure of a
database that hits both sides at once, or workers that come and go, do not count against the canary.

- **Errors**: of the ``K`` requests of a look that failed, ``x`` were the canary's. Given the totals, ``x`` is
  hypergeometric under the null (Fisher's exact test). A bet on ``odds`` has the e-value ``odds**x / E[odds**x]``;
  the mean is bounded in closed form, by sampling with replacement (Hoeffding 1963, theorem 4).
- **Latency**: the one-sided Wilcoxon rank-sum (Mann-Whitney) statistic on the histograms, mid-ranks for ties, one
  stratum for each look (as van Elteren's test), with the old generation's latencies *one bucket up*: the null
  hypothesis is "slower by at most the 26 % of a bucket". A bet has the e-value ``exp(L * rank sum)`` over its mean,
  bounded in the same way: mid-ranks are means of a uniform variable, whose moments are known.

Each test bets on several effects at once and adds up what the stakes become (a mixture, which is a bet, too). The
smallest ``odds`` is a floor: what fails less than about a fifth more often is never found worse, however many requests
there are. A part of the stake is put in at each look (``_part``), so that a canary that goes bad late is found
although it has lost what was bet before.

Requests are not independent: one stalled second makes hundreds slow, one client asks hundreds of times for what fails.
So no look may multiply a stake by more than ``_most`` (a smaller e-value is one, too): no fewer than ``CLEAR`` looks
decide. And where workers of the old generation differ among each other more than chance has it, errors count for so
much less (``burst``): an e-value to a power below 1 is one, too (Jensen).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import zip_longest

from lastcall.base.record import Record, replace

ALPHA = 0.0025
"""Probability that one test ever finds a good canary worse; there are two of them."""

ODDS = (1.5, 2.5, 6.0, 20.0)
"""Bets on how many times the odds of a failure are those of the old generation."""

SLOWNESS = (0.4, 1.0, 2.5)
"""Bets on how far the canary's latencies rank behind: factors of the rank sum in the exponent."""

TOLERATED = 1
"""Buckets of ``LATENCY_BUCKETS`` by which the canary may be slower."""

CLEAR = 5
"""Looks, at least, that decide, where the hold has enough of them."""

BURST_AT_MOST = 20.0
"""Bound of ``burst``: one old worker that is broken must not hide what a canary does."""

_PRIOR = 2  # Workers without a spread of their own, in ``burst``.

_ENOUGH = 1 / ALPHA
_LARGEST = 1e30  # Of a stake; it grows on while there are too few requests to say so, and must not overflow.


class Counts(Record):
    """Requests that were answered: how many, of them with 5xx, and how many in each bucket of latency."""

    served: int = 0
    errors: int = 0
    latency: tuple[int, ...] = ()

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.served + other.served, self.errors + other.errors, _sum(self.latency, other.latency))


class Look(Record):
    """What was answered between two looks. ``old`` by worker's number; ``warm``: latencies count."""

    canary: Counts
    old: Mapping[int, Counts]
    warm: bool = True


class Stakes(Record):
    """What one test's stakes have become. ``grown``: one for each bet; ``looks`` at which a part was put in."""

    grown: tuple[float, ...]
    looks: int = 0

    @property
    def value(self) -> float:
        """What the whole stake of 1 has become, on the mean of the bets; what is not put in yet is as it was."""
        return sum(self.grown) / len(self.grown) + 1 / (self.looks + 1)

    @property
    def decided(self) -> bool:
        """Whether the canary is worse, as far as this test goes."""
        return self.value >= _ENOUGH

    def after(self, gains: Iterable[float], clear: int) -> Stakes:
        """The stakes after a look. ``gains``: the logarithm of each bet's e-value; ``clear``: looks that may decide."""
        most = _most(clear)
        part = _part(self.looks)
        grown = tuple(
            min(_LARGEST, (stake + part) * math.exp(min(gain, most)))
            for stake, gain in zip(self.grown, gains, strict=True)
        )
        return Stakes(grown, self.looks + 1)


class Evidence(Record):
    """Everything seen until now: totals of both sides, of each old worker, and the two tests' stakes."""

    canary: Counts = Counts()
    old: Counts = Counts()
    workers: Mapping[int, Counts] = {}
    errors: Stakes = Stakes((0.0,) * len(ODDS))
    latency: Stakes = Stakes((0.0,) * len(SLOWNESS))
    clear: int = CLEAR

    def after(self, look: Look) -> Evidence:
        """The evidence after one more look."""
        old = sum(look.old.values(), Counts())
        changes: dict[str, object] = {}
        # What this look shows of the old workers' spread counts from the next one on: a bet is made before it is seen.
        spread = burst(self.workers.values())
        gains = [error_gain(odds, look.canary, old) / spread for odds in ODDS]
        changes["errors"] = self.errors.after(gains, self.clear)
        if look.warm:
            changes["latency"] = self.latency.after(latency_gains(look.canary.latency, old.latency), self.clear)
        workers = {number: self.workers.get(number, Counts()) + counts for number, counts in look.old.items()}
        return replace(
            self, canary=self.canary + look.canary, old=self.old + old, workers={**self.workers, **workers}, **changes
        )

    def enough(self, least: int) -> bool:
        """Whether both sides have answered so many requests that a verdict can rest on them."""
        return self.canary.served >= least and self.old.served >= least

    def worse(self, least: int) -> str:
        """In what the canary, with ``least`` requests or more, is worse: ``errors``, ``latency``, or nothing."""
        if self.canary.served < least:
            return ""
        return "errors" if self.errors.decided else "latency" if self.latency.decided else ""


def error_gain(odds: float, canary: Counts, old: Counts) -> float:
    """Logarithm of the e-value of one look for a bet on ``odds`` of failure; 0 where the look says nothing."""
    n, others = canary.served, old.served
    failed = canary.errors + old.errors
    if not (n and others and failed):
        return 0.0
    by_failure = failed * math.log1p(n / (n + others) * (odds - 1))  # each failure is the canary's with n/(n + others)
    by_request = n * math.log1p(failed / (n + others) * (odds - 1))  # each of its requests is one of the failures
    return canary.errors * math.log(odds) - min(by_failure, by_request)


def latency_gains(canary: tuple[int, ...], old: tuple[int, ...]) -> list[float]:
    """Logarithms of the e-values of one look for the bets on ``SLOWNESS``; 0 where the look says nothing."""
    n, others = sum(canary), sum(old)
    if not (n and others):
        return [0.0] * len(SLOWNESS)
    # By how much the canary's ranks, each from 0 to 1, are more in all than the null hypothesis lets expect.
    excess = (rank_sum(canary, shifted(old, TOLERATED)) - n * others / 2) / (n + others)
    return [slowness * excess - min(n, others) * _uniform(slowness) for slowness in SLOWNESS]


def rank_sum(canary: tuple[int, ...], old: tuple[int, ...]) -> float:
    """Mann-Whitney's U: in how many pairs of a canary's and an old one's request the canary's is slower; ties half."""
    below = 0
    pairs = 0.0
    for ours, theirs in zip_longest(canary, old, fillvalue=0):
        pairs += ours * (below + theirs / 2)
        below += theirs
    return pairs


def shifted(latency: tuple[int, ...], buckets: int) -> tuple[int, ...]:
    """The histogram of the same requests, each slower by so many buckets; the last bucket keeps what it has."""
    if len(latency) <= buckets:
        return latency
    cut = len(latency) - buckets - 1
    return (0,) * buckets + latency[:cut] + (sum(latency[cut:]),)


def burst(workers: Iterable[Counts]) -> float:
    """How many failures of the old generation come together, at least 1: Pearson's dispersion between its workers.

    A few workers show little of it, so it is taken as if ``_PRIOR`` more of them had differed just as chance has it.
    """
    sides = [one for one in workers if one.served]
    served, errors = sum(one.served for one in sides), sum(one.errors for one in sides)
    if len(sides) < 2 or not 0 < errors < served:
        return 1.0
    share = errors / served
    squares = sum((one.errors - one.served * share) ** 2 / one.served for one in sides) / (share * (1 - share))
    return min(max(1.0, (squares + _PRIOR) / (len(sides) - 1 + _PRIOR)), BURST_AT_MOST)


def _uniform(slowness: float) -> float:
    """Logarithm of the mean of ``exp(slowness * rank)`` for a rank that is uniform from -1/2 to 1/2."""
    return math.log(math.sinh(slowness / 2) / (slowness / 2))


def _most(clear: int) -> float:
    """The largest gain of one look: so many of them, from the first on, just reach ``1/ALPHA``."""
    return math.log(_ENOUGH / _part(0)) / clear


def _part(look: int) -> float:
    """The part of the stake that is put in at this look: a half, a sixth, a twelfth …; all together they are 1."""
    return 1 / ((look + 1) * (look + 2))


def _sum(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip_longest(one, other, fillvalue=0))
