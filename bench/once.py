#!/usr/bin/env python3
"""How many ``check_lock`` calls a second one core makes, by many concurrent callers.

    taskset -c 0 python -m bench.once [--calls 50000] [--callers 200] [--rounds 5] [URL …]

A URL is that of a store; without one, SQLite is measured in a temporary directory, with ``synchronous=normal`` and with
``full``. Prints the median of the rounds, the least and the most, in calls per second, through ``AsyncOnce``: keys are
new, and metrics are counted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

from lastcall_once import AsyncOnce


async def rate(call: Callable[[str], Awaitable[object]], calls: int, callers: int) -> float:
    """Calls per second, each with a new key, when ``callers`` make them one after another."""
    run = uuid.uuid4().hex
    keys = iter(range(calls))

    async def caller() -> None:
        for number in keys:
            await call(f"bench/{run}/{number}")

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return calls / (time.perf_counter() - started)


async def measure(url: str, calls: int, callers: int, rounds: int) -> list[float]:
    """The rates of some rounds of ``check_lock`` on one store, without a first one that warms it up."""
    async with AsyncOnce(url, ttl=600.0) as once:
        await rate(once.check_lock, min(calls, 2000), callers)
        return [await rate(once.check_lock, calls, callers) for _ in range(rounds)]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="check_lock calls per second.")
    parser.add_argument("urls", nargs="*", metavar="URL")
    parser.add_argument("--calls", type=int, default=50_000)
    parser.add_argument("--callers", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(f"{options.calls} calls by {options.callers} callers, {options.rounds} rounds, on {cores} core(s)")
    with tempfile.TemporaryDirectory(prefix="lastcall-once-") as directory:
        urls = options.urls or [
            f"sqlite:///{Path(directory, mode)}.db?synchronous={mode}" for mode in ("normal", "full")
        ]
        for url in urls:
            rates = asyncio.run(measure(url, options.calls, options.callers, options.rounds))
            shown = url.rpartition("@")[2] if "@" in url else url  # no password
            print(f"{statistics.median(rates):9.0f}/s ({min(rates):.0f} to {max(rates):.0f})  {shown}")


if __name__ == "__main__":
    main()
