"""Behind an answer that closes: an upload that still comes is read and dropped, so that no RST eats the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest

from lastcall.base.types import Receive, Scope, Send
from lastcall.drain.ladder import Budgets, Phase
from testing.draining import StoppableBench
from testing.memory import GET, Bench, Client, Stage, answering, body, get, post, start

MakeBench = Callable[..., Bench]
MakeStoppable = Callable[..., StoppableBench]
MEBI = 1024 * 1024
UPLOAD = 5.0
"""Seconds for which an upload is read on."""
SHORT = 1.0
"""Seconds of a lingering close where the request has come as a whole."""
G, C = 20.0, 2.0


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    raise SystemExit(1)


async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer before the body has come, as an application does that looks at the head alone."""
    await send(start(403, (b"content-length", b"0")))
    await send(body())


def refused(bench: MakeBench, why: str) -> tuple[Bench, Client, int]:
    """A client in the middle of a large upload, which has been answered, and the answer's status."""
    head = post(500 * MEBI)
    if why == "limit-body":
        one = bench(answering(), limit_body=MEBI)
        client = one.connect()
        client.send(head)
        return one, client, 413
    if why == "limit-body, chunked":
        one = bench(Stage(), limit_body=MEBI)
        client = one.connect()
        client.send(get("/", "Transfer-Encoding: chunked", method="POST") + b"%x\r\n" % (2 * MEBI))
        return one, client, 413
    if why == "limit-concurrency":
        one = bench(Stage(), limit_concurrency=1)
        one.connect().send(GET)
        client = one.connect()
        client.send(head)
        return one, client, 503
    if why == "timeout-body":
        one = bench(Stage(), timeout_body=3)
        client = one.connect()
        client.send(head)
        one.advance(3.06)
        return one, client, 400
    one = bench({"a failure": failing, "an early answer": refusing}[why])
    client = one.connect()
    client.send(head, b"x" * 70_000)  # more than is worth a kept-alive connection
    return one, client, {"a failure": 500, "an early answer": 403}[why]


REASONS = ["limit-body", "limit-body, chunked", "limit-concurrency", "timeout-body", "a failure", "an early answer"]


@pytest.mark.parametrize("why", REASONS)
def test_an_upload_that_still_comes_is_read_for_some_seconds(bench: MakeBench, why: str) -> None:
    one, client, status = refused(bench, why)
    assert client.answer("POST").status == status
    assert client.stream.fin_sent
    for _ in range(9):
        one.advance(0.5)
        assert client.stream.reading
        assert not client.stream.closed
        client.send(b"x" * 65536)
    one.advance(UPLOAD - 4.5 + SHORT + 0.06)
    assert client.stream.closed


@pytest.mark.parametrize("why", REASONS)
def test_when_its_client_has_ended_it_is_over(bench: MakeBench, why: str) -> None:
    one, client, _ = refused(bench, why)
    one.advance(0.5)
    client.send(b"x" * 65536)
    client.eof()
    assert client.stream.closed
    assert not client.stream.was_reset


@pytest.mark.parametrize(("limit", "most"), [(None, 64), (MEBI, 64), (100 * MEBI, 100)])
def test_what_is_read_is_bounded(bench: MakeBench, limit: int | None, most: int) -> None:
    """By ``--limit-body``, or 64 MiB if that is more: with a small limit a 413 would be lost in each large upload."""
    one = bench(refusing, limit_body=limit)
    client = one.connect()
    client.send(get("/", "Transfer-Encoding: chunked", "Connection: close", method="POST"))
    assert client.answer("POST").status == 403
    for _ in range(most - 1):
        client.send(bytes(MEBI))
    assert not client.stream.closed
    client.send(bytes(MEBI), b"x")
    assert client.stream.closed


def test_a_client_that_does_not_read_the_answer_is_not_read_for_ever(bench: MakeBench) -> None:
    """The answer does not fit into its window, so there is no FIN yet; the time for writing bounds it then."""
    one = bench(answering(bytes(100_000), 403), timeout_write=5)
    client = one.connect(capacity=1000)
    client.send(post(500 * MEBI, "Connection: close"))
    assert client.stream.reading
    for _ in range(65):
        client.send(bytes(MEBI))
    assert not client.stream.reading
    assert not client.stream.closed
    client.read()
    assert client.answer("POST").complete
    one.advance(UPLOAD + 0.06)
    assert client.stream.closed


def test_an_answer_to_a_large_upload_whose_reading_was_paused_is_read_on(bench: MakeBench) -> None:
    """A client that writes until it has written everything would not read, and we would not read either."""
    stage = Stage()
    one = bench(stage)
    client = one.connect(capacity=1000)
    client.send(post(500 * MEBI), b"x" * 70_000)
    assert not client.stream.reading
    stage.last.sends(start(403, (b"connection", b"close")), body(bytes(10_000)))
    assert client.stream.reading


def test_a_request_that_has_come_as_a_whole_gets_no_more_than_a_second(bench: MakeBench) -> None:
    one = bench(answering())
    client = one.connect()
    client.send(get("/", "Connection: close"))
    one.advance(0.5)
    client.send(b"x")
    one.advance(SHORT - 0.5 + 0.06)
    assert client.stream.closed


# -- in a stop ---------------------------------------------------------------------------------------------------------


def test_the_503_at_the_end_of_the_grace_lingers(stoppable: MakeStoppable) -> None:
    """The ladder waits for it within the time for cancelling; lifespan.shutdown comes after."""
    one = stoppable(Stage())
    client = one.connect()
    client.send(post(500 * MEBI))
    one.order()
    one.reach(G)
    assert client.answer("POST").status == 503
    assert client.stream.fin_sent
    one.reach(G + C - 0.5)
    client.send(b"x" * 65536)
    assert one.phase is Phase.CANCELLING
    assert not client.stream.closed
    client.eof()
    assert client.stream.closed
    report = one.finish()
    assert report.seconds < G + C


def test_what_lingers_is_bounded_by_the_budget(stoppable: MakeStoppable) -> None:
    one = stoppable(Stage(), budgets=Budgets(cancel=1.0))
    client = one.connect()
    client.send(post(500 * MEBI))
    one.order()
    report = one.finish()
    assert client.stream.closed
    assert report.seconds == pytest.approx(G + 1.0, abs=0.05)


def test_nobody_waits_for_a_client_that_does_not_read(stoppable: MakeStoppable) -> None:
    """Its answer is complete, and stuck: that is not ours to wait for once everything is cancelled."""
    one = stoppable(answering(bytes(100_000)))
    client = one.connect(capacity=1000)
    client.send(GET)
    one.order()
    one.force()
    assert one.finish().seconds < 0.1
    assert client.stream.was_reset


def test_a_503_for_abandoned_work_is_not_reset_for_what_has_come_of_an_upload(stoppable: MakeStoppable) -> None:
    """No time is left to linger, but what is there is read: unread bytes make a RST of the close."""

    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(2):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(1e6)

    one = stoppable(stubborn)
    client = one.connect()
    client.send(post(500 * MEBI), b"x" * 70_000)
    one.order()
    one.reach(G - 0.001)
    client.stream.arriving = b"x" * 65536
    one.finish()
    assert client.stream.arriving == b""
    assert client.answer("POST").status == 503
