"""One client cannot own the loop, however much it pipelines; and what the drain orders of a connection."""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate

import pytest

from lastcall.base.types import Receive, Scope, Send
from lastcall.drain.ladder import Phase
from testing.memory import EPOCH, GET, Bench, Stage, answering, body, get, post, start

MakeBench = Callable[..., Bench]


def test_a_slow_handler_gives_others_a_turn_after_every_pipelined_request(bench: MakeBench) -> None:
    """2 ms of one turn are over with the first of them: its answer goes out before the second one starts."""
    order: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        order.append(scope["path"])
        clock.move(0.005)
        await send(start(200, (b"content-length", b"0")))
        await send(body())

    class Clock:
        def __init__(self) -> None:
            self.extra = 0.0

        def move(self, seconds: float) -> None:
            self.extra += seconds

    clock = Clock()
    one = bench(app, clock=lambda loop: loop.time() + clock.extra)
    mine, other = one.connect(), one.connect()

    def both() -> None:
        mine.connection.feed(get("/1") + get("/2") + get("/3"))
        other.connection.feed(get("/other"))

    one.loop.call(both)
    assert order.index("/other") == 1
    assert sorted(order) == ["/1", "/2", "/3", "/other"]
    assert len(mine.answers("GET", "GET", "GET")) == 3


def test_while_refusing_a_request_gets_503_and_no_task(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage)
    one.service.drain.phase = Phase.CANCELLING
    one.service.drain.refusing = True
    answer = one.ask(GET)
    assert (answer.status, answer["retry-after"], answer["connection"]) == (503, b"1", b"close")
    assert stage.calls == []
    assert one.tasks.total == 0


def test_an_idle_connection_is_closed_at_once_and_without_linger(bench: MakeBench) -> None:
    one = bench(answering())
    fresh, used = one.connect(), one.connect()
    used.send(GET)
    used.take()
    for client in (fresh, used):
        one.loop.call(client.connection.close_idle)
        assert client.stream.fin_sent
        assert client.stream.closed
        assert not client.stream.was_reset


def test_what_has_arrived_is_served_before_an_idle_close(bench: MakeBench) -> None:
    one = bench(answering())
    client = one.connect()
    one.service.drain.phase = Phase.DRAINING
    client.stream.arriving = GET
    one.loop.call(client.connection.close_idle)
    answer = client.answer()
    assert (answer.status, answer["connection"]) == (200, b"close")


def test_abandoned_before_its_response_a_request_is_answered_503(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage)
    client = one.connect()
    client.send(GET)
    (entry,) = one.tasks.snapshot()

    def abandon() -> None:
        entry.abandon()
        client.connection.flush_and_close()

    one.loop.call(abandon)
    answer = client.answer()
    assert (answer.status, answer["retry-after"], answer["connection"]) == (503, b"1", b"close")
    assert not client.stream.was_reset
    stage.last.sends(start(), body(b"too late"))
    assert client.take() == b""


def test_abandoned_within_its_response_a_request_is_cut(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage)
    client = one.connect()
    client.send(GET)
    stage.last.sends(start(), body(b"part", more=True))
    (entry,) = one.tasks.snapshot()

    def abandon() -> None:
        entry.abandon()
        client.connection.flush_and_close()

    one.loop.call(abandon)
    answer = client.answer()
    assert (answer.status, answer.body, answer.complete) == (200, b"part", False)


def test_the_date_is_fresh_however_long_a_handler_slept(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage)
    client = one.connect()
    client.send(GET)
    one.advance(3600)
    stage.last.sends(start(), body(b""))
    assert client.answer()["date"] == formatdate(EPOCH + one.loop.time(), usegmt=True).encode()


def test_default_headers_are_on_the_servers_own_answers_too(bench: MakeBench) -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise SystemExit(1)

    one = bench(failing, headers=((b"x-default", b"1"),), limit_body=10)
    assert [one.ask(GET)["x-default"], one.ask(post(11))["x-default"], one.ask(b"?\r\n")["x-default"]] == [b"1"] * 3


@pytest.mark.parametrize("method", ["head", "Get", "oPTIONS", "connect"])
def test_a_known_method_in_another_case_is_refused(bench: MakeBench, method: str) -> None:
    """To whoever sits in front of us ``head`` is an unknown method, whose answer has a body (RFC 9110 9.1)."""
    one = bench(answering())
    client = one.connect()
    client.send(get(method=method) + GET)
    answer = client.answer()
    assert (answer.status, answer["connection"]) == (400, b"close")


def test_an_unknown_method_reaches_the_application_in_upper_case(bench: MakeBench) -> None:
    stage = Stage()
    bench(stage).connect().send(get(method="purge"))
    assert stage.last.scope["method"] == "PURGE"


def test_the_asterisk_has_no_root_path(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage, root_path="/api")
    one.connect().send(get("*", method="OPTIONS"))
    assert (stage.last.scope["path"], stage.last.scope["raw_path"]) == ("*", b"*")
    one.connect().send(get("/x"))
    assert stage.last.scope["path"] == "/api/x"
