"""Serves the application, opens its routes, stops the server, and notes what happens.

The application runs behind a wrapper that notes what it gets to see.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from lastcall_drill.appmode.culprits import named
from lastcall_drill.appmode.judging import AFTER_GRACE, Cut, Observed, Seen, judge, rows_of
from lastcall_drill.appmode.remedy import Again
from lastcall_drill.appmode.routes import Kind, Route, Subject
from lastcall_drill.client import HTTPClient, Response, WebSocketClient
from lastcall_drill.errors import DrillError
from lastcall_drill.harness import SUBJECT
from lastcall_drill.process import POLL, ServerProcess, free_port, pause
from lastcall_drill.servers import OURS, Target
from lastcall_drill.timeline import Event, Timeline, read_events
from lastcall_drill.verdicts import Result

WRAPPER: Final = "drill_subject.watch:app"
READY: Final = 60.0
"""Seconds that the application may take to start."""

OPEN: Final = 5.0
"""Seconds to wait for the head of a route's response; a request that has none yet is open, too."""

SETTLED: Final = 0.5
"""Seconds that every route has to stay open before the signal."""

UNUSABLE: Final = "application"
"""Of whom the wrapper writes that there is none of that name."""


def judge_app(target: Target, subject: Subject, again: Again) -> list[Result]:
    """Serve the application, open its routes, stop the server: a result for each of the rows.

    Raises DrillError if it cannot be judged: it does not start, or a route does not stay open until the signal.
    """
    begin = time.monotonic()
    timeline = Timeline()
    with tempfile.TemporaryDirectory(prefix="drill-") as name:
        directory = Path(name)
        server, port = _start(target, subject, directory, timeline)
        events, report = directory / "events", directory / "report.json"
        with server, ExitStack() as stack:
            opened = _open_all(stack, server, port, subject, timeline, events)
            observed = _watch(server, opened, subject, events, report)
        timeline.join(events)
    judged = judge(observed, subject, target, again)
    seconds = round(time.monotonic() - begin, 3)
    moments, output = tuple(timeline.moments), server.output()[-8192:]
    return [
        Result(row.id, target.label, one.verdict, one.sentence, moments, 1, seconds, observed.exit_code, None, output)
        for row, one in zip(rows_of(subject.routes), judged, strict=True)
    ]


class Opened:
    """A route that is under way: the same questions for a response and a WebSocket."""

    def __init__(self, route: Route, client: HTTPClient | WebSocketClient, response: Response | None) -> None:
        self.route = route
        self.client = client
        self.response = response

    def wait(self, timeout: float) -> bool:
        """Wait for its end, in either way. Returns whether it has come."""
        if isinstance(self.client, HTTPClient):
            assert self.response is not None
            self.client.wait(self.response, timeout)
            return self.response.over
        self.client.wait_close(timeout)
        return self.client.closed_at is not None or self.client.end is not None

    def seen(self, since: Callable[[float | None], float | None]) -> Seen:
        """What its client has got. ``since`` counts from the signal."""
        if isinstance(self.client, WebSocketClient):
            complete = self.client.closed_at is not None
            ended = self.client.closed_at if complete else self.client.ended
            end = {"fin": "closed", "rst": "reset"}.get(self.client.end.value, "left") if self.client.end else "open"
            error = "" if complete else f"the connection was {end} without a Close frame"
            return Seen(self.route, self.client.close_code or 0, complete, since(ended), error)
        assert self.response is not None
        one = self.response
        return Seen(self.route, one.status, one.complete, since(one.ended), one.error)


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


def _open_all(
    stack: ExitStack, server: ServerProcess, port: int, subject: Subject, timeline: Timeline, events: Path
) -> list[Opened]:
    """All routes, open: they are asked for in turn, and have to stay open together before the signal."""
    found = []
    for number, route in enumerate(subject.routes):
        name = "client" if len(subject.routes) == 1 else f"client-{number + 1}"
        found.append(_open(server, port, subject, route, timeline, events, name))
        stack.callback(found[-1].client.close)
    until = time.monotonic() + SETTLED * subject.scale
    for one in found:
        if one.wait(until - time.monotonic()):
            _must_run(server, subject, events)
            outcome = "was closed" if one.route.kind is Kind.WEBSOCKET else "was complete"
            if one.response is not None and not one.response.complete:
                outcome = f"did not stay open ({one.response.error})"
            raise DrillError(f"{one.route.label} {outcome} before the signal: name a route that stays open")
    _must_run(server, subject, events)
    return found


def _must_run(server: ServerProcess, subject: Subject, events: Path) -> None:
    if server.exit_code is not None:
        _must_be_loaded(subject, events)
        raise DrillError(f"the server exited with code {server.exit_code} before the signal:\n{server.tail()}")


def _open(
    server: ServerProcess,
    port: int,
    subject: Subject,
    route: Route,
    timeline: Timeline,
    events: Path,
    name: str,
) -> Opened:
    """A route that is under way. The application may still be starting: it is asked again."""
    until = time.monotonic() + READY
    while True:
        try:
            opened = _asked(port, subject, route, timeline, name)
        except OSError:
            if time.monotonic() > until or server.exit_code is not None:
                _must_be_loaded(subject, events)
                raise DrillError(f"the server took no connection:\n{server.tail()}") from None
            pause(POLL)
            continue
        try:
            _must_run(server, subject, events)
            _must_be_open(opened)
        except BaseException:
            opened.client.close()
            raise
        return opened


def _asked(port: int, subject: Subject, route: Route, timeline: Timeline, name: str) -> Opened:
    wait = OPEN * subject.scale
    if route.kind is Kind.WEBSOCKET:
        websocket = WebSocketClient(port, timeline, name, route.target, headers=subject.headers)
        websocket.wait_open(wait)
        return Opened(route, websocket, None)
    client = HTTPClient(port, timeline, name)
    accept = [] if _has(subject.headers, "accept") else ["Accept: text/event-stream, */*"]
    headers = [*accept, *subject.headers]
    if route.body is not None and not _has(headers, "content-type"):
        headers.append(f"Content-Type: {_media_type(route.body)}")
    response = client.request(route.target, method=route.method, headers=headers, body=route.body)
    client.wait_head(response, wait)
    return Opened(route, client, response)


def _must_be_open(opened: Opened) -> None:
    route, status = opened.route, 0
    if isinstance(opened.client, WebSocketClient):
        if opened.client.accepted:
            return
        what = f"answered the WebSocket handshake with {opened.client.status or 'nothing'}"
    else:
        assert opened.response is not None
        status = opened.response.status
        if status < 400:
            return
        what = f"answered with {status}"
    raise DrillError(f"{route.label} {what}: name a route that stays open")


def _has(headers: Sequence[str], name: str) -> bool:
    return any(one.partition(":")[0].strip().lower() == name for one in headers)


def _media_type(body: bytes) -> str:
    """What a body without a Content-Type of the user's is taken for."""
    return "application/json" if body.lstrip()[:1] in (b"{", b"[") else "application/x-www-form-urlencoded"


def _watch(server: ServerProcess, opened: Sequence[Opened], subject: Subject, events: Path, report: Path) -> Observed:
    before = len(server.output())
    signalled = server.signal(signal.SIGTERM)
    until = signalled + (subject.grace + AFTER_GRACE) * subject.scale
    for one in opened:
        one.wait(until - time.monotonic())
    server.wait(max(until - time.monotonic(), 0.5))

    def since(at: float | None) -> float | None:
        return None if at is None else (at - signalled) / subject.scale

    found = read_events(events)
    told = _report(report)
    return Observed(
        routes=policies([_with_events(one.seen(since), found, told, since) for one in opened], told),
        exited=since(server.exited),
        exit_code=server.exit_code,
        lifespan=_lifespan_word(found),
        culprits=tuple(named(server.output()[before:], subject.directory)),
    )


def _report(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):  # killed before it was written
        return {}
    return found


def _with_events(
    seen: Seen, events: Sequence[Event], report: dict[str, Any], since: Callable[[float | None], float | None]
) -> Seen:
    """The same with what the application and lastcall's report say of it."""

    def first(what: str) -> float | None:
        return next((since(one.at) for one in events if one.what == what and one.who == seen.route.who), None)

    cut = [
        Cut(str(one.get("outcome", "")), str(one.get("phase", "")))
        for one in report.get("cut", ())
        if one["path"] == seen.route.path and _same_kind(seen.route, one)
    ]
    return Seen(
        **{
            **vars(seen),
            "disconnected": first("disconnect"),
            "cancelled": first("cancel"),
            "task_ended": first("task-end"),
            "told": first("notice"),
            "cut": cut[0] if cut else Cut(),
        }
    )


def _same_kind(route: Route, entry: dict[str, Any]) -> bool:
    if route.kind is Kind.WEBSOCKET or entry.get("kind") == "websocket":
        return route.kind is Kind.WEBSOCKET and entry.get("kind") == "websocket"
    return bool(entry.get("method") == route.method)


def policies(routes: Sequence[Seen], report: dict[str, Any]) -> tuple[Seen, ...]:
    """The same with those marked that lastcall has closed by policy: its report has their number, not their names.

    They are among those that were not cut, and did not end well; or whose application was disconnected or cancelled,
    whatever their clients got: an event stream may be ended by a last chunk.
    """
    left = int(report.get("closed_by_policy", 0))
    found = []
    for one in routes:
        ended_well = one.complete and (one.status < 400 or one.route.kind is Kind.WEBSOCKET)
        by_itself = ended_well and one.disconnected is None and one.cancelled is None
        closed = left > 0 and not one.cut.outcome and not by_itself
        left -= closed
        found.append(Seen(**{**vars(one), "closed": closed}))
    return tuple(found)


def _lifespan_word(events: Sequence[Event]) -> str:
    found = {one.what for one in events}
    details = {one.detail for one in events}
    if "lifespan.startup.complete" not in details:
        return "none"
    if "lifespan.shutdown.failed" in details:
        return "failed"
    if "lifespan-end" in found:
        return "complete"
    return "begun" if "lifespan-shutdown" in found else "never begun"
