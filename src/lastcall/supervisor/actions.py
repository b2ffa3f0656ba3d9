"""What the fleet has the parent do: records, without behaviour, carried out in order by ``supervisor.parent``."""

from __future__ import annotations

from lastcall.base.record import Record


class Action(Record):
    """Base of all actions."""


class Spawn(Action):
    """Start a worker for ``slot``, with copies of all slots' listeners. ``accept`` nothing until it is told to."""

    worker: int
    slot: int
    generation: int


class Smoke(Action):
    """Ask the worker's private listener for the paths of ``--smoke``, then tell ``SmokeDone``."""

    worker: int


class SetAccepting(Action):
    """Have the worker accept on exactly these slots (``channel.messages.Accept``)."""

    worker: int
    slots: tuple[int, ...]


class Retire(Action):
    """Have the worker drain, with ``successor`` (a worker's number) to pass connections to, or None: as in a stop."""

    worker: int
    cause: str
    successor: int | None = None
    short: bool = False


class HandOver(Action):
    """Have the worker pass ``share`` (0 to 1) of its idle connections to ``to``, and go on."""

    worker: int
    to: int
    share: float


class Drain(Action):
    """The final stop of one worker."""

    worker: int
    cause: str
    interactive: bool = False


class Force(Action):
    """Have the worker cancel what still runs."""

    worker: int
    cause: str


class TakeCensus(Action):
    """Ask the worker what it has done; ``CensusTaken`` follows."""

    worker: int


class WriteStacks(Action):
    """Have the worker's stacks written to its standard error, whatever it hangs in."""

    worker: int


class Kill(Action):
    """Send the worker a signal: ``SIGTERM`` or ``SIGKILL``."""

    worker: int
    signal: int


class OpenSlot(Action):
    """Make a new slot's listeners, give running workers copies; ``SlotOpened`` follows. ``share`` as in Steer."""

    slot: int
    share: float | None = None


class CloseSlot(Action):
    """Steer newcomers away from the slot, have all holders empty and close it, then we; ``SlotClosed`` follows."""

    slot: int


class Steer(Action):
    """Give ``slot`` this share (0 to 1) of new connections, the others the rest; None: all slots alike."""

    slot: int
    share: float | None


class ShutDoor(Action):
    """The final stop: let nobody new in, at every listener that only this service holds."""


class Settled(Action):
    """The answer to the order ``request``: whether it came to what was ordered; ``text`` is a line or several."""

    request: int
    ok: bool
    text: str
    report: dict[str, object] | None = None


class Say(Action):
    """A line for the log. ``level`` is logging's."""

    level: int
    text: str


class Notify(Action):
    """A state for the service manager: ``READY``, ``RELOADING``, ``STOPPING``; ``status`` is STATUS's text."""

    state: str = ""
    status: str = ""


class Leave(Action):
    """Nothing is left to do: the parent ends with ``code``."""

    code: int
