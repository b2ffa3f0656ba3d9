"""The parent around a fleet that says what a test has it say: mistakes inside neither end nor hang a service."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lastcall.base.exit_code import ExitCode
from lastcall.supervisor import actions as do
from lastcall.supervisor import events as on
from lastcall.supervisor import parent as module
from lastcall.supervisor import workers
from lastcall.supervisor.fleet import Fleet
from lastcall.supervisor.parent import Parent, Seams
from lastcall.supervisor.policy import FleetPolicy
from lastcall.supervisor.spawn import Process
from testing.service import alive

Answer = list[do.Action] | Exception
Script = Callable[[on.Event], Answer]


class Scripted:
    """A fleet whose answers are a test's. ``told`` is all that it heard."""

    wanted = 1
    moves_listeners = ""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.told: list[on.Event] = []
        self.deadline: float | Exception = math.inf

    def handle(self, event: on.Event, now: float) -> list[do.Action]:
        self.told.append(event)
        answer = self.script(event)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def next_deadline(self) -> float:
        if isinstance(self.deadline, Exception):
            raise self.deadline
        return self.deadline

    def status(self, now: float) -> dict[str, Any]:
        return {}

    def doing(self, now: float) -> str:
        return ""


class Doors:
    """Listeners that are none. ``broken``: the method that raises when it is called first."""

    listening = False

    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.shared: list[tuple[int, int]] = []

    def __getattr__(self, name: str) -> Callable[..., list[tuple[int, int]]]:
        def method(*arguments: object) -> list[tuple[int, int]]:
            if name == self.broken:
                self.broken = ""
                raise ZeroDivisionError(name)
            return []

        return method


def run(
    script: Script,
    test: Callable[[Parent, Scripted], Awaitable[None]],
    *,
    doors: Doors | None = None,
    on_stop: Callable[[str, bool], object] = lambda cause, interactive: None,
) -> Scripted:
    """A test in a loop, with a parent that has begun."""
    fleet = Scripted(script)

    async def smoke(worker: workers.Worker) -> str:
        return ""

    def nothing(*arguments: object) -> None:
        pass

    async def main() -> None:
        async with asyncio.timeout(20):
            listeners: Any = doors or Doors()
            seams = Seams(
                listeners,
                smoke,
                nothing,
                nothing,
                nothing,
                on_stop,
                nothing,
                nothing,
                nothing,
            )
            parent = Parent(fleet, seams, "", [0])
            try:
                parent.begin()
                await test(parent, fleet)
            finally:
                parent.close()

    asyncio.run(main())
    return fleet


def script(answers: dict[type[on.Event], Answer]) -> Script:
    return lambda event: answers.get(type(event), [])


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_an_event_that_the_fleet_fails_at_is_logged_and_the_next_one_is_handled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.05)
    failing = [True]

    def answer(event: on.Event) -> Answer:
        return ZeroDivisionError() if isinstance(event, on.BecameReady) and failing.pop() else []

    async def test(parent: Parent, fleet: Scripted) -> None:
        fleet.deadline = 0.0  # long over: it is asked again, but not without a pause
        parent.tell(on.BecameReady(1))
        assert not isinstance(fleet.told[-1], on.TimePassed)
        while not isinstance(fleet.told[-1], on.TimePassed):
            await asyncio.sleep(0.01)
        assert not parent.done.done()
        fleet.deadline = math.inf

    run(answer, test)
    assert "BecameReady" in caplog.text


@pytest.mark.parametrize("event", [on.StopOrdered("SIGTERM"), on.ForceOrdered("SIGTERM"), on.UpgradeReady()])
def test_a_stop_that_the_fleet_fails_at_is_an_end_all_the_same(event: on.Event) -> None:
    async def test(parent: Parent, fleet: Scripted) -> None:
        parent.tell(event)
        assert await parent.done == ExitCode.ERROR

    run(script({type(event): ZeroDivisionError()}), test)


def test_a_stop_whose_beginning_cannot_be_told_begins() -> None:
    def broken(cause: str, interactive: bool) -> None:
        raise ZeroDivisionError

    async def test(parent: Parent, fleet: Scripted) -> None:
        parent.tell(on.StopOrdered("SIGTERM"))
        assert await parent.done == 0

    run(script({on.StopOrdered: [do.Leave(0)]}), test, on_stop=broken)


def test_a_fleet_that_waits_for_workers_that_are_gone_does_not_keep_the_process() -> None:
    async def test(parent: Parent, fleet: Scripted) -> None:
        parent.tell(on.StopOrdered("SIGTERM"))
        assert not parent.done.done()
        parent.tell(on.Exited(1, 0))
        assert await parent.done == ExitCode.ERROR

    run(script({on.Exited: ZeroDivisionError()}), test)


def test_an_order_that_the_fleet_fails_at_is_answered() -> None:
    async def test(parent: Parent, fleet: Scripted) -> None:
        outcome = await parent.order(lambda request: on.ScaleOrdered(request, 3))
        assert not outcome.ok

    run(script({on.ScaleOrdered: ZeroDivisionError()}), test)


def test_timers_that_the_fleet_fails_at_are_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.01)

    async def test(parent: Parent, fleet: Scripted) -> None:
        fleet.deadline = ZeroDivisionError()
        parent.tell(on.BecameReady(1))
        heard = len(fleet.told)
        while len(fleet.told) < heard + 3:
            await asyncio.sleep(0.01)
        fleet.deadline = math.inf

    run(script({}), test)


@pytest.mark.parametrize(
    ("action", "broken", "heard"),
    [
        (do.Spawn(1, 0, 1), "descriptors", on.SpawnFailed),
        (do.OpenSlot(1), "add", on.SlotFailed),
        (do.CloseSlot(0), "steer_away", on.SlotClosed),
        (do.CloseSlot(0), "remove", on.SlotClosed),
    ],
    ids=lambda one: getattr(one, "__name__", None) or str(one).partition("(")[0],
)
def test_an_action_that_fails_is_told_to_the_fleet_which_waits_for_it(
    action: do.Action, broken: str, heard: type[on.Event]
) -> None:
    async def test(parent: Parent, fleet: Scripted) -> None:
        parent.tell(on.BecameReady(7))
        assert [type(event) for event in fleet.told].count(heard) == 1
        assert on.SlotOpened(5) in fleet.told, "the actions behind it are carried out"

    run(script({on.BecameReady: [action, do.OpenSlot(5)]}), test, doors=Doors(broken))


def test_what_a_broken_turn_of_the_fleet_has_decided_comes_with_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet(FleetPolicy(count=2), 0.0)
    monkeypatch.setattr(fleet.crew, "cover", lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        fleet.start(0.0)
    monkeypatch.undo()
    found = fleet.handle(on.TimePassed(), 1.0)
    assert [one.worker for one in found if isinstance(one, do.Spawn)] == [1, 2], "or nobody would ever start them"


# -- the end without order ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("obeys", [True, False])
def test_workers_are_ended_by_the_end_of_the_channel_and_then_by_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obeys: bool
) -> None:
    """A process in a worker's place: it reads its channel to the end, or does nothing at all."""
    ready = tmp_path / "ready"
    program = (
        "import pathlib, socket, sys, time\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "sock = socket.socket(fileno=int(sys.argv[1]))\n"
        f"while sock.recv(65536) if {obeys} else True: time.sleep(0 if {obeys} else 1)\n"
    )

    def start(number: int, channel: int, on_exit: Callable[[int], None]) -> Process:
        command: Sequence[str] = [sys.executable, "-c", program, str(channel)]
        return Process(subprocess.Popen(command, pass_fds=[channel]), on_exit)

    monkeypatch.setattr(workers, "start_worker", start)

    async def test(parent: Parent, fleet: Scripted) -> None:
        parent.tell(on.BecameReady(7))
        (worker,) = parent.workers
        pid = worker.pid
        while not ready.exists():
            await asyncio.sleep(0.01)
        heard = len(fleet.told)
        await parent.end_workers(15.0 if obeys else 0.2)
        assert len(parent.workers) == 0
        assert not alive(pid)
        assert [one.code for one in fleet.told[heard:] if isinstance(one, on.Exited)] == [], "it is asked no more"
        assert os.listdir(tmp_path) == ["ready"]

    run(script({on.BecameReady: [do.Spawn(1, 0, 1)]}), test)
