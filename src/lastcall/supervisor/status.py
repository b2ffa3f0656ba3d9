"""What ``lastcall ctl status`` shows: the state of the fleet as JSON. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lastcall.supervisor.attendance import Slot
from lastcall.supervisor.life import ABLE, GOING, Life, Worker
from lastcall.supervisor.roll import CANARY

if TYPE_CHECKING:
    from lastcall.supervisor.fleet import Fleet


def status_of(fleet: Fleet, now: float) -> dict[str, Any]:
    """All of it. Times are seconds, sizes bytes; what is not there is None."""
    crew = fleet.crew
    generations: dict[str, int] = {}
    for worker in crew.serving():
        name = str(worker.generation)
        generations[name] = generations.get(name, 0) + 1
    return {
        "state": state_of(fleet),
        "doing": doing(fleet, now),
        "generation": max((worker.generation for worker in crew.serving()), default=crew.disk),
        "generations": generations,
        "scale": {"slots": len(crew.regular()), "wanted": fleet.scaling.wanted},
        "restarts": crew.restarts,
        "slots": [_slot(fleet, slot, now) for _, slot in sorted(crew.slots.items())],
        "workers": [_worker(worker, now) for _, worker in sorted(crew.workers.items())],
        "roll": fleet.roll.status(now) if fleet.roll is not None else None,
        "degraded": degraded(fleet),
    }


def state_of(fleet: Fleet) -> str:
    """The state of the service, in a word."""
    if fleet.stopping is not None:
        return "upgrading" if fleet.stopping.ending.upgrade else "stopping"
    if fleet.waits_for_change and fleet.roll is None:
        return "waiting for a change"
    if not fleet.crew.ready_once:
        return "starting"
    if fleet.roll is not None:
        return "canary" if fleet.roll.stage in CANARY else "reloading"
    return "serving"


def doing(fleet: Fleet, now: float) -> str:
    """What is under way, in a line; empty if nothing is."""
    crew = fleet.crew
    if fleet.stopping is not None:
        left = max((worker.kill_at - now for worker in crew.workers.values()), default=0.0)
        within = f", done within {max(0.0, left):.0f} s" if left < math.inf else ""
        return f"{state_of(fleet)}: {len(crew.workers)} workers left{within}"
    if fleet.roll is not None:
        return fleet.roll.progress()
    if len(crew.regular()) != fleet.scaling.wanted:
        return f"scaling from {len(crew.regular())} to {fleet.scaling.wanted} slots"
    slot = fleet.recycling.slot
    return f"replacing the worker of slot {slot.index} ({slot.reason})" if slot is not None else ""


def degraded(fleet: Fleet) -> list[str]:
    """What is not as it was ordered, a line each; empty: nothing."""
    found = []
    crew = fleet.crew
    for slot in crew.open():
        if slot.holder is None and crew.ready_once and fleet.stopping is None:
            by = f"worker {slot.neighbour.number} accepts in its place" if slot.neighbour else "nobody accepts"
            frozen = slot.generation < crew.disk and fleet.roll is None
            why = "; it is not replaced before a reload succeeds" if frozen else ""
            found.append(f"slot {slot.index} has no worker: {by}{why}")
        elif slot.holder is not None and not slot.holder.on_time and slot.holder.life is Life.SERVING:
            found.append(
                f"slot {slot.index}: no heartbeat of worker {slot.holder.number} for {slot.holder.beat_age:.0f} s"
            )
        for worker in (slot.holder, slot.successor):
            if worker is not None and worker.life in ABLE and worker.ordered and not worker.accepts_from(slot.index):
                found.append(f"slot {slot.index}: worker {worker.number} was told to accept from it, and does not yet")
    frozen_slots = [str(slot.index) for slot in crew.frozen()]
    if frozen_slots and fleet.roll is None and fleet.stopping is None:
        found.append(f"the last reload failed: slots {', '.join(frozen_slots)} run what was there before it")
    return found


def _slot(fleet: Fleet, slot: Slot, now: float) -> dict[str, Any]:
    holder, successor = slot.holder, slot.successor
    waits = slot.vacant and slot.spawn_at > now
    return {
        "slot": slot.index,
        "state": slot.door.value,
        "canary": slot.extra,
        "generation": slot.generation,
        "worker": holder.number if holder is not None else None,
        "successor": successor.number if successor is not None else None,
        "neighbour": slot.neighbour.number if slot.neighbour is not None else None,
        "restarts": slot.restarts,
        "failures": slot.failures,
        "next_try": slot.spawn_at - now if waits else None,
        "draining": [one.number for one in fleet.crew.workers.values() if one.slot == slot.index and one.life in GOING],
    }


def _worker(worker: Worker, now: float) -> dict[str, Any]:
    return {
        "worker": worker.number,
        "slot": worker.slot,
        "pid": worker.pid or None,
        "generation": worker.generation,
        "state": worker.life.value,
        "age": now - worker.spawned_at,
        "ready": now - worker.ready_at if worker.was_ready else None,
        "beat": worker.beat_age if worker.was_ready else None,
        "rss": worker.rss or None,
        "accepts": sorted(worker.accepts),
        "wants": worker.wants or None,
        "kill_in": worker.kill_at - now if worker.kill_at < math.inf else None,
    }
