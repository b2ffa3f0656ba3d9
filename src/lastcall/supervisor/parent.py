"""The parent in its event loop: what happens becomes events, what the fleet decides is done."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

from lastcall.base.errors import LastcallError, StartupError
from lastcall.base.exit_code import ExitCode
from lastcall.base.record import Record
from lastcall.channel import messages
from lastcall.channel.messages import Message
from lastcall.net.moving import moving_pair
from lastcall.supervisor import actions, events
from lastcall.supervisor.actions import Action
from lastcall.supervisor.control import Outcome
from lastcall.supervisor.events import Event
from lastcall.supervisor.report import WorkerEnd, progress_of
from lastcall.supervisor.workers import Listeners, Worker, Workers, send_listeners

logger = logging.getLogger("lastcall.error")

LOOK: Final = 0.5
"""Seconds between two looks at the heartbeats. Nothing in the parent is faster, and without workers nothing happens."""

LOOKS_PER_MEASURE: Final = 6
"""Each so many looks the memory of the workers is looked at, too."""

LOOK_AT_END: Final = 0.02
KILLED_SECONDS: Final = 1.0
"""For the system to end those that were killed."""

PAUSE: Final = 1.0
"""Seconds after a mistake of ours until the fleet is asked again, lest it make the same one without an end."""

ENDS: Final = (events.StopOrdered, events.ForceOrdered, events.UpgradeReady)
"""Orders by which this process ends."""

EVENTS: Final[dict[type[Message], Callable[[int, Any], Event]]] = {
    messages.Hello: lambda number, message: events.Booted(number, message.pid),
    messages.Ready: lambda number, _: events.BecameReady(number),
    messages.RetireMe: lambda number, message: events.WantsToRetire(number, message.cause),
    messages.StoppedAccepting: lambda number, _: events.StoppedAccepting(number),
    messages.Emptied: lambda number, _: events.Emptied(number),
}
"""What a worker says that is an event as it is."""


class Decides(Protocol):
    """``supervisor.fleet.Fleet``: told what happens, it says what to do. Times are ``time.monotonic()``'s."""

    def handle(self, event: Event, now: float) -> list[Action]:
        """What to do now, in this order."""

    def next_deadline(self) -> float:
        """When it wants ``TimePassed``; infinity: never."""

    @property
    def wanted(self) -> int:
        """The number of slots that was ordered last."""

    @property
    def moves_listeners(self) -> str:
        """What is under way that makes or closes listeners; empty: nothing."""

    def status(self, now: float) -> dict[str, Any]:
        """The state of the service, as JSON."""

    def doing(self, now: float) -> str:
        """What is under way, in a line; empty if nothing is."""


class Doors(Listeners, Protocol):
    """``net.slots.Slots``: the listening sockets of the service."""

    @property
    def listening(self) -> bool:
        """Whether it was done already."""

    def listen(self) -> None:
        """Let the first client in; raises StartupError, or OSError."""

    def add(self, slot: int, share: float | None = None) -> None:
        """Make the listeners of a slot; raises OSError, or StartupError."""

    def steer(self, slot: int, share: float | None) -> None:
        """Give the slot that share of newcomers; None: all alike."""

    def steer_away(self, slot: int) -> None:
        """Give the slot no newcomers."""

    def remove(self, slot: int) -> None:
        """Close the slot's listeners."""

    def shut_door(self) -> None:
        """Let nobody new in."""


class Seams(Record):
    """What the executor is given: ``smoke(path)`` is "" or a failure; ``notify`` speaks to the service manager.

    ``on_first`` is called when the first worker accepts, ``on_accepting`` with how many do when that changes, ``show``
    with how far a stop has come, ``on_stop`` with its cause, and whether somebody waits, when it begins.
    ``on_failure`` is given why a worker could not start, with its traceback. ``close_doors`` closes the listeners for
    good.
    """

    doors: Doors
    smoke: Callable[[Worker], Awaitable[str]]
    notify: Callable[[str, str], object]
    on_first: Callable[[], object]
    on_accepting: Callable[[int], object]
    on_stop: Callable[[str, bool], object]
    on_failure: Callable[[str], object]
    close_doors: Callable[[], object]
    show: Callable[[Any], object]


class Parent:
    """Carries actions out, and makes events. ``done`` has the exit code, once the fleet has said it."""

    def __init__(self, fleet: Decides, seams: Seams, settings: str, slots: Sequence[int]) -> None:
        self.fleet = fleet
        self.workers = Workers(settings, self._heard, self._ended)
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.ends: list[WorkerEnd] = []  # of those that the final stop has ended
        self.stopping = False
        self.error: StartupError | None = None
        self.slots: list[int] = list(slots)
        self._seams = seams
        self._loop = asyncio.get_running_loop()
        self._events: deque[Event] = deque()
        self._busy = False
        self._mistaken = False  # an event has come to nothing by a mistake of ours
        self._deaf = False
        self._timer: asyncio.TimerHandle | None = None
        self._look_timer: asyncio.TimerHandle | None = None
        self._looks = 0
        self._accepting = False
        self._adding: dict[int, set[int]] = {}  # slot: workers that have not answered yet
        self._closing: dict[int, set[int]] = {}
        self._said: tuple[int, str] = (0, "")
        self._requests = 0
        self._waiting: dict[int, asyncio.Future[Outcome]] = {}
        self._censuses: dict[int, Callable[[Worker, messages.Census], object]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._do: dict[type[Action], Callable[[Any], object]] = {
            actions.Spawn: self._spawn,
            actions.Smoke: self._smoke,
            actions.SetAccepting: self._set_accepting,
            actions.Retire: self._retire,
            actions.HandOver: self._hand_over,
            actions.Drain: lambda one: self._send(one.worker, messages.Drain(one.cause, one.interactive)),
            actions.Force: lambda one: self._send(one.worker, messages.Force(one.cause)),
            actions.TakeCensus: self._take_census,
            actions.WriteStacks: self._write_stacks,
            actions.Kill: self._kill,
            actions.OpenSlot: self._open_slot,
            actions.CloseSlot: self._close_slot,
            actions.Steer: lambda one: seams.doors.steer(one.slot, one.share),
            actions.ShutDoor: lambda _: seams.doors.shut_door(),
            actions.CloseListeners: lambda _: seams.close_doors(),
            actions.Settled: self._settle,
            actions.Say: lambda one: logger.log(one.level, "%s", one.text),
            actions.Notify: lambda one: seams.notify(one.state, one.status),
            actions.Leave: self._leave,
        }

    # -- events in, actions out -----------------------------------------------------------------------------------

    def begin(self, first: Sequence[Action] = ()) -> None:
        """Carry out what the fleet begins with, and look at the workers from now on."""
        self._carry_out(first)
        self.tell(events.TimePassed())
        self._look_timer = self._loop.call_later(LOOK, self._look)

    def tell(self, event: Event) -> None:
        """Something has happened. What it leads to is done at once, or, inside an action, after that."""
        if self._deaf:
            return
        self._events.append(event)
        if self._busy:
            return
        self._busy = True
        pause = 0.0
        try:
            while self._events:
                one = self._events.popleft()
                try:
                    self._look_for_stop(one)
                    found = self.fleet.handle(one, time.monotonic())
                except Exception:
                    pause = PAUSE
                    self._mistake(one)
                    continue
                self._carry_out(found)
        finally:
            self._busy = False
        self._set_timer(pause)

    def _look_for_stop(self, event: Event) -> None:
        if self.stopping or not isinstance(event, ENDS):
            return
        self.stopping = True
        cause = "upgrade" if isinstance(event, events.UpgradeReady) else event.cause
        try:
            self._seams.on_stop(cause, isinstance(event, events.StopOrdered) and event.interactive)
        except Exception:
            logger.exception("lastcall: internal error at the beginning of a stop; please report this")

    def _mistake(self, event: Event) -> None:
        """The service goes on, but for a stop that cannot be in order: its end must come all the same."""
        logger.exception("lastcall: internal error at %r; please report this", event)
        self._mistaken = True
        if isinstance(event, ENDS) or (self.stopping and not len(self.workers)):
            self._leave(actions.Leave(ExitCode.ERROR))
        if (request := getattr(event, "request", None)) is not None:
            self._settle(actions.Settled(request, False, "An internal error: the log has it."))

    def order(self, make: Callable[[int], Event]) -> asyncio.Future[Outcome]:
        """Give an order; the answer comes when it is settled. ``make(request)`` is the event."""
        self._requests += 1
        answer: asyncio.Future[Outcome] = self._loop.create_future()
        self._waiting[self._requests] = answer
        self.tell(make(self._requests))
        return answer

    def fail(self, error: StartupError) -> None:
        """The service cannot go on as it began: stop it; ``error`` is why."""
        self.error = self.error or error
        self.tell(events.StopOrdered("start failed"))

    async def end_workers(self, seconds: float) -> None:
        """Where it comes to no stop in order: let the workers drain, and kill those that are left after ``seconds``."""
        self._deaf = True
        self.workers.hang_up()
        for patience in (seconds, KILLED_SECONDS):
            end = self._loop.time() + patience
            while len(self.workers) and self._loop.time() < end:
                await asyncio.sleep(LOOK_AT_END)
                self.workers.look()
            self.workers.kill_all()

    def close(self) -> None:
        """Let go of everything. Workers that are left lose the channel, and drain."""
        for timer in (self._timer, self._look_timer):
            if timer is not None:
                timer.cancel()
        for task in self._tasks:
            task.cancel()
        self.workers.close()

    def _carry_out(self, found: Sequence[Action]) -> None:
        for action in found:
            try:
                self._do[type(action)](action)
            except Exception as exc:
                if isinstance(exc, OSError):
                    logger.error("%s was not possible: %s", type(action).__name__, exc.strerror or exc)
                else:
                    logger.exception("lastcall: internal error in %r; please report this", action)
                self._make_up_for(action, exc)

    def _make_up_for(self, action: Action, exc: Exception) -> None:
        """The fleet waits for what should have come of it. Where no timer ends that, it hears of something else."""
        why = getattr(exc, "strerror", None) or f"an internal error ({type(exc).__name__})"
        match action:
            case actions.Spawn(worker=number):
                self.tell(events.SpawnFailed(number, why))
            case actions.OpenSlot(slot=slot):
                self.tell(events.SlotFailed(slot, why))
            case actions.CloseSlot(slot=slot):
                self.tell(events.SlotClosed(slot))
            case actions.Smoke(worker=number):
                self.tell(events.SmokeDone(number, why))
            case actions.SetAccepting(worker=number):
                if (worker := self.workers.get(number)) is not None:
                    worker.signal(signal.SIGTERM)  # it asks for a successor
            case _:
                pass

    def _set_timer(self, pause: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.done.done():
            return
        if self.stopping and self._mistaken and not len(self.workers) and not self._events:
            self._leave(actions.Leave(ExitCode.ERROR))  # the fleet waits for somebody who is gone
            return
        now = self._loop.time()
        try:
            at = max(self.fleet.next_deadline(), now + pause)
        except Exception:
            logger.exception("lastcall: internal error in the fleet's timers; please report this")
            at = now + PAUSE
        if at < math.inf:
            self._timer = self._loop.call_at(at, self.tell, events.TimePassed())

    def _look(self) -> None:
        self._look_timer = self._loop.call_later(LOOK, self._look)
        self.workers.look()
        self._looks += 1
        memory = self._looks % LOOKS_PER_MEASURE == 0
        for number, age, size in self.workers.measure(time.monotonic(), memory=memory):
            self.tell(events.Measured(number, age, size))

    # -- what workers say -----------------------------------------------------------------------------------------

    def _heard(self, worker: Worker, message: Message) -> None:
        """Answers that somebody waits for first; what is left is an event, or nothing."""
        match message:
            case messages.Census():
                if (told := self._censuses.pop(message.number, None)) is not None:
                    told(worker, message)
            case messages.Progress():
                self._show_progress()
            case messages.Failed():
                worker.reason = message.reason
                self._say_once(worker.generation, message.text)
            case messages.Added():
                for slot in message.slots:
                    self._answered(self._adding, slot, worker.number)
            case messages.SlotClosed():
                self.tell(events.SlotReleased(worker.number, message.slot))
                self._answered(self._closing, message.slot, worker.number)
            case messages.Accepting():
                self._accepts(worker, message)
            case _:
                if (make := EVENTS.get(type(message))) is not None:
                    self.tell(make(worker.number, message))

    def _show_progress(self) -> None:
        if self.stopping:
            self._seams.show(progress_of([one.progress for one in self.workers if one.progress is not None]))

    def _say_once(self, generation: int, text: str) -> None:
        """Why a start has failed, with its traceback: all workers of a generation fail alike."""
        if text and (generation, text) != self._said:
            self._said = (generation, text)
            self._seams.on_failure(text)

    def _accepts(self, worker: Worker, message: messages.Accepting) -> None:
        worker.accepts = bool(message.slots)
        if message.slots and not self._accepting:
            self._accepting = True
            self._seams.on_first()
        self._seams.on_accepting(sum(one.accepts for one in self.workers))
        self.tell(events.AcceptsNow(worker.number, message.slots))

    def _ended(self, worker: Worker) -> None:
        assert worker.process is not None
        code = worker.process.code
        for waiting in (self._adding, self._closing):
            for slot in tuple(waiting):
                self._answered(waiting, slot, worker.number)
        if self.stopping:
            self.ends.append(worker.end())
            self._show_progress()
        self.tell(events.Exited(worker.number, 0 if code is None else code, worker.reason))

    def _answered(self, waiting: dict[int, set[int]], slot: int, number: int) -> None:
        """A worker has done its part for a slot, or is gone; what follows when it was the last."""
        if slot not in waiting or number not in waiting[slot]:
            return
        waiting[slot].discard(number)
        self._go_on(waiting, slot)

    def _go_on(self, waiting: dict[int, set[int]], slot: int) -> None:
        if waiting[slot]:
            return
        del waiting[slot]
        if waiting is self._adding:
            self.tell(events.SlotOpened(slot))
        else:
            self._remove(slot)
            self.slots.remove(slot)
            self.tell(events.SlotClosed(slot))

    def _remove(self, slot: int) -> None:
        """Close the listeners of a slot. Where that fails, the fleet has to go on all the same."""
        try:
            self._seams.doors.remove(slot)
        except (LastcallError, OSError, ValueError) as exc:
            logger.error("The listeners of slot %d could not be closed: %s", slot, exc)
        except Exception:
            logger.exception("lastcall: internal error when slot %d was closed; please report this", slot)

    # -- what the fleet wants -------------------------------------------------------------------------------------

    def _send(self, number: int, message: Message, descriptors: Sequence[int] = ()) -> None:
        if (worker := self.workers.get(number)) is not None:
            worker.send(message, descriptors)

    def _spawn(self, action: actions.Spawn) -> None:
        try:
            self.workers.spawn(action.worker, action.slot, action.generation, self._seams.doors, self.slots)
        except Exception as exc:
            if not isinstance(exc, OSError):
                logger.exception("lastcall: internal error in %r; please report this", action)
            self.tell(events.SpawnFailed(action.worker, getattr(exc, "strerror", None) or str(exc)))

    def _smoke(self, action: actions.Smoke) -> None:
        worker = self.workers.get(action.worker)
        if worker is None:
            return

        async def check() -> None:
            try:
                failure = await self._seams.smoke(worker)
            except Exception as exc:
                logger.exception("lastcall: internal error in a smoke check; please report this")
                failure = repr(exc)
            self.tell(events.SmokeDone(worker.number, failure))

        self._run(check())

    def _run(self, coroutine: Any) -> None:
        task: asyncio.Task[None] = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _set_accepting(self, action: actions.SetAccepting) -> None:
        if action.slots and not self._seams.doors.listening:
            try:
                self._seams.doors.listen()
            except (OSError, LastcallError) as exc:
                reason = f"cannot listen: {getattr(exc, 'strerror', None) or exc}"
                self.fail(exc if isinstance(exc, StartupError) else StartupError(reason))
                return
        self._send(action.worker, messages.Accept(action.slots))

    def _retire(self, action: actions.Retire) -> None:
        successor = None if action.successor is None else self.workers.get(action.successor)
        if successor is None:
            self._send(action.worker, messages.Retire(action.cause, False, action.short))
        else:
            self._connect(action.worker, messages.Retire(action.cause, True, action.short), successor)

    def _hand_over(self, action: actions.HandOver) -> None:
        if (to := self.workers.get(action.to)) is not None:
            self._connect(action.worker, messages.HandOver(action.share), to)

    def _connect(self, number: int, message: messages.Retire | messages.HandOver, to: Worker) -> None:
        """Give two workers the ends of a socketpair, for connections; the order goes with one end."""
        try:
            one, other = moving_pair()
            with one, other:
                to.send(messages.Adopt(), [other.fileno()])
                self._send(number, message, [one.fileno()])
        except OSError as exc:  # no descriptor is free: then nobody moves, and nothing else changes
            logger.warning("No connections are handed on: %s", exc.strerror or exc)
            if isinstance(message, messages.Retire):
                self._send(number, message)

    def _take_census(self, action: actions.TakeCensus) -> None:
        self.ask(action.worker, lambda worker, census: self.tell(events.CensusTaken(worker.number, census)))

    def ask(self, number: int, told: Callable[[Worker, messages.Census], object], *, tasks: bool = False) -> int:
        """Ask a worker what it does; the number of the question, for ``forget()``."""
        self._requests += 1
        self._censuses[self._requests] = told
        self._send(number, messages.CensusWanted(self._requests, tasks))
        return self._requests

    def forget(self, question: int) -> None:
        """The answer would come too late."""
        self._censuses.pop(question, None)

    def _write_stacks(self, action: actions.WriteStacks) -> None:
        worker = self.workers.get(action.worker)
        if worker is not None and not self.workers.write_stacks(worker):
            logger.warning("No stacks of worker %d: it has not come to the application yet", worker.number)

    def _kill(self, action: actions.Kill) -> None:
        if (worker := self.workers.get(action.worker)) is not None:
            worker.signal(signal.Signals(action.signal))

    def _open_slot(self, action: actions.OpenSlot) -> None:
        slot, doors = action.slot, self._seams.doors
        try:
            doors.add(slot, action.share)
        except (OSError, LastcallError, ValueError) as exc:
            self.tell(events.SlotFailed(slot, getattr(exc, "strerror", None) or str(exc)))
            return
        copies = [(slot, bind, fd) for bind, fd in doors.descriptors(slot)]
        self._adding[slot] = set()
        try:
            for worker in self.workers:
                send_listeners(worker, copies)
                self._adding[slot].add(worker.number)
        except OSError as exc:  # no descriptor is free: those that were told close theirs again
            del self._adding[slot]
            for worker in self.workers:
                worker.send(messages.CloseSlot(slot))
            self._remove(slot)
            self.tell(events.SlotFailed(slot, exc.strerror or str(exc)))
            return
        self.slots.append(slot)
        self._go_on(self._adding, slot)

    def _close_slot(self, action: actions.CloseSlot) -> None:
        try:
            self._seams.doors.steer_away(action.slot)
        except (LastcallError, OSError, ValueError) as exc:  # it is closed all the same
            logger.error("Clients cannot be steered away from slot %d: %s", action.slot, exc)
        self._closing[action.slot] = {worker.number for worker in self.workers}
        for worker in self.workers:
            worker.send(messages.CloseSlot(action.slot))
        self._go_on(self._closing, action.slot)

    def _settle(self, action: actions.Settled) -> None:
        waiting = self._waiting.pop(action.request, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(Outcome(action.ok, action.text, action.report, action.said))

    def _leave(self, action: actions.Leave) -> None:
        if not self.done.done():
            self.done.set_result(action.code)
