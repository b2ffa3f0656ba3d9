"""The clients of the soak: ``python -m tests.soak.load HOST PORT SECONDS SEED SHARE``; the outcome is JSON on stdout.

Workers draw one scenario after the other. Those with much to do are held back so that this process uses no more than
SHARE of a core. When the time is over, whoever still waits leaves at once, which is one more test for the server.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.soak.client import Address, Ended, WrongAnswer
from tests.soak.scenarios import FAST, SLOW, Client, Scenario

FAST_WORKERS = 20
SLOW_WORKERS = 24
LONGEST_SCENARIO = 30.0
EXAMPLES = 20


@dataclass
class Outcome:
    """What the clients saw. ``requests`` is how many got their right answer; ``errors`` counts by scenario and kind."""

    requests: int = 0
    connections: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    cpu: float = 0.0

    def wrong(self, name: str, error: BaseException) -> None:
        """Count an error, and keep the first ones in full."""
        self.errors[f"{name}: {type(error).__name__}"] += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"{name}: {type(error).__name__}: {error}")


class Pace:
    """Makes whoever awaits it wait as long as this process has used more than its share of a core."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._start = time.monotonic() - time.process_time() / share

    async def __call__(self) -> None:
        ahead = time.process_time() / self._share - (time.monotonic() - self._start)
        if ahead > 0:
            await asyncio.sleep(ahead)


async def work(client: Client, pool: dict[Scenario, int], until: float, outcome: Outcome) -> None:
    """One scenario after the other until the time is over."""
    scenarios, weights = list(pool), list(pool.values())
    try:
        while time.monotonic() < until:
            (one,) = client.rng.choices(scenarios, weights)
            name = getattr(one, "__name__", "scenario")
            outcome.connections[name] += 1
            try:
                async with asyncio.timeout(LONGEST_SCENARIO):
                    await one(client)
            except (WrongAnswer, Ended, TimeoutError, OSError) as error:
                outcome.wrong(name, error)
            await client.pace()
    finally:
        outcome.requests += client.answered


async def load(address: Address, seconds: float, seed: str, share: float) -> Outcome:
    """Keep the server busy for ``seconds``."""
    outcome, pace = Outcome(), Pace(share)
    until = time.monotonic() + seconds
    tasks = []
    for pool, count in ((FAST, FAST_WORKERS), (SLOW, SLOW_WORKERS)):
        for number in range(count):
            name = f"{'fast' if pool is FAST else 'slow'}{number}"
            client = Client(address, random.Random(f"{seed}/{name}"), name, pace)
            tasks.append(asyncio.create_task(work(client, pool, until, outcome)))
    await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
    outcome.cpu = time.process_time()
    return outcome


def main() -> None:
    host, port, seconds, seed, share = sys.argv[1:]
    outcome = asyncio.run(load((host, int(port)), float(seconds), seed, float(share)))
    print(json.dumps(vars(outcome)))


if __name__ == "__main__":
    main()
