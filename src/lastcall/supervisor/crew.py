"""The workers and slots of a service, and what can be done with one of them. What the fleet's procedures share. Pure.

Each method changes what is known and puts the action that makes it so into ``out``. Coverage comes last: who accepts
from what is computed anew from where all stand (``attendance``), and those orders go *before* the others of the same
turn, so that nobody is told to leave a slot before somebody was told to attend it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Final

from lastcall.base.exit_code import ExitCode
from lastcall.base.record import Record
from lastcall.channel.messages import SHARED
from lastcall.supervisor import actions as do
from lastcall.supervisor.attendance import Door, Slot, able, attend
from lastcall.supervisor.life import COMING, GOING, Cue, Life, Worker
from lastcall.supervisor.policy import AFTER_SIGTERM, EARLY, FleetPolicy, back_off

INFO: Final = 20
WARNING: Final = 30
ERROR: Final = 40
SIGKILL: Final = 9
SIGTERM: Final = 15
FAILED_START: Final = int(ExitCode.STARTUP)


class Failure(Record):
    """A worker that was wanted, and is not there any more, or will not be. ``code``: of its exit, None: it still runs.

    ``early``: before it was ready, or within 5 s of it. ``coming``: it did not serve yet. ``code`` is also
    ``FAILED_START`` for one that was ready too late, or not clean.
    """

    worker: Worker
    why: str
    early: bool
    coming: bool
    code: int | None = None


class Crew:
    """All workers, by number, and all slots, by index. ``now`` is the time of the event that is being handled.

    ``disk`` is the generation that a spawn would run now: what is on the disk. A slot of an earlier generation is
    *frozen*: its code is gone, and the new one has not proved itself there.
    """

    def __init__(self, policy: FleetPolicy, now: float) -> None:
        self.policy = policy
        self.now = now
        self.workers: dict[int, Worker] = {}
        self.slots: dict[int, Slot] = {}
        self.disk = 1
        self.ready_once = False
        self.restarts = 0
        self.out: list[do.Action] = []
        self.on_failure: Callable[[Failure], None] = lambda failure: None
        self._numbers = 0

    # -- looking ------------------------------------------------------------------------------------------------------

    def regular(self) -> list[Slot]:
        """The slots of the scale, in order; the canary's is not among them."""
        return [slot for _, slot in sorted(self.slots.items()) if not slot.extra]

    def open(self) -> list[Slot]:
        """Those of the regular slots that new connections come to."""
        return [slot for slot in self.regular() if slot.door is Door.OPEN]

    def frozen(self) -> list[Slot]:
        """The slots that get no worker if theirs dies: their code is gone from the disk."""
        return [slot for slot in self.open() if slot.generation < self.disk]

    def draining(self) -> int:
        """How many drain, or were told to."""
        return sum(worker.life in GOING for worker in self.workers.values())

    def serving(self) -> list[Worker]:
        """Those that accept."""
        return [worker for worker in self.workers.values() if worker.life is Life.SERVING]

    def heir(self, but: Worker) -> Worker | None:
        """Somebody who can take connections over: serving, on time, preferably of the same generation."""
        found = [worker for worker in self.serving() if worker is not but and able(worker)]
        return min(found, key=lambda one: (one.generation != but.generation, one.number), default=None)

    def say(self, level: int, text: str) -> None:
        """Say a line."""
        self.out.append(do.Say(level, text))

    def say_once(self, place: int, why: str, text: str) -> None:
        """Say an error at a place in ``out``, unless a line behind it says why already."""
        if not any(isinstance(one, do.Say) and why in one.text for one in self.out[place:]):
            self.out.insert(place, do.Say(ERROR, text))

    def settle(
        self, request: int, ok: bool, text: str, report: dict[str, object] | None = None, *, said: bool = False
    ) -> None:
        """Answer an order. ``said``: the log has it already."""
        self.out.append(do.Settled(request, ok, text, report, said))

    # -- acting on one worker -----------------------------------------------------------------------------------------

    def spawn(self, slot: Slot, generation: int, reason: str = "") -> Worker:
        """Start a worker for the slot, as its successor."""
        self._numbers += 1
        worker = Worker(self._numbers, slot.index, generation, self.policy, self.now)
        self.workers[worker.number] = worker
        slot.successor = worker
        slot.reason = reason
        self.out.append(do.Spawn(worker.number, slot.index, generation))
        return worker

    def retire(self, worker: Worker, cause: str, heir: Worker | None = None, *, short: bool = False) -> None:
        """Have it drain while the others serve. ``short``: as after Ctrl-C."""
        self._leave(worker, worker.policy.kill_after(interactive=short))
        worker.ordered = frozenset()
        self.out.append(do.Retire(worker.number, cause, heir.number if heir is not None else None, short))

    def drain(self, worker: Worker, cause: str, *, interactive: bool) -> None:
        """Have it drain because all do."""
        self._leave(worker, worker.policy.kill_after(interactive=interactive))
        self.out.append(do.Drain(worker.number, cause, interactive))

    def end(self, worker: Worker) -> None:
        """End one that is not ready yet."""
        worker.take(Cue.END)
        worker.kill_at = self.now + worker.policy.kill_after_end
        self.detach(worker)
        self.out.append(do.Kill(worker.number, SIGTERM))

    def dismiss(self, worker: Worker, cause: str, *, short: bool = False) -> None:
        """End it, or have it drain, whichever its life allows."""
        if worker.life is Life.BOOTING:
            self.end(worker)
        elif worker.life in COMING or worker.life is Life.SERVING:
            self.retire(worker, cause, self.heir(worker), short=short)

    def force(self, worker: Worker, cause: str) -> None:
        """Have it cancel what it still does."""
        worker.kill_at = min(worker.kill_at, self.now + worker.policy.kill_after_force)
        self.out.append(do.Force(worker.number, cause))

    def kill(self, worker: Worker) -> None:
        """End it at once."""
        worker.take(Cue.KILL)
        worker.was_killed = True
        worker.kill_at = math.inf
        self.out.append(do.Kill(worker.number, SIGKILL))

    def detach(self, worker: Worker) -> None:
        """Have no slot count on it any more."""
        for slot in self.slots.values():
            if slot.holder is worker:
                slot.holder = None
            if slot.successor is worker:
                slot.successor = None

    def _leave(self, worker: Worker, within: float) -> None:
        again = worker.life in GOING
        worker.take(Cue.RETIRE)
        # An order that comes again can shorten what is left, never lengthen it.
        worker.kill_at = min(worker.kill_at if again else math.inf, self.now + within)
        self.detach(worker)

    # -- failing ------------------------------------------------------------------------------------------------------

    def fail(self, worker: Worker, why: str, then: Callable[[], object], code: int | None = None) -> None:
        """A worker that is wanted dies, or must go, which ``then`` sees to; those are told who wait for it."""
        early = not worker.was_ready or self.now - worker.ready_at < EARLY
        for slot in self.slots.values():
            if worker in (slot.holder, slot.successor):
                slot.failures = slot.failures + 1 if early else 0
                slot.spawn_at = self.now + back_off(slot.failures) if early else self.now
                slot.restarts += 1
                self.restarts += 1
        failure = Failure(worker, why, early, worker.life in COMING, code)
        self.detach(worker)
        then()
        self.on_failure(failure)

    def fail_boot(self, worker: Worker) -> None:
        """It has not become ready in time: its stacks say what it hangs in."""
        why = f"{worker} is not ready after {worker.policy.timeout_boot:g} s (--timeout-worker-boot)"
        self.say(ERROR, f"{why}: its stacks follow, and it is ended.")
        self.out.append(do.WriteStacks(worker.number))
        self.fail(worker, why, lambda: self.end(worker), FAILED_START)

    def fail_smoke(self, worker: Worker, failure: str) -> None:
        """It does not pass the smoke checks: it has nobody to serve, but a lifespan to shut down."""
        why = f"{worker} fails the smoke check: {failure}"
        place = len(self.out)
        self.fail(worker, why, lambda: self.retire(worker, "smoke"), FAILED_START)
        self.say_once(place, why, f"Slot {worker.slot}: {why}.")

    def fail_stalled(self, worker: Worker) -> None:
        """Its event loop gives no sign of life."""
        why = f"{worker} has stalled: no heartbeat for {worker.beat_age:.0f} s"
        self.say(ERROR, f"{why}; its stacks follow, then SIGTERM, and SIGKILL {AFTER_SIGTERM:g} s later.")
        self.out.append(do.WriteStacks(worker.number))
        if worker.life in GOING:
            worker.kill_at = self.now + AFTER_SIGTERM
        else:
            self.fail(worker, why, lambda: self._stall(worker))

    def _stall(self, worker: Worker) -> None:
        worker.take(Cue.STALL)
        worker.kill_at = self.now + AFTER_SIGTERM
        self.out.append(do.Kill(worker.number, SIGTERM))

    # -- each turn ----------------------------------------------------------------------------------------------------

    def run_timers(self) -> None:
        """Do what the clock asks for."""
        for worker in list(self.workers.values()):
            if worker.kill_at <= self.now:
                self.say(ERROR, f"{worker} did not end in time ({worker.life.value}): SIGKILL.")
                self.kill(worker)
            elif worker.life is Life.BOOTING and worker.end_at <= self.now:
                self.fail_boot(worker)

    def swap(self) -> None:
        """Where a successor says that it accepts, it is the holder, and its predecessor drains."""
        for slot in list(self.slots.values()):
            successor = slot.successor
            # One that is late again waits until its event loop turns: its predecessor may still be at work.
            if successor is not None and successor.accepts_from(slot.index) and successor.life is Life.SERVING:
                if not successor.on_time:
                    continue
                predecessor, slot.holder, slot.successor = slot.holder, successor, None
                slot.generation = successor.generation
                if predecessor is not None and predecessor is not successor:
                    self.retire(predecessor, slot.reason, successor, short=self.policy.development)

    def cover(self) -> None:
        """Tell those workers what to accept from for whom it has changed."""
        plan = attend(self.slots.values(), self.workers.values())
        orders: list[do.Action] = []
        for worker, slots in plan.items():
            wanted = slots | {SHARED} if worker.taking_shared and slots else slots
            if wanted != worker.ordered:
                worker.ordered = wanted
                orders.append(do.SetAccepting(worker.number, tuple(sorted(wanted))))
        self.out[:0] = orders

    def deadlines(self) -> Iterator[float]:
        """When the clock will ask for something."""
        for worker in self.workers.values():
            yield worker.kill_at
            if worker.life is Life.BOOTING:
                yield worker.end_at

    def coming(self) -> list[Worker]:
        """Those that are on their way, and do not serve yet."""
        return [worker for worker in self.workers.values() if worker.life in COMING]
