"""The final stop, and the end of a parent that another one takes over from: who is told what, the exit code. Pure.

In the final stop newcomers are kept out (``ShutDoor``) when the delay of the ladder is over; all workers drain, answer
who waits in their queues and say that they are empty; then the listeners are closed. A slot whose worker is gone before
that, or hangs, gets a neighbour, who answers those in its queue. In an upgrade another parent holds
the same listeners: workers just accept no more, and no door is shut.

Workers that are not ready are ended. Each worker has a kill timer: the longest that its stop can take and a second.
"""

from __future__ import annotations

import math
from typing import Final

from lastcall.base.exit_code import ExitCode
from lastcall.base.record import Record
from lastcall.supervisor import actions as do
from lastcall.supervisor.attendance import Door
from lastcall.supervisor.crew import Crew
from lastcall.supervisor.life import GOING, Life, Worker

RANK: Final = (ExitCode.ABANDONED, ExitCode.LIFESPAN, ExitCode.ERROR, ExitCode.CUT, ExitCode.STOPPED)
"""If several hold, the first one does."""


class Ending(Record):
    """How it ends. ``upgrade``: another parent goes on. ``code``: what it comes to even if all goes well."""

    cause: str
    interactive: bool = False
    upgrade: bool = False
    code: int = 0


class Stopping:
    """One end of the service, from the order on."""

    def __init__(self, crew: Crew, ending: Ending) -> None:
        self._crew = crew
        self.ending = ending
        self.began = crew.now
        self.forced = False
        self._codes: list[int] = []
        self._door_at = math.inf
        self._closed = ending.upgrade
        self._empty: set[int] = set()  # slots whose queues are
        if not ending.upgrade:
            self._door_at = crew.now + (0.0 if ending.interactive else crew.policy.budgets.delay)
        crew.out.append(do.Notify("STOPPING"))
        self._shut_door()
        for worker in list(crew.workers.values()):
            self._tell(worker)

    def _tell(self, worker: Worker) -> None:
        ending, crew = self.ending, self._crew
        if worker.life is Life.BOOTING:
            crew.end(worker)
        elif worker.life in (Life.CHECKING, Life.STANDBY, Life.SERVING, *GOING):
            if ending.upgrade:
                if worker.life not in GOING or ending.interactive:
                    crew.retire(worker, ending.cause, short=ending.interactive)
            else:
                crew.drain(worker, ending.cause, interactive=ending.interactive)

    def _shut_door(self) -> None:
        if self._door_at <= self._crew.now:
            self._door_at = math.inf
            if self._crew.ready_once:  # else nobody has listened yet
                self._crew.out.append(do.ShutDoor())

    def _hurry_door(self) -> None:
        """End the delay, if the door is not shut yet."""
        if self._door_at < math.inf:
            self._door_at = self._crew.now
            self._shut_door()

    def again(self, cause: str, *, interactive: bool) -> None:
        """A first signal, where a stop is under way: nothing but what a SIGINT hurries."""
        if interactive and not self.ending.interactive and not self.forced:
            self.ending = Ending(cause, True, self.ending.upgrade, self.ending.code)
            self._hurry_door()
            for worker in list(self._crew.workers.values()):
                if worker.life in GOING:
                    self._tell(worker)

    def force(self, cause: str) -> None:
        """A second signal: cancel what still runs; a start that was to end and does not is killed."""
        if self.forced:
            return
        self.forced = True
        self._hurry_door()
        for worker in list(self._crew.workers.values()):
            if worker.life in GOING:
                self._crew.force(worker, cause)
            elif worker.life is Life.ENDING:
                self._crew.kill(worker)

    def rejoin(self, worker: Worker) -> None:
        """A worker that was told to end has become ready meanwhile, or one that had stalled has come round."""
        crew, ending = self._crew, self.ending
        if ending.upgrade:
            crew.retire(worker, ending.cause, short=ending.interactive)
        else:
            crew.drain(worker, ending.cause, interactive=ending.interactive)
        end = self.began + worker.policy.kill_after(interactive=ending.interactive)
        worker.kill_at = min(worker.kill_at, end)
        if self.forced:
            crew.force(worker, ending.cause)

    def exited(self, worker: Worker, code: int) -> None:
        """Take the exit code of a worker; ``worker.life`` is what it was before."""
        if worker.was_killed:
            self._codes.append(ExitCode.ABANDONED)
        elif worker.life is Life.ENDING and code != ExitCode.ABANDONED:
            pass  # a start that was not wanted any more, and how it failed
        else:
            self._codes.append(code if code in RANK else ExitCode.ERROR)

    def advance(self) -> None:
        """Shut the door when its time has come, close it when all queues are empty, and leave when nobody is left."""
        crew = self._crew
        self._shut_door()
        if not self._closed and self._door_at == math.inf and all(one.emptied for one in crew.workers.values()):
            self._closed = True
            crew.out.append(do.CloseListeners())
        if not crew.workers:
            crew.out.append(do.Leave(self.code()))

    def cover(self) -> None:
        """Have somebody accept from each slot whose queue is not empty, while there is anybody."""
        crew = self._crew
        if self._closed:
            return
        for worker in crew.workers.values():
            if worker.emptied:
                self._empty |= worker.ordered
        able = [
            one
            for one in crew.workers.values()
            if one.life is Life.RETIRING and one.ordered and not one.emptied and one.on_time
        ]
        changed = set()
        for index, slot in sorted(crew.slots.items()):
            left = slot.door is Door.OPEN and index not in self._empty
            if able and left and not any(index in one.ordered for one in able):
                neighbour = min(able, key=lambda one: (len(one.ordered), one.number))
                neighbour.ordered |= {index}
                changed.add(neighbour)
        crew.out += [do.SetAccepting(one.number, tuple(sorted(one.ordered))) for one in able if one in changed]

    def code(self) -> int:
        """The exit code of the service."""
        found = merged(self._codes)
        return found if found == ExitCode.ABANDONED or not self.ending.code else self.ending.code

    def deadline(self) -> float:
        """When it wants to be asked again."""
        return self._door_at


def merged(codes: list[int]) -> int:
    """The code that holds if several do, each of them one of ``RANK``."""
    return int(min(codes, key=lambda code: RANK.index(ExitCode(code)), default=ExitCode.STOPPED))
