"""What the canary has shown, in JSON and in a few lines of text."""

from __future__ import annotations

import math
from typing import Any

from lastcall.channel.messages import LATENCY_BUCKETS
from lastcall.supervisor.canary.verdict import ALPHA, Counts, Evidence

PERCENTILES = (50, 90, 99)


def make(
    evidence: Evidence, *, verdict: str, reason: str, state: str, seconds: float, workers: int, warning: str = ""
) -> dict[str, Any]:
    """The report as JSON values. Latencies are upper bounds of buckets, in seconds; None: nothing, or no bound.

    ``evidence`` says for each test what its stake of 1 has become; ``worse_at`` is where it means *worse*.
    """
    return {
        "verdict": verdict,
        "reason": reason,
        "warning": warning,
        "state": state,
        "seconds": round(seconds, 3),
        "canary": side(evidence.canary),
        "old": {"workers": workers, **side(evidence.old)},
        "evidence": {
            "errors": round(evidence.errors.value, 4),
            "latency": round(evidence.latency.value, 4),
            "worse_at": 1 / ALPHA,
        },
    }


def side(counts: Counts) -> dict[str, Any]:
    """One side's distribution."""
    return {
        "requests": counts.served,
        "errors": counts.errors,
        "error_share": round(counts.errors / counts.served, 6) if counts.served else None,
        "latency": {f"p{percent}": _finite(percentile(counts.latency, percent)) for percent in PERCENTILES},
        "histogram": [
            [_finite(bound), count]
            for bound, count in zip([*LATENCY_BUCKETS, math.inf], counts.latency, strict=False)
            if count
        ],
    }


def percentile(latency: tuple[int, ...], percent: int) -> float:
    """The upper bound of the bucket that it lies in, in seconds: NaN for no requests, ``math.inf`` beyond the last."""
    total, seen = sum(latency), 0
    for bound, count in zip([*LATENCY_BUCKETS, math.inf], latency, strict=False):
        seen += count
        if count and seen * 100 >= total * percent:
            return bound
    return math.nan


def distributions(report: dict[str, Any]) -> str:
    """Both sides for people, one below the other."""
    return "\n".join([_row("canary", report["canary"]), _row("old generation", report["old"])])


def worse(evidence: Evidence, kind: str) -> str:
    """Why the canary is worse, in a line; ``kind`` as ``Evidence.worse`` has it."""
    canary, old = evidence.canary, evidence.old
    if kind == "errors":
        return f"it fails more often: {_failures(canary)}, the old generation {_failures(old)}"
    return f"it is slower: {_latencies(canary.latency)}, the old generation {_latencies(old.latency)}"


def no_worse(evidence: Evidence) -> str:
    """Why it is good, in a line."""
    return f"no worse than the old generation in {_plural(evidence.canary.served)}"


def too_few(evidence: Evidence, least: int) -> str:
    """Which side had too few requests to be compared, in a line."""
    whose, counts = "it", evidence.canary
    if counts.served >= least:
        whose, counts = "the old generation", evidence.old
    return f"{whose} had {_plural(counts.served)}, and {least} are needed"


def _row(name: str, one: dict[str, Any]) -> str:
    share = "" if one["error_share"] is None else f" ({one['error_share']:.1%})"
    times = ", ".join(f"{name} {_duration(bound)}" for name, bound in one["latency"].items())
    return f"  {name + ':':<15} {_plural(one['requests'])}, {one['errors']} with 5xx{share}; {times}"


def _failures(counts: Counts) -> str:
    share = counts.errors / counts.served if counts.served else 0.0
    return f"{share:.1%} of {_plural(counts.served)} with 5xx"


def _latencies(latency: tuple[int, ...]) -> str:
    median, late = (_duration(_finite(percentile(latency, percent))) for percent in (50, 99))
    return f"half within {median}, 99 % within {late}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _plural(requests: int) -> str:
    return f"{requests} request" + ("" if requests == 1 else "s")


def _finite(seconds: float) -> float | None:
    return round(seconds, 6) if math.isfinite(seconds) else None
