"""Clients that leave: a FIN or a RST at every moment, what is answered all the same, what the application is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from lastcall.base.errors import ClientDisconnected
from lastcall.base.types import Message, Receive, Scope, Send
from testing.memory import GET, OLD_GET, Bench, Stage, answering, body, echo, get, post, start

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


@pytest.mark.parametrize("request_bytes", [GET, OLD_GET])
def test_a_fin_behind_a_started_response_means_that_nobody_wants_the_rest(
    bench: MakeBench, caplog: pytest.LogCaptureFixture, request_bytes: bytes
) -> None:
    stage = Stage()
    one = bench(stage)
    client = one.connect()
    client.send(request_bytes)
    stage.last.sends(start(), body(b"some", more=True))
    assert stage.last.receives() == ({"type": "http.request", "body": b"", "more_body": False})
    assert stage.last.receives() is None
    client.eof()
    assert stage.last.results[-1] == DISCONNECT
    stage.last.sends(body(b"more", more=True))
    assert type(stage.last.results[-1]) is ClientDisconnected
    assert isinstance(stage.last.results[-1], OSError)
    assert client.stream.closed
    stage.last.ends(stage.last.results[-1])
    assert quiet(caplog)
    assert one.tasks.count == 0
    assert [(record.status, record.bytes_sent) for record in one.records] == [(200, 4)]


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
