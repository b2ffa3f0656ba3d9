"""Limits of a worker, and what its access sink is told of each kind of end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lastcall.drain.ladder import Phase
from testing.memory import GET, OLD_GET, Bench, Record, Stage, answering, body, get, post, start

MakeBench = Callable[..., Bench]


# -- --limit-concurrency -----------------------------------------------------------------------------------------------


def test_requests_above_the_concurrency_limit_get_a_503(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage, limit_concurrency=2)
    clients = [one.connect() for _ in range(3)]
    for client in clients:
        client.send(GET)
    assert [client.stream.written for client in clients[:2]] == [b"", b""]
    answer = clients[2].answer()
    assert (answer.status, answer["retry-after"], answer["connection"]) == (503, b"1", b"close")
    assert clients[2].gone
    assert (one.tasks.count, one.tasks.total) == (2, 2)
    stage.calls[0].sends(start(), body())
    assert one.ask(GET).status == 503, "background work counts"
    stage.calls[0].ends()
    late = one.connect()
    late.send(GET)
    assert len(stage.calls) == 3


def test_a_503_does_not_wait_for_the_body(bench: MakeBench) -> None:
    one = bench(Stage(), limit_concurrency=1)
    one.connect().send(GET)
    client = one.connect()
    client.send(post(1000, "Expect: 100-continue"))
    assert client.answer("POST").status == 503
    client.send(b"x" * 1000)
    client.eof()
    assert client.stream.closed


def test_one_connection_cannot_pass_the_limit_by_pipelining(bench: MakeBench) -> None:
    """Its own requests come one after the other, so only background work of its own stands in its way."""
    stage = Stage()
    one = bench(stage, limit_concurrency=1)
    client = one.connect()
    client.send(GET * 3)
    stage.calls[0].sends(start(), body(b"ok"))
    assert [answer.status for answer in client.answers("GET", "GET")] == [200, 503]


# -- --limit-max-requests ----------------------------------------------------------------------------------------------


def test_the_request_that_reaches_the_maximum_is_told_once_and_served(bench: MakeBench) -> None:
    told: list[int] = []
    one: Bench = bench(answering(), on_max_requests=lambda: told.append(one.service.requests), limit_max_requests=3)
    client = one.connect()
    client.send(GET, b"nonsense\r\n\r\n")
    assert one.ask(GET).status == 200
    assert told == []
    assert [one.ask(GET).status for _ in range(4)] == [200] * 4
    assert told == [3]
    assert one.service.requests == 6


def test_heads_count_when_they_are_complete(bench: MakeBench) -> None:
    told: list[int] = []
    one = bench(Stage(), on_max_requests=lambda: told.append(1), limit_max_requests=2)
    client = one.connect()
    client.send(GET + post(10))
    assert told == [], "the second one waits behind the first"
    one.connect().send(post(10)[:-1])
    assert told == []
    one.connect().send(post(10))
    assert told == [1]


def test_a_pipelining_client_learns_of_the_drain_that_its_own_request_began(bench: MakeBench) -> None:
    def drain() -> None:
        one.service.drain.phase = Phase.DRAINING

    one = bench(answering(), on_max_requests=drain, limit_max_requests=2)
    client = one.connect()
    client.send(GET * 5)
    answers = client.answers("GET", "GET")
    assert [answer["connection"] for answer in answers] == [None, b"close"]
    assert client.gone


# -- the access sink ---------------------------------------------------------------------------------------------------


def record(status: int, sent: int, method: str = "GET", target: str = "/", seconds: float = 0.0, **more: str) -> Record:
    return Record(
        more.get("client", "127.0.0.1:50000"),
        method,
        target,
        more.get("version", "1.1"),
        status,
        seconds,
        sent,
        more.get("mark"),
    )


def test_complete_responses(bench: MakeBench) -> None:
    one = bench(answering(b"four", 201))
    client = one.connect()
    client.send(get("/a%20b?c=d&e") + get("/h", method="HEAD"), OLD_GET)
    assert one.records == [
        record(201, 4, target="/a%20b?c=d&e"), record(201, 0, "HEAD", "/h"), record(201, 4, version="1.0")
    ]  # fmt: skip
    one.connect(client=None).send(GET)
    one.connect(client=("::1", 5)).send(GET)
    assert [each.client for each in one.records[3:]] == ["-", "::1:5"]


def test_the_duration_runs_from_the_head_to_the_last_byte(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage)
    client = one.connect()
    one.advance(1)
    client.send(post(3, path="/slow"))
    one.advance(2)
    client.send(b"abc")
    one.advance(3)
    stage.last.sends(start(), body(b"12345", more=True))
    one.advance(4)
    assert one.records == []
    stage.last.sends(body(b"6789"))
    one.advance(100)
    stage.last.ends()
    assert one.records == [record(200, 9, "POST", "/slow", 9.0)]


def test_each_kind_of_end_is_one_record(bench: MakeBench) -> None:
    """Refused, failed, cut by the application, by the client, by a timeout: what the client saw is what is recorded."""
    stage = Stage()
    one = bench(stage, timeout_body=5, timeout_write=5, timeout_header=5)

    def last(expected: Record) -> None:
        assert one.records == [expected]
        one.records.clear()

    one.connect().send(b"nonsense\r\n\r\n")
    last(record(400, len(b"Bad Request: invalid method\n"), "-", "-"))

    one.connect().send(b"GET")
    one.advance(6)
    last(record(408, len(b"Request Timeout: the request head did not come in time\n"), "-", "-"))

    one.connect().send(GET)
    stage.last.ends(RuntimeError())
    last(record(500, len(b"Internal Server Error\n")))

    one.connect().send(GET)
    stage.last.sends(start(), body(b"some", more=True))
    stage.last.ends()
    last(record(200, 4, mark="cut"))

    client = one.connect()
    client.send(GET)
    stage.last.sends(start(), body(b"some", more=True))
    client.eof()
    stage.last.ends()
    last(record(200, 4, mark="cut"))

    client = one.connect(capacity=10)
    client.send(GET)
    stage.last.sends(start(), body(b"some", more=True))
    one.advance(5.1)
    assert client.stream.was_reset
    assert one.records[0].duration == pytest.approx(5, abs=0.11)
    stage.last.ends()
    assert (one.records[0].status, one.records[0].bytes_sent, len(one.records)) == (200, 0, 1), (
        "not even its head went out"
    )
    assert one.records[0].mark == "cut"
    one.records.clear()

    one.connect().send(post(5))
    one.advance(5.1)
    stage.last.ends()
    assert [each.status for each in one.records] == [400]
    one.records.clear()

    client = one.connect()
    client.send(GET)
    client.reset()
    stage.last.ends()
    assert one.records == [], "there was no response"


def test_no_access_log(bench: MakeBench) -> None:
    one = bench(answering(), access=False)
    assert one.ask(GET).status == 200
    assert one.records == []
