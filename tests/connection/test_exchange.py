"""Requests in, answers out, in order: pipelining, 100 Continue, unread bodies, the last answer, orders of the drain."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.base.types import Receive, Scope, Send
from lastcall.drain.ladder import Phase
from testing.memory import GET, Bench, Stage, answering, body, echo, get, post, start

MakeBench = Callable[..., Bench]
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
REQUESTS = (
    post(5, path="/one")
    + b"first"
    + get("/two", method="HEAD")
    + post(0, path="/three")
    + get("/four", "Transfer-Encoding: chunked", method="PUT")
    + b"3\r\nabc\r\n10;ext=1\r\n0123456789abcdef\r\n0\r\nT: v\r\n\r\n"
    + get("/five", "Connection: close")
)


async def mirror(scope: Scope, receive: Receive, send: Send) -> None:
    """Echo the path and the body, suspending once in between."""
    data = scope["path"].encode() + b" "
    more = True
    while more:
        message = await receive()
        data += message["body"]
        more = message["more_body"]
    await send(start())
    await send(body(data))


@given(cuts=st.lists(st.integers(1, len(REQUESTS) - 1), max_size=12, unique=True))
def test_any_split_of_a_pipelined_stream_gets_the_same_answers(cuts: list[int]) -> None:
    one = Bench(mirror)
    client = one.connect()
    places = [0, *sorted(cuts), len(REQUESTS)]
    client.send(*(REQUESTS[a:b] for a, b in pairwise(places)))
    answers = client.answers("POST", "HEAD", "POST", "PUT", "GET")
    assert [answer.body for answer in answers] == [
        b"/one first", b"", b"/three ", b"/four abc0123456789abcdef", b"/five ",
    ]  # fmt: skip
    assert all(answer.complete for answer in answers)
    assert client.gone
    assert one.tasks.total == 5
    one.close()


def test_byte_by_byte(bench: MakeBench) -> None:
    client = bench(mirror).connect()
    client.send(*(REQUESTS[i : i + 1] for i in range(len(REQUESTS))))
    assert [a.body for a in client.answers("POST", "HEAD", "POST", "PUT", "GET")][-1] == b"/five "


# -- pipelining --------------------------------------------------------------------------------------------------------


def test_answers_come_in_the_order_of_the_requests(bench: MakeBench) -> None:
    stage = Stage()
    client = bench(stage).connect()
    client.send(get("/1") + get("/2"), get("/3"))
    assert [call.scope["path"] for call in stage.calls] == ["/1"], "the next one starts when this response is complete"
    stage.last.sends(start(), body(b"1", more=True))
    assert len(stage.calls) == 1
    stage.last.sends(body(b"!"))
    assert [call.scope["path"] for call in stage.calls] == ["/1", "/2"], (
        "its task may still run: that is background work"
    )
    stage.last.ends()
    assert [call.scope["path"] for call in stage.calls] == ["/1", "/2", "/3"], "a 500 is a response, too"
    stage.last.sends(start(), body(b"3"))
    assert [(a.status, a.body[:2]) for a in client.answers("GET", "GET", "GET")] == [
        (200, b"1!"),
        (500, b"In"),
        (200, b"3"),
    ]
    assert client.kept_alive


def test_a_thousand_requests_at_once(bench: MakeBench) -> None:
    client = bench(answering()).connect()
    client.send(GET * 1000)
    assert len(client.answers(*["GET"] * 1000)) == 1000
    assert client.kept_alive


def test_a_request_behind_a_last_one_is_not_started(bench: MakeBench) -> None:
    stage = Stage()
    client = bench(stage).connect()
    client.send(get("/1", "Connection: close") + get("/2"), get("/3"))
    stage.last.sends(start(), body(b"1"))
    client.send(get("/4"))
    assert len(stage.calls) == 1
    assert client.answer()["connection"] == b"close"


def test_reading_is_paused_behind_a_slow_answer(bench: MakeBench) -> None:
    """The requests that wait are bounded by the high-water mark; reading goes on with the answer."""
    stage = Stage()
    client = bench(stage).connect()
    client.send(get("/1"), GET * 1000)
    assert client.stream.reading
    client.send(GET * 2000)
    assert not client.stream.reading
    stage.last.sends(start(), body())
    assert len(stage.calls) == 2
    assert not client.stream.reading, "there are still as many"
    for _ in range(2000):
        stage.last.sends(start(), body())
    assert client.stream.reading


# -- 100 Continue (RFC 9110 10.1.1) ------------------------------------------------------------------------------------

EXPECT = "Expect: 100-continue"


def test_continue_is_sent_when_the_application_first_asks(bench: MakeBench) -> None:
    stage = Stage()
    client = bench(stage).connect()
    client.send(post(4, EXPECT))
    assert client.take() == b""
    assert stage.last.receives() is None
    assert client.take() == CONTINUE
    client.send(b"bo")
    assert stage.last.results == [{"type": "http.request", "body": b"bo", "more_body": True}]
    assert stage.last.receives() is None
    assert client.take() == b"", "once"
    client.send(b"dy")
    stage.last.sends(start(), body(b"ok"))
    assert client.answer("POST").body == b"ok"
    assert client.kept_alive


def test_no_continue_if_the_application_answers_first(bench: MakeBench) -> None:
    """Whether the body will come now is unknown, so the connection ends with the answer."""
    client = bench(answering(b"no", 403)).connect()
    client.send(post(4, EXPECT))
    answer = client.answer("POST")
    assert (answer.status, answer["connection"]) == (403, b"close")
    assert client.gone
    client.send(b"body" + GET)
    assert client.take() == b""


def test_no_continue_in_the_middle_of_a_response(bench: MakeBench) -> None:
    stage = Stage()
    client = bench(stage).connect()
    client.send(post(4, EXPECT))
    stage.last.sends(start(), body(b"early", more=True))
    assert stage.last.receives() is None
    client.send(b"body")
    stage.last.sends(body(b" late"))
    assert stage.last.results[2]["body"] == b"body"
    assert client.answer("POST").body == b"early late"


@pytest.mark.parametrize(
    "request_bytes",
    [
        post(4, EXPECT) + b"body",
        post(4, EXPECT) + b"b",
        post(0, EXPECT),
        get("/", EXPECT),
        post(4, EXPECT, version="1.0"),
    ],
    ids=["the body is there", "some of it is there", "empty body", "no body", "HTTP/1.0"],
)
def test_no_continue_where_nobody_waits_for_it(bench: MakeBench, request_bytes: bytes) -> None:
    stage = Stage()
    client = bench(stage).connect()
    client.send(request_bytes)
    stage.last.do(stage.last.receive)
    assert client.take() == b""


def test_continue_comes_behind_the_answers_before_it(bench: MakeBench) -> None:
    stage = Stage()
    client = bench(stage).connect()
    client.send(get("/1") + post(2, EXPECT))
    assert client.take() == b""
    stage.calls[0].sends(start(), body(b"1"))
    assert stage.last.receives() is None
    data = client.take()
    assert data.endswith(b"0\r\n\r\n" + CONTINUE)
    assert data.count(CONTINUE) == 1


# -- a body that nobody reads (RFC 9112 9.3, 9.6) ----------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 1000, 65536])
def test_a_small_unread_body_is_discarded(bench: MakeBench, size: int) -> None:
    client = bench(answering()).connect()
    client.send(post(size))
    assert client.answer("POST")["connection"] is None
    assert not client.kept_alive, "the body comes first"
    client.send(b"x" * (size - 1), b"x" + GET)
    assert client.answer().body == b"ok"
    assert client.kept_alive


def test_a_small_unread_chunked_body_is_discarded(bench: MakeBench) -> None:
    client = bench(answering()).connect()
    client.send(get("/", "Transfer-Encoding: chunked", method="POST"))
    assert client.answer("POST").status == 200
    client.send(b"5\r\nhello\r\n0\r\n", b"\r\n" + GET)
    assert client.answer().body == b"ok"


def test_a_large_unread_body_ends_the_connection(bench: MakeBench) -> None:
    client = bench(answering()).connect()
    client.send(post(70_000))
    client.send(b"x" * 65_536)
    assert not client.gone
    client.send(b"x")
    assert client.stream.fin_sent
    assert not client.stream.closed, "what still comes is read, so that no RST eats the answer"
    client.send(b"x" * 4463 + GET)
    assert client.answer("POST").status == 200
    client.eof()
    assert client.stream.closed
    assert not client.stream.was_reset


def test_an_unread_body_that_does_not_come_ends_the_connection(bench: MakeBench) -> None:
    one = bench(answering())
    client = one.connect()
    client.send(post(10), b"12345")
    one.advance(0.9)
    client.send(b"6")
    assert not client.gone
    one.advance(0.2)
    assert client.stream.fin_sent, "1 s for all of it, not for each packet"
    assert not client.stream.closed
    one.advance(5.1)
    assert client.stream.closed


def test_a_fin_in_an_unread_body_ends_the_connection(bench: MakeBench) -> None:
    client = bench(answering()).connect()
    client.send(post(10))
    client.eof()
    assert client.stream.closed
    assert client.answer("POST").complete


def test_an_unread_body_that_breaks_the_protocol_gets_no_second_answer(bench: MakeBench) -> None:
    client = bench(answering()).connect()
    client.send(get("/", "Transfer-Encoding: chunked", method="POST"))
    assert client.answer("POST").status == 200
    client.send(b"nonsense\r\n")
    assert client.take() == b""
    assert client.gone


def test_what_was_read_before_the_answer_is_not_counted(bench: MakeBench) -> None:
    stage = Stage()
    client = bench(stage).connect()
    client.send(post(130_000), b"x" * 65_000)
    stage.last.sends(start(), body())
    client.send(b"x" * 65_000 + GET)
    assert len(stage.calls) == 2


# -- the lingering close -----------------------------------------------------------------------------------------------


def test_the_lingering_close_reads_until_the_clients_fin(bench: MakeBench) -> None:
    client = bench(answering()).connect()
    client.send(get("/", "Connection: close"))
    assert client.stream.fin_sent
    assert client.stream.reading
    assert not client.stream.closed
    client.send(GET * 10)
    client.eof()
    assert client.stream.closed
    assert len(client.answers("GET")) == 1


def test_the_lingering_close_is_short(bench: MakeBench) -> None:
    one = bench(answering())
    client = one.connect()
    client.send(get("/", "Connection: close"))
    one.advance(0.9)
    client.send(b"x")
    assert not client.stream.closed
    one.advance(0.2)
    assert client.stream.closed
    assert not client.stream.was_reset


def test_the_fin_waits_for_a_client_that_reads_slowly(bench: MakeBench) -> None:
    client = bench(answering(b"x" * 1000)).connect(capacity=300)
    client.send(get("/", "Connection: close"))
    assert not client.stream.fin_sent
    client.read(500)
    assert not client.stream.fin_sent
    client.read()
    assert client.stream.fin_sent
    assert client.answer().complete


# -- the drain's orders ------------------------------------------------------------------------------------------------


def test_answers_in_a_drain_close(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage)
    client, late, idle = one.connect(), one.connect(), one.connect()
    client.send(GET)
    one.service.drain.phase = Phase.DRAINING
    for each in (client, late, idle):
        one.loop.call(each.connection.close_idle)
    assert (client.gone, late.gone, idle.gone) == (False, True, True)
    stage.last.sends(start(), body(b"ok"))
    assert client.answer()["connection"] == b"close"
    assert client.gone


def test_a_response_that_had_promised_keep_alive_ends_the_connection_in_a_drain(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage)
    client = one.connect()
    client.send(GET)
    stage.last.sends(start(), body(b"o", more=True))
    one.service.drain.phase = Phase.DRAINING
    one.loop.call(client.connection.close_idle)
    assert not client.gone
    one.service.drain.listeners_closed = True
    stage.last.sends(body(b"k"))
    assert client.answer().body == b"ok"
    assert client.gone


def test_a_discarded_body_ends_the_connection_in_a_drain(bench: MakeBench) -> None:
    one = bench(answering())
    client = one.connect()
    client.send(post(10))
    one.service.drain.phase = Phase.DRAINING
    one.loop.call(client.connection.close_idle)
    assert not client.gone
    one.service.drain.listeners_closed = True
    client.send(b"0123456789")
    assert client.gone
    assert client.answer("POST").complete


def test_closing_idle_connections_reads_once_before(bench: MakeBench) -> None:
    one = bench(answering())
    client = one.connect()
    client.send(GET)
    client.take()
    one.service.drain.phase = Phase.DRAINING
    client.stream.arriving = GET
    one.loop.call(client.connection.close_idle)
    assert client.answer()["connection"] == b"close"
    assert client.gone


def test_a_head_that_has_begun_is_not_idle(bench: MakeBench) -> None:
    for begun in (b"G", GET[:-1]):
        one = bench(answering())
        client = one.connect()
        client.send(begun)
        one.service.drain.phase = Phase.DRAINING
        one.loop.call(client.connection.close_idle)
        assert not client.gone
        client.send(GET[len(begun) :])
        assert client.answer()["connection"] == b"close"
        assert client.gone


def test_a_head_that_is_arriving_at_the_order_is_not_idle(bench: MakeBench) -> None:
    one = bench(answering())
    client = one.connect()
    one.service.drain.phase = Phase.DRAINING
    client.stream.arriving = GET[:7]
    one.loop.call(client.connection.close_idle)
    client.send(GET[7:])
    assert client.answer()["connection"] == b"close"


def test_while_tasks_are_cancelled_no_new_request_is_started(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage)
    client = one.connect()
    client.send(get("/1") + get("/2"))
    one.service.drain.phase = Phase.CANCELLING
    one.service.drain.refusing = True
    late = one.connect()
    late.send(get("/3"))
    assert late.answer().status == 503
    for entry in one.tasks.snapshot():
        one.loop.call(entry.cancel)
    answer = client.answer()
    assert (answer.status, answer["connection"]) == (503, b"close")
    assert len(stage.calls) == 1


def test_an_idle_connection_is_closed_without_lingering(bench: MakeBench) -> None:
    """Nothing is under way that a RST could eat; one that has an answer under way lingers."""
    one = bench(answering())
    fresh, idle, slow = one.connect(), one.connect(), one.connect(capacity=10)
    idle.send(GET)
    slow.send(GET)
    for client in (fresh, idle, slow):
        one.loop.call(client.connection.close_idle)
    assert (fresh.stream.closed, idle.stream.closed, slow.stream.closed) == (True, True, False)
    slow.read()
    assert not slow.stream.closed
    assert slow.stream.fin_sent
    assert slow.answer().complete


def test_orders_to_a_closed_connection_change_nothing(bench: MakeBench) -> None:
    one = bench(echo)
    client = one.connect()
    client.send(GET)
    for order in (client.connection.abort, client.connection.close_idle, client.connection.close_now):
        one.loop.call(order)
    assert client.stream.was_reset
