"""What the fleet is told: everything that may change what the parent does next. Records, without behaviour.

``worker`` is a number that is given once and never again; ``slot`` counts from 0. Times are arguments of
``Fleet.handle``, never fields.
"""

from __future__ import annotations

from lastcall.base.record import Record
from lastcall.channel.messages import Census
from lastcall.supervisor.policy import FleetPolicy


class Event(Record):
    """Base of all events."""


# -- orders, from signals, the control socket, the watcher of files ---------------------------------------------------


class StopOrdered(Event):
    """Stop the service: a first signal, or ``ctl stop``."""

    cause: str
    interactive: bool = False


class ForceOrdered(Event):
    """Cancel what still runs: a second signal."""

    cause: str


class ReloadOrdered(Event):
    """Roll to a new generation. ``request`` is whose answer it is (``Settled``). ``development``: files have changed.

    ``canary``: through the canary first. The acting side has read the configuration already, and it is usable:
    ``policy`` is what it says now, None: what it said before. Workers of a generation that has not been spawned before
    get the configuration that was read last.
    """

    request: int
    canary: bool = False
    development: bool = False
    policy: FleetPolicy | None = None


class ScaleOrdered(Event):
    """Serve with so many slots: TTIN and TTOU are one more and one less."""

    request: int
    slots: int


class PromoteOrdered(Event):
    """A person approves the canary."""

    request: int


class RollBackOrdered(Event):
    """A person refuses the canary, or stops a roll before its first worker is retired."""

    request: int


class UpgradeReady(Event):
    """A new parent serves on the same listeners: drain, leave it the clients, and close no door."""


# -- from workers -----------------------------------------------------------------------------------------------------


class Booted(Event):
    """The worker's process runs."""

    worker: int
    pid: int


class SpawnFailed(Event):
    """The process could not be made (descriptors, memory, no such interpreter)."""

    worker: int
    reason: str


class BecameReady(Event):
    """``lifespan.startup`` is complete; it accepts on nothing but its private listener."""

    worker: int


class SmokeDone(Event):
    """The smoke checks of ``Smoke`` are over; ``failure`` says which one was missed, and how."""

    worker: int
    failure: str = ""


class AcceptsNow(Event):
    """The worker accepts on these slots, and no others any more."""

    worker: int
    slots: tuple[int, ...]


class StoppedAccepting(Event):
    """A worker that was told to retire accepts no more."""

    worker: int


class Emptied(Event):
    """In the final stop: the worker's listeners are empty, and closed on its side."""

    worker: int


class SlotReleased(Event):
    """The worker has emptied and closed its copies of a slot's listeners."""

    worker: int
    slot: int


class WantsToRetire(Event):
    """The worker asks for a successor: ``max-requests``, ``SIGTERM``, ``lifespan-died``."""

    worker: int
    cause: str


class Exited(Event):
    """The process is gone: its exit code, or minus the signal's number. ``reason``: what it said before, if it did."""

    worker: int
    code: int
    reason: str = ""


class Measured(Event):
    """The acting side's regular look at a worker. ``beat_age``: seconds since the last heartbeat; ``rss`` in bytes."""

    worker: int
    beat_age: float
    rss: int = 0


class CensusTaken(Event):
    """What the canary, or a worker of the old generation, has done until now."""

    worker: int
    census: Census


class SlotOpened(Event):
    """The listeners of a new slot listen, and every worker has its copies."""

    slot: int


class SlotFailed(Event):
    """The listeners of a new slot could not be made (descriptors, addresses); nothing of them is left."""

    slot: int
    reason: str


class SlotClosed(Event):
    """The slot has no listeners any more."""

    slot: int


class TimePassed(Event):
    """``Fleet.next_deadline()`` has come."""
