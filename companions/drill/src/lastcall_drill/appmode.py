"""``lastcall drill --app``: how the user's own application stops, with one of its routes open.

The application runs behind a wrapper that notes what it gets to see. The route is opened, SIGTERM sent; then four
things are judged, one row of the report each.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

from lastcall_drill.client import HTTPClient, Response
from lastcall_drill.errors import DrillError
from lastcall_drill.harness import SUBJECT
from lastcall_drill.process import POLL, ServerProcess, exit_words, free_port, pause
from lastcall_drill.record import Record, replace
from lastcall_drill.servers import OURS, Target
from lastcall_drill.timeline import Event, Timeline, read_events
from lastcall_drill.verdicts import Result, ScenarioInfo, Verdict

WRAPPER: Final = "drill_subject.watch:app"
READY: Final = 60.0
"""Seconds that the application may take to start."""

OPEN: Final = 5.0
"""Seconds to wait for the head of the route's response; a request that has none yet is open, too."""

AFTER_GRACE: Final = 9.0
"""Seconds after the grace in which everything else has to happen: cancelling, lifespan.shutdown, the exit."""

UNUSABLE: Final = "application"
"""Of whom the wrapper writes that there is none of that name."""

GUIDE: Final = "docs/how-to/stop-streams.md"

_CLEAN: Final = (0, -signal.SIGTERM)


def _row(name: str, title: str, clause: str, reason: str, rule: str) -> ScenarioInfo:
    return ScenarioInfo(name, title, "Your application", clause, reason, rule, "none")


ROWS: Final = (
    _row(
        "app-route-ends",
        "The route ends by itself",
        "The server's grace: what is under way may finish in it.",
        "A response that the server has to cut costs the whole grace at each stop, and its client gets no proper end.",
        "Complete, or closed by lastcall because it was told to (--drain-close, or the application's own close()), "
        "before lastcall disconnects what is left; under another server, complete before the grace is over.",
    ),
    _row(
        "app-exits",
        "The process exits",
        "The kill timer of whoever supervises the process.",
        "What is killed cleans up nothing.",
        f"Exits within the grace and {AFTER_GRACE:g} s.",
    ),
    _row(
        "app-lifespan",
        "lifespan.shutdown is run to its end",
        "ASGI lifespan, shutdown.complete: a server waits for it before it ends.",
        "Pools, queues and locks are given back there.",
        "If the application takes part in the lifespan protocol: shutdown.complete before the exit.",
    ),
    _row(
        "app-exit-code",
        "The exit counts as clean",
        "systemd.service: exit code 0, and an end by SIGTERM itself, are clean.",
        "Supervisors restart, alert and count by the exit code.",
        "Exit code 0, or ended by SIGTERM.",
    ),
)


class Subject(Record):
    """What is judged: ``name`` is ``module:attribute``, imported from ``directory``; ``grace`` is in whole seconds."""

    name: str
    route: str
    directory: Path
    grace: int = 5
    scale: float = 1.0


class Observed(Record):
    """What happened. Times are seconds since the signal; None: it did not."""

    complete: bool
    ended: float | None
    error: str
    exited: float | None
    exit_code: int | None
    disconnected: float | None
    task_ended: float | None
    told: float | None
    lifespan: str  # none, never begun, begun, complete, failed
    cut_in: str  # the phase in which lastcall's report says that the route was cut
    ours: bool = False  # it was lastcall
    closed: bool = False  # lastcall's report says that it closed what it was told to close


def judge_app(target: Target, subject: Subject) -> list[Result]:
    """Serve the application, open its route, stop the server: a result for each of ``ROWS``.

    Raises DrillError if it cannot be judged: it does not start, or the route does not stay open.
    """
    begin = time.monotonic()
    timeline = Timeline()
    with tempfile.TemporaryDirectory(prefix="drill-") as name:
        directory = Path(name)
        server, port = _start(target, subject, directory, timeline)
        events, report = directory / "events", directory / "report.json"
        with server, _open(server, port, subject, timeline, events) as client:
            observed = replace(_watch(server, client, subject, events, report), ours=target.asked.name == OURS)
        timeline.join(events)
    verdicts = (
        _route(observed, subject),
        _exit(observed, subject, target.no_grace),
        _lifespan(observed),
        _code(observed),
    )
    seconds = round(time.monotonic() - begin, 3)
    moments, output = tuple(timeline.moments), server.output()[-8192:]
    return [
        Result(row.id, target.label, verdict, text, moments, 1, seconds, observed.exit_code, None, output)
        for row, (verdict, text) in zip(ROWS, verdicts, strict=True)
    ]


# acting


def _start(target: Target, subject: Subject, directory: Path, timeline: Timeline) -> tuple[ServerProcess, int]:
    port = free_port()
    argv = target.command(app=WRAPPER, port=port, given={"grace": max(1, round(subject.grace * subject.scale))})
    if _reports(target):
        argv += ["--drain-report", str(directory / "report.json")]
    app_directory = subject.directory.absolute()
    search = [str(app_directory), str(SUBJECT), os.environ.get("PYTHONPATH", "")]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, search)),
        "PYTHONUNBUFFERED": "1",
        "DRILL_APP": subject.name,
        "DRILL_EVENTS": str(directory / "events"),
    }
    deadline = READY + OPEN + (subject.grace + AFTER_GRACE + 10) * subject.scale
    server = ServerProcess(argv, env=env, cwd=app_directory, timeline=timeline, deadline=deadline)
    try:
        server.wait_for_port(port, READY)
    except BaseException:
        server.kill()
        _must_be_loaded(subject, directory / "events")
        raise
    return server, port


def _reports(target: Target) -> bool:
    """It is lastcall, and the option for its report is free."""
    return target.asked.name == OURS and "--drain-report" not in target.asked.command


def _must_be_loaded(subject: Subject, events: Path) -> None:
    """Raise DrillError with a sentence if the wrapper has found no application of that name."""
    for one in read_events(events):
        if one.who == UNUSABLE:
            raise DrillError(f"--app {subject.name}: {one.detail} (--app-dir {subject.directory})") from None


def _watch(server: ServerProcess, client: HTTPClient, subject: Subject, events: Path, report: Path) -> Observed:
    response = client.responses[0]
    signalled = server.signal(signal.SIGTERM)
    most = (subject.grace + AFTER_GRACE) * subject.scale
    client.wait(response, most)
    server.wait(max(signalled + most - time.monotonic(), 0.5))
    return _observed(server, response, read_events(events), signalled, report=_report(report), subject=subject)


def _open(server: ServerProcess, port: int, subject: Subject, timeline: Timeline, events: Path) -> HTTPClient:
    """A client whose request for the route is under way. The application may still be starting: it is asked again."""
    until = time.monotonic() + READY
    while True:
        try:
            client = HTTPClient(port, timeline, "client")
        except OSError:
            if time.monotonic() > until or server.exit_code is not None:
                _must_be_loaded(subject, events)
                raise DrillError(f"the server took no connection:\n{server.tail()}") from None
            pause(POLL)
            continue
        response = client.request(subject.route, headers=["Accept: text/event-stream, */*"])
        client.wait_head(response, OPEN * subject.scale)
        if server.exit_code is not None:
            client.close()
            _must_be_loaded(subject, events)
            raise DrillError(f"the server exited with code {server.exit_code}:\n{server.tail()}")
        if response.status >= 400:
            client.close()
            raise DrillError(f"{subject.route} answered with {response.status}: name a route that stays open")
        if client.wait(response, 0.5 * subject.scale):
            client.close()
            raise DrillError(f"{subject.route} was complete before the signal: name a route that stays open")
        return client


def _report(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):  # killed before it was written
        return {}
    return found


def _observed(
    server: ServerProcess,
    response: Response,
    events: list[Event],
    signalled: float,
    *,
    report: dict[str, Any],
    subject: Subject,
) -> Observed:
    def since(at: float | None) -> float | None:
        return None if at is None else (at - signalled) / subject.scale

    def first(what: str, who: str) -> float | None:
        return next((since(one.at) for one in events if one.what == what and one.who == who), None)

    path = subject.route.partition("?")[0]
    who = quote(unquote(path))  # as the wrapper spells it
    cut = [one["phase"] for one in report.get("cut", ()) if one["path"] == path]
    return Observed(
        complete=response.complete,
        ended=since(response.ended),
        error=response.error,
        exited=since(server.exited),
        exit_code=server.exit_code,
        disconnected=first("disconnect", who),
        task_ended=first("task-end", who),
        told=first("notice", who),
        lifespan=_lifespan_word(events),
        cut_in=cut[0] if cut else "",
        closed=not cut and bool(report.get("closed_by_policy")),
    )


def _lifespan_word(events: list[Event]) -> str:
    found = {one.what for one in events}
    details = {one.detail for one in events}
    if "lifespan.startup.complete" not in details:
        return "none"
    if "lifespan.shutdown.failed" in details:
        return "failed"
    if "lifespan-end" in found:
        return "complete"
    return "begun" if "lifespan-shutdown" in found else "never begun"


# judging


def _route(observed: Observed, subject: Subject) -> tuple[Verdict, str]:
    route = subject.route
    if observed.closed and observed.ended is not None:  # also where that looks complete, as the end of an event stream
        return Verdict.PASS, f"{route} was closed {observed.ended:.2f} s after the signal, as lastcall had been told to"
    if observed.complete and not observed.cut_in:
        return Verdict.PASS, f"{route} was complete {observed.ended:.2f} s after the signal"
    if observed.cut_in:
        what = f"{route} was still open when lastcall came to {observed.cut_in}"
        when = f", {observed.ended:.2f} s after the signal" if observed.ended is not None else ""
    else:
        what = f"{route} was still open when the grace of {subject.grace} s was over"
        when = f"; cut {observed.ended:.2f} s after the signal" if observed.ended is not None else "; it never ended"
        if observed.ended is not None and observed.ended < 0.9 * subject.grace:
            what = f"{route} did not end by itself: {observed.error}"
            when = f", {observed.ended:.2f} s after the signal"
    return Verdict.FAIL, f"{what}{when}.\n{remedy(observed, subject)}"


def remedy(observed: Observed, subject: Subject) -> str:
    """What to change in the application so that the route ends."""
    route = unquote(subject.route.partition("?")[0])  # globs are compared with the decoded path
    option = "--timeout-graceful-shutdown SECONDS" if observed.ours else "a longer grace"
    lines = [
        f"If {route} never ends by itself, let it end when the server drains: with lastcall.drain_notice(), wait for "
        "the notice beside what the stream waits for, say goodbye and return.",
        f"Code that cannot be changed: lastcall --drain-close '{route}' ends it 1 s after the signal. Judge that "
        'with --server "lastcall {app} --port {port} --timeout-graceful-shutdown {grace} --drain-close '
        f"'{route}'\".",
        f"If it ends by itself and should finish, give it time: {option}.",
    ]
    if not observed.ours and observed.told is None:
        lines.insert(
            1, "(This server has told the application nothing; under lastcall the notice is set at the signal.)"
        )
    if observed.disconnected is not None and (
        observed.task_ended is None or observed.task_ended > observed.disconnected + 0.5
    ):
        lines.append(
            "It also went on after http.disconnect: end the generator when the client has left "
            "(await request.is_disconnected(), or let send() raise)."
        )
    return "\n".join(f"- {line}" for line in lines) + f"\nSee {GUIDE}."


def _exit(observed: Observed, subject: Subject, remark: str) -> tuple[Verdict, str]:
    if observed.exited is None:
        return Verdict.FAIL, f"still running {AFTER_GRACE:g} s after its grace of {subject.grace} s{remark}"
    return Verdict.PASS, f"exited {observed.exited:.2f} s after the signal"


def _lifespan(observed: Observed) -> tuple[Verdict, str]:
    words = {
        "none": (Verdict.UNSUPPORTED, "the application does not take part in the lifespan protocol"),
        "complete": (Verdict.PASS, "lifespan.shutdown was complete before the exit"),
        "failed": (Verdict.FAIL, "the application answered with lifespan.shutdown.failed: its log says why"),
        "begun": (Verdict.FAIL, "lifespan.shutdown began and did not end: something in it waits, or raised"),
        "never begun": (Verdict.FAIL, "lifespan.shutdown was not run"),
    }
    return words[observed.lifespan]


def _code(observed: Observed) -> tuple[Verdict, str]:
    if observed.exit_code is None:
        return Verdict.FAIL, "no exit"
    meaning = {4: ": lifespan.shutdown failed or took too long", 5: ": a task or thread did not end"}
    more = meaning.get(observed.exit_code, "") if observed.ours else ""
    verdict = Verdict.PASS if observed.exit_code in _CLEAN else Verdict.FAIL
    return verdict, exit_words(observed.exit_code) + more
