"""The rolling reload, with and without a canary: stages, turns and one transition table, and what carries it out. Pure.

Theory of operation
-------------------
A roll brings a new *generation* to every slot. A slot's successor is spawned, becomes ready, is checked and accepts on
the same sockets as its predecessor; only then its predecessor drains, and passes its connections on.

It works on two slots at once (``ROLLED_AT_ONCE``), since most of a roll is waiting for imports: a slot counts from the
spawn of its successor until its predecessor has drained. That is what bounds the memory: the service never has more
than two workers too many. A slot is only begun when every predecessor that was told to go accepts no more.

Until the first successor accepts (``FIRST``; with a canary ``OPENING``, ``TRYING``, ``HOLDING``) no worker has been
told to go: what fails here leaves the service ``UNCHANGED``. What fails later (``ROLLING``) stops the roll where it
stands; the slots that have not come to their turn keep their workers. Their code is gone from the disk, so they are
*frozen* until a reload comes to its end: if one of their workers dies, a neighbour keeps the slot.

A promoted canary takes the slot whose turn is first, as its successor: it is clean, and keeps its connections. Its own
slot is closed like any other. A canary that goes back is steered away from, drains, and hands its idle connections to
an old worker; then its slot is closed.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Final

from lastcall.supervisor import actions as do
from lastcall.supervisor.attendance import Door, Slot
from lastcall.supervisor.crew import ERROR, INFO, WARNING, Crew, Failure
from lastcall.supervisor.events import ReloadOrdered
from lastcall.supervisor.life import Life, Worker
from lastcall.supervisor.policy import ROLLED_AT_ONCE
from lastcall.supervisor.trial import PROMOTE, MakeJudge, Trial


class Stage(Enum):
    """Where a roll stands."""

    OPENING = "opening the canary's slot"
    TRYING = "starting and checking the canary"
    HOLDING = "comparing the canary"
    BACK = "rolling back"
    FIRST = "starting and checking the first successor"
    ROLLING = "replacing worker by worker"
    FINISHED = "finished"
    UNCHANGED = "nothing has changed"
    STOPPED = "stopped half-way"
    INTERRUPTED = "interrupted"


class Turn(Enum):
    """What moves a roll on."""

    OPENED = "the slot is open"
    SERVES = "it accepts"
    PROMOTED = "promoted"
    FAILS = "it fails"
    WITHDRAWN = "withdrawn"
    CLOSED = "the slot is closed"
    COMPLETE = "no slot is left"
    END = "the service ends"


TRANSITIONS: Final[dict[tuple[Stage, Turn], Stage]] = {
    (Stage.OPENING, Turn.OPENED): Stage.TRYING,
    (Stage.OPENING, Turn.FAILS): Stage.UNCHANGED,
    (Stage.OPENING, Turn.WITHDRAWN): Stage.BACK,
    (Stage.TRYING, Turn.SERVES): Stage.HOLDING,
    (Stage.TRYING, Turn.FAILS): Stage.BACK,
    (Stage.TRYING, Turn.WITHDRAWN): Stage.BACK,
    (Stage.HOLDING, Turn.PROMOTED): Stage.ROLLING,
    (Stage.HOLDING, Turn.FAILS): Stage.BACK,
    (Stage.HOLDING, Turn.WITHDRAWN): Stage.BACK,
    (Stage.BACK, Turn.FAILS): Stage.UNCHANGED,  # its slot could not be opened after all
    (Stage.BACK, Turn.CLOSED): Stage.UNCHANGED,
    (Stage.FIRST, Turn.SERVES): Stage.ROLLING,
    (Stage.FIRST, Turn.FAILS): Stage.UNCHANGED,
    (Stage.FIRST, Turn.WITHDRAWN): Stage.UNCHANGED,
    (Stage.ROLLING, Turn.SERVES): Stage.ROLLING,
    (Stage.ROLLING, Turn.FAILS): Stage.STOPPED,
    (Stage.ROLLING, Turn.WITHDRAWN): Stage.STOPPED,
    (Stage.ROLLING, Turn.COMPLETE): Stage.FINISHED,
    **{
        (stage, Turn.END): Stage.INTERRUPTED
        for stage in (Stage.OPENING, Stage.TRYING, Stage.HOLDING, Stage.BACK, Stage.FIRST, Stage.ROLLING)
    },
}

FINAL: Final = frozenset(Stage) - {stage for stage, _ in TRANSITIONS}
CANARY: Final = frozenset({Stage.OPENING, Stage.TRYING, Stage.HOLDING, Stage.BACK})


class Roll:
    """One roll. ``stage`` in ``FINAL``: it is over, and was settled."""

    def __init__(self, crew: Crew, requests: list[int], order: ReloadOrdered, make_judge: MakeJudge) -> None:
        crew.disk += 1
        self.generation = crew.disk
        self.requests = requests
        self.development = order.development
        self.report: dict[str, object] = {}
        self._crew = crew
        self._current: list[Slot] = []  # those whose successors are on their way
        self._predecessors: list[Worker] = []
        self.superseded = False  # another roll follows at once
        self._failure = ""
        self._began = crew.now
        self._clear()
        self._trial = Trial(crew, self.generation, make_judge) if order.canary else None
        self.stage = Stage.OPENING if order.canary else Stage.FIRST
        crew.out.append(do.Notify("RELOADING"))
        crew.say(INFO, f"Reloading: generation {self.generation}{', a canary first' if order.canary else ''}.")

    def _clear(self) -> None:
        """End those that are on their way: nobody knows which code they have read. And nobody is being replaced."""
        for slot in self._crew.slots.values():
            # It was told to accept, and may do so: it stays until its successor says that it does.
            if slot.holder is None and slot.successor is not None and slot.successor.life is Life.STANDBY:
                slot.holder, slot.successor = slot.successor, None
        held = {slot.holder for slot in self._crew.slots.values()}
        for worker in self._crew.coming():
            if worker not in held:
                self._crew.detach(worker)
                self._crew.dismiss(worker, "reload")
        for slot in self._crew.regular():
            slot.spawn_at = self._crew.now
            slot.failures = 0

    # -- what happens -------------------------------------------------------------------------------------------------

    def take(self, turn: Turn) -> None:
        """Take one step, and do what belongs to the stage that is entered."""
        before, self.stage = self.stage, TRANSITIONS[self.stage, turn]
        if self.stage is before:
            return
        trial = self._trial
        if trial is not None:
            match self.stage:
                case Stage.TRYING:
                    trial.spawn()
                case Stage.HOLDING:
                    trial.hold()
                case Stage.BACK:
                    trial.back_out()
                case _:
                    pass
        if self.stage in FINAL:
            self._settle()

    def failed(self, failure: Failure) -> None:
        """A worker that was wanted is not there any more; it may be this roll's."""
        worker = failure.worker
        if self.stage in FINAL or worker.generation != self.generation:
            return
        trial = self._trial
        if trial is not None and worker is trial.worker and self.stage in CANARY:
            if self.stage is not Stage.BACK:
                trial.lost(failure.why)
                self.report = dict(trial.verdict.report) if trial.verdict is not None else {}
                self._fail(failure.why)
        elif failure.coming and worker.slot in [slot.index for slot in self._current]:
            self._fail(failure.why)
        elif failure.early:
            # It was ready, and clean, and did not survive its first clients.
            self._fail(failure.why)

    def slot_failed(self, slot: Slot, reason: str) -> None:
        """The canary's slot could not be opened."""
        if self._trial is not None and slot is self._trial.slot:
            self._fail(f"no listener for the canary: {reason}")

    def withdraw(self, why: str) -> None:
        """Stop it here: a person, or a newer change, wants it so."""
        self._failure = why
        self.take(Turn.WITHDRAWN)

    def interrupt(self, why: str) -> None:
        """The service ends."""
        if self.stage not in FINAL:
            self._failure = why
            self.take(Turn.END)

    def approve(self) -> bool:
        """Take a person's yes; False where nobody is asked."""
        if self.stage is not Stage.HOLDING or self._trial is None:
            return False
        self._trial.ask_person(approved=True)
        return True

    def refuse(self) -> None:
        """Take a person's no."""
        if self.stage is Stage.HOLDING and self._trial is not None:
            self._trial.ask_person(approved=False)
        else:
            self.withdraw("rolled back by order" if self.untouched else "stopped by order")

    @property
    def untouched(self) -> bool:
        """No worker has been replaced yet."""
        return all(slot.generation != self.generation for slot in self._crew.regular())

    @property
    def trial(self) -> Trial | None:
        """The canary, if there is one."""
        return self._trial

    # -- each turn ----------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Do the next thing, if its time has come."""
        if self.stage in FINAL:
            return
        trial = self._trial
        if trial is not None and self.stage in CANARY:
            self._advance_trial(trial)
        for slot in [slot for slot in self._current if slot.successor is None]:
            self._current.remove(slot)
            if slot.generation == self.generation:
                self.take(Turn.SERVES)
        if self.stage in (Stage.FIRST, Stage.ROLLING):
            self._next()

    def _advance_trial(self, trial: Trial) -> None:
        slots, worker = self._crew.slots, trial.worker
        if self.stage is Stage.OPENING and trial.slot.door is Door.OPEN:
            self.take(Turn.OPENED)
        elif self.stage is Stage.TRYING and worker is not None and trial.slot.holder is worker:
            self.take(Turn.SERVES)
        if self.stage is Stage.HOLDING:
            trial.advance()
            if trial.verdict is not None:
                self.report = dict(trial.verdict.report)
                if trial.verdict.verdict == PROMOTE:
                    level = WARNING if self.report.get("warning") else INFO
                    self._crew.say(level, f"The canary is promoted: {trial.verdict.reason}.")
                    self.take(Turn.PROMOTED)
                else:
                    self._fail(trial.verdict.reason)
        if self.stage is Stage.BACK:
            if trial.slot.index not in slots:
                self.take(Turn.CLOSED)
            else:
                trial.close()

    def _next(self) -> None:
        crew, trial = self._crew, self._trial
        if any(worker.life is Life.RETIRING for worker in self._predecessors):
            return
        # A slot that has nobody comes first: it is a neighbour's burden.
        left = sorted(
            (slot for slot in crew.open() if slot.generation < self.generation and slot not in self._current),
            key=lambda slot: (slot.holder is not None, slot.index),
        )
        if not left and not self._current:
            self.take(Turn.COMPLETE)
        for slot in left[: max(0, ROLLED_AT_ONCE - crew.draining() - len(self._current))]:
            self._current.append(slot)
            if slot.holder is not None:
                self._predecessors.append(slot.holder)
            if trial is not None and trial.slot.index in crew.slots and trial.slot.door is Door.OPEN:
                trial.move_to(slot)
            else:
                crew.spawn(slot, self.generation, "reload")

    def _fail(self, why: str) -> None:
        self._failure = self._failure or why
        self.take(Turn.FAILS)

    def deadline(self) -> float:
        """When it wants to be asked again."""
        return self._trial.deadline() if self._trial is not None and self.stage is Stage.HOLDING else math.inf

    # -- telling ------------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        crew = self._crew
        if self.stage is not Stage.INTERRUPTED:
            for slot in self._current:
                coming = slot.successor
                if coming is None or (self.superseded and slot.holder is None and coming.life is Life.STANDBY):
                    continue  # one that may accept already from a slot that has nobody else stays; see ``_clear``
                # On its way to a slot of the old generation; a canary that was promoted may be, too.
                crew.dismiss(coming, "reload" if self._trial is None or coming is not self._trial.worker else "canary")
            self._current.clear()
            if self._trial is not None:
                self._trial.clear_away()
            crew.out.append(do.Notify("READY"))
        ok, text = self.stage is Stage.FINISHED, self._text()
        if self._trial is not None:
            text += self._trial.distributions()
        said = self.stage is not Stage.INTERRUPTED
        if said:
            crew.say(INFO if ok else ERROR, text)
        reason = self._failure or self.report.get("reason", "")
        report = {**self.report, "outcome": self.stage.value, "reason": reason, **self._generations()}
        for request in self.requests:
            crew.settle(request, ok, text, report, said=said)

    def _text(self) -> str:
        if self.stage is Stage.FINISHED:
            return f"Reloaded: generation {self.generation} serves, after {self._crew.now - self._began:.1f} s."
        head = f"Reload failed: {self._failure}. " if self.stage is not Stage.INTERRUPTED else f"{self._failure}. "
        slots = self._crew.regular()
        new = [slot.index for slot in slots if slot.generation == self.generation]
        old = [slot.index for slot in slots if slot.generation < self.generation]
        if not new:
            return head + "No worker was replaced."
        return head + f"Slots {_numbers(new)} run generation {self.generation}, slots {_numbers(old)} an older one."

    def _generations(self) -> dict[str, object]:
        return {
            "generation": self.generation,
            "slots": {str(slot.index): slot.generation for slot in self._crew.regular()},
        }

    def progress(self) -> str:
        """Where it stands, in a line."""
        slots = self._crew.regular()
        done = sum(slot.generation == self.generation for slot in slots)
        text = f"reload to generation {self.generation}: {self.stage.value}"
        return f"{text} ({done} of {len(slots)})" if self.stage is Stage.ROLLING else text

    def status(self, now: float) -> dict[str, object]:
        """Where it stands, as JSON."""
        return {
            "generation": self.generation,
            "stage": self.stage.value,
            "seconds": now - self._began,
            "slots": [slot.index for slot in self._current],
            "done": sum(slot.generation == self.generation for slot in self._crew.regular()),
            "canary": self._trial.status(now) if self._trial is not None else None,
        }


def _numbers(indices: list[int]) -> str:
    return ", ".join(map(str, indices)) or "(none)"
