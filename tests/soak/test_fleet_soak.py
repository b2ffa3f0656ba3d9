"""A parent that lives through many reloads, and upgrades whose new parent is killed at any moment."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from testing.peer import Peer, eventually
from testing.service import Service, alive, children
from tests.process.test_fleet_limits import order
from tests.process.test_fleet_upgrade import new_parent
from tests.soak.test_soak import seed


def held(pid: int) -> tuple[int, int]:
    """The descriptors of a process, and its private memory in KiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    private = sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_"))
    return len(os.listdir(f"/proc/{pid}/fd")), private


def reload_often(directory: Path, times: int, growth: int) -> None:
    """Reload ``times`` times, and compare the parent with what it was after the first few."""
    with Service(directory, "--supervise") as service:
        pid = service.process.pid

        def reload() -> None:
            assert order(service, "reload")[0] == 200
            eventually(lambda: len(service.wait_workers(1)) == 1)

        for _ in range(3):  # what is made at the first use
            reload()
        descriptors, memory = held(pid)
        for _ in range(times):
            reload()
        eventually(lambda: held(pid)[0] <= descriptors)
        print(f"\n{times} reloads: {memory} KiB, then {held(pid)[1]} KiB; {descriptors} descriptors")
        assert held(pid)[1] < memory + growth
        eventually(lambda: len(children(pid)) == 1)
        assert service.process.stop() == 0


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_10_reloads_leave_the_parent_as_it_was(tmp_path: Path) -> None:
    reload_often(tmp_path, 7, 512)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_200_reloads_leave_the_parent_as_it_was(tmp_path: Path) -> None:
    reload_often(tmp_path, 200, 1024)


def kill_new_parent(service: Service, before: int, wait: float) -> None:
    """Begin an upgrade, end it by SIGKILL after ``wait`` seconds; ``before``: how many have ended like that."""
    service.deploy(generation="2", extra="time.sleep(0.5)")
    service.signal(signal.SIGUSR2)
    fresh = new_parent(service)
    time.sleep(wait)
    family = [fresh, *children(fresh)]
    os.kill(fresh, signal.SIGKILL)
    eventually(lambda: service.process.stderr.count("Not upgraded") == before + 1)
    eventually(lambda: not any(map(alive, family)), 15)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_unix_socket_outlives_new_parents_that_are_killed_at_any_moment(tmp_path: Path) -> None:
    chance = random.Random(seed())
    path = str(tmp_path / "app.sock")
    with Service(tmp_path, "--workers", "2", "--bind", f"unix:{path}") as service:
        old = service.wait_workers(2)
        for number in range(20):
            kill_new_parent(service, number, chance.uniform(0, 0.8))
            for _ in range(10):
                with Peer(path) as peer:
                    assert peer.get("/generation").body == b"1"
            assert service.pids() == old
        assert service.process.stop() == 0
