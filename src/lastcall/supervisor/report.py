"""The reports of all workers' stops as one, and their progress as one line. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from lastcall.base.progress import Progress, Remaining
from lastcall.base.record import Record
from lastcall.channel import messages
from lastcall.drain.ladder import Phase
from lastcall.drain.report import STOPPED, Cut, StopReport

LOST: Final = "lost"
"""The outcome of a worker that ended without a word: killed, or crashed."""

NOT_STARTED: Final = "not started"
"""The word for the lifespan of a start that was interrupted, as ``server.controller`` has it."""

_SUMS: Final = (
    "arrived",
    "finished",
    "closed_by_policy",
    "broken_off",
    "disconnected",
    "cancelled",
    "abandoned",
    "backlog_answered",
    "background_finished",
)
_LIFESPANS: Final = ("complete", "unsupported", "off")
"""Good outcomes of a lifespan; any other word of a worker's is the service's."""

LISTED_AT_MOST: Final = 10

_PHASES: Final = tuple(phase.name for phase in Phase)


class WorkerEnd(Record):
    """How one worker ended: the report of its ``Goodbye`` (None: it sent none), and ``code``.

    That is its exit code, or minus the number of the signal that has ended it.
    """

    worker: int
    slot: int
    code: int
    report: Mapping[str, Any] | None = None
    moved: int = 0


class ServiceReport(StopReport):
    """How a service of several workers stopped: the sums of its workers' reports, and their longest times.

    ``moved`` connections went on to a successor. ``workers`` has, for each, its number, slot, exit code, outcome and
    seconds; its outcome is ``lost`` where it sent no report: then what it did is in no sum.
    """

    moved: int = 0
    workers: tuple[dict[str, Any], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON has it."""
        return {**super().as_dict(), "workers": list(self.workers)}


def merged(cause: str, exit_code: int, seconds: float, ends: Iterable[WorkerEnd]) -> ServiceReport:
    """One report of all: ``seconds`` from the order to the end of the last worker."""
    ends = list(ends)
    reports = [end.report for end in ends if end.report is not None]
    return ServiceReport(
        cause=cause,
        exit_code=exit_code,
        seconds=seconds,
        lifespan=_lifespan([str(one.get("lifespan", "")) for one in reports], [end.code for end in ends]),
        phases=_longest([one.get("phases", {}) for one in reports]),
        in_flight=_sum([one.get("in_flight", {}) for one in reports]),
        cut=tuple(_cut(one) for report in reports for one in report.get("cut", ())),
        left=tuple(str(name) for report in reports for name in report.get("left", ())),
        outcome=next((end["outcome"] for end in map(_told, ends) if end["outcome"] != STOPPED), STOPPED),
        moved=sum(end.moved for end in ends),
        workers=tuple(_told(end) for end in ends),
        **{name: sum(int(report.get(name, 0)) for report in reports) for name in _SUMS},
    )


def _told(end: WorkerEnd) -> dict[str, Any]:
    report = end.report
    return {
        "worker": end.worker,
        "slot": end.slot,
        "exit_code": end.code,
        "outcome": LOST if report is None else str(report.get("outcome", STOPPED)),
        "seconds": None if report is None else report.get("seconds"),
    }


def _lifespan(words: Sequence[str], codes: Sequence[int]) -> str:
    """The word of the worst one. Where no worker has said any, all were interrupted in their start, or it is lost."""
    if not words:
        return LOST if any(codes) else NOT_STARTED
    return next((word for word in words if word not in _LIFESPANS), words[0])


def _longest(phases: Iterable[Mapping[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for one in phases:
        for name, seconds in one.items():
            found[name] = max(seconds, found.get(name, 0.0))
    return found


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in counts:
        for name, count in one.items():
            found[name] = found.get(name, 0) + count
    return found


def _cut(fields: Mapping[str, Any]) -> Cut:
    return Cut(**{name: fields[name] for name in Cut._fields})


def progress_of(told: Iterable[messages.Progress]) -> Progress | None:
    """What is left of a stop in all workers together, each by its last word; None where nothing is.

    The phase is that of the worker which is least far, and the time that of the one which takes longest.
    """
    busy = [one for one in told if one.in_flight]
    if not busy:
        return None
    first = min(busy, key=lambda one: _PHASES.index(one.phase) if one.phase in _PHASES else len(_PHASES))
    lefts = [math.inf if one.left is None else one.left for one in busy]
    when = f"{max(lefts):.0f} s at most" if max(lefts) < math.inf else "no limit"
    count = sum(one.in_flight for one in busy)
    where = f" in {len(busy)} workers" if len(busy) > 1 else ""
    tasks = [Remaining(str(task["name"]), str(task["kind"]), float(task["age"])) for one in busy for task in one.tasks]
    tasks.sort(key=lambda task: -task.seconds)
    return Progress(f"{first.phase.lower()}: {count} left{where}, {when}", tuple(tasks[:LISTED_AT_MOST]), count)
