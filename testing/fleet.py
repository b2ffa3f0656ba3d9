"""A simulated service around a ``Fleet``: workers that answer in any order, and what must hold after each event.

``World`` carries actions out as the parent and its workers would: each worker hears its orders in order, and its
answers wait in ``pending`` until they are delivered. ``World.tell`` checks the laws of the fleet after each event;
``settle`` lets everything that waits happen, as in a service that is well.
"""

from __future__ import annotations

import json
import math
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from lastcall.base.options import CanaryOptions
from lastcall.base.record import Record
from lastcall.channel.messages import Census
from lastcall.supervisor import actions as do
from lastcall.supervisor import events as on
from lastcall.supervisor.fleet import Fleet
from lastcall.supervisor.policy import DRAINING_MOST, ROLLED_AT_ONCE, FleetPolicy

SIGTERM, SIGKILL = 15, 9

A = TypeVar("A", bound=do.Action)


class Verdict(Record):
    """What a judge comes to."""

    verdict: str
    reason: str
    report: dict[str, object]


class Judge:
    """A canary's judge that says what it is told to, in ``says``, at the next look."""

    def __init__(self, options: CanaryOptions, workers: int, now: float) -> None:
        self.says = ""
        self.looks: list[tuple[bool, tuple[int, ...]]] = []
        self.ends = 0
        self.workers = workers
        self.next_look = now

    def _end(self, verdict: str, reason: str) -> Verdict:
        self.ends += 1
        assert self.ends == 1, "it was asked again after its verdict"
        return Verdict(verdict, reason, {"looks": len(self.looks)})

    def take(self, canary: Census | None, old: Mapping[int, Census], now: float) -> Verdict | None:
        self.looks.append((canary is not None, tuple(sorted(old))))
        self.next_look = now + 1.0
        return self._end(self.says, "the judge said so") if self.says else None

    def approve(self, now: float) -> Verdict:
        return self._end("promote", "approved")

    def refuse(self, now: float) -> Verdict:
        return self._end("roll back", "refused")

    def lost(self, reason: str, now: float) -> Verdict:
        return self._end("roll back", reason)

    def next_deadline(self) -> float:
        return self.next_look

    def status(self, now: float) -> dict[str, object]:
        return {"looks": len(self.looks)}


class Sim:
    """One simulated worker. ``told`` is the last order that ends it."""

    def __init__(self, number: int, slot: int, generation: int) -> None:
        self.number = number
        self.slot = slot
        self.generation = generation
        self.ready = False
        self.clean = False
        self.told = ""
        self.deaf = False
        self.emptied = False
        self.leaving = False
        self.pending: deque[on.Event] = deque([on.Booted(number, 1000 + number)])
        self.accepts: frozenset[int] = frozenset()
        self.ordered: frozenset[int] = frozenset()

    @property
    def able(self) -> bool:
        """It is clean, wanted, and its event loop turns."""
        return self.clean and not self.told and not self.deaf


class World:
    """``behaviour(sim)`` says how a worker boots: "", "hang", "smoke", or an exit code."""

    def __init__(
        self, policy: FleetPolicy, behaviour: Callable[[Sim], str] = lambda sim: "", *, real_judge: bool = False
    ) -> None:
        self.judges: list[Judge] = []
        self.now = 100.0
        self.behaviour = behaviour
        self.fleet = Fleet(policy, self.now, None if real_judge else self._make_judge)
        self.policy = policy
        self.sims: dict[int, Sim] = {}
        self.slots = set(range(policy.count))
        self.closing: set[int] = set()
        self.slot_events: deque[on.Event] = deque()
        self.emptied: set[int] = set()  # slots whose queues were empty in the final stop
        self.asked: Counter[int] = Counter()
        self.answers: dict[int, do.Settled] = {}
        self.log: list[tuple[float, do.Action]] = []
        self.stopped_at = math.inf
        self.left: int | None = None
        self.upgraded = False
        self.requests = 0
        self._perform(self.fleet.start(self.now))

    def _make_judge(self, options: CanaryOptions, workers: int, now: float) -> Judge:
        self.judges.append(Judge(options, workers, now))
        return self.judges[-1]

    # -- looking ------------------------------------------------------------------------------------------------------

    def actions(self, kind: type[A]) -> list[A]:
        """All actions of a kind until now."""
        return [action for _, action in self.log if isinstance(action, kind)]

    def times(self, kind: type[do.Action]) -> list[float]:
        """When the actions of a kind came."""
        return [when for when, action in self.log if isinstance(action, kind)]

    def mark(self) -> int:
        """A place in the log, for ``since``."""
        return len(self.log)

    def since(self, mark: int, kind: type[A]) -> list[A]:
        """The actions of a kind behind a place in the log."""
        return [action for _, action in self.log[mark:] if isinstance(action, kind)]

    def holder(self, slot: int) -> Sim:
        """The worker that serves the slot."""
        number = next(one["worker"] for one in self.status["slots"] if one["slot"] == slot)
        return self.sims[number]

    def attendants(self, slot: int) -> list[int]:
        """Who was told to accept from the slot, and is able to."""
        return [sim.number for sim in self.sims.values() if sim.able and slot in sim.ordered]

    @property
    def status(self) -> dict[str, Any]:
        return self.fleet.status(self.now)

    @property
    def generations(self) -> dict[int, int]:
        """The generation of each slot's worker that serves."""
        return {
            one["slot"]: self.sims[one["worker"]].generation
            for one in self.status["slots"]
            if one["worker"] is not None
        }

    # -- telling ------------------------------------------------------------------------------------------------------

    def order(self, make: Callable[[int], on.Event]) -> int:
        """Give an order, and return the number of its answer."""
        self.requests += 1
        self.asked[self.requests] += 1
        self.tell(make(self.requests))
        return self.requests

    def reload(self, **arguments: object) -> int:
        return self.order(lambda request: on.ReloadOrdered(request, **arguments))  # type: ignore[arg-type]

    def scale(self, slots: int) -> int:
        return self.order(lambda request: on.ScaleOrdered(request, slots))

    def stop(self, *, interactive: bool = False) -> None:
        self.stopped_at = min(self.stopped_at, self.now)
        self.tell(on.StopOrdered("SIGINT" if interactive else "SIGTERM", interactive))

    def tell(self, event: on.Event) -> None:
        """Tell an event, do what comes of it, and check the laws."""
        if isinstance(event, on.UpgradeReady) and self.stopped_at == math.inf:
            self.upgraded = True
        if isinstance(event, on.ForceOrdered | on.UpgradeReady):
            self.stopped_at = min(self.stopped_at, self.now)
        if isinstance(event, on.Exited):
            del self.sims[event.worker]
        self._perform(self.fleet.handle(event, self.now))

    def die(self, sim: Sim, code: int = -9, reason: str = "") -> None:
        """The worker's process ends."""
        self.tell(on.Exited(sim.number, code, reason))

    def measure(self, sim: Sim, beat_age: float, rss: int = 0) -> None:
        """The parent looks at a worker."""
        sim.deaf = beat_age > 1.0
        self.tell(on.Measured(sim.number, beat_age, rss))

    def stall(self, sim: Sim, seconds: float = 70.0) -> None:
        """The worker's event loop turns no more, for so long."""
        for age in range(2, int(seconds) + 1):
            if sim.number in self.sims:
                self.pass_time(1.0)
            if sim.number in self.sims:
                self.measure(sim, float(age))

    def pass_time(self, seconds: float) -> None:
        """Let time pass, with ``TimePassed`` at each deadline on the way."""
        until = self.now + seconds
        while (at := self.fleet.next_deadline()) <= until:
            assert at > self.now - 1e-9, "a deadline that is over is never done with"
            self.now = max(at, self.now)
            self.tell(on.TimePassed())
            assert self.fleet.next_deadline() > self.now, "the look at a deadline leaves it behind"
        self.now = until

    # -- the workers' side --------------------------------------------------------------------------------------------

    def boot(self, sim: Sim) -> None:
        """Let a worker come to the end of its start, as its behaviour says."""
        how = self.behaviour(sim)
        if sim.ready or sim.told == "kill" or how == "hang":
            return
        if sim.told == "end":
            self.die(sim, 0)
        elif how in ("", "smoke"):
            sim.ready = True
            sim.pending.append(on.BecameReady(sim.number))
        else:
            self.die(sim, int(how), "the start failed")

    def deliver(self, sim: Sim, *, says: frozenset[int] | None = None) -> None:
        """Let the parent hear the next answer of a worker. It may say less than it was told to: it accepts ``says``."""
        event = sim.pending.popleft()
        if isinstance(event, on.AcceptsNow):
            if says is not None:
                event = on.AcceptsNow(sim.number, tuple(slot for slot in event.slots if slot in says))
            sim.accepts = frozenset(event.slots)
        if isinstance(event, on.BecameReady):
            sim.deaf = False  # it has just sent a message
        if isinstance(event, on.Emptied | on.StoppedAccepting):
            sim.emptied = True
            if sim.told == "drain" and not sim.leaving:
                self.emptied |= sim.ordered
        if isinstance(event, on.SmokeDone) and not event.failure:
            sim.clean = True
        self.tell(event)

    def finish(self, sim: Sim) -> None:
        """Let a worker that drains end."""
        if self._finishes(sim):
            self.die(sim, 0)

    def next_slot_event(self) -> None:
        """Let the parent finish with making or closing listeners."""
        event = self.slot_events.popleft()
        if isinstance(event, on.SlotOpened):
            self.slots.add(event.slot)
        elif isinstance(event, on.SlotClosed):
            self.slots.discard(event.slot)
            self.closing.discard(event.slot)
        self.tell(event)

    def settle(self, *, finish: bool = True) -> None:
        """Let everything happen that can without time: answers, starts and, with ``finish``, ends of drains."""
        for _ in range(10_000):
            if self.slot_events:
                self.next_slot_event()
                continue
            sims = list(self.sims.values())
            if (sim := next((one for one in sims if one.pending and not one.deaf), None)) is not None:
                self.deliver(sim)
            elif (sim := next((one for one in sims if self._boots(one)), None)) is not None:
                self.boot(sim)
            elif finish and (sim := next((one for one in sims if self._finishes(one)), None)) is not None:
                self.finish(sim)
            else:
                return
        raise AssertionError("it never comes to rest")

    def _boots(self, sim: Sim) -> bool:
        return not sim.ready and sim.told != "kill" and not sim.pending and self.behaviour(sim) != "hang"

    def _finishes(self, sim: Sim) -> bool:
        return sim.told in ("retire", "drain") and not sim.pending

    # -- the parent's side --------------------------------------------------------------------------------------------

    def _perform(self, actions: list[do.Action]) -> None:
        for action in actions:
            self.log.append((self.now, action))
            if (number := getattr(action, "worker", None)) is not None and not isinstance(action, do.Spawn):
                assert number in self.sims, f"{action} names a worker that is gone"
                assert self.sims[number].told != "kill", f"{action} names a worker that was killed"
            if (carry_out := DO.get(type(action))) is not None:
                carry_out(self, action)
        self._check()

    def _spawn(self, action: do.Spawn) -> None:
        assert self.stopped_at == math.inf, "a worker is spawned after the stop order"
        assert action.worker not in self.sims
        assert action.slot in self.slots - self.closing, "a worker is spawned for a slot that is not open"
        self.sims[action.worker] = Sim(action.worker, action.slot, action.generation)

    def _smoke(self, action: do.Smoke) -> None:
        sim = self.sims[action.worker]
        failure = "GET /docs: 500" if self.behaviour(sim) == "smoke" else ""
        sim.pending.append(on.SmokeDone(sim.number, failure))

    def _accept(self, action: do.SetAccepting) -> None:
        sim = self.sims[action.worker]
        assert sim.clean, "it accepts before it was checked"
        assert not sim.told or (sim.told == "drain" and not sim.leaving), "it is leaving, and is told to accept"
        assert set(action.slots) <= self.slots | {-1}, "it is told to accept from a slot that is not there"
        sim.ordered = frozenset(action.slots)
        sim.pending.append(on.AcceptsNow(sim.number, action.slots))

    def _retire(self, action: do.Retire) -> None:
        sim = self.sims[action.worker]
        assert sim.ready, "a worker that is not ready is ended, not drained"
        if action.successor is not None:
            heir = self.sims[action.successor]
            assert heir.clean
            assert not heir.told, "the successor is leaving itself"
        attends = sim.able and sim.ordered and sim.slot in self.slots - self.closing and action.cause != "canary"
        if self.policy.development and not self._accepts(sim, sim.slot):
            attends = False  # the newest change wins, also over one that was about to serve
        if attends and self.stopped_at == math.inf:
            others = [one for one in self.sims.values() if one is not sim and one.clean and not one.told]
            # One that has not said that it accepts takes nothing away from another that has the same order.
            told = () if self._accepts(sim, sim.slot) else [one for one in others if sim.slot in one.ordered]
            assert told or any(self._accepts(one, sim.slot) for one in others), (
                "retired before anybody else accepts from its slot"
            )
        sim.told = "retire"
        sim.leaving = True
        sim.pending.append(on.StoppedAccepting(sim.number))

    def _drain(self, action: do.Drain) -> None:
        sim = self.sims[action.worker]
        assert self.stopped_at < math.inf
        assert sim.ready, "a worker that is not ready is ended, not drained"
        sim.leaving = sim.leaving or not sim.ordered
        sim.told = "drain"
        sim.pending.append(on.Emptied(sim.number))

    def _kill(self, action: do.Kill) -> None:
        sim = self.sims[action.worker]
        if action.signal == SIGKILL:
            sim.told = "kill"
            sim.pending.clear()
            sim.pending.append(on.Exited(sim.number, -SIGKILL))
            sim.deaf = False
        elif sim.ready:
            sim.pending.append(on.WantsToRetire(sim.number, "SIGTERM"))
            sim.told = sim.told or "end"
        else:
            sim.told = "end"

    def _take_census(self, action: do.TakeCensus) -> None:
        census = Census(1, {}, 0, 0, 0, (), 0)
        self.sims[action.worker].pending.append(on.CensusTaken(action.worker, census))

    def _open_slot(self, action: do.OpenSlot) -> None:
        assert self.stopped_at == math.inf
        assert action.slot == max(self.slots) + 1, "slots are opened at the end"
        self.slot_events.append(on.SlotOpened(action.slot))

    def _close_slot(self, action: do.CloseSlot) -> None:
        assert action.slot == max(self.slots), "slots are closed from the end"
        assert len(self.slots) > 1
        self.closing.add(action.slot)
        self.slot_events.append(on.SlotClosed(action.slot))

    def _settled(self, action: do.Settled) -> None:
        assert action.request in self.asked
        assert action.request not in self.answers, "an order is settled twice"
        assert action.text
        self.answers[action.request] = action

    def _notify(self, action: do.Notify) -> None:
        if action.state == "STOPPING":
            self.stopped_at = min(self.stopped_at, self.now)

    def _shut_door(self, action: do.ShutDoor) -> None:
        assert not self.upgraded, "the new parent's door"
        assert self.stopped_at < math.inf
        assert len(self.actions(do.ShutDoor)) == 1

    def _close_listeners(self, action: do.CloseListeners) -> None:
        assert not self.upgraded, "the new parent's listeners"
        assert len(self.actions(do.CloseListeners)) == 1
        waiting = [sim for sim in self.sims.values() if sim.told == "drain" and not sim.emptied]
        assert not waiting, "somebody has not emptied its queues"

    def _leave(self, action: do.Leave) -> None:
        assert not self.sims, "the parent leaves before its workers"
        assert self.left is None
        self.left = action.code

    def _check(self) -> None:
        json.dumps(self.status, allow_nan=False)
        if self.stopped_at < math.inf:
            self._check_stop()
            return
        able = [sim for sim in self.sims.values() if sim.able and sim.ordered]
        if able:
            for slot in self.slots - self.closing:
                assert self._heard(slot) is None or self.attendants(slot), f"nobody accepts from slot {slot}"
        replacing = [one for one in self.status["slots"] if one["worker"] is not None and one["successor"] is not None]
        assert len(replacing) <= (1 if self.status["roll"] is None else ROLLED_AT_ONCE), "too many slots at once"
        drains = [sim for sim in self.sims.values() if sim.told == "retire"]
        assert len([sim for sim in drains if self._cause(sim) == "reload" and sim.clean]) <= DRAINING_MOST

    def _check_stop(self) -> None:
        """Who waits in a slot's queue is answered, while there is anybody who can."""
        able = [
            one for one in self.sims.values() if one.told == "drain" and not (one.leaving or one.emptied or one.deaf)
        ]
        if able and not self.upgraded:
            for slot in self.slots - self.closing - self.emptied:
                attended = any(slot in one.ordered for one in able)
                assert self._heard(slot) is None or attended, f"nobody answers those who wait at slot {slot}"

    def _accepts(self, sim: Sim, slot: int) -> bool:
        """Whether the worker has said that it does."""
        return slot in sim.accepts or (self.policy.only_shared and -1 in sim.accepts)

    def _heard(self, slot: int) -> object:
        """Whether the fleet knows already that the slot is open."""
        return next((one for one in self.status["slots"] if one["slot"] == slot and one["state"] == "open"), None)

    def _cause(self, sim: Sim) -> str:
        return next(action.cause for action in reversed(self.actions(do.Retire)) if action.worker == sim.number)


DO: dict[type[do.Action], Callable[[World, Any], None]] = {
    do.Spawn: World._spawn,
    do.Smoke: World._smoke,
    do.SetAccepting: World._accept,
    do.Retire: World._retire,
    do.Drain: World._drain,
    do.Kill: World._kill,
    do.TakeCensus: World._take_census,
    do.OpenSlot: World._open_slot,
    do.CloseSlot: World._close_slot,
    do.Settled: World._settled,
    do.Leave: World._leave,
    do.Notify: World._notify,
    do.ShutDoor: World._shut_door,
    do.CloseListeners: World._close_listeners,
}
