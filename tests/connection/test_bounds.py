"""What one connection and one request may have: a number of requests, an age, a time for the response."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from testing.memory import GET, Bench, Client, Stage, answering, body, get, post, start

MakeBench = Callable[..., Bench]
GRAIN = 0.06
DISCONNECT = {"type": "http.disconnect"}


def connect(one: Bench, stretch: float = 0.0) -> Client:
    """A connection whose limits are stretched by ``stretch`` tenths."""
    one.service.random = lambda: stretch
    return one.connect()


# -- requests per connection -------------------------------------------------------------------------------------------


def test_the_last_answer_says_that_it_is(bench: MakeBench) -> None:
    one = bench(answering(), limit_requests_per_connection=3)
    client = connect(one)
    said = []
    for _ in range(3):
        client.send(GET)
        said.append(client.answer()["connection"])
    assert said == [None, None, b"close"]
    assert client.gone


def test_what_is_pipelined_behind_the_last_request_goes_unserved(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage, limit_requests_per_connection=2)
    client = connect(one)
    client.send(get("/1"), get("/2"), get("/3"))
    for number in range(2):
        stage.calls[number].sends(start(200, (b"content-length", b"1")), body(b"x"))
        stage.calls[number].ends()
    assert [answer["connection"] for answer in client.answers("GET", "GET")] == [None, b"close"]
    assert [call.scope["path"] for call in stage.calls] == ["/1", "/2"]


@pytest.mark.parametrize(("stretch", "most"), [(0.0, 20), (0.5, 21), (0.999, 22)])
def test_connections_end_after_different_numbers(bench: MakeBench, stretch: float, most: int) -> None:
    one = bench(answering(), limit_requests_per_connection=20)
    client = connect(one, stretch)
    for _ in range(most):
        assert not client.gone
        client.send(GET)
        client.answer()
    assert client.gone


def test_probes_count_too(bench: MakeBench) -> None:
    one = bench(answering(), limit_requests_per_connection=1, health_path="/health")
    client = connect(one)
    client.send(get("/health/live"))
    assert client.answer()["connection"] == b"close"


# -- age ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stretch", "age"), [(0.05, 100.5), (0.999, 109.99)])
def test_the_answer_behind_its_age_is_the_last(bench: MakeBench, stretch: float, age: float) -> None:
    one = bench(answering(), max_connection_age=100, timeout_keep_alive=1000)
    client = connect(one, stretch)
    said = []
    for seconds in (0, age - 1, 1.0 + GRAIN):
        one.advance(seconds)
        client.send(GET)
        said.append(client.answer()["connection"])
    assert said == [None, None, b"close"]
    assert client.gone


def test_idle_it_is_closed_without_an_answer(bench: MakeBench) -> None:
    one = bench(answering(), max_connection_age=100, timeout_keep_alive=1000)
    client = connect(one)
    client.send(GET)
    client.answer()
    one.advance(99)
    assert client.kept_alive
    one.advance(8)  # it is looked at 16 times in its life
    assert client.gone
    assert client.take() == b""


def test_a_stream_is_not_cut_and_ends_its_connection_only_behind_itself(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage, max_connection_age=100, timeout_keep_alive=1000)
    client = connect(one)
    client.send(GET)
    stage.last.sends(start(), body(b"begin", more=True))
    for _ in range(50):
        one.advance(10)
        stage.last.sends(body(b".", more=True))
    stage.last.sends(body(b"end"))
    stage.last.ends()
    answer = client.answer()
    assert (answer.status, answer.body) == (200, b"begin" + b"." * 50 + b"end")
    one.advance(8)
    assert client.gone


def test_a_head_that_has_begun_is_answered(bench: MakeBench) -> None:
    one = bench(answering(), max_connection_age=5, timeout_header=60)
    client = connect(one)
    client.send(GET[:10])
    one.advance(20)
    assert not client.gone
    client.send(GET[10:])
    assert client.answer()["connection"] == b"close"


# -- the time of a request ---------------------------------------------------------------------------------------------


def test_a_request_that_takes_too_long_gets_503_and_its_handler_is_told_then_cancelled(
    bench: MakeBench, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage()
    one = bench(stage, timeout_request=5)
    client = connect(one)
    client.send(GET)
    one.advance(5 - GRAIN)
    assert client.take() == b""
    with caplog.at_level(logging.WARNING, "lastcall.error"):
        one.advance(2 * GRAIN)
    answer = client.answer()
    assert (answer.status, answer["connection"]) == (503, b"close")
    assert answer["retry-after"] is not None
    assert len(caplog.records) == 1
    assert stage.last.receives() == DISCONNECT
    one.advance(3 - GRAIN - 0.1)  # --timeout-disconnect
    assert not stage.last.cancelled
    one.advance(2 * GRAIN + 0.1)
    assert stage.last.cancelled


def test_a_response_that_takes_too_long_is_cut(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage, timeout_request=5)
    client = connect(one)
    client.send(GET)
    stage.last.sends(start(), body(b"begin", more=True))
    one.advance(5 + GRAIN)
    data = client.take()
    assert data.endswith(b"\r\n5\r\nbegin\r\n"), "no last chunk: it looks cut"
    assert client.stream.closed
    assert stage.last.receives() == DISCONNECT
    one.advance(3 + GRAIN)
    assert stage.last.cancelled
    assert [record.status for record in one.records] == [200]


def test_a_response_in_time_leaves_the_connection_alone(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage, timeout_request=5)
    client = connect(one)
    for _ in range(3):
        client.send(GET)
        one.advance(4)
        stage.last.sends(start(200, (b"content-length", b"2")), body(b"ok"))
        assert client.answer().status == 200
        one.advance(6)  # the task goes on, which is nobody's affair
        assert not stage.last.cancelled
        stage.last.ends()
    assert client.kept_alive


def test_the_time_of_an_upload_counts(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage, timeout_request=5, timeout_body=60)
    client = connect(one)
    client.send(post(10), b"01234")
    one.settle()
    assert stage.calls, "it runs"
    one.advance(5 + GRAIN)
    assert client.answer().status == 503
    assert stage.last.receives()["type"] in ("http.request", "http.disconnect")
    one.advance(3 + GRAIN)
    assert stage.last.cancelled


def test_a_limit_that_is_off_counts_nothing(bench: MakeBench) -> None:
    one = bench(answering())
    client = one.connect()
    assert one.service.random is None
    for _ in range(300):
        client.send(GET)
        assert client.answer()["connection"] is None
    assert client.kept_alive
