"""How many CPUs this process may use: what ``--workers auto`` comes to."""

from __future__ import annotations

import os


def available_cpus() -> int:
    """The smallest of what affinity and the cgroups leave; at least 1."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
