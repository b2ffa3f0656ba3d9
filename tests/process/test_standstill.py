"""A process that stands still while it stops: SIGSTOP, or a container that is frozen. Its clock goes on without it."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from testing.process import ServerProcess
from tests.process.conftest import Start, wait_for_output
from tests.process.witness import Client, report

BUDGETS = (*("--timeout-graceful-shutdown", "1", "--timeout-cancel", "0.8", "--timeout-lifespan-shutdown", "0.8"),)
WORST_CASE = 1 + 0.8 + 0.8 + 1
STANDSTILL = WORST_CASE + 1.5  # seconds: the watchdog's half and more


@pytest.mark.parametrize("loop", ["auto", "uvloop"])
def test_what_follows_the_grace_has_its_time_although_the_process_stood_still(
    start: Start, tmp_path: Path, loop: str
) -> None:
    """One process for each moment; they stand still together."""
    standing: list[tuple[ServerProcess, Client, Path]] = []
    for when in ("draining", "cancelling", "closing"):
        file = tmp_path / f"{when}.json"
        server = start("steps:app", *BUDGETS, "--no-access-log", "--drain-report", str(file), "--loop", loop)
        client = Client(server, "/")
        wait_for_output(server, "request began")
        server.signal(signal.SIGTERM)
        if when == "draining":
            server.wait_for("Stopping")
        else:
            wait_for_output(server, "cleanup began" if when == "cancelling" else "shutdown began")
        server.signal(signal.SIGSTOP)
        standing.append((server, client, file))
    time.sleep(STANDSTILL)
    for server, _, _ in standing:
        server.signal(signal.SIGCONT)
    for server, client, file in standing:
        assert server.wait() == 0
        assert server.stdout.split("\n")[:-1] == [
            "request began", "cleanup began", "cleanup ended", "shutdown began", "shutdown ended",
        ]  # fmt: skip
        found = report(file)
        assert (found["cancelled"], found["abandoned"], found["lifespan"]) == (1, 0, "complete")
        assert found["seconds"] > STANDSTILL
        client.wait_ended()


def test_a_standstill_is_made_up_for_once(start: Start) -> None:
    """What hangs does not live on by being stopped and continued."""
    server = start("steps:app", *BUDGETS, env={"STEPS": "100000"})
    server.signal(signal.SIGTERM)
    wait_for_output(server, "shutdown began")
    for _ in range(2):
        server.signal(signal.SIGSTOP)
        time.sleep(STANDSTILL)
        server.signal(signal.SIGCONT)
        time.sleep(0.1)
    assert server.wait() in (1, 4)
    assert server.stderr.count("stood still") <= 1
