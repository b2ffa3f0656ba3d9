"""The worker processes as the parent has them: what each was started with, what it has said, how it is told things."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Protocol

from lastcall.base.lost_workers import worker_name
from lastcall.channel.endpoint import Endpoint
from lastcall.channel.frames import DESCRIPTORS_AT_MOST
from lastcall.channel.messages import (
    SHARED,
    AddListeners,
    Alone,
    Boot,
    ChannelError,
    Goodbye,
    Hello,
    LostWorkers,
    Message,
    Progress,
    Ready,
)
from lastcall.server import watchdog
from lastcall.server.process import STACKS_SIGNAL
from lastcall.supervisor.beats import Beats, resident
from lastcall.supervisor.report import WorkerEnd
from lastcall.supervisor.spawn import Process, service_id, start_worker, worker_id

PRIVATE_BACKLOG = 16

GENERATIONS_KEPT = 3

IN_TIME = 0.4
"""Seconds since the last heartbeat within which another one is not due yet, or has hardly been."""

DEAD_KEPT = 256
"""Workers that have died, of which those that come later are told."""


class Listeners(Protocol):
    """The service's listening sockets (``net.slots.Slots``), as far as workers get copies of them."""

    @property
    def shared(self) -> list[tuple[int, int]]:
        """Those that all workers accept from: (index of the address, descriptor)."""

    def descriptors(self, slot: int) -> list[tuple[int, int]]:
        """Those of a slot: (index of the address, descriptor)."""


class Worker:
    """One worker process, from its start until it is reaped."""

    def __init__(self, number: int, slot: int, generation: int, place: int, path: str) -> None:
        self.number = number
        self.slot = slot
        self.generation = generation
        self.place = place  # in the page of heartbeats
        self.path = path  # of its private socket
        self.name = ""  # LASTCALL_WORKER_ID
        self.rss = 0
        self.late = True  # with its last heartbeat, at the last look; nobody has looked yet
        self.hello = False  # it runs our code, and has registered its stacks
        self.accepts = False  # from anything but its private socket
        self.reason = ""  # why its start failed
        self.goodbye: Goodbye | None = None
        self.progress: Progress | None = None
        self.process: Process | None = None
        self.endpoint: Endpoint | None = None

    @property
    def pid(self) -> int:
        """Its process number, its own until it is reaped; 0 before it is started."""
        return 0 if self.process is None else self.process.pid

    def beat_is_news(self, age: float) -> bool:
        """Whether its last heartbeat, ``age`` seconds ago, is late, or the one at the last look was."""
        was_late, self.late = self.late, age > IN_TIME
        return self.late or was_late

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Tell it something; nothing where it is gone. Raises OSError where no descriptor is free for a copy."""
        if self.endpoint is not None:
            self.endpoint.send(message, descriptors)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        if self.process is not None:
            self.process.send(number)

    def end(self) -> WorkerEnd:
        """How it has ended."""
        code = 0 if self.process is None or self.process.code is None else self.process.code
        told = self.goodbye
        return WorkerEnd(
            self.number, self.slot, code, None if told is None else told.report, 0 if told is None else told.moved
        )


class Workers:
    """All of them. ``on_message(worker, message)`` and ``on_exit(worker)`` are called in the loop.

    ``settings`` is what ``supervisor.settings.pack`` has made. It may be replaced, for generations that are to come.
    """

    def __init__(
        self,
        settings: str,
        on_message: Callable[[Worker, Message], None],
        on_exit: Callable[[Worker], None],
    ) -> None:
        self.settings = settings
        self._alone = True
        self._lifespan = False  # whether the application supports it, as the last worker that became ready has said
        self._service = service_id()
        self._settings: dict[int, str] = {}  # by generation, the last ones
        self.beats = Beats()
        self._on_message = on_message
        self._on_exit = on_exit
        self._all: dict[int, Worker] = {}
        self._directory = ""
        self._dead: deque[str] = deque(maxlen=DEAD_KEPT)

    def __iter__(self) -> Iterator[Worker]:
        return iter(tuple(self._all.values()))

    def __len__(self) -> int:
        return len(self._all)

    def get(self, number: int) -> Worker | None:
        """The worker of that number; None if it is gone."""
        return self._all.get(number)

    def spawn(self, number: int, slot: int, generation: int, listeners: Listeners, slots: Sequence[int]) -> Worker:
        """Start a worker, with copies of the listeners of ``slots``; raises OSError, and leaves nothing then."""
        path = self._private_path(number)
        place = self.beats.take()
        worker = Worker(number, slot, generation, place, path)
        worker.name = worker_id(self._service, number)
        try:
            with socket.socket(socket.AF_UNIX) as private:
                private.bind(worker.path)
                private.listen(PRIVATE_BACKLOG)
                self._start(worker, private, _copies(listeners, slots))
        except BaseException:
            self._clear(worker)
            raise
        self._all[number] = worker
        self._tell_watchdog()
        return worker

    def _start(self, worker: Worker, private: socket.socket, copies: list[tuple[int, int, int]]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            worker.endpoint = Endpoint(
                ours,
                lambda message, fds: self._received(worker, message, fds),
                lambda error: self._lost(worker, error),
            )
            first = copies[: DESCRIPTORS_AT_MOST - 2]
            worker.send(
                Boot(
                    worker.number,
                    worker.generation,
                    worker.slot,
                    self._settings_of(worker.generation),
                    tuple(sys.path),
                    worker.place,
                    tuple(slot for slot, _, _ in first),
                    tuple(bind for _, bind, _ in first),
                    tuple(self._dead),
                    self._alone,
                    self._lifespan,
                ),
                [self.beats.fd, private.fileno(), *(fd for _, _, fd in first)],
            )
            for at in range(len(first), len(copies), DESCRIPTORS_AT_MOST):
                send_listeners(worker, copies[at : at + DESCRIPTORS_AT_MOST])
            worker.process = start_worker(
                worker_id(self._service, worker.number), theirs.fileno(), lambda code: self._exited(worker)
            )
        worker.process.before_reaping = lambda: self._tell_watchdog(without=worker)

    def look(self) -> None:
        """Look for those that have ended, where the system does not tell."""
        for worker in self:
            if worker.process is not None:
                worker.process.look()

    def measure(self, now: float, *, memory: bool) -> list[tuple[int, float, int]]:
        """Of each that is news: its number, the seconds since its last beat, the bytes that it holds.

        ``memory``: look at these, too, and tell of all; else they are what they were, and a worker that beats in time,
        and did at the last look, is no news: each piece of news is a step of the fleet.
        """
        found = []
        for worker in self:
            age = self.beats.age(worker.place, now)
            if age is None:
                continue
            news = worker.beat_is_news(age)
            if memory:
                worker.rss = resident(worker.pid)
            if memory or news:
                found.append((worker.number, age, worker.rss))
        return found

    def write_stacks(self, worker: Worker) -> bool:
        """Have its stacks written to its standard error; False where it does not know how yet: it would be killed."""
        if worker.hello and STACKS_SIGNAL:
            worker.signal(STACKS_SIGNAL)
            return True
        return False

    def share_doors(self, *, alone: bool) -> None:
        """Tell all, also those that come, whether only this parent has the listeners (``messages.Alone``)."""
        self._alone = alone
        for worker in self:
            worker.send(Alone(alone))

    def hang_up(self) -> None:
        """End all channels, which is an order to drain."""
        for worker in self:
            if worker.endpoint is not None:
                worker.endpoint.close()

    def kill_all(self) -> None:
        """SIGKILL, for those that are left."""
        for worker in self:
            worker.signal(signal.SIGKILL)

    def close(self) -> None:
        """Give everything back. Workers that still run lose the channel, which is an order to drain."""
        for worker in self:
            if worker.process is not None:
                worker.process.forget()
            self._clear(worker)
        self._all.clear()
        self.beats.close()
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)

    # -- what happens to one --------------------------------------------------------------------------------------

    def _received(self, worker: Worker, message: Message, descriptors: list[int]) -> None:
        for fd in descriptors:  # no report has any
            os.close(fd)
        if isinstance(message, Hello):
            worker.hello = True
            self._tell_watchdog()
        elif isinstance(message, Goodbye):
            worker.goodbye = message
        elif isinstance(message, Ready):
            self._lifespan = message.lifespan
        elif isinstance(message, Progress):
            worker.progress = message
        self._on_message(worker, message)

    def _lost(self, worker: Worker, error: ChannelError | None) -> None:
        """Its end comes next, and is told by the system; what speaks another language is ended."""
        if error is not None:
            worker.reason = worker.reason or f"the channel broke: {error}"
            worker.signal(signal.SIGKILL)

    def _exited(self, worker: Worker) -> None:
        if worker.endpoint is not None:
            worker.endpoint.read_rest()
        self._clear(worker)
        self._all.pop(worker.number, None)
        if worker.hello and worker.goodbye is None:
            self._tell_of_death(worker_name(worker.name, worker.pid))
        self._on_exit(worker)

    def _tell_of_death(self, name: str) -> None:
        """The others need not wait for the end of leases that it held."""
        self._dead.append(name)
        for other in self:
            other.send(LostWorkers((name,)))

    def _clear(self, worker: Worker) -> None:
        if worker.endpoint is not None:
            worker.endpoint.close()
        with suppress(OSError):
            os.unlink(worker.path)
        self.beats.give_back(worker.place)

    def _tell_watchdog(self, without: Worker | None = None) -> None:
        """Whom to kill if it ends this process."""
        watchdog.own_children([(one.pid, one.hello) for one in self if one is not without and one.pid])

    def _settings_of(self, generation: int) -> str:
        """What a generation began with, so that one that is replaced without a reload stays what it was."""
        if generation not in self._settings:
            self._settings[generation] = self.settings
            for old in sorted(self._settings)[:-GENERATIONS_KEPT]:
                del self._settings[old]
        return self._settings[generation]

    def _private_path(self, number: int) -> str:
        # A service may run for longer than what cleans the temporary directory leaves there.
        if not os.path.isdir(self._directory):
            self._directory = tempfile.mkdtemp(prefix="lastcall-")  # 0700
        return os.path.join(self._directory, str(number))


def send_listeners(worker: Worker, copies: Sequence[tuple[int, int, int]]) -> None:
    """Give a worker that runs more listeners: (slot, index of the address, descriptor) of each; raises OSError."""
    worker.send(
        AddListeners(tuple(slot for slot, _, _ in copies), tuple(bind for _, bind, _ in copies)),
        [fd for _, _, fd in copies],
    )


def _copies(listeners: Listeners, slots: Sequence[int]) -> list[tuple[int, int, int]]:
    found = [(SHARED, bind, fd) for bind, fd in listeners.shared]
    found += [(slot, bind, fd) for slot in slots for bind, fd in listeners.descriptors(slot)]
    return found
