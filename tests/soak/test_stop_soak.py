"""Nothing is lost at a stop: requests that land within ±5 ms of SIGTERM, in many rounds, each with its own process.

A client is answered in full, or was refused before it was accepted, or, on a kept-alive connection, sees a clean FIN
before it has sent anything. ``LASTCALL_SOAK_SEED`` repeats the shots of an earlier run.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.soak.test_soak import seed
from tests.soak.volley import Kind, Outcome, fire_rounds, table

DRIVERS = pytest.mark.parametrize("driver", ["native", "asyncio"])


def check(rounds: int, directory: Path, driver: str) -> None:
    """Fire, print the figures, and fail for each request that was lost."""
    found = fire_rounds(rounds, random.Random(seed()), directory, ("--driver", driver))
    print(f"\n--driver {driver}: {table(found)}")
    faults = [fault for one in found for fault in one.faults]
    assert not faults, "\n".join(faults)
    assert sum(one.valid for one in found) >= rounds, "this machine is too busy to hit ±5 ms"
    outcomes = {(shot.kind, shot.outcome) for one in found for shot in one.shots}
    assert {(kind, Outcome.ANSWERED) for kind in Kind} <= outcomes
    assert (Kind.FRESH, Outcome.REFUSED) in outcomes


@pytest.mark.slow
@pytest.mark.timeout(90)
@DRIVERS
def test_no_request_within_5_ms_of_sigterm_is_lost_in_20_rounds(tmp_path: Path, driver: str) -> None:
    check(20, tmp_path, driver)


@pytest.mark.soak
@pytest.mark.timeout(900)
@DRIVERS
def test_no_request_within_5_ms_of_sigterm_is_lost_in_200_rounds(tmp_path: Path, driver: str) -> None:
    check(200, tmp_path, driver)
