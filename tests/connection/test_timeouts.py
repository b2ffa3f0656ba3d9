"""Every timeout, on a clock that the tests move: when it runs, what ends it, what client and application see."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import pytest

from lastcall.base.errors import ClientDisconnected
from testing.memory import GET, OLD_GET, Bench, Client, Stage, answering, body, echo, get, post, start

MakeBench = Callable[..., Bench]
GRAIN = 0.06  # no timeout is more exact than the timer of all of them
DISCONNECT = {"type": "http.disconnect"}


def closes_within(one: Bench, client: Client, seconds: float) -> bool:
    """Whether the connection is given up when ``seconds`` have passed, and not long before."""
    one.advance(seconds - GRAIN)
    before = client.gone
    one.advance(2 * GRAIN)
    return not before and client.gone


# -- header: 10 s ------------------------------------------------------------------------------------------------------


def test_a_connection_on_which_nothing_comes_is_closed_silently(bench: MakeBench) -> None:
    one = bench(answering(), timeout_header=3)
    client = one.connect()
    assert closes_within(one, client, 3)
    assert client.take() == b""
    assert one.records == []
    one.advance(1.1)
    assert client.stream.closed


def test_the_first_head_is_timed_from_accept(bench: MakeBench) -> None:
    """However many bytes come: a client that sends one a second gets no more time."""
    one = bench(answering(), timeout_header=3)
    client = one.connect()
    for i in range(5):
        one.advance(0.5)
        client.send(GET[i : i + 1])
    assert closes_within(one, client, 0.5)
    answer = client.answer()
    assert (answer.status, answer["connection"]) == (408, b"close")
    assert one.records[0].status == 408


def test_a_later_head_is_timed_from_its_first_byte(bench: MakeBench) -> None:
    one = bench(answering(), timeout_header=3, timeout_keep_alive=20)
    client = one.connect()
    one.advance(2.5)
    client.send(GET)
    client.take()
    one.advance(15)
    client.send(b"G")
    for byte in b"ET /":
        one.advance(0.5)
        client.send(bytes([byte]))
    assert client.take() == b""
    assert closes_within(one, client, 1)
    assert client.answer().status == 408


def test_a_head_behind_a_slow_answer_is_timed_from_when_it_is_its_turn(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage, timeout_header=3)
    client = one.connect()
    client.send(GET + b"GET")
    one.advance(100)
    assert not client.gone
    stage.last.sends(start(), body())
    assert client.answer().status == 200
    assert closes_within(one, client, 3)
    assert client.answer().status == 408


def test_a_request_that_arrives_with_the_timeout_is_served(bench: MakeBench) -> None:
    """Before a head is given up the server reads once."""
    one = bench(answering(), timeout_header=3, timeout_keep_alive=20)
    for begun in (b"", GET[:9]):
        client = one.connect()
        if begun:
            client.send(begun)
        client.stream.arriving = GET[len(begun) :]
        one.advance(3.1)
        assert [answer.status for answer in client.answers("GET")] == [200]
        assert client.kept_alive
        assert closes_within(one, client, 20 - GRAIN)


def test_more_of_a_head_that_arrives_with_the_timeout_is_too_late(bench: MakeBench) -> None:
    one = bench(answering(), timeout_header=3)
    client = one.connect()
    client.send(GET[:9])
    client.stream.arriving = GET[9:12]
    one.advance(3.1)
    assert client.answer().status == 408


def test_no_header_timeout_while_an_application_works(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage, timeout_header=3, timeout_body=3, timeout_keep_alive=3)
    client = one.connect()
    client.send(GET)
    one.advance(1000)
    stage.last.sends(start(), body(b"x", more=True))
    one.advance(1000)
    stage.last.sends(body())
    assert client.answer().complete
    assert client.kept_alive


# -- body: 60 s without a byte -----------------------------------------------------------------------------------------


def test_a_body_that_does_not_come_is_a_400(bench: MakeBench, caplog: pytest.LogCaptureFixture) -> None:
    """No 400: browsers repeat the request behind that by themselves, and the application has run."""
    stage = Stage()
    one = bench(stage, timeout_body=5)
    client = one.connect()
    client.send(post(10))
    assert stage.last.receives() is None
    one.advance(4)
    client.send(b"01234")
    assert stage.last.receives() is None, "the first part was taken by the receive() before"
    assert closes_within(one, client, 5)
    answer = client.answer("POST")
    assert (answer.status, answer["connection"]) == (400, b"close")
    assert stage.last.results == [{"type": "http.request", "body": b"01234", "more_body": True}, DISCONNECT]
    stage.last.sends(start())
    assert type(stage.last.results[-1]) is ClientDisconnected
    stage.last.ends()
    assert one.tasks.count == 0
    assert [record.status for record in one.records] == [400]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_body_that_does_not_come_cuts_a_started_response(bench: MakeBench, version: str) -> None:
    stage = Stage()
    one = bench(stage, timeout_body=5)
    client = one.connect()
    client.send(post(10, version=version))
    stage.last.sends(start(), body(b"some", more=True))
    assert stage.last.receives() is None
    assert closes_within(one, client, 5) or client.stream.closed
    assert client.stream.closed
    if version == "1.1":
        assert not client.answer("POST").complete
    else:
        assert client.stream.was_reset, "what is delimited by the close must not look complete"
    assert stage.last.results[-1] == DISCONNECT


def test_every_byte_of_a_body_starts_the_time_anew(bench: MakeBench) -> None:
    one = bench(echo, timeout_body=5)
    client = one.connect()
    client.send(post(10))
    for byte in b"0123456789":
        one.advance(4)
        client.send(bytes([byte]))
    assert client.answer("POST").body == b"0123456789"


def test_the_time_of_a_body_ends_with_the_body(bench: MakeBench) -> None:
    """A long answer to an upload that came in several packets is not the client's fault."""
    stage = Stage()
    one = bench(stage, timeout_body=5)
    client = one.connect()
    client.send(post(4), b"bo", b"dy")
    one.advance(100)
    assert not client.gone
    stage.last.sends(start(), body(b"o", more=True))
    one.advance(100)
    stage.last.sends(body(b"k"))
    assert client.answer("POST").body == b"ok"
    assert client.kept_alive


def test_the_time_of_a_body_does_not_run_while_the_application_is_slow(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage, timeout_body=5)
    client = one.connect()
    client.send(post(100_000), b"x" * 70_000)
    assert not client.stream.reading
    one.advance(100)
    assert not client.gone
    assert len(stage.last.receives()["body"]) == 70_000
    assert client.stream.reading
    assert stage.last.receives() is None
    assert closes_within(one, client, 5)
    assert client.answer("POST").status == 400


def test_the_time_of_a_body_does_not_run_before_100_continue(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage, timeout_body=5)
    client = one.connect()
    client.send(post(4, "Expect: 100-continue"))
    one.advance(100)
    assert stage.last.receives() is None
    assert client.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert closes_within(one, client, 5)
    assert client.answer("POST").status == 400


# -- write: 60 s without progress --------------------------------------------------------------------------------------


def test_a_client_that_does_not_read_is_reset(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage, timeout_write=5)
    client = one.connect(capacity=1000)
    client.send(GET)
    stage.last.sends(start(), body(b"x" * 100_000, more=True), body(b"x", more=True))
    assert stage.last.results == [None, None], "send() waits"
    one.advance(5 - GRAIN)
    assert not client.stream.closed
    one.advance(2 * GRAIN)
    assert client.stream.was_reset
    assert type(stage.last.results[2]) is ClientDisconnected
    assert stage.last.receives() == DISCONNECT


def test_progress_in_writing_starts_the_time_anew(bench: MakeBench) -> None:
    one = bench(answering(b"x" * 50_000), timeout_write=5)
    client = one.connect(capacity=1000)
    client.send(GET)
    for _ in range(10):
        one.advance(4)
        client.read(1000)
    assert not client.stream.closed
    one.advance(5 + GRAIN)
    assert client.stream.was_reset


def test_new_data_is_no_progress_in_writing(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage, timeout_write=5)
    client = one.connect(capacity=500)
    client.send(GET)
    stage.last.sends(start(), body(b"x" * 1000, more=True))
    for _ in range(4):
        one.advance(1)
        stage.last.sends(body(b"more", more=True))
    one.advance(1 + GRAIN)
    assert client.stream.was_reset


def test_no_write_timeout_while_nothing_waits_to_be_written(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage, timeout_write=5)
    client = one.connect(capacity=10)
    client.send(GET)
    stage.last.sends(start(), body(b"x", more=True))
    client.read()
    one.advance(100)
    stage.last.sends(body())
    assert client.answer().complete


def test_a_client_that_does_not_read_the_last_answer_is_reset(bench: MakeBench) -> None:
    one = bench(answering(b"x" * 1000), timeout_write=5)
    client = one.connect(capacity=100)
    client.send(get("/", "Connection: close"))
    one.advance(5 + GRAIN)
    assert client.stream.was_reset


# -- keep-alive: 75 s --------------------------------------------------------------------------------------------------


def test_an_idle_connection_is_closed_silently(bench: MakeBench) -> None:
    one = bench(answering(), timeout_keep_alive=7)
    client = one.connect()
    client.send(GET)
    one.advance(5)
    client.send(GET)
    assert len(client.answers("GET", "GET")) == 2
    assert closes_within(one, client, 7)
    assert client.take() == b""
    assert not client.stream.was_reset


def test_a_request_that_arrives_with_the_idle_close_is_served(bench: MakeBench) -> None:
    one = bench(answering(), timeout_keep_alive=7)
    client = one.connect()
    client.send(GET)
    client.take()
    client.stream.arriving = GET
    one.advance(7 + GRAIN)
    assert client.answer()["connection"] is None
    assert client.kept_alive
    assert closes_within(one, client, 7 - GRAIN)


@pytest.mark.parametrize("header", [3, math.inf])
def test_a_head_that_begins_with_the_idle_close_gets_its_time(bench: MakeBench, header: float) -> None:
    one = bench(answering(), timeout_keep_alive=7, timeout_header=header)
    client = one.connect()
    client.send(GET)
    client.take()
    client.stream.arriving = GET[:1]
    one.advance(7 + GRAIN)
    assert not client.gone
    one.advance(2)
    client.send(GET[1:])
    assert client.answer().status == 200


@pytest.mark.parametrize("request_bytes", [GET, get("/", "Connection: keep-alive", version="1.0")])
def test_a_keep_alive_of_zero_turns_it_off(bench: MakeBench, request_bytes: bytes) -> None:
    one = bench(answering(), timeout_keep_alive=0)
    client = one.connect()
    client.send(request_bytes)
    answer = client.answer()
    assert client.gone
    assert answer["connection"] == (b"close" if request_bytes == GET else None)


def test_blank_lines_do_not_keep_a_connection(bench: MakeBench) -> None:
    one = bench(answering(), timeout_keep_alive=7)
    client = one.connect()
    client.send(GET)
    client.take()
    one.advance(5)
    client.send(b"\r\n")
    assert closes_within(one, client, 2)


# -- one timer for all -------------------------------------------------------------------------------------------------


def test_infinite_timeouts_never_end_anything(bench: MakeBench) -> None:
    stage = Stage()
    never = math.inf
    one = bench(stage, timeout_header=never, timeout_body=never, timeout_write=never, timeout_keep_alive=never)
    fresh, begun, uploading, stalled = (one.connect() for _ in range(4))
    begun.send(GET[:5])
    uploading.send(post(5))
    stalled.stream.capacity = 10
    stalled.send(GET)
    stage.last.sends(start(), body(b"x" * 1000, more=True))
    one.advance(1e6)
    assert not any(client.gone for client in (fresh, begun, uploading, stalled))


def test_each_of_many_connections_is_closed_at_its_own_time(bench: MakeBench) -> None:
    one = bench(answering(), timeout_header=3, timeout_keep_alive=7)
    fresh: list[Client] = []
    idle: list[Client] = []
    for i in range(20):
        fresh.append(one.connect())
        idle.append(one.connect())
        idle[-1].send(OLD_GET if i % 10 == 9 else GET)  # HTTP/1.0 closes at once
        one.advance(0.4)
        assert sum(client.gone for client in fresh) == max(0, i - 5)
        assert sum(client.gone for client in idle) == (i + 1) // 10 + max(0, i - 13)
        one.advance(0.1)
    one.advance(10)
    assert all(client.stream.closed for client in fresh + idle)


def test_an_idle_server_has_no_timer_to_wake_it(bench: MakeBench) -> None:
    one = bench(answering(), timeout_keep_alive=7)
    client = one.connect()
    client.send(GET)
    one.advance(100)
    assert client.stream.closed
    turns = one.scheduler.flushes
    one.advance(10_000)
    assert one.scheduler.flushes == turns
