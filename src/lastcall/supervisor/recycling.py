"""Which worker is replaced next, because it is old, large, or asks for it. Pure.

Its successor is ready first, then it drains and passes its connections on. One slot at a time, and never during a roll;
the next one follows when the last one's predecessor accepts no more, and at most one other still drains. A frozen slot
is left alone: its successor would run other code.
"""

from __future__ import annotations

import math

from lastcall.supervisor.attendance import Slot
from lastcall.supervisor.crew import INFO, Crew
from lastcall.supervisor.life import Life, Worker
from lastcall.supervisor.policy import DRAINING_MOST


class Recycling:
    """What is being recycled, and what waits. ``advance`` is asked each turn in which nothing else is under way."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self.slot: Slot | None = None
        self._predecessor: Worker | None = None

    def cause(self, worker: Worker) -> str:
        """Why the worker is to be replaced; empty if it is not."""
        limit = worker.policy.limit_rss
        if worker.wants:
            return worker.wants
        if worker.old_at <= self._crew.now:
            return "age"
        return "rss" if limit is not None and worker.rss > limit else ""

    def candidates(self) -> list[Slot]:
        """The slots whose worker is to be replaced and may be, in order."""
        return [
            slot
            for slot in self._crew.open()
            if slot.generation >= self._crew.disk
            and slot.successor is None
            and slot.holder is not None
            and slot.holder.life is Life.SERVING
            and self.cause(slot.holder)
        ]

    def stop(self) -> None:
        """Forget what is under way: a roll, or the stop, takes it over."""
        self.slot = self._predecessor = None

    def advance(self) -> None:
        """Begin with the next one, if the last one is done."""
        crew = self._crew
        if self.slot is not None and self.slot.successor is None:
            self.slot = None  # it has been replaced, or its successor failed
        if self._predecessor is not None and self._predecessor.life in (Life.DRAINING, Life.KILLED, Life.GONE):
            self._predecessor = None
        if self.slot is not None or crew.draining() >= DRAINING_MOST:
            return
        if self._predecessor is not None and self._predecessor.life is Life.RETIRING:
            return
        for slot in self.candidates():
            if slot.spawn_at <= crew.now and slot.holder is not None:
                cause = self.cause(slot.holder)
                crew.say(INFO, f"Replacing {slot.holder} of slot {slot.index}: {cause}.")
                self.slot, self._predecessor = slot, slot.holder
                crew.spawn(slot, slot.generation, cause)
                return

    def deadline(self) -> float:
        """When a worker will be old, or a try that failed may be made again."""
        if self.slot is not None:
            return math.inf
        now = self._crew.now
        old = (
            worker.old_at
            for worker in self._crew.workers.values()
            if worker.life is Life.SERVING and worker.old_at > now
        )
        again = (slot.spawn_at for slot in self.candidates() if slot.spawn_at > now)
        return min(min(old, default=math.inf), min(again, default=math.inf))
