"""The parent where something that it does fails: the fleet hears of it, or waits for ever."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest

from lastcall.base.errors import LastcallError, StartupError
from lastcall.supervisor import actions as do
from lastcall.supervisor import events as on
from lastcall.supervisor.parent import Parent, Seams

REFUSED = LastcallError("the kernel refuses")


class Refusing:
    """Doors of which nothing works."""

    shared: list[tuple[int, int]] = []  # noqa: RUF012
    listening = False

    def descriptors(self, slot: int) -> list[tuple[int, int]]:
        return []

    def __getattr__(self, name: str) -> Callable[..., None]:
        def refuse(*_: object) -> None:
            raise REFUSED

        return refuse


class Scripted:
    """A fleet that answers ``TimePassed`` with one action, and keeps what it is told else."""

    wanted = 1
    moves_listeners = ""

    def __init__(self, action: do.Action) -> None:
        self.action = action
        self.told: list[on.Event] = []

    def handle(self, event: on.Event, now: float) -> list[do.Action]:
        if isinstance(event, on.TimePassed):
            return [self.action]
        self.told.append(event)
        return []

    def next_deadline(self) -> float:
        return math.inf

    def status(self, now: float) -> dict[str, Any]:
        return {}

    def doing(self, now: float) -> str:
        return ""


async def nothing_to_smoke(_worker: object) -> str:
    return ""


def refuse(*_: object) -> None:
    raise REFUSED


def told(action: do.Action, *more: on.Event) -> tuple[list[on.Event], StartupError | None]:
    """What the fleet is told when the parent carries ``action`` out; and the parent's error."""

    async def main() -> tuple[list[on.Event], StartupError | None]:
        fleet = Scripted(action)
        doors: Any = Refusing()
        seams = Seams(
            doors=doors,
            smoke=nothing_to_smoke,
            notify=refuse,
            on_first=refuse,
            on_accepting=refuse,
            on_stop=refuse,
            on_failure=refuse,
            close_doors=refuse,
            show=refuse,
        )
        parent = Parent(fleet, seams, "", (0, 1))
        try:
            for event in (on.TimePassed(), *more):
                parent.tell(event)
            return fleet.told, parent.error
        finally:
            parent.close()

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("action", "event"),
    [
        (do.OpenSlot(2), on.SlotFailed(2, "the kernel refuses")),
        (do.CloseSlot(1), on.SlotClosed(1)),
        (do.Steer(1, 0.5), None),
        (do.ShutDoor(), None),
        (do.Notify("READY"), None),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_the_kernel_refuses_is_told(action: do.Action, event: on.Event | None) -> None:
    assert told(action)[0] == ([] if event is None else [event])


def test_a_worker_that_cannot_be_made_is_told_whatever_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lastcall.supervisor.workers.start_worker", refuse)
    (event,) = told(do.Spawn(1, 0, 1))[0]
    assert event == on.SpawnFailed(1, "the kernel refuses")


def test_where_nobody_can_be_let_in_the_service_stops() -> None:
    events, error = told(do.SetAccepting(1, (0,)))
    assert events == [on.StopOrdered("start failed")]
    assert "the kernel refuses" in str(error)


def test_a_stop_comes_whatever_fails_at_its_beginning() -> None:
    assert told(do.Say(10, ""), on.StopOrdered("SIGTERM"))[0] == [on.StopOrdered("SIGTERM")]
