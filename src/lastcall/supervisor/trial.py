"""The canary as a part of a roll: its slot, its worker, its share of the clients, and the looks at it. Pure.

What the looks amount to is decided by a ``Judge`` (``supervisor.canary.CanaryRun``); what becomes of the roll, by
``roll``. The slot is opened last and with no share, so that no client comes to it before its worker is clean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from lastcall.base.options import CanaryOptions
from lastcall.channel.messages import Census
from lastcall.supervisor import actions as do
from lastcall.supervisor.attendance import Door, Slot
from lastcall.supervisor.crew import Crew
from lastcall.supervisor.life import GOING, Life, Worker

ANSWER: Final = 1.0
"""Seconds that a look waits for the answers of the workers."""

PROMOTE: Final = "promote"


class Verdict(Protocol):
    """``canary.Decision``: ``verdict`` is ``promote`` or ``roll back``, ``reason`` a line."""

    @property
    def verdict(self) -> str:
        """``promote`` or ``roll back``."""

    @property
    def reason(self) -> str:
        """Why, in a line."""

    @property
    def report(self) -> dict[str, object]:
        """The evidence."""


class Judge(Protocol):
    """``canary.CanaryRun``. After a verdict nothing more is asked of it."""

    def take(self, canary: Census | None, old: Mapping[int, Census], now: float) -> Verdict | None:
        """Take a look; None: it goes on."""

    def approve(self, now: float) -> Verdict:
        """Take a person's yes."""

    def refuse(self, now: float) -> Verdict:
        """Take a person's no."""

    def lost(self, reason: str, now: float) -> Verdict:
        """Hear that the canary is gone."""

    def next_deadline(self) -> float:
        """When the next look is due."""

    def status(self, now: float) -> dict[str, object]:
        """Where it stands."""


MakeJudge = Callable[[CanaryOptions, int, float], Judge]
"""The options, the number of old workers beside it, and the time when it gets its share."""


class Trial:
    """One canary. ``verdict`` is there when it is decided."""

    def __init__(self, crew: Crew, generation: int, make_judge: MakeJudge) -> None:
        self.verdict: Verdict | None = None
        self.worker: Worker | None = None
        self._crew = crew
        self._make_judge = make_judge
        self._judge: Judge | None = None
        self._asked: set[int] = set()
        self._answers: dict[int, Census] = {}
        self._look_until = math.inf
        self._said: object = None  # the state of the judge that was told last
        self.options = crew.policy.canary
        self.slot = Slot(max(crew.slots, default=-1) + 1, generation, extra=True)
        crew.slots[self.slot.index] = self.slot
        crew.out.append(do.OpenSlot(self.slot.index, 0.0))

    @property
    def share(self) -> float:
        """Its share of the clients."""
        workers = len(self._crew.regular())
        return 1.0 / (workers + 1) if self.options.share is None else self.options.share

    @property
    def old(self) -> list[Worker]:
        """Those of the old generation that serve."""
        return [worker for worker in self._crew.serving() if worker is not self.worker]

    def spawn(self) -> None:
        """Start its worker, which accepts from nobody but its own slot."""
        self.worker = self._crew.spawn(self.slot, self.slot.generation, "canary")
        self.worker.taking_shared = False

    def hold(self) -> None:
        """Give it its share of new connections, and of the idle ones, and begin to look."""
        crew, worker = self._crew, self.worker
        assert worker is not None
        worker.taking_shared = crew.policy.shared
        crew.out.append(do.Steer(self.slot.index, self.share))
        crew.out += [do.HandOver(one.number, worker.number, self.share) for one in self.old]
        self._judge = self._make_judge(self.options, len(self.old), crew.now)

    def advance(self) -> None:
        """Begin a look when it is due, and end one that has all its answers, or must not wait any longer."""
        if self._judge is None or self.verdict is not None:
            return
        now, worker = self._crew.now, self.worker
        if worker is None:
            return
        if not self.old:
            # Nothing is left to compare with, or to go back to: serving with it is better than with nobody.
            self.verdict = self._judge.approve(now)
            self._crew.say(30, "No worker of the old generation is left: the canary is promoted.")
            return
        waiting = self._asked - self._answers.keys()
        if self._look_until < math.inf and (now >= self._look_until or not waiting & self._crew.workers.keys()):
            self._look_until = math.inf
            canary = self._answers.pop(worker.number, None)
            self.verdict = self._judge.take(canary, self._answers, now)
            self._say_where(self._judge.status(now))
        if self.verdict is None and self._look_until == math.inf and now >= self._judge.next_deadline():
            self._answers = {}
            self._asked = {worker.number, *(one.number for one in self.old)}
            self._look_until = now + ANSWER
            self._crew.out += [do.TakeCensus(number) for number in sorted(self._asked)]

    def _say_where(self, status: dict[str, object]) -> None:
        """Say it once when the hold is extended, or a person is waited for."""
        state, reason = status.get("state"), status.get("reason")
        if self.verdict is None and reason and state != self._said:
            self._said = state
            self._crew.say(20, f"The canary: {reason}.")

    def answer(self, worker: int, census: Census) -> None:
        """Take what a worker has done until now."""
        if worker in self._asked and self._look_until < math.inf:
            self._answers[worker] = census

    def ask_person(self, *, approved: bool) -> None:
        """Take a person's word for the verdict."""
        if self._judge is not None and self.verdict is None:
            now = self._crew.now
            self.verdict = self._judge.approve(now) if approved else self._judge.refuse(now)

    def lost(self, why: str) -> None:
        """Its worker is gone, or must go."""
        if self._judge is not None and self.verdict is None:
            self.verdict = self._judge.lost(why, self._crew.now)

    def back_out(self) -> None:
        """Steer the clients away, and have a worker that was about to serve, or serves, leave."""
        if self._judge is not None:
            self._crew.out.append(do.Steer(self.slot.index, 0.0))
        if self.worker is not None and self.worker.number in self._crew.workers:
            self._crew.detach(self.worker)
            self._crew.dismiss(self.worker, "canary")

    def close(self) -> None:
        """Close its slot as soon as it is open, and its worker accepts no more."""
        worker = self.worker
        leaving = worker is not None and worker.life is Life.RETIRING and worker.number in self._crew.workers
        if self.slot.door is Door.OPEN and not leaving:
            self.slot.door = Door.CLOSING
            self._crew.out.append(do.CloseSlot(self.slot.index))

    def clear_away(self) -> None:
        """Nothing of it stays behind where a roll ends between its promotion and its place."""
        if self._crew.slots.get(self.slot.index) is self.slot and self.slot.door is Door.OPEN:
            self.back_out()
            self.slot.door = Door.CLOSING
            self._crew.out.append(do.CloseSlot(self.slot.index))

    def move_to(self, slot: Slot) -> None:
        """Promoted: its worker takes a slot of the scale, and keeps its connections; its own slot is closed."""
        worker = self.worker
        assert worker is not None
        worker.slot = slot.index
        worker.taking_shared = self._crew.policy.shared
        slot.successor = worker
        slot.reason = "reload"
        self.slot.door = Door.CLOSING
        self._crew.out.append(do.CloseSlot(self.slot.index))

    def deadline(self) -> float:
        """When it wants to be asked again."""
        if self._judge is None or self.verdict is not None:
            return math.inf
        return self._look_until if self._look_until < math.inf else self._judge.next_deadline()

    def distributions(self) -> str:
        """What both sides have answered, in lines for people; nothing where no client came."""
        if self.verdict is None or "canary" not in self.verdict.report:
            return ""
        from lastcall.supervisor.canary.report import distributions  # noqa: PLC0415 - most rolls have no canary

        return "\n" + distributions(self.verdict.report)

    def status(self, now: float) -> dict[str, object]:
        """Where it stands, as JSON."""
        found: dict[str, object] = {
            "slot": self.slot.index,
            "worker": self.worker.number if self.worker is not None else None,
            "share": self.share if self._judge is not None and self.worker and self.worker.life not in GOING else 0.0,
        }
        if self._judge is not None:
            found |= {"hold": self._judge.status(now) if self.verdict is None else self.verdict.report}
        return found
