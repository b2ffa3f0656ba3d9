"""Who accepts from which slot: a slot that nobody attends would swallow its share of new connections. Pure.

The kernel spreads connections over the slots whether anybody accepts from them or not. So a slot whose own worker is
not there, or whose event loop has not turned for a second, is accepted from by a neighbour too, until its worker says
that it does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum

from lastcall.supervisor.life import ABLE, Life, Worker


class Door(Enum):
    """Where the listeners of a slot stand."""

    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"


class Slot:
    """One slot. ``holder`` attends it, ``successor`` is about to; ``neighbour`` accepts from it in their place.

    ``generation`` is that of the last holder, or of the first one to come. ``extra``: the canary's, which is no part of
    the scale. ``failures`` are early deaths in a row, ``spawn_at`` is when the next try may be. ``reason`` is why the
    holder is being replaced.
    """

    __slots__ = (
        "door",
        "extra",
        "failures",
        "generation",
        "holder",
        "index",
        "neighbour",
        "reason",
        "restarts",
        "spawn_at",
        "successor",
    )

    def __init__(self, index: int, generation: int, *, door: Door = Door.OPENING, extra: bool = False) -> None:
        self.index = index
        self.generation = generation
        self.door = door
        self.extra = extra
        self.holder: Worker | None = None
        self.successor: Worker | None = None
        self.neighbour: Worker | None = None
        self.failures = 0
        self.restarts = 0
        self.spawn_at = 0.0
        self.reason = ""

    @property
    def vacant(self) -> bool:
        """It has no worker, and none is on the way."""
        return self.holder is None and self.successor is None

    @property
    def attended(self) -> bool:
        """Its own worker accepts, and its event loop turns."""
        holder = self.holder
        return holder is not None and holder.life is Life.SERVING and holder.on_time and holder.accepts_from(self.index)


def able(worker: Worker | None) -> bool:
    """Whether the worker can stand in for another one."""
    return worker is not None and worker.life in ABLE and worker.on_time


def attend(slots: Iterable[Slot], workers: Iterable[Worker]) -> dict[Worker, frozenset[int]]:
    """Choose the neighbours, and return the slots that each worker is to accept from.

    A neighbour stays until the slot's own worker says that it accepts, or until it is late or gone itself. A slot that
    is being closed keeps what it has: whoever accepts from it empties it.
    """
    slots = list(slots)
    plan: dict[Worker, set[int]] = {worker: set() for worker in workers if worker.life in ABLE}
    for slot in slots:
        for worker in (slot.holder, slot.successor):
            if worker in plan and slot.door is not Door.OPENING:
                plan[worker].add(slot.index)
    for slot in slots:
        if slot.attended:
            slot.neighbour = None
        elif slot.door is Door.OPEN and not able(slot.neighbour):
            slot.neighbour = _choose(slot, plan) or (slot.neighbour if slot.neighbour in plan else None)
        if slot.neighbour in plan and slot.door is not Door.OPENING:
            plan[slot.neighbour].add(slot.index)
        elif slot.neighbour is not None:
            slot.neighbour = None
    return {worker: frozenset(chosen) for worker, chosen in plan.items()}


def _choose(slot: Slot, plan: Mapping[Worker, set[int]]) -> Worker | None:
    """The one that serves already, of the slot's generation, with the least to attend to, next in the row."""
    found = [worker for worker in plan if able(worker) and worker is not slot.holder]
    if not found:
        return None
    return min(
        found,
        key=lambda worker: (
            worker.life is not Life.SERVING,
            worker.generation > slot.generation,
            len(plan[worker]),
            (worker.slot - slot.index) % 4096,
            worker.number,
        ),
    )
