"""What a stop came to: the tally that is kept while it goes on, and the report at its end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from lastcall.base.record import Record, replace

KINDS = ("request", "stream", "websocket", "background", "app task")

CLOSED_BY_POLICY = "closed by policy"
BROKEN_OFF = "broken off"
DISCONNECTED = "disconnected"
CANCELLED = "cancelled"
ABANDONED = "abandoned"
FINISHED = "finished"
STOPPED = "stopped"
UNHEARD = "unheard"
OUTCOMES = (FINISHED, CLOSED_BY_POLICY, BROKEN_OFF, DISCONNECTED, CANCELLED, ABANDONED)
"""Each work that was there at the stop order, or came later, ends as exactly one of these."""

NAMED_AT_MOST = 5


class ReportedTask(Protocol):
    """A running task, as far as the tally looks at it (``notice.running.RunningTask``)."""

    outcome: str | None

    @property
    def since(self) -> float:
        """When it began."""

    @property
    def kind(self) -> str:
        """One of ``KINDS``."""

    @property
    def response_complete(self) -> bool:
        """Whether ending it cuts nothing."""

    @property
    def client_disconnected(self) -> bool:
        """Whether nobody is left who could miss its end."""

    @property
    def ran_after_response(self) -> bool:
        """Whether it was background work in the end."""

    @property
    def broken_off(self) -> dict[str, Any] | None:
        """The ``details()`` of a response that its application has ended in the middle, during the stop; else None."""

    def details(self) -> dict[str, Any]:
        """What the report tells of it."""


class Cut(Record):
    """A response that was ended before it was finished, by no rule that the application or an option had set.

    By the server, or by its application itself (``broken off``). ``age`` is how long it had run, in seconds; ``phase``
    the one in which it was cut; ``bytes_sent`` counts its body.
    """

    kind: str
    outcome: str
    method: str
    path: str
    age: float
    phase: str
    bytes_sent: int
    client: str

    def __str__(self) -> str:
        name = f"{self.method} {self.path}".strip()
        return f"{name} ({self.kind}, {self.age:.1f} s, {self.bytes_sent} bytes, {self.outcome})"


class StopReport(Record):
    """How the server stopped.

    ``outcome`` is ``stopped``, or what ended the process before that: ``watchdog``, ``third signal``, ``second signal``
    (in the start). Such a report is from the beginning of the last phase: what ran then is ``abandoned``, and ``left``.
    ``cause`` is what ordered the stop (``SIGTERM``, ``SIGINT``, ``api``, ``max-requests``, ``cancelled``); ``unheard``:
    the event loop never heard of an order.
    ``seconds`` run from the order to the end of ``lifespan.shutdown``, ``phases`` says how many were spent in each.
    ``in_flight`` is what ran at the order, by kind; ``arrived`` what came later. Each of both is in exactly one of
    ``finished``, ``closed_by_policy``, ``broken_off``, ``disconnected``, ``cancelled`` and ``abandoned``.
    ``backlog_answered`` counts connections that were answered although they were let in after the drain had begun.
    ``moved`` counts idle connections that a successor has taken over, which their clients did not notice.
    ``lifespan`` is the outcome's word.
    """

    cause: str
    exit_code: int
    seconds: float
    lifespan: str
    phases: dict[str, float] = {}  # noqa: RUF012 - never changed, like all of a Record
    in_flight: dict[str, int] = {}  # noqa: RUF012
    arrived: int = 0
    finished: int = 0
    closed_by_policy: int = 0
    broken_off: int = 0
    disconnected: int = 0
    cancelled: int = 0
    abandoned: int = 0
    backlog_answered: int = 0
    moved: int = 0
    background_finished: int = 0
    cut: tuple[Cut, ...] = ()
    left: tuple[str, ...] = ()
    outcome: str = STOPPED

    @property
    def total(self) -> int:
        """How many entries the stop had to do with."""
        return sum(self.in_flight.values()) + self.arrived

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON has it."""
        fields = {name: getattr(self, name) for name in self._fields}
        fields["cut"] = [{name: getattr(one, name) for name in one._fields} for one in self.cut]
        fields["left"] = list(self.left)
        fields["seconds"] = round(self.seconds, 3)
        fields["phases"] = {name: round(seconds, 3) for name, seconds in self.phases.items()}
        for one in fields["cut"]:
            one["age"] = round(one["age"], 3)
        return fields

    def as_json(self) -> str:
        """The report as one line of JSON."""
        import json  # noqa: PLC0415 - a start need not wait for it

        return json.dumps(self.as_dict())

    def as_draft(self) -> str:
        """The report as JSON without its end: how the process ended is not known yet.

        ``, "outcome": …, "exit_code": …, "seconds": …}`` makes it whole.
        """
        import json  # noqa: PLC0415

        fields = self.as_dict()
        for name in ("outcome", "exit_code", "seconds"):
            del fields[name]
        return json.dumps(fields).removesuffix("}")

    def __str__(self) -> str:
        parts = [f"{self.finished} of {self.total} finished"]
        parts += [
            f"{count} {word}"
            for count, word in (
                (self.closed_by_policy, CLOSED_BY_POLICY),
                (self.broken_off, BROKEN_OFF),
                (self.disconnected, DISCONNECTED),
                (self.cancelled, CANCELLED),
                (self.abandoned, ABANDONED),
            )
            if count
        ]
        if self.moved:
            parts.append(f"{self.moved} idle connection{'' if self.moved == 1 else 's'} moved")
        text = (
            f"Stopped ({self.cause}) after {self.seconds:.1f} s: {', '.join(parts)}; lifespan {self.lifespan}; "
            f"exit code {self.exit_code}"
        )
        if self.cut:
            named = ", ".join(str(one) for one in self.cut[:NAMED_AT_MOST])
            more = len(self.cut) - NAMED_AT_MOST
            text += f". Cut: {named}{f' and {more} more' if more > 0 else ''}"
        return text


class Tally:
    """Counts what becomes of the work while a server stops. Pure: it is told, and asked."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(OUTCOMES, 0)
        self.in_flight: dict[str, int] = {}
        self.ran_before = 0
        self.background_finished = 0
        self.left: tuple[str, ...] = ()
        self._pending: dict[ReportedTask, Cut] = {}  # told to end; a cut only if they do before they are finished
        self._cut: list[Cut] = []

    def begin(self, running: Iterable[ReportedTask], ran_before: int) -> None:
        """The stop is ordered: ``running`` run, ``ran_before`` is how many there have ever been."""
        self.ran_before = ran_before
        for work in running:
            self.in_flight[work.kind] = self.in_flight.get(work.kind, 0) + 1

    def told(self, work: ReportedTask, outcome: str, now: float, phase: str) -> None:
        """``work`` is about to be ended, by ``outcome``. The first counts, but to be abandoned is more than all."""
        if outcome == ABANDONED or work.outcome is None:
            work.outcome = outcome
        # Closing by policy is what was asked for.
        ends_a_response = work.kind in ("request", "stream", "websocket") and not work.client_disconnected
        if ends_a_response and work.outcome != CLOSED_BY_POLICY:
            self._pending.setdefault(
                work,
                Cut(kind=work.kind, outcome=work.outcome, age=now - work.since, phase=phase, **work.details()),
            )

    def ended(self, work: ReportedTask, now: float, phase: str) -> None:
        """``work`` has ended, at ``now``."""
        if (cut := self._cut_of(work, now, phase)) is not None:
            self._cut.append(cut)
        self.counts[work.outcome or FINISHED] += 1
        if work.outcome is None and work.ran_after_response:
            self.background_finished += 1

    def abandon(self, work: ReportedTask, now: float, phase: str) -> None:
        """``work`` goes on, but nobody waits for it any more."""
        if (cut := self._cut_of(work, now, phase)) is not None:
            self._cut.append(replace(cut, outcome=ABANDONED))
        self.counts[ABANDONED] += 1

    def _cut_of(self, work: ReportedTask, now: float, phase: str) -> Cut | None:
        """The cut that the end of ``work`` comes to, if any."""
        cut = self._pending.pop(work, None)
        if cut is not None:
            return None if work.response_complete else cut
        if work.broken_off is not None:
            return Cut(kind=work.kind, outcome=BROKEN_OFF, age=now - work.since, phase=phase, **work.broken_off)
        return None

    def unsent(self, client: str, size: int) -> None:
        """A finished response could not be written to the end: ``size`` bytes of it, to ``client``, are lost."""
        self._cut.append(Cut("response", DISCONNECTED, "", f"(the last {size} bytes)", 0.0, "CLOSING", 0, client))

    @property
    def cut(self) -> tuple[Cut, ...]:
        """The responses that were cut, oldest first."""
        return tuple(sorted(self._cut, key=lambda one: -one.age))
