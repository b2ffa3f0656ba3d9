"""The canary's procedure: hold, extend, wait for approval, promote or roll back. Pure; time is an argument.

Theory of operation
-------------------
``CanaryRun`` begins when the canary gets its share of the clients. The fleet takes a census of the canary and of every
old worker whenever ``next_deadline`` says so, and hands them to ``take``. Counters of a census are cumulative: the
first one of each worker is its zero, and what counts are the differences from one look to the next. A worker that is
gone just adds no more.

What a look, the clock or a person amount to is an ``Input``; ``TRANSITIONS`` says where it leads. A state without a way
out is a decision, and is final. While a person is awaited the looks go on: the tests allow any number of them.

- Errors count from the first request. Latencies count after the *warm-up*, the first sixth of the hold and at most 5 s:
  a new process fills its caches and opens its connections while the old ones have theirs.
- ``worse`` needs ``min_requests`` of the canary, and may come at any look.
- ``no worse`` comes at the end of the hold, and needs ``min_requests`` of the canary and of the old generation. Without
  them the hold is extended until they are there, up to ten times its length. Then the result is *inconclusive*: a
  canary none of whose requests failed is promoted with a warning, any other is rolled back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum

from lastcall.base.options import CanaryOptions
from lastcall.base.record import Record
from lastcall.channel.messages import Census
from lastcall.supervisor.canary import report
from lastcall.supervisor.canary.verdict import CLEAR, Counts, Evidence, Look

LOOK = 1.0
"""Seconds from one look to the next."""

WARM_UP = 5.0
"""Seconds, at most, whose latencies do not count; and at most a sixth of the hold."""

HOLDS_AT_MOST = 10


class State(Enum):
    """Where the procedure stands."""

    HOLD = "hold"
    EXTENDED = "extended"
    APPROVAL = "approval"
    PROMOTE = "promote"
    ROLL_BACK = "roll back"


class Input(Enum):
    """What can move it."""

    WORSE = "worse"
    TOO_FEW = "too few requests"
    NO_WORSE = "no worse"
    ASK = "no worse, and a person decides"
    UNPROVEN = "still too few, and some failed"
    LOST = "the canary is gone"
    APPROVED = "a person approves"
    REFUSED = "a person refuses"


TRANSITIONS: dict[tuple[State, Input], State] = {
    (State.HOLD, Input.WORSE): State.ROLL_BACK,
    (State.HOLD, Input.TOO_FEW): State.EXTENDED,
    (State.HOLD, Input.NO_WORSE): State.PROMOTE,
    (State.HOLD, Input.ASK): State.APPROVAL,
    (State.HOLD, Input.UNPROVEN): State.ROLL_BACK,  # no look came between the end of the hold and that of all holds
    (State.HOLD, Input.LOST): State.ROLL_BACK,
    # A person may know better, at any time.
    (State.HOLD, Input.APPROVED): State.PROMOTE,
    (State.HOLD, Input.REFUSED): State.ROLL_BACK,
    (State.EXTENDED, Input.WORSE): State.ROLL_BACK,
    (State.EXTENDED, Input.NO_WORSE): State.PROMOTE,
    (State.EXTENDED, Input.ASK): State.APPROVAL,
    (State.EXTENDED, Input.UNPROVEN): State.ROLL_BACK,
    (State.EXTENDED, Input.LOST): State.ROLL_BACK,
    (State.EXTENDED, Input.APPROVED): State.PROMOTE,
    (State.EXTENDED, Input.REFUSED): State.ROLL_BACK,
    (State.APPROVAL, Input.WORSE): State.ROLL_BACK,
    (State.APPROVAL, Input.LOST): State.ROLL_BACK,
    (State.APPROVAL, Input.APPROVED): State.PROMOTE,
    (State.APPROVAL, Input.REFUSED): State.ROLL_BACK,
}

FINAL = frozenset(State) - {state for state, _ in TRANSITIONS}


class Decision(Record):
    """The end: ``verdict`` is ``promote`` or ``roll back``, ``reason`` a line, ``report`` as ``report.make`` has it."""

    verdict: str
    reason: str
    report: dict[str, object]


class CanaryRun:
    """One canary, from the moment when it gets its share of the clients.

    ``workers`` of the old generation serve beside it. After a ``Decision`` nothing more may be asked of it: a pair that
    is not in the table raises KeyError.
    """

    def __init__(self, options: CanaryOptions, workers: int, now: float) -> None:
        looks = max(1, math.ceil(options.hold / LOOK))
        self.state = State.HOLD
        self._options = options
        self._workers = workers
        self._began = now
        self._warm_at = now + min(WARM_UP, options.hold / 6)
        self._next_look = now  # the first look sets every worker's zero
        # Where the hold is short, fewer looks must do: half of them.
        self._evidence = Evidence(clear=max(1, min(CLEAR, looks // 2)))
        self._zero: dict[int, Census] = {}
        self._canary: Census | None = None
        self._last = now
        self._warning = self._because = ""

    @property
    def evidence(self) -> Evidence:
        """All that the looks have brought."""
        return self._evidence

    @property
    def ends(self) -> float:
        """When the hold is over at the latest, with all extensions."""
        return self._began + HOLDS_AT_MOST * self._options.hold

    def next_deadline(self) -> float:
        """When the next census of the canary and of all old workers is to be taken; ``math.inf``: never again."""
        if self.state in FINAL:
            return math.inf
        end = {State.HOLD: self._began + self._options.hold, State.EXTENDED: self.ends}.get(self.state, math.inf)
        return min(self._next_look, end)

    def take(self, canary: Census | None, old: Mapping[int, Census], now: float) -> Decision | None:
        """What has been answered until now; ``old`` by worker's number. None: it goes on.

        ``canary`` None: it did not answer in time. Who is not in ``old`` did not either, or is gone.
        """
        look = self._difference(canary, old, warm=self._last >= self._warm_at)
        self._evidence = self._evidence.after(look)
        self._last = now
        self._next_look = now + LOOK
        found = self._found(now)
        return None if found is None else self._move(found, now)

    def approve(self, now: float) -> Decision:
        """A person promotes the canary: the answer to the question, or before any verdict."""
        decision = self._move(Input.APPROVED, now)
        assert decision is not None
        return decision

    def refuse(self, now: float) -> Decision:
        """A person rolls it back."""
        decision = self._move(Input.REFUSED, now)
        assert decision is not None
        return decision

    def lost(self, reason: str, now: float) -> Decision:
        """The canary's process is gone; ``reason`` says how, in a few words (``SIGSEGV``, ``exit code 1``)."""
        decision = self._move(Input.LOST, now, reason)
        assert decision is not None
        return decision

    def status(self, now: float) -> dict[str, object]:
        """Where it stands, as the report has it; ``verdict`` is empty, and ``state`` says what is waited for."""
        return self._report("", now)

    def _difference(self, canary: Census | None, old: Mapping[int, Census], *, warm: bool) -> Look:
        ours = Counts()
        if canary is not None:
            ours = _between(self._canary, canary)
            self._canary = canary
        theirs = {number: _between(self._zero.get(number), census) for number, census in old.items()}
        self._zero |= old
        return Look(ours, theirs, warm)

    def _found(self, now: float) -> Input | None:
        """What evidence and clock amount to."""
        least = self._options.min_requests
        if self._evidence.worse(least):
            return Input.WORSE
        if self.state is State.APPROVAL or now < self._began + self._options.hold:
            return None
        good = Input.ASK if self._options.approve else Input.NO_WORSE
        if self._evidence.enough(least):
            return good
        if now < self.ends:
            return Input.TOO_FEW if self.state is State.HOLD else None
        self._warning = "inconclusive: " + report.too_few(self._evidence, least)
        return Input.UNPROVEN if self._evidence.canary.errors else good

    def _move(self, found: Input, now: float, why: str = "") -> Decision | None:
        self.state = TRANSITIONS[self.state, found]
        self._because = self._reason(found, why)
        if self.state not in FINAL:
            return None
        return Decision(self.state.value, self._because, self._report(self.state.value, now))

    def _reason(self, found: Input, why: str) -> str:
        evidence = self._evidence
        match found:
            case Input.WORSE:
                return report.worse(evidence, evidence.worse(self._options.min_requests))
            case Input.UNPROVEN:
                return f"{self._warning}, and {evidence.canary.errors} of its requests failed"
            case Input.LOST:
                return f"the canary ended: {why}"
            case Input.APPROVED:
                return "approved" + (f"; {self._warning}" if self._warning else "")
            case Input.REFUSED:
                return "refused"
            case Input.TOO_FEW:
                return f"{report.too_few(evidence, self._options.min_requests)}, so the hold is extended"
            case _:
                good = f"{self._warning}, but none failed" if self._warning else report.no_worse(evidence)
                asked = "; waiting for `lastcall ctl promote` or `lastcall ctl rollback`"
                return good + (asked if found is Input.ASK else "")

    def _report(self, verdict: str, now: float) -> dict[str, object]:
        return report.make(
            self._evidence,
            verdict=verdict,
            reason=self._because,
            state=self.state.value,
            seconds=now - self._began,
            workers=self._workers,
            warning=self._warning,
        )


def _between(before: Census | None, after: Census) -> Counts:
    """What was answered between two looks at one worker; nothing where this is the first one."""
    if before is None:
        return Counts()
    served = max(0, after.served - before.served)
    errors = min(served, max(0, after.errors - before.errors))
    latency = tuple(max(0, b - a) for a, b in zip(before.latency, after.latency, strict=False))
    return Counts(served, errors, latency)
