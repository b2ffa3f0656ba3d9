"""What the fleet has the parent do. Records, without behaviour; ``supervisor.parent`` carries them out in order."""

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
    """Have the worker accept on exactly these slots (``channel.messages.Accept``); ``AcceptsNow`` follows.

    ``SHARED`` is among them for those that accept from the listeners of all, where the policy says that there are any.
    The first one of a service is the time to ``listen()``.
    """

    worker: int
    slots: tuple[int, ...]


class Retire(Action):
    """Have the worker drain; ``StoppedAccepting`` follows. ``successor``: the worker to pass connections to, by number.

    None: idle connections are closed as in a stop. In both cases somebody else accepts from the listeners from now on,
    so it does not empty them. It may come again, to hurry with ``short``.
    """

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
    """The final stop of one worker, whatever it was told before; ``Emptied`` follows. It may come again."""

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
    """Make the listeners of a new slot and give running workers copies; ``SlotOpened`` or ``SlotFailed`` follows.

    ``share`` as in Steer.
    """

    slot: int
    share: float | None = None


class CloseSlot(Action):
    """Steer newcomers away, have all holders empty and close the slot, then close ours; ``SlotClosed`` follows."""

    slot: int


class Steer(Action):
    """Give ``slot`` this share (0 to 1) of new connections, the others the rest; None: all slots alike."""

    slot: int
    share: float | None


class ShutDoor(Action):
    """The final stop: let nobody new in, at every listener that only this service holds."""


class CloseListeners(Action):
    """All workers have emptied and closed their copies, or are gone: close ours."""


class Settled(Action):
    """The answer to the order ``request``: whether it came to what was ordered; ``text`` is a line or several.

    ``said``: a ``Say`` has told the log of it.
    """

    request: int
    ok: bool
    text: str
    report: dict[str, object] | None = None
    said: bool = False


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
