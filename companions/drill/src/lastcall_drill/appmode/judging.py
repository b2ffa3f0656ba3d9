"""The rows of a report on an application, and what each of them says of what was seen."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Final

from lastcall_drill.appmode.culprits import MOST, About, Culprit
from lastcall_drill.appmode.remedy import Again, Needs, remedy
from lastcall_drill.appmode.routes import Kind, Route, Subject
from lastcall_drill.process import exit_words
from lastcall_drill.record import Record
from lastcall_drill.servers import OURS, Target
from lastcall_drill.verdicts import Basis, ScenarioInfo, Verdict

AFTER_GRACE: Final = 9.0
"""Seconds after the grace in which everything else has to happen: cancelling, lifespan.shutdown, the exit."""

ROUTE: Final = "app-route-ends"

GROUP: Final = "Your application"

NO_EXIT: Final = "the process did not exit"
"""Why what comes after an exit could not be judged."""

_CLEAN: Final = (0, -signal.SIGTERM)

_BROKEN: Final = 1011  # WebSocket: the server met something that kept it from going on (RFC 6455 7.4.1)


def _row(name: str, title: str, clause: str, basis: Basis, reason: str, rule: str) -> ScenarioInfo:
    return ScenarioInfo(name, title, GROUP, clause, reason, rule, "none", (), basis)


ROWS: Final = (
    _row(
        ROUTE,
        "The route ends by itself",
        "The server's grace: what is under way may finish in it.",
        Basis.VIEW,
        "A response that the server has to cut costs the whole grace at each stop, and its client gets no proper end; "
        "nor is an error a proper one.",
        "Complete with a status below 400, or closed by lastcall because it was told to (--drain-close, or the "
        "application's own close()), before lastcall disconnects what is left; under another server, complete before "
        "the grace is over. A WebSocket: a Close frame with a code other than 1011, as early.",
    ),
    _row(
        "app-exits",
        "The process exits",
        "The kill timer of whoever supervises the process.",
        Basis.SUPERVISOR,
        "What is killed cleans up nothing.",
        f"Exits within the grace and {AFTER_GRACE:g} s.",
    ),
    _row(
        "app-lifespan",
        "lifespan.shutdown is run to its end",
        "ASGI lifespan, shutdown.complete: a server waits for it before it ends.",
        Basis.STANDARD,
        "Pools, queues and locks are given back there.",
        "If the application takes part in the lifespan protocol: shutdown.complete before the exit.",
    ),
    _row(
        "app-exit-code",
        "The exit counts as clean",
        "systemd.service: exit code 0, and an end by SIGTERM itself, are clean.",
        Basis.SUPERVISOR,
        "Supervisors restart, alert and count by the exit code.",
        "Exit code 0, or ended by SIGTERM.",
    ),
)
"""The rows of one route. Several routes have the first one each, see :func:`rows_of`."""


class Cut(Record):
    """What lastcall's report says of a response that it has cut. All fields are empty where there is no such entry."""

    outcome: str = ""
    phase: str = ""


class Seen(Record):
    """What became of a route. Times are seconds since the signal; None: it did not happen.

    ``status`` is that of the response, or the code of the Close frame, 0 without either. ``cancelled`` is when the
    application's task was. ``closed``: lastcall's report counts it as closed by policy.
    """

    route: Route
    status: int = 0
    complete: bool = False
    ended: float | None = None
    error: str = ""
    disconnected: float | None = None
    cancelled: float | None = None
    task_ended: float | None = None
    told: float | None = None
    cut: Cut = Cut()
    closed: bool = False


class Observed(Record):
    """What happened: to each route, and to the process. Times as in :class:`Seen`.

    ``exit_code`` is None if the process had not ended by itself. ``lifespan`` is one of ``none``, ``never begun``,
    ``begun``, ``complete`` and ``failed``.
    """

    routes: Sequence[Seen]
    exited: float | None
    exit_code: int | None
    lifespan: str
    culprits: Sequence[Culprit] = ()


class Judgement(Record):
    """What one row says."""

    verdict: Verdict
    sentence: str

    @property
    def blamed(self) -> bool:
        """Whether there is something to be mended."""
        return self.verdict is Verdict.FAIL


def rows_of(routes: Sequence[Route]) -> tuple[ScenarioInfo, ...]:
    """The rows of a report on these routes: of several, each has a row of its own, with its label in id and title."""
    first, *others = ROWS
    if len(routes) == 1:
        return ROWS
    each = [
        ScenarioInfo(**{**vars(first), "id": f"{first.id}[{one.label}]", "title": f"{one.label} ends by itself"})
        for one in routes
    ]
    return (*each, *others)


def judge(observed: Observed, subject: Subject, target: Target, again: Again) -> list[Judgement]:
    """A judgement for each of the rows of the subject's routes, in their order."""
    left = list(observed.culprits)
    seen = [_seen(one, subject, target) for one in observed.routes]
    failed = [_needs(one, subject) for one, judged in zip(observed.routes, seen, strict=True) if judged.blamed]
    routes = []
    for one, judged in zip(observed.routes, seen, strict=True):
        blame = _taken_by(one.route, subject.routes, left) if judged.blamed and not one.cut.outcome else []
        advice = "" if blame or not judged.blamed else remedy(_needs(one, subject), target, again, failed)
        judgement = _with(judged, blame)
        routes.append(Judgement(judgement.verdict, "\n".join(filter(None, (judgement.sentence, advice)))))
    # Who keeps lifespan.shutdown from its end is named there; the rest belongs to the exit, and is named once.
    exited, lifespan = _exit(observed, subject, target), _lifespan(observed)
    code = _code(observed, target)
    if lifespan.verdict is Verdict.FAIL:
        lifespan = _with(lifespan, _taken(left, About.LIFESPAN, About.PROCESS))
    if exited.verdict is Verdict.FAIL:
        exited = _with(exited, _taken(left, *About))
    if code.verdict is Verdict.FAIL:
        code = _with(code, _taken(left, *About))
    return [*routes, exited, lifespan, code]


def _taken(left: list[Culprit], *about: About) -> list[Culprit]:
    found = [one for one in left if one.about in about]
    left[:] = [one for one in left if one not in found]
    return found


def _taken_by(route: Route, routes: Sequence[Route], left: list[Culprit]) -> list[Culprit]:
    """What the server says of a request, unless it names another one that is judged."""
    found = []
    for one in (one for one in left if one.about is About.REQUEST):
        meant = [other for other in routes if f"{other.method} {other.path}" in one.text]
        if not meant or route in meant:
            found.append(one)
    left[:] = [one for one in left if one not in found]
    return found


def _with(judgement: Judgement, culprits: Sequence[Culprit]) -> Judgement:
    lines = [f"- The server says: {one.text}" for one in culprits[:MOST]]
    if len(culprits) > MOST:
        lines.append(f"- (and {len(culprits) - MOST} more in its output)")
    return Judgement(judgement.verdict, "\n".join((judgement.sentence, *lines)))


def _seen(seen: Seen, subject: Subject, target: Target) -> Judgement:
    """What became of a route, without advice."""
    label = seen.route.label
    when = "" if seen.ended is None else f" {seen.ended:.2f} s after the signal"
    if seen.closed and not seen.cut.outcome and when:
        status = f" with {seen.status}" if seen.status >= 400 and seen.route.kind is Kind.HTTP else ""
        return Judgement(Verdict.PASS, f"{label} was closed{status}{when}, as lastcall had been told to")
    if _is_error(seen):
        return Judgement(Verdict.FAIL, f"{label} {_error(seen)}{when}{_cut(seen)}.")
    in_time = target.asked.name == OURS or seen.ended is None or seen.ended <= subject.grace + 0.5
    if seen.complete and not seen.cut.outcome and in_time:
        websocket = seen.route.kind is Kind.WEBSOCKET
        how = f"was closed with {seen.status}" if websocket else "was complete"
        return Judgement(Verdict.PASS, f"{label} {how}{when}")
    return Judgement(Verdict.FAIL, f"{_open(seen, subject)}.")


def _is_error(seen: Seen) -> bool:
    """Its client got an answer that is none."""
    if seen.route.kind is Kind.WEBSOCKET:
        return seen.status == _BROKEN
    return seen.complete and seen.status >= 400


def _error(seen: Seen) -> str:
    return f"was closed with {seen.status}" if seen.route.kind is Kind.WEBSOCKET else f"got {seen.status}"


def _cut(seen: Seen) -> str:
    return f": it had not answered when lastcall came to {seen.cut.phase}" if seen.cut.phase else ""


def _needs(seen: Seen, subject: Subject) -> Needs:
    deaf = seen.disconnected is not None and (seen.task_ended is None or seen.task_ended > seen.disconnected + 0.5)
    begun = seen.route.kind is Kind.WEBSOCKET or (seen.status != 0 and not _is_error(seen))
    # lastcall's report tells whose answer an error was. Elsewhere what comes at the grace's end is the server's.
    late = seen.ended is None or seen.ended >= 0.9 * subject.grace
    cut = bool(seen.cut.outcome) or not _is_error(seen) or late
    return Needs(seen.route, begun, cut, seen.told is not None, deaf)


def _open(seen: Seen, subject: Subject) -> str:
    label, ended = seen.route.label, seen.ended
    after = f", {ended:.2f} s after the signal" if ended is not None else ""
    if seen.cut.outcome in ("disconnected", "cancelled", "abandoned"):
        return f"{label} was still open when lastcall came to {seen.cut.phase}{after}"
    if seen.cut.outcome:
        return f"{label} broke off{after}: lastcall's report has it as {seen.cut.outcome}"
    if ended is not None and ended < 0.9 * subject.grace:
        return f"{label} did not end by itself: {seen.error or 'it was cut'}{after}"
    cut = f"; cut {ended:.2f} s after the signal" if ended is not None else "; it never ended"
    return f"{label} was still open when the grace of {subject.grace} s was over{cut}"


def _exit(observed: Observed, subject: Subject, target: Target) -> Judgement:
    if observed.exited is None:
        what = f"still running {AFTER_GRACE:g} s after its grace of {subject.grace} s{target.no_grace}"
        return Judgement(Verdict.FAIL, what)
    return Judgement(Verdict.PASS, f"exited {observed.exited:.2f} s after the signal")


def _lifespan(observed: Observed) -> Judgement:
    words = {
        "none": (Verdict.UNSUPPORTED, "the application does not take part in the lifespan protocol"),
        "complete": (Verdict.PASS, "lifespan.shutdown was complete before the exit"),
        "failed": (Verdict.FAIL, "the application answered with lifespan.shutdown.failed"),
        "begun": (Verdict.FAIL, "lifespan.shutdown began and did not end: something in it waits, or raised"),
        "never begun": (Verdict.FAIL, "lifespan.shutdown was not run"),
    }
    if observed.exited is None and observed.lifespan == "never begun":
        return Judgement(Verdict.UNREACHED, NO_EXIT)
    return Judgement(*words[observed.lifespan])


def _code(observed: Observed, target: Target) -> Judgement:
    if observed.exit_code is None:
        return Judgement(Verdict.UNREACHED, NO_EXIT)
    ours = {
        1: ": it had to end itself",
        4: ": lifespan.shutdown failed or took too long",
        5: ": a task or thread did not end",
    }
    more = ours.get(observed.exit_code, "") if target.asked.name == OURS else ""
    verdict = Verdict.PASS if observed.exit_code in _CLEAN else Verdict.FAIL
    return Judgement(verdict, exit_words(observed.exit_code) + more)
