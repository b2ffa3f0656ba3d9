"""No stop signal is lost: starts, each told to stop up to 100 ms after it is ready, six side by side on busy CPUs.

``LASTCALL_SOAK_SEED`` repeats the waits of an earlier run, ``LASTCALL_SOAK_STARTS`` is their number.
"""

from __future__ import annotations

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testing.process import ProcessFailure, ServerProcess
from tests.soak.run import ROOT
from tests.soak.test_soak import seed

STARTS = int(os.environ.get("LASTCALL_SOAK_STARTS", "5000"))
SIDE_BY_SIDE = 6
PATIENCE = 8.0
"""Seconds: a signal that was lost is not heard later either, so that there is nothing between a moment and never.

Without those in which the server waited for a processor: an interpreter takes some 50 ms of one for its end, and on a
busy machine, at a low priority, it gets that in ten seconds.
"""
NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def ended(server: ServerProcess) -> int | None:
    """The exit code; None if it still runs after a second."""
    try:
        return server.wait(1.0)
    except ProcessFailure:
        return None


def start_and_stop(number: signal.Signals, wait: float, loop: str) -> str | None:
    """One start; what was wrong with its stop, or None."""
    with ServerProcess(("--loop", loop), "tests.process.apps.quiet:app", cwd=ROOT) as server:
        server.wait_ready(60)
        time.sleep(wait)
        begun, waited = time.monotonic(), server.waited
        server.signal(number)
        while (code := ended(server)) is None:
            if time.monotonic() - begun - (server.waited - waited) > PATIENCE:
                server.signal(signal.SIGRTMAX - 3)  # the stacks, as the watchdog asks for them
                time.sleep(1)
                late = f"{server.stderr}\n{Path(f'/proc/{server.pid}/stat').read_text()}"
                return f"{number.name} after {wait * 1000:.1f} ms, --loop {loop}: {late}"
    return None if code == 0 else f"{number.name} after {wait * 1000:.1f} ms: exit code {code}\n{server.stderr}"


def check(starts: int) -> None:
    chance = random.Random(seed())
    shots = [(chance.choice(NUMBERS), chance.uniform(0, 0.1), chance.choice(["auto", "uvloop"])) for _ in range(starts)]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        faults = [fault for fault in pool.map(lambda shot: start_and_stop(*shot), shots) if fault]
    assert not faults, "\n".join(faults)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_no_signal_is_lost_in_30_starts() -> None:
    check(30)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_no_signal_is_lost_in_5_000_starts() -> None:
    check(STARTS)
