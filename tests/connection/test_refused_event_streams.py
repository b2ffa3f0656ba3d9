"""An EventSource that is refused: a 4xx or 5xx ends it for good in every browser, so it is told when to come again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress

import pytest

from lastcall.base.types import Receive, Scope, Send
from testing.draining import StoppableBench
from testing.memory import Answer, Client, Stage, get, post

MakeStoppable = Callable[..., StoppableBench]

ACCEPT = "Accept: text/event-stream"
EVENTS = get("/events", ACCEPT)
F = 1.0  # the farewell
G = 20.0
C = 2.0


def retry(answer: Answer) -> int:
    """The milliseconds that an answer names, which must be nothing else."""
    assert (answer.status, answer["content-type"], answer["cache-control"]) == (200, b"text/event-stream", b"no-store")
    assert answer["content-length"] == str(len(answer.body)).encode()
    assert answer["connection"] == b"close"
    assert answer.complete
    found = re.fullmatch(rb"retry: (\d+)\n\n", answer.body)
    assert found is not None, answer.body
    return int(found[1])


def test_at_a_limit_it_is_told_to_wait_some_seconds(stoppable: MakeStoppable) -> None:
    """At random, so that all those who were refused do not come back together."""
    one = stoppable(Stage(), limit_concurrency=1)
    one.connect().send(get())
    times = {retry(one.ask(EVENTS)) for _ in range(200)}
    assert min(times) >= 3000
    assert max(times) <= 8000
    assert len(times) > 100


def test_the_access_log_tells_it_from_a_stream(stoppable: MakeStoppable) -> None:
    """Its status says nothing of it; that of the others does."""
    one = stoppable(Stage(), limit_concurrency=1)
    one.connect().send(get())
    one.ask(EVENTS)
    one.ask(get())
    assert [(record.status, record.mark) for record in one.records] == [(200, "refused"), (503, None)]


def test_others_get_503_at_a_limit(stoppable: MakeStoppable) -> None:
    one = stoppable(Stage(), limit_concurrency=1)
    one.connect().send(get())
    for request, method in (
        (get("/events", "Accept: */*"), "GET"),
        (get("/events", ACCEPT, method="HEAD"), "HEAD"),
        (post(0, ACCEPT), "POST"),
    ):
        answer = one.ask(request, method=method)
        assert (answer.status, answer["retry-after"]) == (503, b"1")


REFUSALS: dict[str, Callable[[StoppableBench, Client], object]] = {
    "by policy, before it had begun": lambda one, _: one.reach(F),
    "cancelled at the end of the grace": lambda one, _: one.reach(G),
    "by a second signal": lambda one, _: one.force(),
}


@pytest.mark.parametrize("how", REFUSALS)
def test_in_a_stop_it_is_told_to_come_again_in_a_second(stoppable: MakeStoppable, how: str) -> None:
    """Elsewhere: the connection is closed, and so are the listeners."""
    stage = Stage()
    one = stoppable(stage, close=("*",) if "policy" in how else ())
    client = one.connect()
    client.send(EVENTS)
    one.order()
    REFUSALS[how](one, client)
    assert retry(client.answer()) == 1000
    assert client.gone
    stage.last.ends()
    one.finish()


def test_one_that_comes_while_the_stop_cancels_is_told_so_too(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, limit_concurrency=1)
    late, held = one.connect(), one.connect()
    held.send(post(0))
    one.order()
    one.reach(0.5)
    late.send(b"GET /events HTTP/1.1\r\nHost: a\r\n")  # begun in the linger, so it may be finished

    def force() -> None:
        one.controller.give_order("SIGTERM", 2)
        one.loop.call_soon(late.connection.feed, f"{ACCEPT}\r\n\r\n".encode())

    one.loop.call(force)
    assert retry(late.answer()) == 1000
    assert len(stage.calls) == 1
    one.finish()


def test_one_whose_task_is_abandoned_is_told_so_too(stoppable: MakeStoppable) -> None:
    async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(1e6)
        await asyncio.sleep(1e6)

    one = stoppable(deaf)
    client = one.connect()
    client.send(EVENTS)
    one.order()
    one.reach(G + C)
    assert retry(client.answer()) == 1000
    assert one.finish().abandoned == 1


def test_by_option_it_gets_503_like_all_others(stoppable: MakeStoppable) -> None:
    one = stoppable(Stage(), limit_concurrency=1, refuse_event_streams="503")
    one.connect().send(get())
    assert one.ask(EVENTS).status == 503


def test_a_failure_is_no_refusal(stoppable: MakeStoppable, caplog: pytest.LogCaptureFixture) -> None:
    """A 500 says that the application is broken: nobody is to come again and again."""
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    client.send(EVENTS)
    stage.last.ends()
    assert client.answer().status == 500


def test_headers_of_the_options_are_added(stoppable: MakeStoppable) -> None:
    """A browser of another origin would not get to see the answer, and give up, without those of CORS."""
    one = stoppable(Stage(), limit_concurrency=1, headers=((b"access-control-allow-origin", b"*"),))
    one.connect().send(get())
    answer = one.ask(EVENTS)
    assert retry(answer)
    assert answer["access-control-allow-origin"] == b"*"
