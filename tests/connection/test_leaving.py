"""Clients that leave: a FIN or a RST at every moment, what is answered all the same, what the application is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from lastcall.base.errors import ClientDisconnected
from lastcall.base.types import Message, Receive, Scope, Send
from testing.memory import GET, OLD_GET, Bench, Call, Client, Stage, answering, body, echo, get, post, start

MakeBench = Callable[..., Bench]
DISCONNECT = {"type": "http.disconnect"}


def quiet(caplog: pytest.LogCaptureFixture) -> bool:
    return not [record for record in caplog.records if record.levelno >= logging.WARNING]


# -- FIN ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_bytes", [GET, OLD_GET, post(2) + b"ok"], ids=["1.1", "1.0", "with a body"])
@pytest.mark.parametrize("together", [True, False])
def test_a_fin_behind_a_complete_request_does_not_stop_the_answer(
    bench: MakeBench, request_bytes: bytes, together: bool
) -> None:
    """``printf 'GET / …' | nc -N host port``."""
    stage = Stage()
    client = bench(stage).connect()
    if together:
        client.send_last(request_bytes)
    else:
        client.send(request_bytes)
        client.eof()
    assert not client.stream.reading
    stage.last.sends(start())
    stage.last.sends(body(b"whole ", more=True), body(b"answer"))
    answer = client.answer()
    assert (answer.body, answer.complete) == (b"whole answer", True)
    assert client.stream.closed
    assert not client.stream.was_reset
    assert stage.last.results == [None] * 3


def test_a_fin_behind_an_instant_answer(bench: MakeBench) -> None:
    for request_bytes in (GET, OLD_GET, get("/", "Connection: close")):
        client = bench(answering()).connect()
        client.send_last(request_bytes)
        assert client.answer().body == b"ok"
        assert client.stream.closed


@pytest.mark.parametrize("request_bytes", [GET, OLD_GET, post(2) + b"ok"], ids=["1.1", "1.0", "with a body"])
@pytest.mark.parametrize("together", [True, False])
def test_before_the_response_receive_tells_of_a_fin_and_send_delivers(
    bench: MakeBench, request_bytes: bytes, together: bool
) -> None:
    """First what has come, then ``http.disconnect``, as often as it asks; and who answers all the same is heard."""
    stage = Stage()
    client = bench(stage).connect()
    if together:
        client.send_last(request_bytes)
    else:
        client.send(request_bytes)
        client.eof()
    content = b"ok" if request_bytes.startswith(b"POST") else b""
    assert stage.last.receives() == {"type": "http.request", "body": content, "more_body": False}
    assert [stage.last.receives(), stage.last.receives()] == [DISCONNECT] * 2
    stage.last.sends(start(), body(b"all ", more=True), body(b"the same"))
    answer = client.answer()
    assert (answer.body, answer.complete) == (b"all the same", True)
    assert client.stream.closed
    assert not client.stream.was_reset


def test_a_receive_that_waits_is_woken_by_a_fin(bench: MakeBench) -> None:
    stage = Stage()
    client = bench(stage).connect()
    client.send(GET)
    stage.last.receives()
    assert stage.last.receives() is None
    client.eof()
    assert stage.last.results[-1] == DISCONNECT


def test_before_the_response_a_fin_starts_no_timer(bench: MakeBench) -> None:
    """Who works for an hour may answer then; and the time for a body that has come is over."""
    stage = Stage()
    one = bench(stage)
    client = one.connect()
    client.send_last(post(2) + b"ok")
    assert stage.last.receives()["body"] == b"ok"
    one.advance(3600)
    stage.last.sends(start(), body(b"at last"))
    assert not stage.last.cancelled
    assert client.answer("POST").body == b"at last"


@pytest.mark.parametrize("request_bytes", [GET, OLD_GET])
def test_a_response_under_way_is_delivered_over_a_half_closed_connection(
    bench: MakeBench, caplog: pytest.LogCaptureFixture, request_bytes: bytes
) -> None:
    stage = Stage()
    one = bench(stage)
    client = one.connect()
    client.send(request_bytes)
    stage.last.sends(start(), body(b"some", more=True))
    assert stage.last.receives() == {"type": "http.request", "body": b"", "more_body": False}
    assert stage.last.receives() is None
    client.eof()
    assert stage.last.results[-1] == DISCONNECT
    stage.last.sends(body(b" and more", more=True), body(b", to the end"))
    answer = client.answer()
    assert (answer.body, answer.complete) == (b"some and more, to the end", True)
    assert client.stream.closed
    assert not client.stream.was_reset
    stage.last.ends()
    assert quiet(caplog)
    assert [(record.status, record.bytes_sent) for record in one.records] == [(200, 25)]


def test_a_reset_behind_a_fin_ends_the_response(bench: MakeBench, caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    one = bench(stage)
    client = one.connect()
    client.send(GET)
    stage.last.sends(start(), body(b"some", more=True))
    client.eof()
    client.reset()
    assert client.stream.closed
    stage.last.sends(body(b"more", more=True))
    assert type(stage.last.results[-1]) is ClientDisconnected
    assert isinstance(stage.last.results[-1], OSError)
    stage.last.ends(stage.last.results[-1])
    assert quiet(caplog)
    assert one.tasks.count == 0
    assert [(record.status, record.bytes_sent) for record in one.records] == [(200, 4)]


PATIENCE = 3.0
"""The bench's --timeout-disconnect."""
LOOK = PATIENCE / 4
"""So often is looked whether a client that has sent its FIN takes anything."""


def streaming(stage: Stage, client: Client) -> Call:
    """A response that has started."""
    client.send(GET)
    stage.last.sends(start(), body(b"some", more=True))
    return stage.last


def test_a_fin_in_a_response_starts_the_time_to_notice(bench: MakeBench, caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    one = bench(stage)
    client = one.connect()
    call = streaming(stage, client)
    one.advance(100)
    client.eof()
    one.advance(PATIENCE - 0.01)
    assert not call.cancelled
    assert not client.gone
    one.advance(0.02)
    assert call.cancelled
    assert client.stream.closed
    assert not client.answer().complete
    assert quiet(caplog)


def test_a_response_that_begins_behind_a_fin_starts_the_time_to_notice(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage)
    client = one.connect()
    client.send_last(GET)
    one.advance(100)
    stage.last.sends(start(), body(b"some", more=True))
    one.advance(PATIENCE - 0.01)
    assert not stage.last.cancelled
    one.advance(LOOK + 0.02)
    assert stage.last.cancelled


def test_what_is_sent_behind_a_fin_starts_the_time_anew(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage)
    client = one.connect()
    call = streaming(stage, client)
    client.eof()
    for _ in range(5):
        one.advance(PATIENCE - 0.1)
        call.sends(body(b".", more=True))
    one.advance(PATIENCE - 0.1)
    assert not call.cancelled
    one.advance(LOOK + 0.2)
    assert call.cancelled, "from the last byte on"
    assert client.answer().body == b"some....."


@pytest.mark.parametrize("takes", ["bytes", "acknowledges", "nothing"])
def test_what_a_client_takes_behind_a_fin_starts_the_time_anew(bench: MakeBench, takes: str) -> None:
    """Its FIN says nothing of how fast it reads: 200 KiB at 500 bytes a second are waited for."""
    stage = Stage()
    one = bench(stage)
    client = one.connect(capacity=10_000)
    call = streaming(stage, client)
    call.sends(body(bytes(200_000), more=True), body(b"the next one waits", more=True))
    client.stream.unread = 10_000
    client.eof()
    for _ in range(10):
        one.advance(1)
        if takes == "bytes":
            client.read(500)
        elif takes == "acknowledges":
            client.stream.unread -= 500
    assert call.cancelled == client.gone == (takes == "nothing")
    one.advance(2 * PATIENCE)
    assert call.cancelled


def test_work_behind_a_response_is_not_cancelled_for_a_fin_within_it(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage)
    client = one.connect()
    call = streaming(stage, client)
    client.eof()
    call.sends(body(b" more"))
    assert client.answer().complete
    one.advance(100)
    assert not call.cancelled


def test_a_reset_does_not_shorten_the_time_to_notice(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage)
    client = one.connect()
    call = streaming(stage, client)
    client.eof()
    one.advance(2)
    call.sends(body(b"more", more=True))
    client.reset()
    one.advance(PATIENCE - 0.1)
    assert not call.cancelled
    one.advance(0.2)
    assert call.cancelled


@pytest.mark.parametrize("ending", ["returns", "raises"])
@pytest.mark.parametrize("begun", ["nothing", "a held head", "the response"])
def test_an_application_that_heeds_a_fin_answers_nothing(
    bench: MakeBench, caplog: pytest.LogCaptureFixture, ending: str, begun: str
) -> None:
    """No 500, no complaint: it was told that nobody waits."""
    stage = Stage()
    one = bench(stage)
    client = one.connect()
    client.send(GET)
    if begun == "a held head":
        stage.last.sends(start())
    elif begun == "the response":
        stage.last.sends(start(), body(b"some", more=True))
    client.take()
    stage.last.receives()
    client.eof()
    assert stage.last.receives() == DISCONNECT
    stage.last.ends(None if ending == "returns" else ClientDisconnected("the client has disconnected"))
    assert client.take() == b""
    assert client.stream.closed
    assert quiet(caplog)
    assert one.tasks.count == 0


def test_an_application_that_was_not_told_of_a_fin_has_to_answer(
    bench: MakeBench, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage()
    client = bench(stage).connect()
    client.send_last(GET)
    stage.last.ends()
    assert client.answer().status == 500
    assert "returned without a response" in caplog.text


def test_an_application_that_fails_behind_a_fin_is_answered_for(
    bench: MakeBench, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage()
    client = bench(stage).connect()
    client.send_last(GET)
    stage.last.receives()
    assert stage.last.receives() == DISCONNECT
    stage.last.ends(ValueError("a mistake"))
    assert client.answer().status == 500
    assert "a mistake" in caplog.text


def test_where_one_request_before_a_fin_gets_no_answer_no_later_one_is_started(bench: MakeBench) -> None:
    stage = Stage()
    client = bench(stage).connect()
    client.send_last(get("/1") + get("/2") + get("/3"))
    stage.last.sends(start(), body(b"first"))
    stage.last.receives()
    assert stage.last.receives() == DISCONNECT
    stage.last.ends()
    assert [call.scope["path"] for call in stage.calls] == ["/1", "/2"]
    assert client.answer().body == b"first"
    assert client.stream.closed


def test_a_held_start_is_no_started_response(bench: MakeBench) -> None:
    stage = Stage()
    client = bench(stage).connect()
    client.send(GET)
    stage.last.sends(start())
    client.eof()
    stage.last.sends(body(b"ok"))
    assert client.answer().body == b"ok"


@pytest.mark.parametrize("together", [True, False])
def test_a_fin_in_the_body_ends_the_request(bench: MakeBench, caplog: pytest.LogCaptureFixture, together: bool) -> None:
    """No answer could be about the whole of it."""
    stage = Stage()
    one = bench(stage)
    client = one.connect()
    if together:
        client.send_last(post(10) + b"01234")
    else:
        client.send(post(10) + b"01234")
        client.eof()
    assert stage.last.receives() == DISCONNECT
    stage.last.sends(start())
    assert type(stage.last.results[-1]) is ClientDisconnected
    assert client.stream.closed
    assert client.take() == b""
    stage.last.ends()
    assert quiet(caplog)
    assert one.records == []


def test_a_fin_wakes_a_receive_that_waits_for_the_body(bench: MakeBench) -> None:
    stage = Stage()
    client = bench(stage).connect()
    client.send(post(10))
    assert stage.last.receives() is None
    client.eof()
    assert stage.last.results == [DISCONNECT]


def test_all_pipelined_requests_before_a_fin_are_answered(bench: MakeBench) -> None:
    client = bench(answering()).connect()
    client.send_last(get("/1") + get("/2") + get("/3"))
    first, second, last = client.answers("GET", "GET", "GET")
    assert (first["connection"], second["connection"], last["connection"])[:2] == (None, None)
    assert client.stream.closed


@pytest.mark.parametrize("together", [True, False])
def test_pipelined_requests_before_a_fin_are_answered_by_slow_applications_too(
    bench: MakeBench, together: bool
) -> None:
    stage = Stage()
    client = bench(stage).connect()
    requests = get("/1") + get("/2")
    if together:
        client.send_last(requests)
    else:
        client.send(requests)
        client.eof()
    for i in range(2):
        assert len(stage.calls) == i + 1
        stage.last.sends(start(), body(b"%d" % i))
    assert [answer.body for answer in client.answers("GET", "GET")] == [b"0", b"1"]
    assert client.stream.closed


@pytest.mark.parametrize("rest", [b"GET / HT", post(5), post(5) + b"1"])
def test_a_request_that_a_fin_cuts_behind_a_complete_one(bench: MakeBench, rest: bytes) -> None:
    stage = Stage()
    client = bench(stage).connect()
    client.send_last(GET + rest)
    stage.last.sends(start(), body(b"ok"))
    assert client.answer().body == b"ok"
    assert client.stream.closed


@pytest.mark.parametrize("before", [b"", b"GET / HT", GET])
def test_a_fin_between_requests_closes(bench: MakeBench, before: bytes) -> None:
    one = bench(answering())
    client = one.connect()
    if before:
        client.send(before)
        client.take()
    client.eof()
    assert client.stream.closed
    assert client.take() == b""
    assert not client.stream.was_reset


def test_a_fin_while_the_answer_is_being_read_lets_it_be_read(bench: MakeBench) -> None:
    """The response is complete; only the client's kernel has not taken all of it yet."""
    client = bench(answering(b"x" * 1000)).connect(capacity=100)
    client.send(GET)
    client.eof()
    assert not client.stream.closed
    client.read()
    assert len(client.answer().body) == 1000
    assert client.stream.closed


# -- RST ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before the response", "start held", "in the response", "in the request's body"])
def test_a_reset_ends_everything(bench: MakeBench, caplog: pytest.LogCaptureFixture, moment: str) -> None:
    stage = Stage()
    one = bench(stage)
    client = one.connect()
    client.send(post(2) + b"o" if "body" in moment else GET)
    stage.last.do(stage.last.receive)
    if moment == "start held":
        stage.last.sends(start())
    elif moment == "in the response":
        stage.last.sends(start(), body(b"x", more=True))
    stage.last.do(stage.last.receive)
    waiting = len(stage.last.results)
    client.reset()
    assert stage.last.results[waiting:] == [DISCONNECT]
    assert stage.last.receives() == DISCONNECT, "as often as it asks"
    stage.last.sends(start() if moment in ("before the response", "in the request's body") else body(b"late"))
    assert type(stage.last.results[-1]) is ClientDisconnected
    stage.last.ends(stage.last.results[-1])
    assert quiet(caplog)
    assert client.stream.closed
    assert one.tasks.count == 0


@pytest.mark.parametrize("data", [b"", b"GET / HT", GET, post(5), post(70_000) + b"x" * 66_000])
def test_a_reset_at_other_moments(bench: MakeBench, data: bytes) -> None:
    one = bench(answering())
    client = one.connect()
    if data:
        client.send(data)
    client.reset()
    assert client.stream.closed
    one.advance(1000)


def test_a_reset_after_the_response_does_not_disturb_background_work(
    bench: MakeBench, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage()
    one = bench(stage)
    client = one.connect()
    client.send(GET)
    stage.last.sends(start(), body(b"ok"))
    client.reset()
    assert one.tasks.count == 1
    assert stage.last.receives() == DISCONNECT
    stage.last.sends(body(b"ignored"))
    assert stage.last.results[-1] is None
    stage.last.ends()
    assert one.tasks.count == 0
    assert quiet(caplog)


def test_requests_that_wait_behind_one_are_dropped_with_a_reset(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage)
    client = one.connect()
    client.send(get("/1") + get("/2"))
    client.reset()
    stage.last.ends()
    one.settle()
    assert len(stage.calls) == 1


# -- the application's disconnect --------------------------------------------------------------------------------------


def test_after_the_response_receive_says_disconnect(bench: MakeBench) -> None:
    """ASGI: once a response has been sent, or the client has left; here the client is still there."""
    stage = Stage()
    client = bench(stage).connect()
    client.send(GET)
    assert stage.last.receives()["type"] == "http.request"
    stage.last.sends(start(), body(b"ok"))
    assert stage.last.receives() == DISCONNECT
    assert client.kept_alive


def test_a_receive_that_waits_is_woken_by_the_end_of_the_response(bench: MakeBench) -> None:
    results: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        listener: asyncio.Task[Message] = asyncio.create_task(receive())  # type: ignore[arg-type]
        await asyncio.sleep(1)
        await send(start())
        await send(body(b"ok"))
        results.append(await listener)

    one = bench(app)
    client = one.connect()
    client.send(GET)
    one.advance(2)
    assert results == [DISCONNECT]


def test_echo_under_every_kind_of_leaving(bench: MakeBench) -> None:
    """Nothing that a client does at any byte of an exchange leaves a task, an entry or an open stream behind."""
    request_bytes = post(30) + b"x" * 30
    one = bench(echo)
    for cut in range(len(request_bytes) + 1):
        for leave in ("eof", "reset"):
            client = one.connect()
            if cut:
                client.send(request_bytes[:cut])
            getattr(client, leave)()
            assert one.tasks.count == 0
            one.advance(2)
            assert client.stream.closed
