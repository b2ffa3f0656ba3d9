"""Under 16 clients: reloads, recyclings, killed workers, upgrades. No request fails but on what a killed worker held.

The short forms are part of ``make test``; the full numbers are for ``make soak``.
"""

from __future__ import annotations

import json
import os
import random
import signal
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from testing.peer import Peer, eventually
from testing.service import Service, alive, children
from testing.storm import APP, Storm, clients_of, exit_code, kill, reaping, state

TWO = ("--workers", "2")
SHORT = pytest.mark.timeout(150)
LONG = (pytest.mark.soak, pytest.mark.timeout(3600))
WAIT = 60.0
"""Seconds for one reload, or one boot, of a machine on which everything runs at once."""


def stormy(directory: Path, *options: str, extra: str = "") -> Service:
    """A service of the storm's application."""
    service = Service(directory, *options)
    deploy(service, "1", extra)
    return service


def deploy(service: Service, generation: str, extra: str = "") -> None:
    service.deploy(text=APP.format(generation=generation, extra=extra))


def port_of(service: Service) -> int:
    return int(service.address.rpartition(":")[2])


def status(service: Service) -> dict[str, object]:
    with Peer(str(service.control)) as peer:
        found: dict[str, object] = json.loads(peer.get("/status").body)
        return found


def settled(service: Service, workers: int) -> None:
    """Wait until so many workers serve, and no other is left."""

    def so() -> bool:
        states = [one["state"] for one in status(service)["workers"]]  # type: ignore[attr-defined]
        return states == ["serving"] * workers

    eventually(so, WAIT)


def numbers(short: int, full: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "count", [pytest.param(short, marks=SHORT), pytest.param(full, marks=LONG)], ids=["short", "full"]
    )


# -- reloads -----------------------------------------------------------------------------------------------------------


def reload(service: Service, generation: int) -> None:
    """By SIGHUP; done when it is said."""
    deploy(service, str(generation))
    service.signal(signal.SIGHUP)
    service.process.wait_for(rf"(?i:reloaded).*generation {generation}\b", WAIT)


@numbers(2, 5)
def test_reloads_lose_no_request_and_kept_connections_stay(tmp_path: Path, count: int) -> None:
    with stormy(tmp_path, *TWO) as service, Storm(service.address) as storm:
        for generation in range(2, count + 2):
            reload(service, generation)
            storm.more()
        settled(service, 2)
        storm.calm()
        print(f"\n{count} reloads: {storm}")
        assert storm.faults() == []
        assert (storm.reconnections, storm.told) == (0, 0)
        assert all(len(client.generations) == count + 1 for client in storm.clients if client.keep)
        assert service.process.stop() == 0


# -- recycling ---------------------------------------------------------------------------------------------------------


@numbers(6, 200)
def test_recycling_loses_no_request_and_kept_connections_stay(tmp_path: Path, count: int) -> None:
    options = (*TWO, "--limit-max-requests", "150", "--limit-max-requests-jitter", "50")
    with stormy(tmp_path, *options) as service, Storm(service.address) as storm:
        replaced = 0

        def recycled() -> bool:
            nonlocal replaced
            replaced = service.process.stderr.count("Replacing worker")
            return replaced >= count

        eventually(recycled, 20 * count)
        storm.calm()
        print(f"\n{replaced} recyclings: {storm}")
        assert storm.faults() == []
        assert (storm.reconnections, storm.told) == (0, 0)
        assert service.process.stop() == 0


# -- deaths ------------------------------------------------------------------------------------------------------------


@numbers(3, 20)
def test_killed_workers_take_only_their_own_connections_with_them(tmp_path: Path, count: int) -> None:
    chance = random.Random(count)
    with stormy(tmp_path, *TWO) as service, Storm(service.address) as storm:
        for _ in range(count):
            eventually(lambda: bool(service.workers))
            kill(storm, chance.choice(service.workers), port_of(service))
            storm.more(chance.randrange(1, 10))
        settled(service, 2)
        storm.more()
        storm.calm()
        print(f"\n{count} kill -9: {storm}")
        assert storm.faults() == []
        assert service.process.stop() == 0


# -- upgrades ----------------------------------------------------------------------------------------------------------


@numbers(1, 3)
def test_upgrades_lose_no_request(tmp_path: Path, count: int) -> None:
    pidfile = tmp_path / "service.pid"
    with reaping(), ExitStack() as stack:
        service = stack.enter_context(stormy(tmp_path, *TWO, "--pidfile", str(pidfile)))
        storm = stack.enter_context(Storm(service.address))
        parent = service.process.pid
        for generation in range(2, count + 2):
            deploy(service, str(generation))
            before, workers = parent, children(parent)
            os.kill(before, signal.SIGUSR2)
            eventually(lambda before=before: int(pidfile.read_text() or before) != before, WAIT)  # type: ignore[misc]
            parent = int(pidfile.read_text())
            stack.callback(end, parent)
            if before == service.process.pid:
                eventually(lambda: service.process.returncode is not None, WAIT)
                assert service.process.returncode == 0
            else:
                assert exit_code(before, WAIT) == 0
            assert not any(map(alive, workers))
            storm.more()
        storm.calm()
        print(f"\n{count} upgrades: {storm}")
        workers = children(parent)
        os.kill(parent, signal.SIGTERM)
        assert exit_code(parent) == 0
        assert not any(map(alive, workers))
        assert storm.faults() == []
        # Who has to open another connection was told so in an answer.
        assert storm.reconnections == storm.told


def end(pid: int) -> None:
    if alive(pid):
        os.kill(pid, signal.SIGKILL)


# -- everything at once ------------------------------------------------------------------------------------------------


@numbers(5, 40)
def test_all_of_it_in_any_order(tmp_path: Path, count: int) -> None:
    """Reloads, scaling, recycling and deaths, each while the last one is still under way."""
    chance = random.Random(count)
    generation = 1
    options = (*TWO, "--limit-max-requests", "400", "--limit-max-requests-jitter", "200")
    with stormy(tmp_path, *options) as service, Storm(service.address) as storm:
        for _ in range(count):
            match chance.choice(["reload", "kill", "more", "less", "retire"]):
                case "reload":
                    generation += 1
                    deploy(service, str(generation))
                    service.signal(signal.SIGHUP)
                case "kill":
                    eventually(lambda: bool(service.workers))
                    kill(storm, chance.choice(service.workers), port_of(service))
                case "more":
                    service.signal(signal.SIGTTIN)
                case "less":
                    service.signal(signal.SIGTTOU)
                case "retire":
                    eventually(lambda: bool(service.workers))
                    os.kill(chance.choice(service.workers), signal.SIGTERM)
            storm.more(chance.randrange(1, 20))
        storm.calm()
        print(f"\n{count} orders and deaths: {storm}")
        assert storm.faults() == []
        assert service.process.stop() == 0


# -- even spread -------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(90)
@pytest.mark.parametrize("workers", [2, 4])
def test_a_thousand_connections_spread_evenly(tmp_path: Path, workers: int) -> None:
    with Service(tmp_path, "--workers", str(workers)) as service, ExitStack() as stack:
        service.wait_workers(workers)
        found: Counter[str] = Counter()
        for _ in range(1_000):
            peer = stack.enter_context(service.connect())
            found[peer.get("/pid").body.decode()] += 1
        print(f"\n1000 connections over {workers} workers: {sorted(found.values())}")
        mean = 1_000 / workers
        assert len(found) == workers
        assert all(abs(count - mean) <= mean / 4 for count in found.values()), found
        assert service.process.stop() == 0


# -- successors that fail ----------------------------------------------------------------------------------------------

FREEZES_BEFORE_IT_ACKNOWLEDGES = """
from lastcall.net import moving

say = moving.Adopter._say


def freeze(self, what, taken=0):
    if what.get("received") and not os.path.exists("frozen"):
        open("frozen", "w").close()
        os.kill(os.getpid(), signal.SIGSTOP)
    return say(self, what, taken)


moving.Adopter._say = freeze
"""


@SHORT
def test_a_successor_killed_before_it_acknowledges_loses_nobody(tmp_path: Path) -> None:
    with stormy(tmp_path, "--supervise") as service, ExitStack() as stack:
        (old,) = service.workers
        idle = [stack.enter_context(service.connect()) for _ in range(50)]
        storm = stack.enter_context(Storm(service.address))
        for peer in idle:
            assert peer.get("/idle/plain").status == 200
        deploy(service, "2", FREEZES_BEFORE_IT_ACKNOWLEDGES)
        service.signal(signal.SIGHUP)
        eventually(lambda: "T" in map(state, service.workers), WAIT)
        successor = next(pid for pid in service.workers if state(pid) == "T")
        # What it was passed, and did not acknowledge, its predecessor still has.
        passed = clients_of(successor, port_of(service)) & clients_of(old, port_of(service))
        assert passed
        kill(storm, successor, port_of(service), but=passed)
        for peer in idle:
            assert peer.get("/idle/plain").status == 200
        storm.more()
        eventually(lambda: not alive(old), WAIT)
        storm.more()
        storm.calm()
        print(f"\n{len(passed)} were passed and not acknowledged: {storm}")
        assert storm.faults() == []
        assert service.process.stop() == 0


FEW_DESCRIPTORS = """
import resource

used, hard = len(os.listdir("/proc/self/fd")), resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (used + 60, hard))
"""


@SHORT
def test_a_successor_with_few_descriptors_loses_nobody(tmp_path: Path) -> None:
    grace = ("--timeout-graceful-shutdown", "5")
    with stormy(tmp_path, *TWO, *grace) as service, ExitStack() as stack:
        old = service.workers
        # They have connections of their own, so that there is no room for all.
        idle = [stack.enter_context(service.connect()) for _ in range(100)]
        for peer in idle:
            assert peer.get("/idle/plain").status == 200
        deploy(service, "2", FEW_DESCRIPTORS)
        service.signal(signal.SIGHUP)
        closed: set[Peer] = set()
        answers: Counter[str] = Counter()
        while any(map(alive, old)):
            for peer in idle:
                if peer not in closed:
                    answer = peer.get("/idle/plain")
                    answers[answer.body.decode().split(" ")[3]] += 1
                    if answer.headers.get("connection") == "close":
                        closed.add(peer)
        print(f"\nanswers by generation: {dict(answers)}; {len(closed)} of {len(idle)} were told to leave")
        for peer in idle:
            if peer in closed:
                assert peer.rest() == b""
                peer.close()
            else:
                assert peer.get("/idle/plain").body.endswith(b" 2")
        assert len(closed) < len(idle)
        assert service.process.stop() == 0
