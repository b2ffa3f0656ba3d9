"""Whole stops over connections in memory: what happens when, what each piece of work comes to, and that it adds up."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lastcall.base.types import Receive, Scope, Send
from lastcall.drain.ladder import Budgets, Phase
from lastcall.notice.tracking import track
from testing.draining import StoppableBench
from testing.memory import GET, Stage, answering, body, get, post, start

MakeStoppable = Callable[..., StoppableBench]


def test_a_stop_with_work_to_the_end(stoppable: MakeStoppable) -> None:
    """Every act, in its order and at its time."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            one.diary.note("task ends")

    one = stoppable(app, budgets=Budgets(delay=5.0))
    one.connect().send(GET)
    one.order()
    report = one.finish()
    assert one.diary.lines == [
        (0, "ANNOUNCED"),
        (5, "DRAINING"),
        (5, "unlink"),
        (5, "stop new connections"),
        (6, "accept backlog"),
        (6, "close listener"),
        (21, "poll"),
        (23, "DISCONNECTING"),
        (25, "CANCELLING"),
        (25, "task ends"),
        (25, "CLOSING"),
        (25, "lifespan.shutdown"),
        (25, "STOPPED"),
    ]
    assert {name: round(seconds, 3) for name, seconds in report.phases.items()} == {
        "ANNOUNCED": 5, "DRAINING": 18, "DISCONNECTING": 2, "CANCELLING": 0, "CLOSING": 0,
    }  # fmt: skip
    assert report.seconds == pytest.approx(25)


def test_a_second_signal_does_all_of_it_at_once(stoppable: MakeStoppable) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(0.5)
            one.diary.note("task ends")

    one = stoppable(app)
    one.connect().send(GET)
    one.force()
    report = one.finish()
    assert one.diary.lines == [
        (0, "CANCELLING"),
        (0, "unlink"),
        (0, "stop new connections"),
        (0, "accept backlog"),
        (0, "close listener"),
        (0, "poll"),
        (0.5, "task ends"),
        (0.5, "CLOSING"),
        (0.5, "lifespan.shutdown"),
        (0.5, "STOPPED"),
    ]
    assert (report.cancelled, report.exit_code) == (1, 0)


@pytest.mark.parametrize("grace", [20.0, math.inf])
def test_a_stop_with_nobody_there_takes_fifty_milliseconds(stoppable: MakeStoppable, grace: float) -> None:
    one = stoppable(answering(), budgets=Budgets(graceful=grace))
    client = one.connect()
    client.send(GET)
    client.eof()
    one.order()
    report = one.finish()
    assert report.total == 0
    assert list(report.phases) == ["ANNOUNCED", "DRAINING", "CLOSING"]
    assert report.seconds == pytest.approx(0.05)
    assert not one.polled or one.diary.at("poll") == pytest.approx(0.05), "made up for, when there is nobody to see it"


def test_an_answer_ends_the_stop_at_once(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    client.send(GET)
    one.order()
    one.reach(7)
    stage.last.sends(start(), body(b"ok"))
    stage.last.ends()
    assert one.phase is Phase.DRAINING, "the answer has to arrive"
    client.eof()
    one.reach(7.1)
    assert one.stopped().seconds == pytest.approx(7, abs=0.05)


def test_who_connects_while_an_idle_server_stops_is_served(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    one.order()
    one.reach(0.03)
    client = one.connect()
    client.send(GET)
    one.reach(3)
    assert one.phase is Phase.DRAINING
    stage.last.sends(start(), body(b"ok"))
    stage.last.ends()
    assert client.answer().body == b"ok"
    report = one.finish()
    assert (report.arrived, report.finished, report.backlog_answered) == (1, 1, 1)


# -- what each piece of work is, and comes to --------------------------------------------------------------------------


def test_kinds(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    for number in range(4):
        one.connect().send(get(f"/{number}"))
    upload = one.connect()
    upload.send(post(10) + b"012")
    stage.calls[1].sends(start(), body(b"some", more=True))
    stage.calls[2].sends(start(), body(b"whole"))
    stage.calls[3].sends(start())
    one.advance(0.1)  # a quiet stream: its head goes out by itself
    assert [entry.kind for entry in reversed(one.tasks.snapshot())] == [
        "request",
        "stream",
        "background",
        "stream",
        "request",
    ]
    assert [entry.response_complete for entry in reversed(one.tasks.snapshot())] == [False, False, True, False, False]
    assert [entry.describe() for entry in reversed(one.tasks.snapshot())][:2] == ["GET /0", "GET /1"]
    stage.calls[2].do(stage.calls[0].scope["extensions"]["lastcall.drain"]["notice"].wait)
    stage.calls[0].sends(start(), body())
    one.order()
    assert one.finish().in_flight == {"background": 2, "stream": 2, "request": 1}


@pytest.mark.parametrize("shared", [False, True], ids=["a connection each", "one connection"])
def test_work_that_goes_on_behind_its_response(stoppable: MakeStoppable, shared: bool) -> None:
    """It is running work until its task ends, and in nobody's way."""
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    client.send(GET)
    first = stage.last
    first.sends(start(), body(b"ok"))
    entry = one.tasks.snapshot()[0]
    assert (entry.kind, entry.response_complete) == ("background", True)
    if not shared:
        client.eof()
        client = one.connect()
    client.send(get("/2"))
    assert len(stage.calls) == 2, "the next request does not wait for it"
    stage.last.sends(start(), body(b"ok"))
    stage.last.ends()
    client.eof()
    one.order()
    one.reach(10)
    assert one.phase is Phase.DRAINING
    first.ends()
    one.reach(10.1)
    report = one.stopped()
    assert (report.in_flight, report.finished, report.background_finished) == ({"background": 1}, 1, 1)


def test_a_task_that_ends_with_its_response_was_no_background_work(stoppable: MakeStoppable) -> None:
    one = stoppable(answering())
    one.order()
    one.connect().send(GET)
    report = one.finish()
    assert (report.finished, report.background_finished) == (1, 0)


def test_background_work_is_cancelled_at_the_grace_and_is_no_cut(stoppable: MakeStoppable) -> None:
    ended: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"ok"))
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append("cleaned up")

    one = stoppable(app, nonzero_on_cut=True)
    client = one.connect()
    client.send(GET)
    one.order()
    report = one.finish()
    assert client.answer().complete
    assert ended == ["cleaned up"]
    assert (report.cancelled, report.cut, report.exit_code) == (1, (), 0)


def test_every_outcome_in_one_stop(stoppable: MakeStoppable) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path in ("/quick", "/late"):
            await asyncio.sleep(10)
        elif path != "/unstarted":
            await send(start())
            await send(body(b"some", more=True))
        if path in ("/quick", "/late"):
            await send(start())
        elif path == "/stubborn":
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                await asyncio.sleep(1000)
        else:
            await asyncio.sleep(1000)
        await send(body(b"done"))

    one = stoppable(app, close=("/closed",), nonzero_on_cut=True)
    for path in ("/quick", "/closed", "/inf", "/unstarted", "/stubborn"):
        one.connect(client=("10.0.0.1", 4711)).send(get(path))
        one.advance(1)
    one.order()
    one.reach(0.5)
    one.connect().send(get("/late"))
    report = one.finish()
    assert report.in_flight == {"request": 2, "stream": 3}
    assert (report.arrived, report.finished, report.closed_by_policy, report.disconnected) == (1, 2, 1, 1)
    assert (report.cancelled, report.abandoned, report.exit_code) == (1, 1, 5)
    assert report.left == ("GET /stubborn",)
    named = [(cut.path, cut.kind, cut.outcome, cut.phase, cut.bytes_sent, round(cut.age)) for cut in report.cut]
    assert named == [
        ("/unstarted", "request", "cancelled", "CANCELLING", 0, 22),
        ("/inf", "stream", "disconnected", "DISCONNECTING", 4, 21),
        ("/stubborn", "stream", "abandoned", "DISCONNECTING", 4, 19),
    ]
    assert {cut.client for cut in report.cut} == {"10.0.0.1:4711"}


@pytest.mark.parametrize("nonzero", [False, True])
def test_a_cut_is_an_exit_code_if_somebody_wants_that(stoppable: MakeStoppable, nonzero: bool) -> None:
    stage = Stage()
    one = stoppable(stage, nonzero_on_cut=nonzero)
    one.connect().send(GET)
    one.order()
    assert one.finish().exit_code == (6 if nonzero else 0)


def test_a_client_on_a_unix_socket_is_nameless(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    one.connect(client=None, server=("/run/app.sock", None)).send(GET)
    one.order()
    assert [cut.client for cut in one.finish().cut] in ([""], ["a client on a unix socket"])


def test_a_path_is_as_it_was_sent_without_the_query(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    one.connect().send(get("/a%20b%0a?token=secret"))
    one.order()
    report = one.finish()
    assert [cut.path for cut in report.cut] == ["/a%20b%0a"]
    assert "secret" not in str(report)


def test_tasks_of_the_application_are_drained(stoppable: MakeStoppable) -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def job(seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for seconds in (5, 1000):
            tasks.append(track(asyncio.create_task(job(seconds), name=f"job-{seconds}")))
        await send(start())
        await send(body(b"ok"))

    one = stoppable(app)
    client = one.connect()
    client.send(GET)
    client.eof()
    one.order()
    assert [entry.describe() for entry in one.tasks.snapshot()] == ["task job-1000", "task job-5"]
    report = one.finish()
    assert report.in_flight == {"app task": 2}
    assert (report.finished, report.cancelled, report.cut) == (1, 1, ())
    assert tasks[1].cancelled()
    assert report.seconds == pytest.approx(20)
    assert one.diary.at("lifespan.shutdown") == pytest.approx(20), "not while one of them runs"


# -- orders that come later --------------------------------------------------------------------------------------------


def test_ctrl_c_in_a_drain_tells_the_applications_the_new_times(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    client.send(GET)
    stage.last.sends(start(), body(b"some", more=True))
    notice = stage.last.scope["extensions"]["lastcall.drain"]["notice"]
    one.order()
    one.reach(7)
    assert notice.remaining() == pytest.approx(11)
    one.order("SIGINT")
    assert notice.remaining() == pytest.approx(2), "G is 7 + 3 now, and M a tenth of that"
    one.reach(9)
    assert client.stream.closed
    one.reach(10)
    assert stage.last.cancelled
    report = one.finish()
    assert report.cause == "SIGTERM"
    assert report.seconds == pytest.approx(10)


def test_remaining_after_a_jump_is_nothing(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    one.connect().send(GET)
    notice = stage.last.scope["extensions"]["lastcall.drain"]["notice"]
    seen: list[float | None] = []
    one.loop.call(notice.add_callback, lambda: seen.append(notice.remaining()))
    one.force()
    assert seen == [0.0]


def test_cancelling_the_run_is_a_jump_and_the_lifespan_ends_all_the_same(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    client.send(GET)
    one.loop.call(one.task.cancel)
    assert client.answer().status == 503
    one.settle()
    assert one.task.cancelled()
    assert "lifespan.shutdown" in one.diary.words
    assert [report.cause for report in one.reports] == ["cancelled"]


# -- what the lines say ------------------------------------------------------------------------------------------------


def test_progress_is_said_once_a_second_while_work_remains(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, budgets=Budgets(delay=2.0, graceful=10.0))
    for number in range(4):
        client = one.connect()
        client.send(get(f"/{number}"))
        stage.last.sends(start(), body(b"some", more=True))
        one.advance(1)
    one.order()
    one.reach(4.5)
    for call in stage.calls[1:]:
        call.sends(body(b"done"))
        call.ends()
    one.finish()
    lines = [str(progress) for progress in one.progress if progress is not None]
    assert lines[0] == "announced: still accepting for 1 s, 4 in flight"
    assert lines[2:4] == [
        "draining: 4 left, 8 s until disconnect: GET /0 7 s, GET /1 6 s, GET /2 5 s, …",
        "draining: 4 left, 7 s until disconnect: GET /0 8 s, GET /1 7 s, GET /2 6 s, …",
    ]
    assert lines[4] == "draining: 1 left, 6 s until disconnect: GET /0 9 s"
    assert lines[-1] == "disconnecting: 1 left, 1 s until cancel: GET /0 15 s"
    assert one.progress[-1] is None
    assert len(lines) in (11, 12)


# -- laws --------------------------------------------------------------------------------------------------------------

ACCEPT = "Accept: text/event-stream"
PATHS = ["/quick", "/slow", "/stream", "/stubborn", "/background", "/failing", "/returns", "/events", "/ends"]


async def anything(scope: Scope, receive: Receive, send: Send) -> None:
    """An application with every kind of end."""
    path = scope["path"]
    if path == "/failing":
        raise OSError("no matter")
    if path in ("/events", "/ends"):
        await send(start(200, (b"content-type", b"text/event-stream")))
    elif path in ("/stream", "/stubborn", "/returns"):
        await send(start())
    if path in ("/stream", "/stubborn", "/returns", "/events", "/ends"):
        await send(body(b"some", more=True))
    if path in ("/returns", "/ends"):
        return
    if path == "/background":
        await send(start())
        await send(body(b"ok"))
    try:
        await asyncio.sleep({"/quick": 0.5, "/slow": 7, "/background": 4}.get(path, 1000))
    except asyncio.CancelledError:
        if path == "/stubborn":
            await asyncio.sleep(1000)
        raise
    if path != "/background":
        await send(start())
        await send(body(b"ok"))


@settings(max_examples=150, deadline=None)
@given(
    before=st.lists(st.sampled_from(PATHS), max_size=5),
    script=st.lists(
        st.one_of(
            st.tuples(st.just("request"), st.sampled_from(PATHS)),
            st.tuples(st.just("wait"), st.floats(0.0, 4.0)),
            st.tuples(st.sampled_from(["FIN", "RST", "again"]), st.integers(0, 9)),
            st.tuples(st.just("SIGINT"), st.just(0)),
            st.tuples(st.just("force"), st.just(0)),
        ),
        max_size=8,
    ),
    grace=st.sampled_from([0.0, 1.0, 5.0]),
    close=st.booleans(),
)
def test_the_report_adds_up_and_the_budget_is_kept(
    before: list[str], script: list[tuple[str, Any]], grace: float, close: bool
) -> None:
    """Requests, clients that leave, and orders at any moment of the stop. ``StoppableBench.stopped`` does the sum."""
    one = StoppableBench(anything, budgets=Budgets(graceful=grace, cancel=1.0), close=("*",) if close else ())
    for path in before:
        one.connect().send(get(path, ACCEPT))
    one.order()
    for what, value in script:
        if one.task.done():
            break
        clients = one.driver.clients
        if what == "request":
            one.connect().send(get(value, ACCEPT))
        elif what == "wait":
            one.advance(value)
        elif what == "SIGINT":
            one.order("SIGINT")
        elif what == "force":
            one.force()
        elif clients:
            client = clients[value % len(clients)]
            if not client.stream.closed:
                {"FIN": client.eof, "RST": client.reset, "again": partial(client.send, GET)}[what]()
    report = one.finish()
    assert report.seconds <= grace + 1.0 + 0.2, "G + C, and connections that are still closing"
    assert one.diary.words[-2:] == ["lifespan.shutdown", "STOPPED"]
    assert len(report.left) == report.abandoned
    assert report.broken_off <= len(report.cut)
    assert len(report.cut) <= report.broken_off + report.disconnected + report.cancelled + report.abandoned
    one.close()


def test_of_two_orders_at_once_one_bounds_the_stop(stoppable: MakeStoppable) -> None:
    """A signal's handler may interrupt another order between any two of its steps; a loop that is blocked hears of
    neither, so that the bound has to be given where the order is."""
    one = stoppable(Stage())

    class Interrupted(list[tuple[str, int, bool]]):
        def append(self, order: tuple[str, int, bool]) -> None:
            super().append(order)
            if len(self) == 1:
                one.controller.give_order("SIGINT")

    one.controller._orders = Interrupted()
    one.controller.give_order("SIGTERM")  # not inside the loop, which turns no more before the test looks
    assert one.bounds == [28.0]
    one.finish()


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    """What the log has said at this level."""
    return [record.getMessage() for record in caplog.records if record.levelno == level]


@pytest.mark.parametrize("told", [False, True])
def test_a_cut_that_nobody_asked_for_is_a_warning(
    stoppable: MakeStoppable, caplog: pytest.LogCaptureFixture, told: bool
) -> None:
    caplog.set_level(logging.INFO)
    stage = Stage()
    one = stoppable(stage, close=("*",) if told else ())
    one.connect().send(get("/events"))
    stage.last.sends(start(), body(b"some", more=True))
    one.order()
    one.finish()
    assert [line for line in lines(caplog, logging.WARNING) if "GET /events" in line] == (
        [] if told else caplog.messages[-1:]
    )


@pytest.mark.parametrize("before", [None, "SIGTERM"])
def test_at_a_terminal_one_is_told_what_asking_again_does(
    stoppable: MakeStoppable, caplog: pytest.LogCaptureFixture, before: str | None
) -> None:
    """And what it does is that. Nobody is told so by a supervisor's signal, or where nothing is left to cancel."""
    caplog.set_level(logging.INFO)
    stage = Stage()
    one = stoppable(stage)
    one.connect().send(get())
    if before is not None:
        one.order(before)
        assert not any("Ctrl-C" in line for line in lines(caplog, logging.INFO))
        one.advance(1)
    one.order("SIGINT")
    [line] = [line for line in lines(caplog, logging.INFO) if "Ctrl-C again cancels" in line]
    assert "(SIGINT)" in line
    one.advance(1)
    one.force("SIGINT")
    assert stage.last.cancelled
    one.finish()


def test_with_nothing_left_to_cancel_nobody_is_told_how(
    stoppable: MakeStoppable, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    one = stoppable(Stage())
    one.order("SIGINT")
    one.finish()
    assert not any("Ctrl-C" in line for line in caplog.messages)
