"""Both directions: reading is paused where the application is slower, ``send()`` waits where the client is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import pairwise

import pytest

from lastcall.base.errors import ClientDisconnected, LocalProtocolError
from lastcall.base.types import Message, Receive, Scope, Send
from testing.memory import GET, OLD_GET, Bench, Stage, answering, body, get, post, start

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
    stage.last.sends(start(), body(b"x" * 60_000, more=True), body(b"x" * 10_000, more=True))
    assert stage.last.results == [None] * 3, "below the mark nobody waits"
    stage.last.sends(body(b"x", more=True))
    assert len(stage.last.results) == 3
    client.read(70_000 - 2 * LOW)
    assert len(stage.last.results) == 3, "not before it is down to the low mark"
    client.read(LOW)
    assert len(stage.last.results) == 3
    client.read(1000)
    assert stage.last.results == [None] * 4
    client.read()
    stage.last.sends(body())
    assert len(client.answer().body) == 70_001


def test_a_send_that_waits_is_woken_when_the_client_leaves(bench: MakeBench) -> None:
    stage = Stage()
    client = bench(stage).connect(capacity=0)
    client.send(GET)
    stage.last.sends(start(), body(b"x" * 100_000, more=True), body(b"x", more=True))
    assert len(stage.last.results) == 2
    client.reset()
    assert type(stage.last.results[2]) is ClientDisconnected


@pytest.mark.parametrize("why", ["the client does not read", "it is the loop's turn"])
def test_a_cancelled_send_has_sent_nothing(bench: MakeBench, why: str) -> None:
    """It waits first and queues then: whoever tries again after a timeout sends nothing twice."""
    outcome: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"x" * 100_000, more=True))
        waiting = asyncio.ensure_future(send(body(b"never", more=True)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        outcome.append(waiting.cancelled())
        await send(body(b"end"))

    client = bench(app).connect(capacity=0 if "client" in why else None)
    client.send(GET)
    assert outcome == [True]
    client.read()
    assert client.answer().body == b"x" * 100_000 + b"end"


def test_what_waits_is_bounded_for_the_connection_however_many_wait(bench: MakeBench) -> None:
    """By timeouts, or by tasks: it used to be one message more for each of them."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        if scope["path"] == "/timeouts":
            for _ in range(100):
                with suppress(TimeoutError):
                    await asyncio.wait_for(send(body(bytes(HIGH), more=True)), 0.0005)
        else:
            tasks = [asyncio.ensure_future(send(body(bytes(2 * HIGH), more=True))) for _ in range(100)]
            await asyncio.wait(tasks, timeout=1)
            assert sum(task.done() for task in tasks) == 1
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        await send(body(b"end"))

    one = bench(app)
    for path in ("/timeouts", "/tasks"):
        client = one.connect(capacity=0)
        client.send(get(path))
        one.advance(2)
        client.read()
        answer = client.answer()
        assert answer.complete
        assert len(answer.body) <= 3 * HIGH + 3


def test_several_senders_are_served_in_the_order_in_which_they_came(bench: MakeBench) -> None:
    order: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())

        async def one(number: int) -> None:
            await send(body(b"%d" % number * 30_000, more=True))
            order.append(number)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(number)) for number in range(8)]
            await asyncio.sleep(1)
            tasks[3].cancel()  # the first in the line
            tasks[5].cancel()  # one in its middle
            await asyncio.sleep(1)
            group.create_task(one(8))  # a newcomer
        await send(body())

    bench_ = bench(app)
    client = bench_.connect(capacity=0)
    client.send(GET)
    bench_.advance(3)
    assert order == [0, 1, 2], "two below the mark, and the one that crosses it"
    for _ in range(10):
        client.read(50_000)
        bench_.settle()
    client.read()
    assert order == [0, 1, 2, 4, 6, 7, 8]
    answer = client.answer()
    assert answer.complete
    assert answer.body == b"".join(b"%d" % number * 30_000 for number in order)


def test_who_comes_between_a_wake_and_its_step_is_behind(bench: MakeBench) -> None:
    """The line is not empty until the first of it has sent."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"x" * 100_000, more=True))
        first = asyncio.ensure_future(send(body(b"first", more=True)))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(client.stream.drain)  # wakes it
        await asyncio.sleep(0)
        await send(body(b"second", more=True))
        await first
        await send(body())

    client = bench(app).connect(capacity=0)
    client.send(GET)
    assert client.answer().body == b"x" * 100_000 + b"firstsecond"


def test_the_end_of_a_response_releases_who_still_waits(bench: MakeBench) -> None:
    """The last message never waits; what comes behind it is ignored, as ever."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"x" * 100_000, more=True))
        waiting = [asyncio.ensure_future(send(body(b"late", more=True))) for _ in range(3)]
        await asyncio.sleep(0)
        await send(body(b"end"))
        await asyncio.wait_for(asyncio.gather(*waiting), 1)

    one = bench(app)
    client = one.connect(capacity=0)
    client.send(GET)
    assert one.tasks.count == 0
    client.read()
    assert client.answer().body == b"x" * 100_000 + b"end"


@pytest.mark.parametrize("request_bytes", [GET, OLD_GET, get(method="HEAD")], ids=["chunked", "until close", "HEAD"])
def test_bytes_sent_are_what_was_written(bench: MakeBench, request_bytes: bytes) -> None:
    """Of a response that is cut: without what is still here. Of a whole one: its length, whoever reads it."""
    stage = Stage()
    one = bench(stage)
    client = one.connect(capacity=10_000)
    client.send(request_bytes)
    stage.last.sends(start(), body(b"x" * 50_000, more=True))
    client.reset()
    sent = 0 if request_bytes.startswith(b"HEAD") else 10_000
    assert sent - 300 < one.records[0].bytes_sent <= sent
    client = one.connect(capacity=10_000)
    client.send(request_bytes)
    stage.last.sends(start(200, (b"content-length", b"50000")), body(b"x" * 50_000))
    client.reset()
    assert one.records[1].bytes_sent == (50_000 if sent else 0)


@pytest.mark.parametrize("capacity", [0, 200, 5000])
def test_bytes_sent_of_small_chunks_are_never_too_many(bench: MakeBench, capacity: int) -> None:
    """What is still here counts as body, though most of it is framing: too few is what that comes to, and never less
    than none."""
    stage = Stage()
    one = bench(stage)
    client = one.connect(capacity=capacity)
    client.send(GET)
    stage.last.sends(start(), *[body(b"x", more=True)] * 1000)
    client.reset()
    (record,) = one.records
    assert 0 <= record.bytes_sent <= client.take().partition(b"\r\n\r\n")[2].count(b"x")


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
            await send(body(b"x" * size, more=True))
            sent[0] += 1
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


Try = Callable[[Receive, Send], Awaitable[object]]
BEGUN = (start(), body(b"some", more=True))
COMPLETE = (start(), body())
FOR_NOTHING: dict[str, tuple[tuple[Message, ...], str, Try]] = {
    "send to nobody": (BEGUN, "feed_reset", lambda _, send: send(body(b"x", more=True))),
    "send to nobody from the start": ((), "feed_reset", lambda _, send: send(start())),
    "send after the end": (COMPLETE, "", lambda _, send: send(body(b"x", more=True))),
    "send what is wrong": ((), "", lambda _, send: send({"type": "nonsense"})),
    "start with what is wrong": ((), "", lambda _, send: send(start(200, (b"no token", b"x")))),
    "send a body too early": ((), "", lambda _, send: send(body(b"x", more=True))),
    "start again": (BEGUN, "", lambda _, send: send(start())),
    "receive from nobody": ((), "feed_reset", lambda receive, _: receive()),
    "receive after the end": (COMPLETE, "", lambda receive, _: receive()),
    "receive behind a FIN": (BEGUN, "feed_eof", lambda receive, _: receive()),
}


@pytest.mark.parametrize("what", FOR_NOTHING)
def test_a_handler_that_goes_on_for_nothing_gives_the_loop_a_turn(bench: MakeBench, what: str) -> None:
    """Each of its calls is over at once; without a turn after a hundred of them nobody else would be served."""
    before, leave, once_more = FOR_NOTHING[what]
    calls = 2000
    turns = 0
    over = asyncio.Event()

    def tick() -> None:
        nonlocal turns
        if not over.is_set() and turns < calls:
            turns += 1
            asyncio.get_running_loop().call_soon(tick)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for message in before:
            await send(message)
        await asyncio.sleep(0)
        if leave:
            getattr(client.connection, leave)()
        tick()
        for _ in range(calls):
            with suppress(OSError, LocalProtocolError):
                await once_more(receive, send)
        over.set()
        raise ClientDisconnected

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
