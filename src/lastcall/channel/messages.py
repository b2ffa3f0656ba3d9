"""The messages of the channel between the parent and one worker, and how they become JSON.

Orders go from the parent to the worker, reports the other way. A message is a :class:`Record` whose class name, in
small letters, is its ``type`` in JSON. All fields are JSON values; tuples become lists on the way and tuples again.
Descriptors do not appear in the JSON: ``descriptors`` in a class's docstring says which travel with the frame, in
order.
"""

from __future__ import annotations

import json
from typing import Any, get_type_hints

from lastcall.base.errors import LastcallError
from lastcall.base.record import Record

SHARED = -1
"""In place of a slot's number: the listeners that all workers share (unix sockets, ``fd://``, systemd's)."""


class ChannelError(LastcallError):
    """What came over the channel is no message of this version: the other side is another program, or broken."""


class Message(Record):
    """Base of all messages."""


# -- orders: parent to worker ----------------------------------------------------------------------------------------


class Boot(Message):
    """The first frame: who the worker is, and what it is to serve.

    ``settings`` is a pickle in base64 of the configuration's source (``supervisor.settings``), ``sys_path`` the
    parent's. ``beat`` is this worker's place, in doubles, in the page of heartbeats. ``slots`` and ``binds`` say of
    each listener behind it which slot and which of the configured addresses it belongs to. ``accept``: the slots to
    accept on as soon as the worker is told to (``Accept``); until then on none but the private listener.
    ``lost_workers`` as in ``LostWorkers``, ``alone`` as in ``Alone``. ``lifespan``: the application supports lifespan,
    as far as the service knows.
    Descriptors: the page of heartbeats (a memfd), the private unix listener (smoke checks, census), the listeners.
    """

    worker: int
    generation: int
    slot: int
    settings: str
    sys_path: tuple[str, ...]
    beat: int
    slots: tuple[int, ...]
    binds: tuple[int, ...]
    lost_workers: tuple[str, ...] = ()
    alone: bool = True
    lifespan: bool = False


class Accept(Message):
    """Accept on the listeners of exactly these slots from now on (``SHARED`` too, if it is in). Answered: Accepting."""

    slots: tuple[int, ...]


class AddListeners(Message):
    """Listeners of new slots, for a worker that runs. Descriptors: the listeners. Answered by ``Added``."""

    slots: tuple[int, ...]
    binds: tuple[int, ...]


class CloseSlot(Message):
    """Accept on the slot until its queues are empty, then close the copies. Answered by ``SlotClosed``."""

    slot: int


class Adopt(Message):
    """Another worker will pass idle connections. Descriptor: the end of a socketpair."""


class Retire(Message):
    """Drain; ``successor``: somebody else accepts on the slots from now on, so accept no more, close nobody.

    With ``successor``, connections that fall idle are passed on. Descriptor, then: the end of a socketpair.
    ``short``: the ladder of Ctrl-C, at most ``--timeout-interrupt`` for what runs (dev reload).
    """

    cause: str
    successor: bool
    short: bool = False


class HandOver(Message):
    """Pass ``share`` (0 to 1) of the idle connections on, and go on serving. Descriptor: the end of a socketpair."""

    share: float


class Drain(Message):
    """The service stops: the ladder without a successor. The parent stops the newcomers.

    ``interactive`` as after Ctrl-C. Answered by ``Emptied`` when the listeners' queues are empty and closed.
    """

    cause: str
    interactive: bool = False


class Force(Message):
    """Cancel what still runs: a second signal."""

    cause: str


class LostWorkers(Message):
    """Workers of this service that have died (``base.lost_workers.worker_name``): nobody holds what they held."""

    names: tuple[str, ...]


class Alone(Message):
    """Whether only this parent has the listeners, or, in an upgrade, another one too, which goes on with them.

    A worker that loses its parent shuts the door only if it was alone.
    """

    alone: bool


class CensusWanted(Message):
    """Asks for a ``Census`` with the same number. ``tasks``: with what runs, by name."""

    number: int
    tasks: bool = False


# -- reports: worker to parent ---------------------------------------------------------------------------------------


class Hello(Message):
    """The worker's interpreter runs, and reads."""

    pid: int


class Ready(Message):
    """``lifespan.startup`` is complete; nobody but the private listener is accepted from yet.

    ``lifespan``: the application supports it.
    """

    lifespan: bool = False


class Failed(Message):
    """The start failed; the worker ends with ``code``. ``reason`` is one line.

    ``text`` is all that there is to say, with the traceback: the parent says it, once for all workers that fail so.
    """

    reason: str
    code: int
    text: str = ""


class RetireMe(Message):
    """The worker wants a successor: ``max-requests``, ``SIGTERM`` (somebody has sent it one), ``lifespan-died``."""

    cause: str


class Accepting(Message):
    """The answer to ``Accept``: these slots are accepted from, and no others any more."""

    slots: tuple[int, ...]


class Added(Message):
    """The answer to ``AddListeners``."""

    slots: tuple[int, ...]


class SlotClosed(Message):
    """The answer to ``CloseSlot``."""

    slot: int


class StoppedAccepting(Message):
    """A worker that retires accepts no more: its slot is its successor's alone."""


class Emptied(Message):
    """In the final stop: the queues of all listeners are empty, and our copies are closed."""


class Census(Message):
    """What the worker has done since its start, and does now.

    ``in_flight`` by kind; ``served`` responses, of them ``errors`` with 5xx; ``latency``: counts of responses by time
    from the request's head to the response's, in the buckets of ``LATENCY_BUCKETS`` (the last is what took longer), so
    that neither streams nor clients that read slowly count as slow; ``rss`` in bytes; ``moved`` and ``adopted``
    connections. Requests of the private listener (smoke checks) are in none of these.
    ``tasks``: what runs, longest first, as ``{"method", "path", "kind", "age", "client"}``; empty unless asked for.
    """

    number: int
    in_flight: dict[str, int]
    connections: int
    served: int
    errors: int
    latency: tuple[int, ...]
    rss: int
    moved: int = 0
    adopted: int = 0
    tasks: tuple[dict[str, Any], ...] = ()


class Progress(Message):
    """Each second of a drain: the phase, what is left (seconds; None: no limit), what runs, longest first.

    ``tasks`` are the first of ``in_flight``: ``{"name", "kind", "age"}``, the age in seconds.
    """

    phase: str
    left: float | None
    in_flight: int
    tasks: tuple[dict[str, Any], ...] = ()


class Goodbye(Message):
    """The last message: the report of the stop as ``StopReport.as_dict()`` has it, and how many were moved."""

    report: dict[str, Any]
    moved: int = 0


# -- from one parent to the next (an upgrade) ------------------------------------------------------------------------


class Inherit(Message):
    """The listeners of the service, for a successor of the parent. ``more``: another such message follows.

    ``state`` is what ``net.slots`` makes of them, empty in all messages but the first; ``addresses`` are those of the
    configuration, in order, as text; ``control`` is the path of the control socket, "" where there is none.
    Descriptors: the listeners, or the next of them.
    """

    state: dict[str, Any]
    addresses: tuple[str, ...]
    control: str
    more: bool


class Serving(Message):
    """The new parent's workers accept: the old ones may go."""

    pid: int


LATENCY_BUCKETS = tuple(0.0005 * 2 ** (n / 3) for n in range(52))
"""Upper bounds in seconds: 0.5 ms to 65 s, three for each doubling: a difference of one bucket is 26 % at most.

The canary's test tolerates a bucket (``supervisor.canary.verdict``); with wider ones it could not tell 3 times slower.
"""


def _subclasses() -> dict[str, type[Message]]:
    return {one.__name__.lower(): one for one in Message.__subclasses__()}


TYPES = _subclasses()


def encode(message: Message) -> bytes:
    """The message as JSON."""
    fields = {name: getattr(message, name) for name in message._fields}
    return json.dumps({"type": type(message).__name__.lower(), **fields}, separators=(",", ":")).encode()


def decode(data: bytes) -> Message:
    """The message that ``encode`` made; raises ChannelError for anything else."""
    try:
        fields = json.loads(data)
        kind = TYPES[fields.pop("type")]
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ChannelError(f"no message: {data[:80]!r}") from exc
    wanted = get_type_hints(kind)
    try:
        return kind(**{name: _read(value, wanted.get(name)) for name, value in fields.items()})
    except TypeError as exc:
        raise ChannelError(str(exc)) from exc


def _read(value: Any, wanted: Any) -> Any:
    return tuple(value) if isinstance(value, list) and getattr(wanted, "__origin__", None) is tuple else value
