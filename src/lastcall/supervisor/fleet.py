"""The fleet: what the parent does next, decided from what it is told. Pure: no clock, process, socket, loop or log.

Theory of operation
-------------------
``handle`` takes an event and its time, changes what is known, and then looks at all of it anew, in the same order each
time: timers, successors that accept, the procedures (stop, roll, scale, recycling), slots without a worker, who accepts
from what. What is to be done comes back as actions, to be carried out in their order. So nothing hangs on one event:
what an event makes possible is found by the look after it, whatever else was under way.

The parts: ``life`` is one worker, ``attendance`` who accepts from which slot, ``crew`` what all parts share, ``roll``
and ``trial`` the reload with its canary, ``recycling``, ``scaling``, ``stopping``; ``status`` tells people.

One order at a time
-------------------
- A reload during a reload follows it, and several become one: what has changed on the disk in between must not be
  missed. In development the newest change counts, and what was about to start is ended.
- A reload or an order to scale during a canary is refused: it would change what is being compared, and a canary may
  wait for a person for days.
- An order to scale during a reload waits; the newest counts.
- A stop is honoured at once, whatever is under way; the orders that wait are settled by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from lastcall.base.exit_code import ExitCode
from lastcall.supervisor import actions as do
from lastcall.supervisor import events as on
from lastcall.supervisor.attendance import Door, Slot
from lastcall.supervisor.crew import ERROR, WARNING, Crew, Failure
from lastcall.supervisor.life import COMING, GOING, Cue, Life, Worker
from lastcall.supervisor.policy import FleetPolicy
from lastcall.supervisor.recycling import Recycling
from lastcall.supervisor.roll import CANARY, FINAL, Roll, Stage
from lastcall.supervisor.scaling import Scaling
from lastcall.supervisor.status import doing, status_of
from lastcall.supervisor.stopping import Ending, Stopping
from lastcall.supervisor.trial import MakeJudge

STARTS_FAILED: Final = (ExitCode.USAGE, ExitCode.STARTUP)
"""Exit codes of a worker that say: starting it again does not help."""


class Fleet:
    """The deciding half of the supervisor. Times are seconds on one monotonic clock.

    After each ``handle``, and after ``start``, the caller asks ``next_deadline()`` and tells ``TimePassed`` when it has
    come. After ``Leave`` nothing more comes back but refusals.
    """

    def __init__(self, policy: FleetPolicy, now: float, make_judge: MakeJudge | None = None) -> None:
        self.crew = Crew(policy, now)
        self.crew.on_failure = self._failed
        self.scaling = Scaling(self.crew, policy.count)
        self.recycling = Recycling(self.crew)
        self.roll: Roll | None = None
        self.stopping: Stopping | None = None
        self.waits_for_change = False
        self.guest = False
        """Whether another parent serves still: a worker that does not start ends this one then, and changes nothing."""
        self._make_judge = make_judge
        self._following: list[on.ReloadOrdered] = []
        self._announced = False
        self._left = False

    @property
    def wanted(self) -> int:
        """The number of slots that was ordered last: what TTIN and TTOU count from."""
        return self.scaling.wanted

    @property
    def moves_listeners(self) -> str:
        """What is under way, or waits, that makes or closes listeners; empty: they stay as they are."""
        if (self.roll is not None and self.roll.trial is not None) or any(one.canary for one in self._following):
            return "a canary is under way"
        scaling = self.scaling.moving or self.scaling.wanted != len(self.crew.regular())
        return "slots are being opened or closed" if scaling else ""

    def start(self, now: float) -> list[do.Action]:
        """Begin: the slots are bound already, and get their workers."""
        for index in range(self.crew.policy.count):
            self.crew.slots[index] = Slot(index, self.crew.disk, door=Door.OPEN)
        return self._turn(now, lambda: None)

    def handle(self, event: on.Event, now: float) -> list[do.Action]:
        """Take an event, and return what is to be done now, in this order."""
        if self._left:
            request = getattr(event, "request", None)
            return [] if request is None else [do.Settled(request, False, "The service has stopped.")]
        return self._turn(now, lambda: HANDLERS[type(event)](self, event))

    def next_deadline(self) -> float:
        """When ``TimePassed`` is to be told; ``math.inf``: not before something else happens."""
        crew, times = self.crew, list(self.crew.deadlines())
        if self._left:
            return math.inf
        if self.stopping is not None:
            return min([*times, self.stopping.deadline()])
        times += [slot.spawn_at for slot in crew.open() if self._may_fill(slot) and slot.spawn_at > crew.now]
        if self.roll is not None:
            times.append(self.roll.deadline())
        elif self._settled_in:
            times.append(self.recycling.deadline())
        return min(times, default=math.inf)

    def status(self, now: float) -> dict[str, Any]:
        """Everything that ``lastcall ctl status`` shows, as JSON."""
        return status_of(self, now)

    def doing(self, now: float) -> str:
        """What is under way, in a line; empty if nothing is."""
        return doing(self, now)

    # -- each turn ----------------------------------------------------------------------------------------------------

    def _turn(self, now: float, change: Callable[[], object]) -> list[do.Action]:
        crew = self.crew
        crew.now = now
        change()
        crew.run_timers()
        if self.stopping is None:
            crew.swap()
            self._announce()
            self._procedures()
            self._last_resort()
            self._fill()
        if self.stopping is None:
            crew.cover()
        else:
            self.stopping.advance()
            self.stopping.cover()
        # What a turn has decided that a mistake of ours has broken off comes with the next one: it counts on it.
        out, crew.out = crew.out, []
        self._left = any(isinstance(action, do.Leave) for action in out)
        return out

    def _announce(self) -> None:
        if not self._announced and self.crew.serving():
            self._announced = True
            self.crew.out.append(do.Notify("READY"))

    def _procedures(self) -> None:
        while True:
            if self.roll is not None:
                self.roll.advance()
                if self.roll.stage not in FINAL:
                    return
                self.roll = None
            if not self._following or self.scaling.moving or not self._may_reload:
                break
            self._begin_roll()
        if self._settled_in:
            self.scaling.advance()
            if not self._following:
                self.recycling.advance()

    @property
    def _settled_in(self) -> bool:
        """The first start is over."""
        return self.crew.ready_once

    @property
    def _may_reload(self) -> bool:
        return self._settled_in or self.crew.policy.development

    def _begin_roll(self) -> None:
        orders, self._following = self._following, []
        last = orders[-1]
        policy = next((one.policy for one in reversed(orders) if one.policy is not None), None)
        if policy is not None:
            if policy.count != self.crew.policy.count:
                self.scaling.aim(policy.count)
            self.crew.policy = policy
        self.recycling.stop()
        self.waits_for_change = False
        self.roll = Roll(self.crew, [one.request for one in orders], last, self._judge_maker())

    def _judge_maker(self) -> MakeJudge:
        if self._make_judge is None:
            from lastcall.supervisor.canary.run import CanaryRun  # noqa: PLC0415 - most services never have a canary

            self._make_judge = CanaryRun
        return self._make_judge

    def _may_fill(self, slot: Slot) -> bool:
        """Whether the slot may get a worker of its generation, outside of a roll's turn."""
        return slot.vacant and slot.generation >= self.crew.disk and not self.waits_for_change

    def _fill(self) -> None:
        for slot in self.crew.open():
            if self._may_fill(slot) and slot.spawn_at <= self.crew.now:
                self.crew.spawn(slot, slot.generation)

    def _last_resort(self) -> None:
        """All workers are gone and their code is, too: what is on the disk is better than nobody."""
        crew = self.crew
        if self.roll is not None or self.waits_for_change or not crew.frozen():
            return
        if any(worker.life in COMING or worker.life is Life.SERVING for worker in crew.workers.values()):
            return
        crew.say(WARNING, "No worker is left of what was there before the failed reload: starting what is there now.")
        for slot in crew.frozen():
            slot.generation = crew.disk

    # -- failures -----------------------------------------------------------------------------------------------------

    def _failed(self, failure: Failure) -> None:
        if self.stopping is not None:
            return
        if self.guest and failure.coming:
            self.crew.say(ERROR, f"The start failed: {failure.why}.")
            code = failure.code if failure.code in STARTS_FAILED else ExitCode.STARTUP
            self._end(Ending("start failed", code=int(code)))
            return
        if failure.code in STARTS_FAILED and failure.coming and self.crew.policy.development:
            # Starting again does not help before a file has changed.
            self.waits_for_change = not self.crew.serving()
            if self.waits_for_change and self.roll is None:
                self.crew.say(ERROR, f"The start failed: {failure.why}. Waiting for a file to change.")
        elif failure.code in STARTS_FAILED and not self.crew.ready_once:
            self.crew.say(ERROR, f"The start failed: {failure.why}.")
            self._end(Ending("start failed", code=int(failure.code or 0)))
            return
        if self.roll is not None:
            self.roll.failed(failure)
        self.scaling.failed(failure)

    def _end(self, ending: Ending) -> None:
        """Begin the end; whoever waits for an order hears of it."""
        why = "Another parent has taken over" if ending.upgrade else f"The service stops ({ending.cause})"
        if self.roll is not None:
            self.roll.interrupt(why)
            self.roll = None
        for order in self._following:
            self.crew.settle(order.request, False, f"{why}.")
        self._following.clear()
        self.scaling.give_up(f"{why}.")
        self.recycling.stop()
        self.stopping = Stopping(self.crew, ending)

    # -- orders -------------------------------------------------------------------------------------------------------

    def _refused(self, request: int) -> bool:
        """Whether the service ends, and takes no orders any more."""
        if self.stopping is not None:
            self.crew.settle(request, False, "The service stops already.")
        return self.stopping is not None

    def _in_canary(self, request: int) -> bool:
        busy = self.roll is not None and self.roll.stage in CANARY
        if busy:
            self.crew.settle(request, False, "A canary is under way: promote it or roll it back first.")
        return busy

    def _on_stop(self, event: on.StopOrdered) -> None:
        if self.stopping is None:
            self._end(Ending(event.cause, event.interactive))
        else:
            self.stopping.again(event.cause, interactive=event.interactive)

    def _on_force(self, event: on.ForceOrdered) -> None:
        if self.stopping is None:
            self._end(Ending(event.cause))
        assert self.stopping is not None
        self.stopping.force(event.cause)

    def _on_upgrade(self, event: on.UpgradeReady) -> None:
        if self.stopping is None:
            self._end(Ending("upgrade", upgrade=True))

    def _on_reload(self, event: on.ReloadOrdered) -> None:
        if self._refused(event.request) or self._in_canary(event.request):
            return
        self._following.append(event)
        if self.roll is not None and event.development and self.roll.stage in (Stage.FIRST, Stage.ROLLING):
            self.roll.superseded = True
            self.roll.withdraw("superseded by a newer change")

    def _on_scale(self, event: on.ScaleOrdered) -> None:
        if self._refused(event.request) or self._in_canary(event.request):
            return
        if self.crew.policy.development and event.slots != 1:
            self.crew.settle(event.request, False, "With --reload there is one worker.")
            return
        self.scaling.order(event.request, event.slots)

    def _on_promote(self, event: on.PromoteOrdered) -> None:
        if self._refused(event.request):
            return
        ok = self.roll is not None and self.roll.approve()
        self.crew.settle(event.request, ok, "The canary is promoted." if ok else "No canary waits to be promoted.")

    def _on_roll_back(self, event: on.RollBackOrdered) -> None:
        if self._refused(event.request):
            return
        roll = self.roll
        if roll is None or roll.stage is Stage.BACK:
            text = "No reload is under way." if roll is None else "It is being rolled back already."
            self.crew.settle(event.request, roll is not None, text)
            return
        untouched = roll.untouched
        roll.refuse()
        text = "Rolled back." if untouched else "Workers were replaced already: the reload is stopped where it stands."
        self.crew.settle(event.request, untouched, text)

    # -- from workers -------------------------------------------------------------------------------------------------

    def _on_booted(self, event: on.Booted) -> None:
        if (worker := self.crew.workers.get(event.worker)) is not None:
            worker.pid = event.pid

    def _on_ready(self, event: on.BecameReady) -> None:
        worker = self.crew.workers.get(event.worker)
        if worker is None:
            return
        worker.ready_at = self.crew.now
        worker.measure(0.0, worker.rss, self.crew.now)
        if worker.take(Cue.READY):
            self.crew.out.append(do.Smoke(worker.number))
        elif worker.life is Life.ENDING:
            self._rejoin(worker)

    def _rejoin(self, worker: Worker) -> None:
        """One that had SIGTERM drains: it was ready after all, or its event loop turns again."""
        if self.stopping is not None:
            self.stopping.rejoin(worker)
        else:
            self.crew.retire(worker, worker.wants or "SIGTERM", self.crew.heir(worker))

    def _on_smoke(self, event: on.SmokeDone) -> None:
        worker = self.crew.workers.get(event.worker)
        if worker is None or worker.life is not Life.CHECKING:
            return
        if event.failure:
            self.crew.fail_smoke(worker, event.failure)
        else:
            worker.take(Cue.CLEAN)
            self.crew.ready_once = True

    def _on_accepts(self, event: on.AcceptsNow) -> None:
        worker = self.crew.workers.get(event.worker)
        if worker is None:
            return
        worker.accepts = frozenset(event.slots)
        if worker.accepts_from(worker.slot):
            worker.take(Cue.ACCEPTS)

    def _on_stopped_accepting(self, event: on.StoppedAccepting | on.Emptied) -> None:
        worker = self.crew.workers.get(event.worker)
        if worker is not None and (worker.take(Cue.STOPPED) or worker.life in GOING):
            worker.emptied = True
            worker.accepts = frozenset()

    def _on_released(self, event: on.SlotReleased) -> None:
        if (worker := self.crew.workers.get(event.worker)) is not None:
            worker.accepts -= {event.slot}

    def _on_wants(self, event: on.WantsToRetire) -> None:
        worker = self.crew.workers.get(event.worker)
        if worker is None:
            return
        if worker.life in (Life.ENDING, Life.STALLED):
            self._rejoin(worker)
        elif worker.life not in GOING:
            worker.wants = worker.wants or event.cause

    def _on_exit(self, event: on.Exited) -> None:
        self._gone(event.worker, event.code, event.reason)

    def _on_spawn_failed(self, event: on.SpawnFailed) -> None:
        self._gone(event.worker, int(ExitCode.STARTUP), event.reason)

    def _gone(self, number: int, code: int, reason: str) -> None:
        worker = self.crew.workers.pop(number, None)
        if worker is None:
            return
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        why = f"{worker} ended ({how}{f': {reason}' if reason else ''})"
        if self.stopping is not None:
            self.stopping.exited(worker, code)
            self.crew.detach(worker)
            worker.take(Cue.EXIT)
        elif worker.life in COMING or worker.life is Life.SERVING:
            place = len(self.crew.out)
            self.crew.fail(worker, why, lambda: worker.take(Cue.EXIT), code)
            slot = self.crew.slots.get(worker.slot)
            wait = slot.spawn_at - self.crew.now if slot is not None and self._may_fill(slot) else 0.0
            again = f"; the next try is in {wait:g} s" if wait > 0.0 else ""
            self.crew.say_once(place, why, f"Slot {worker.slot}: {why}{again}.")
        else:
            if code and not worker.was_killed and worker.life is not Life.ENDING:
                self.crew.say(WARNING, f"Slot {worker.slot}: {why}, while it was {worker.life.value}.")
            self.crew.detach(worker)
            worker.take(Cue.EXIT)

    def _on_measured(self, event: on.Measured) -> None:
        worker = self.crew.workers.get(event.worker)
        if worker is None:
            return
        if not worker.was_ready:
            worker.rss = event.rss  # its event loop may not turn yet, and need not
            return
        worker.measure(event.beat_age, event.rss, self.crew.now)
        watched = worker.life in COMING or worker.life is Life.SERVING
        unlimited = worker.life in GOING and worker.kill_at == math.inf
        if (watched or unlimited) and worker.has_stalled(self.crew.now):
            self.crew.fail_stalled(worker)

    def _on_census(self, event: on.CensusTaken) -> None:
        if self.roll is not None and self.roll.trial is not None:
            self.roll.trial.answer(event.worker, event.census)

    # -- from slots ---------------------------------------------------------------------------------------------------

    def _on_slot_opened(self, event: on.SlotOpened) -> None:
        slot = self.crew.slots.get(event.slot)
        if slot is not None and slot.door is Door.OPENING:
            slot.door = Door.OPEN

    def _on_slot_failed(self, event: on.SlotFailed) -> None:
        slot = self.crew.slots.get(event.slot)
        if slot is None or slot.door is not Door.OPENING:
            return
        del self.crew.slots[slot.index]
        if not slot.extra:
            self.scaling.slot_failed(slot, event.reason)
        elif self.roll is not None:
            self.roll.slot_failed(slot, event.reason)

    def _on_slot_closed(self, event: on.SlotClosed) -> None:
        slot = self.crew.slots.get(event.slot)
        if slot is not None and slot.door is Door.CLOSING and self.stopping is None:
            self.scaling.closed(slot)

    def _on_time(self, event: on.TimePassed) -> None:
        """The look after each event does what is due."""


HANDLERS: Final[dict[type[on.Event], Callable[[Fleet, Any], None]]] = {
    on.StopOrdered: Fleet._on_stop,
    on.ForceOrdered: Fleet._on_force,
    on.UpgradeReady: Fleet._on_upgrade,
    on.ReloadOrdered: Fleet._on_reload,
    on.ScaleOrdered: Fleet._on_scale,
    on.PromoteOrdered: Fleet._on_promote,
    on.RollBackOrdered: Fleet._on_roll_back,
    on.Booted: Fleet._on_booted,
    on.SpawnFailed: Fleet._on_spawn_failed,
    on.BecameReady: Fleet._on_ready,
    on.SmokeDone: Fleet._on_smoke,
    on.AcceptsNow: Fleet._on_accepts,
    on.StoppedAccepting: Fleet._on_stopped_accepting,
    on.Emptied: Fleet._on_stopped_accepting,
    on.SlotReleased: Fleet._on_released,
    on.WantsToRetire: Fleet._on_wants,
    on.Exited: Fleet._on_exit,
    on.Measured: Fleet._on_measured,
    on.CensusTaken: Fleet._on_census,
    on.SlotOpened: Fleet._on_slot_opened,
    on.SlotFailed: Fleet._on_slot_failed,
    on.SlotClosed: Fleet._on_slot_closed,
    on.TimePassed: Fleet._on_time,
}
