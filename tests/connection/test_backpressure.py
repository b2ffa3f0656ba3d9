"""Both directions: reading is paused where the application is slower, ``send()`` waits where the client is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise

import pytest

from lastcall.base.errors import ClientDisconnected, LocalProtocolError
from lastcall.base.types import Message, Receive, Scope, Send
from testing.memory import GET, Bench, Stage, answering, body, get, post, start

MakeBench = Callable[..., Bench]
HIGH = 65536
LOW = 16384


# -- the request's body ------------------------------------------------------------------------------------------------


def test_reading_stops_above_the_mark_and_goes_on_when_the_application_takes_it(bench: MakeBench) -> None:
    stage = Stage()
    client = bench(stage).connect()
    client.send(post(300_000), b"x" * HIGH)
    assert client.stream.reading
    client.send(b"x")
    assert not client.stream.reading
    assert stage.last.receives() == {"type": "http.request", "body": b"x" * (HIGH + 1), "more_body": True}
    assert client.stream.reading
    client.send(b"x" * (300_000 - HIGH - 1))
    assert len(stage.last.receives()["body"]) == 300_000 - HIGH - 1
    assert stage.last.results[-1]["more_body"] is False


def test_reading_goes_on_when_the_response_is_complete_without_the_body(bench: MakeBench) -> None:
    stage = Stage()
    client = bench(stage).connect()
    client.send(post(100_000), b"x" * 70_000)
    assert not client.stream.reading
    stage.last.sends(start(), body())
    assert client.stream.reading
    client.send(b"x" * 30_000)
    assert client.answer("POST").complete
    assert client.kept_alive


# -- the response's body -----------------------------------------------------------------------------------------------


def test_send_waits_above_the_mark_until_the_client_reads(bench: MakeBench) -> None:
    stage = Stage()
    client = bench(stage).connect(capacity=0)
    client.send(GET)
    stage.last.sends(start(), body(b"x" * 60_000, more=True))
    assert stage.last.results == [None, None], "below the mark nobody waits"
    stage.last.sends(body(b"x" * 10_000, more=True))
    assert len(stage.last.results) == 2
    client.read(70_000 - 2 * LOW)
    assert len(stage.last.results) == 2, "not before it is down to the low mark"
    client.read(LOW)
    assert len(stage.last.results) == 2
    client.read(1000)
    assert stage.last.results == [None, None, None]
    client.read()
    stage.last.sends(body())
    assert len(client.answer().body) == 70_000


def test_a_send_that_waits_is_woken_when_the_client_leaves(bench: MakeBench) -> None:
    stage = Stage()
    client = bench(stage).connect(capacity=0)
    client.send(GET)
    stage.last.sends(start(), body(b"x" * 100_000, more=True))
    assert len(stage.last.results) == 1
    client.reset()
    assert type(stage.last.results[1]) is ClientDisconnected


def test_a_cancelled_send_has_sent(bench: MakeBench) -> None:
    """The message was queued when ``send()`` was called; the wait is only a courtesy."""
    outcome: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        try:
            await asyncio.wait_for(send(body(b"x" * 100_000, more=True)), 1)
        except TimeoutError:
            outcome.append("timeout")
        await send(body(b"end"))

    one = bench(app)
    client = one.connect(capacity=0)
    client.send(GET)
    one.advance(2)
    assert outcome == ["timeout"]
    client.read()
    assert client.answer().body == b"x" * 100_000 + b"end"


def test_several_senders_wait_and_all_are_woken(bench: MakeBench) -> None:
    done: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())

        async def one(number: int) -> None:
            await send(body(b"%d" % number * 30_000, more=True))
            done.append(number)

        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(one(number))
        await send(body())

    client = bench(app).connect(capacity=0)
    client.send(GET)
    assert done == [0, 1]
    client.read()
    assert sorted(done) == [0, 1, 2, 3, 4, 5]
    answer = client.answer()
    assert answer.complete
    assert len(answer.body) == 180_000


def test_a_last_message_never_waits(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage)
    client = one.connect(capacity=0)
    client.send(GET)
    stage.last.sends(start(), body(b"x" * 1_000_000))
    stage.last.ends()
    assert one.tasks.count == 0
    client.read()
    assert len(client.answer().body) == 1_000_000


def test_a_client_that_pipelines_and_does_not_read_gets_no_more_answers(bench: MakeBench) -> None:
    """Each answer is complete, so no ``send()`` waits: the next requests must."""
    one = bench(answering(b"x" * 10_000))
    client = one.connect(capacity=0)
    client.send(*[GET * 100] * 3)
    assert one.service.requests <= 8
    assert client.stream.reading, "the requests themselves are few bytes"
    client.send(GET * 2500)
    assert not client.stream.reading
    received = 0
    for _ in range(100):
        client.read(100_000)
        received += client.take().count(b"HTTP/1.1 200 OK")
    assert 900 < received < 1100
    assert one.service.requests - received <= 20
    client.read()
    received += client.take().count(b"HTTP/1.1 200 OK")
    assert one.service.requests == received == 2800
    assert client.kept_alive


def test_a_stalled_pipelining_client_is_timed_out_by_its_writes(bench: MakeBench) -> None:
    one = bench(answering(b"x" * 10_000), timeout_header=3, timeout_keep_alive=3, timeout_write=20)
    client = one.connect(capacity=0)
    client.send(GET * 100)
    one.advance(15)
    assert not client.stream.closed
    one.advance(6)
    assert client.stream.was_reset


def test_a_fin_behind_pipelined_requests_of_a_slow_reader(bench: MakeBench) -> None:
    client = bench(answering(b"x" * 30_000)).connect(capacity=0)
    client.send_last(GET * 10)
    assert not client.gone
    client.read()
    assert len(client.answers(*["GET"] * 10)) == 10
    assert client.stream.closed


# -- fairness ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "at_most"), [(1, 101), (0, 101), (1000, 67), (65_536, 2), (200_000, 1)])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_task_that_only_sends_gives_the_loop_a_turn(bench: MakeBench, size: int, at_most: int, method: str) -> None:
    """The client takes everything at once, so only fairness makes ``send()`` suspend: after 100, or after 64 KiB."""
    sent: list[int] = [0]
    seen: list[int] = []
    messages = 700 if size <= 1000 else 20

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        def tick() -> None:
            seen.append(sent[0])
            if sent[0] < messages:
                asyncio.get_running_loop().call_soon(tick)

        tick()
        await send(start())
        for _ in range(messages):
            sent[0] += 1
            await send(body(b"x" * size, more=True))
        await send(body())

    client = bench(app).connect()
    client.send(get(method=method))
    steps = [later - before for before, later in pairwise(seen)]
    assert sum(steps) == messages
    assert max(steps) <= (101 if method == "HEAD" else at_most)
    assert len(client.answer(method).body) == (0 if method == "HEAD" else size * messages)


def test_short_streams_are_never_interrupted(bench: MakeBench) -> None:
    """What is sent without suspending is one write: 99 small messages cost one turn."""
    turns: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        before = one.scheduler.flushes
        await send(start())
        for _ in range(98):
            await send(body(b"x" * 100, more=True))
        await send(body())
        turns.append(one.scheduler.flushes - before)

    one = bench(app)
    assert one.ask(GET).complete
    assert turns == [0]


def test_what_was_sent_is_on_the_wire_before_the_loop_sleeps(bench: MakeBench) -> None:
    one = bench(Stage())

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        for i in range(3):
            await send(body(b"%d" % i, more=True))
            await asyncio.sleep(1)
        await send(body())

    one = bench(app)
    client = one.connect()
    client.send(GET)
    for i in range(3):
        assert b"1\r\n%d\r\n" % i in client.take()
        one.advance(1)
    assert client.take() == b"0\r\n\r\n"


# -- handlers that never suspend ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["the client has left", "the response is complete", "a FIN"])
@pytest.mark.parametrize("call", ["send", "receive", "both", "a wrong message"])
def test_a_handler_that_goes_on_for_nothing_gives_the_loop_a_turn(bench: MakeBench, how: str, call: str) -> None:
    """Each of its calls is over at once; without a turn after a hundred of them nobody else would be served."""
    if (how, call) == ("a FIN", "send"):
        return  # is delivered
    calls = 2000
    turns = 0
    over = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        def tick() -> None:
            nonlocal turns
            if not over.is_set() and turns < calls:
                turns += 1
                asyncio.get_running_loop().call_soon(tick)

        await receive()
        if how == "the response is complete":
            await send(start())
            await send(body())
        elif call != "a wrong message":
            await send(start())
            await send(body(b"some", more=True))
        await asyncio.sleep(0)
        if how == "the client has left":
            client.connection.feed_reset()
        elif how == "a FIN":
            client.connection.feed_eof()
        tick()
        for number in range(calls):
            try:
                if call == "receive" or (call == "both" and number % 2):
                    assert (await receive())["type"] == "http.disconnect"
                elif call == "a wrong message":
                    await send({"type": "nonsense"})
                elif how != "a FIN":
                    await send(body(b"x", more=True))
                else:
                    await send(start())
            except (OSError, LocalProtocolError):
                pass
        over.set()

    client = bench(app).connect()
    client.send(GET)
    assert over.is_set()
    assert calls / 101 - 1 <= turns <= calls / 100 + 2


def test_a_receive_that_is_cancelled_in_its_turn_loses_nothing(bench: MakeBench) -> None:
    heard: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body())
        await asyncio.sleep(1)
        for _ in range(100):
            await receive()
        asking = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait({asking})
        assert asking.cancelled()
        heard.append(await receive())

    one = bench(app)
    one.connect().send(GET)
    one.advance(2)
    assert heard == [{"type": "http.disconnect"}]
