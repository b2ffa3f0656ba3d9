"""Event streams at a stop: which of them end as a complete response does, and which are visibly cut.

An event stream is a GET that accepts ``text/event-stream`` and is answered so: its client comes back by itself, and
counts a cut as a fault. Whoever reads anything else must see that it is not whole.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from lastcall.base.errors import ClientDisconnected
from lastcall.drain.ladder import Budgets
from lastcall.drain.report import StopReport
from testing.draining import StoppableBench
from testing.memory import Answer, Call, Client, Stage, body, get, post, start

MakeStoppable = Callable[..., StoppableBench]

DISCONNECT = {"type": "http.disconnect"}
EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
ACCEPT = "Accept: text/event-stream"
F = 1.0  # the farewell
M = 2.0  # the margin of the default grace
G = 20.0
EVENT = b"data: 1\n\n"


def begin(stage: Stage, client: Client, request: bytes, *headers: tuple[bytes, bytes]) -> Call:
    """A response that has started, with one event."""
    client.send(request)
    call = stage.last
    call.sends(start(200, *headers), body(EVENT, more=True))
    return call


def read(client: Client, method: str = "GET") -> Answer:
    """What the client took for the answer, which has ended."""
    assert client.gone
    return client.answer(method)


def ends_of(report: StopReport) -> dict[str, int]:
    """How many ended in each way, without those in which nobody did."""
    names = ("finished", "closed_by_policy", "broken_off", "disconnected", "cancelled", "abandoned")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


# -- the rule ----------------------------------------------------------------------------------------------------------

ASKED: dict[str, tuple[bytes, tuple[bytes, bytes], bool]] = {
    "an EventSource": (get("/", ACCEPT), EVENTS, True),
    "among others, in any case": (get("/", "Accept: Application/JSON, TEXT/Event-Stream;q=0.9"), EVENTS, True),
    "in a second field": (get("/", "Accept: text/html", ACCEPT), EVENTS, True),
    "the bare type": (get("/", ACCEPT), (b"Content-Type", b"Text/Event-Stream"), True),
    "another type": (get("/", ACCEPT), (b"content-type", b"application/json"), False),
    "a longer type": (get("/", ACCEPT), (b"content-type", b"text/event-stream2"), False),
    "no type": (get("/", ACCEPT), (b"x-type", b"text/event-stream"), False),
    "another Accept": (get("/", "Accept: application/json"), EVENTS, False),
    "any Accept": (get("/", "Accept: */*"), EVENTS, False),
    "no Accept": (get("/"), EVENTS, False),
    "refused by its Accept": (get("/", "Accept: text/event-stream;q=0, */*"), EVENTS, False),
    "a POST": (post(0, "Accept: application/json, text/event-stream"), EVENTS, False),
    "a declared length": (get("/", ACCEPT), EVENTS, False),
}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("end", ["policy", "return"])
def test_only_an_event_stream_ends_as_a_whole_response_does(stoppable: MakeStoppable, asked: str, end: str) -> None:
    request, kind, whole = ASKED[asked]
    stage = Stage()
    one = stoppable(stage, close=("*",) if end == "policy" else ())
    client = one.connect()
    length = ((b"content-length", b"900"),) if asked == "a declared length" else ()
    call = begin(stage, client, request, kind, *length)
    one.order()
    if end == "policy":
        one.reach(F)
    else:
        call.ends()
    answer = read(client, request.partition(b" ")[0].decode())
    assert (answer.body, answer.complete) == (EVENT, whole)
    if end == "policy":
        call.ends()
    report = one.finish()
    if end == "policy":
        assert (ends_of(report), report.cut) == ({"closed_by_policy": 1}, ())
    else:
        assert ends_of(report) == ({"finished": 1} if whole else {"broken_off": 1})
        assert len(report.cut) == (0 if whole else 1)


def test_over_http_1_0_it_ends_with_a_fin_and_all_else_with_a_reset(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, close=("*",))
    events, other = one.connect(), one.connect()
    calls = [
        begin(stage, events, get("/", ACCEPT, version="1.0"), EVENTS),
        begin(stage, other, get("/", version="1.0"), EVENTS),
    ]
    one.order()
    one.reach(F)
    assert (events.gone, events.stream.was_reset) == (True, False)
    assert (other.gone, other.stream.was_reset) == (True, True)
    for call in calls:
        call.ends()
    assert ends_of(one.finish()) == {"closed_by_policy": 2}


def test_the_access_log_marks_what_looks_cut_and_nothing_else(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, close=("*",))
    calls = [begin(stage, one.connect(), request, EVENTS) for request in (get("/1", ACCEPT), get("/2"))]
    one.order()
    one.reach(F)
    for call in calls:
        call.ends()
    one.finish()
    assert {record.target: record.mark for record in one.records} == {"/1": None, "/2": "cut"}


# -- by policy ---------------------------------------------------------------------------------------------------------


def test_its_application_learns_of_the_end_by_policy_as_any_other_does(stoppable: MakeStoppable) -> None:
    """Told, refused, and cancelled a margin later; nothing that it sends comes behind the last chunk."""
    stage = Stage()
    one = stoppable(stage, close=("*",))
    client = one.connect()
    call = begin(stage, client, get("/", ACCEPT), EVENTS)
    call.receives()
    assert call.receives() is None
    one.order()
    one.reach(F)
    assert call.results[-1] == DISCONNECT
    assert read(client).complete
    call.sends(body(b"more", more=True))
    assert type(call.results[-1]) is ClientDisconnected
    call.sends(body())
    assert type(call.results[-1]) is ClientDisconnected
    assert client.take() == b""
    one.reach(F + M - 0.001)
    assert not call.cancelled
    one.reach(F + M)
    assert call.cancelled
    assert ends_of(one.finish()) == {"closed_by_policy": 1}


def test_one_that_has_not_sent_an_event_is_answered_and_whole(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, close=("*",))
    client = one.connect()
    client.send(get("/", ACCEPT))
    stage.last.sends(start(200, EVENTS))
    one.order()
    one.reach(F)
    answer = read(client)
    assert (answer.status, answer.body, answer.complete) == (200, b"", True)
    stage.last.ends()
    assert ends_of(one.finish()) == {"closed_by_policy": 1}


def test_one_that_begins_after_the_farewell_is_whole_too(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    client.send(get("/", ACCEPT))
    stage.last.scope["extensions"]["lastcall.drain"]["notice"].finish()
    one.order()
    one.reach(5)
    stage.last.sends(start(200, EVENTS), body(EVENT, more=True))
    stage.last.scope["extensions"]["lastcall.drain"]["notice"].close()
    one.settle()
    answer = read(client)
    assert (answer.body, answer.complete) == (EVENT, True)
    stage.last.ends()
    assert ends_of(one.finish()) == {"closed_by_policy": 1}


def test_a_client_that_does_not_read_holds_its_end_no_longer_than_the_margin(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, close=("*",))
    stuck, slow = one.connect(capacity=150), one.connect(capacity=150)
    calls = [begin(stage, client, get("/", ACCEPT), EVENTS) for client in (stuck, slow)]
    for call in calls:
        call.sends(body(b":" + b"x" * 1000, more=True))
    one.order()
    one.reach(F)
    assert not stuck.stream.closed
    one.reach(F + M - 0.001)
    slow.read(None)
    assert slow.answer().complete
    one.reach(F + M)
    assert stuck.stream.was_reset
    assert not slow.stream.was_reset
    report = one.finish()
    assert ends_of(report) == {"closed_by_policy": 2}
    assert report.seconds < F + M + 2


def test_the_connection_takes_no_request_behind_it(stoppable: MakeStoppable) -> None:
    """The head was sent before the stop, and said nothing of a close."""
    stage = Stage()
    one = stoppable(stage, close=("*",))
    client = one.connect()
    call = begin(stage, client, get("/", ACCEPT), EVENTS)
    one.order()
    one.reach(F)
    client.send(get("/again"))
    assert len(stage.calls) == 1
    assert client.gone
    call.ends()
    one.finish()


# -- by its application ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("x"), ClientDisconnected("y")])
def test_one_whose_task_raises_is_cut(
    stoppable: MakeStoppable, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    call = begin(stage, client, get("/events", ACCEPT), EVENTS)
    one.order()
    call.ends(error)
    assert not read(client).complete
    report = one.finish()
    assert ends_of(report) == {"broken_off": 1}
    [cut] = report.cut
    assert (cut.kind, cut.outcome, cut.method, cut.path, cut.phase, cut.bytes_sent) == (
        *("stream", "broken off", "GET", "/events", "DRAINING"),
        len(EVENT),
    )
    assert cut.client == "127.0.0.1:1024" or cut.client
    caplog.clear()


@pytest.mark.parametrize("delay", [0.0, 5.0])
def test_before_the_notice_one_that_returns_is_a_fault(stoppable: MakeStoppable, delay: float) -> None:
    """While the server serves, and during the delay, in which nobody has been told of anything."""
    stage = Stage()
    one = stoppable(stage, budgets=Budgets(delay=delay))
    client = one.connect()
    call = begin(stage, client, get("/", ACCEPT), EVENTS)
    if delay:
        one.order()
    call.ends()
    assert not read(client).complete
    if not delay:
        one.order()
    report = one.finish()
    assert ends_of(report) == ({"broken_off": 1} if delay else {})
    assert [cut.phase for cut in report.cut] == (["ANNOUNCED"] if delay else [])


@pytest.mark.parametrize("how", ["margin", "grace", "second signal"])
def test_what_the_stop_itself_ends_is_cut(stoppable: MakeStoppable, how: str) -> None:
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    client.send(get("/", ACCEPT))
    call = stage.last
    messages = start(200, EVENTS), body(EVENT, more=True)
    if how != "grace":
        call.sends(*messages)
    one.order()
    if how == "margin":
        one.reach(G - M)
    elif how == "second signal":
        one.advance(1)
        one.force()
    else:
        one.reach(G - 0.5)
        call.sends(*messages)
        call.ends()  # in DISCONNECTING: it would have been cut then if it had begun
    assert not read(client).complete
    call.ends()
    report = one.finish()
    assert ends_of(report) == ({"broken_off": 1} if how == "grace" else {"disconnected": 1})
    assert len(report.cut) == 1


# -- an outcome of its own ---------------------------------------------------------------------------------------------


def ended(stoppable: MakeStoppable, act: Callable[[Call], Any], **options: Any) -> StopReport:
    """The report of a stop in which a response that had begun was ended by ``act``."""
    stage = Stage()
    one = stoppable(stage, nonzero_on_cut=True, **options)
    call = begin(stage, one.connect(), get("/export"))
    one.order()
    one.advance(0.5)
    act(call)
    return one.finish()


def test_a_response_whose_application_returns_in_the_middle_is_broken_off_and_a_cut(stoppable: MakeStoppable) -> None:
    report = ended(stoppable, lambda call: call.ends())
    assert ends_of(report) == {"broken_off": 1}
    [cut] = report.cut
    assert (cut.kind, cut.outcome, cut.path, cut.phase) == ("stream", "broken off", "/export", "DRAINING")
    assert cut.age == pytest.approx(0.5)
    assert cut.client
    assert report.exit_code == 6
    assert "1 broken off" in str(report)
    assert report.as_dict()["broken_off"] == 1


def test_a_response_that_ends_short_of_its_length_is_broken_off(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, nonzero_on_cut=True)
    client = one.connect()
    call = begin(stage, client, get("/export"), (b"content-length", b"900"))
    one.order()
    call.sends(body(b"the end"))
    one.advance(1)
    assert not read(client).complete
    call.ends()  # the task has gone on for a while
    report = one.finish()
    assert ends_of(report) == {"broken_off": 1}
    assert (report.exit_code, [cut.path for cut in report.cut]) == (6, ["/export"])


def test_what_was_broken_off_before_the_stop_is_not_the_stops(stoppable: MakeStoppable) -> None:
    """Its task runs on, so the stop has to do with it, but its client was cut before."""
    stage = Stage()
    one = stoppable(stage, nonzero_on_cut=True)
    call = begin(stage, one.connect(), get("/export"), (b"content-length", b"900"))
    call.sends(body(b"the end"))
    one.order()
    call.ends()
    report = one.finish()
    assert (ends_of(report), report.exit_code, report.cut) == ({"finished": 1}, 0, ())


def test_an_answer_of_the_servers_own_is_whole(stoppable: MakeStoppable) -> None:
    """The application ends before its response has begun: 500, which no client takes for a cut."""
    stage = Stage()
    one = stoppable(stage, nonzero_on_cut=True)
    client = one.connect()
    client.send(get())
    one.order()
    stage.last.ends()
    assert (answer := read(client)).complete
    assert answer.status == 500
    report = one.finish()
    assert (ends_of(report), report.exit_code) == ({"finished": 1}, 0)


def test_one_whose_client_has_left_is_no_cut(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, nonzero_on_cut=True)
    client = one.connect()
    call = begin(stage, client, get("/export"))
    one.order()
    client.reset()
    call.ends()
    report = one.finish()
    assert (ends_of(report), report.exit_code, report.cut) == ({"finished": 1}, 0, ())


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Lines about applications that end too early are not what these tests look at."""
    caplog.set_level(logging.CRITICAL, "lastcall.error")


# -- what the application writes into its scope ------------------------------------------------------------------------


@pytest.mark.parametrize("field", [("x", "y", "z"), (b"accept", b"*/*"), None, 1], ids=repr)
def test_what_the_application_does_to_its_headers_changes_no_end(stoppable: MakeStoppable, field: Any) -> None:
    """``scope["headers"]`` is the application's own: what the client has asked for does not depend on it."""
    stage = Stage()
    one = stoppable(stage, close=("*",))
    stream, poll = one.connect(), one.connect()
    calls = [begin(stage, stream, get("/", ACCEPT), EVENTS)]
    poll.send(get("/poll", ACCEPT))
    calls.append(stage.last)
    for call in calls:
        call.scope["headers"][:] = [] if field is None else [field]
    one.order()
    one.reach(F)
    answer = read(stream)
    assert (answer.body, answer.complete) == (EVENT, True)
    assert read(poll)["content-type"] == b"text/event-stream"
    for call in calls:
        call.ends()
    assert ends_of(one.finish()) == {"closed_by_policy": 2}


def test_a_header_that_the_application_adds_makes_no_event_stream(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, close=("*",))
    client = one.connect()
    call = begin(stage, client, get("/"), EVENTS)
    call.scope["headers"].append((b"accept", b"text/event-stream"))
    one.order()
    one.reach(F)
    assert not read(client).complete
    call.ends()
    assert ends_of(one.finish()) == {"closed_by_policy": 1}


def test_the_next_request_of_a_connection_is_judged_by_its_own_accept(stoppable: MakeStoppable) -> None:
    """Also where the same lines have come before, which are not parsed again."""
    stage = Stage()
    one = stoppable(stage, close=("*",))
    clients = [one.connect() for _ in range(4)]
    for client in clients:
        client.send(get("/", ACCEPT))
        stage.last.sends(start(200, (b"content-length", b"2")), body(b"ok"))
        stage.last.ends()
        client.take()
    calls = [begin(stage, clients[0], get("/"), EVENTS), begin(stage, clients[1], get("/", ACCEPT), EVENTS)]
    one.order()
    one.reach(F)
    assert (read(clients[0]).complete, read(clients[1]).complete) == (False, True)
    for call in calls:
        call.ends()
    one.finish()
