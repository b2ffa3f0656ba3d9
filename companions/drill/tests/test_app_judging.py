"""What is said of an application, without one: what was seen goes in, rows come out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lastcall_drill.appmode.acting import policies
from lastcall_drill.appmode.culprits import About, Culprit
from lastcall_drill.appmode.judging import Cut, Judgement, Observed, Seen, judge, rows_of
from lastcall_drill.appmode.remedy import Again, escaped
from lastcall_drill.appmode.routes import Kind, Route, Subject, routes_of
from lastcall_drill.servers import Asked, Target, programs
from lastcall_drill.verdicts import Verdict

EVENTS = Route("/events")
JOBS = Route("/jobs", "POST", body=b"{}")
ROOM = Route("/room", kind=Kind.WEBSOCKET)


def target(name: str = "lastcall") -> Target:
    return Target(Asked(name, name), programs()[name], "1", Path("python"))


def judged(*seen: Seen, server: str = "lastcall", **more: Any) -> list[Judgement]:
    said = {"exited": 1.0, "exit_code": 0, "lifespan": "complete", **more}
    subject = Subject("a:b", tuple(one.route for one in seen), Path("app"), grace=5)
    return judge(Observed(routes=seen, **said), subject, target(server), Again("lastcall drill", subject))


def seen(route: Route = EVENTS, **more: Any) -> Seen:
    return Seen(route, **{"status": 200, "complete": True, "ended": 0.5, **more})


@pytest.mark.parametrize(
    ("one", "verdict", "words"),
    [
        (seen(), Verdict.PASS, "/events was complete 0.50 s"),
        (seen(status=404), Verdict.FAIL, "/events got 404 0.50 s"),
        (seen(status=503, cut=Cut("cancelled", "CANCELLING")), Verdict.FAIL, "when lastcall came to CANCELLING"),
        (seen(status=503, closed=True), Verdict.PASS, "/events was closed with 503 0.50 s"),
        (seen(closed=True), Verdict.PASS, "as lastcall had been told to"),
        (seen(complete=False, cut=Cut("disconnected", "DISCONNECTING")), Verdict.FAIL, "came to DISCONNECTING"),
        (seen(complete=False, cut=Cut("broken off", "DRAINING")), Verdict.FAIL, "report has it as broken off"),
        (seen(complete=False, error="the connection was reset"), Verdict.FAIL, "by itself: the connection was reset"),
        (seen(complete=False, ended=None), Verdict.FAIL, "it never ended"),
        (seen(ROOM, status=1012), Verdict.PASS, "WebSocket /room was closed with 1012"),
        (seen(ROOM, status=1011), Verdict.FAIL, "WebSocket /room was closed with 1011"),
        (seen(JOBS, status=500), Verdict.FAIL, "POST /jobs got 500"),
    ],
)
def test_what_becomes_of_a_route(one: Seen, verdict: Verdict, words: str) -> None:
    first = judged(one)[0]
    assert first.verdict is verdict
    assert words in first.sentence


def test_elsewhere_a_response_counts_if_it_was_complete_in_its_grace() -> None:
    assert judged(seen(ended=4.9), server="uvicorn")[0].verdict is Verdict.PASS
    assert judged(seen(ended=7.0), server="uvicorn")[0].verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("one", "closed"),
    [
        (seen(complete=False), True),
        (seen(disconnected=0.4), True),
        (seen(cancelled=0.4), True),
        (seen(), False),
        (seen(complete=False, cut=Cut("disconnected", "DISCONNECTING")), False),
    ],
)
def test_which_route_the_report_has_counted_as_closed_by_policy(one: Seen, closed: bool) -> None:
    """A clean last chunk may be the policy's, too: then the application has seen the end before its time."""
    (found,) = policies([one], {"closed_by_policy": 1})
    assert found.closed is closed
    assert not policies([one], {})[0].closed


def test_each_culprit_is_named_where_it_belongs_and_once() -> None:
    culprits = [
        Culprit(About.REQUEST, "Exception in ASGI application: POST /jobs: KeyError: 1"),
        Culprit(About.LIFESPAN, "lifespan.shutdown did not complete"),
        Culprit(About.PROCESS, "threads that do not end: mailer"),
    ]
    found = judged(seen(status=500), seen(JOBS, status=500), exit_code=5, lifespan="complete", culprits=tuple(culprits))
    events, jobs, exited, lifespan, code = (one.sentence for one in found)
    assert "KeyError" in jobs
    assert "KeyError" not in events
    assert (exited.count("\n"), lifespan.count("\n")) == (0, 0)
    assert "mailer" in code
    hung = judged(seen(), exit_code=4, lifespan="begun", culprits=tuple(culprits[1:]))
    assert "did not complete" in hung[2].sentence
    assert "did not complete" not in hung[3].sentence


def test_without_an_exit_what_follows_is_unreached() -> None:
    found = judged(seen(), exited=None, exit_code=None, lifespan="never begun")
    assert [one.verdict for one in found[1:]] == [Verdict.FAIL, Verdict.UNREACHED, Verdict.UNREACHED]
    begun = judged(seen(), exited=None, exit_code=None, lifespan="begun")
    assert begun[2].verdict is Verdict.FAIL, "that is why there was no exit"


def test_rows_of_several_routes() -> None:
    assert next(one.id for one in rows_of([EVENTS])) == "app-route-ends"
    assert [one.id for one in rows_of([EVENTS, JOBS, ROOM])][:3] == [
        "app-route-ends[/events]",
        "app-route-ends[POST /jobs]",
        "app-route-ends[WebSocket /room]",
    ]


@pytest.mark.parametrize(
    ("targets", "method", "body", "methods"),
    [
        (["/a"], None, None, ["GET"]),
        (["/a"], None, b"x", ["POST"]),
        (["/a", "GET /b", "put /c"], None, b"x", ["POST", "GET", "PUT"]),
        (["/a", "DELETE /b"], "PATCH", None, ["PATCH", "DELETE"]),
        (["/a", "/a"], None, None, ["GET"]),
    ],
)
def test_methods_and_bodies(targets: list[str], method: str | None, body: bytes | None, methods: list[str]) -> None:
    found = routes_of(targets, [], method, body)
    assert [one.method for one in found] == methods
    assert all((one.body is None) is (body is None or one.method == "GET") for one in found)


def test_a_path_as_a_glob_fits_itself_alone() -> None:
    assert escaped("/a[1]*?") == "/a[[]1][*][?]"
