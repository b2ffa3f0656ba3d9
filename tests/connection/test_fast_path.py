"""When a turn may look for more requests at once, and when the event loop must have its turn first."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from lastcall.base.types import Receive, Scope, Send
from testing.memory import Bench, body, get, start

MakeBench = Callable[..., Bench]
EAGER = sys.version_info >= (3, 12)  # before that each task waits for the loop, which has to have its turn then


def ask(bench: MakeBench, before: Callable[[Scope, Receive, Send], object] | None) -> bool:
    """Whether nothing waits for the loop, as a request sees it that comes while ``before`` is under way."""
    seen: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/before":
            assert before is not None
            await before(scope, receive, send)  # type: ignore[misc]
            return
        seen.append(one.scheduler.nothing_waits)
        await send(start(200, (b"content-length", b"0")))
        await send(body())

    one = bench(app)
    if before is not None:
        one.connect().send(get("/before"))
    assert one.connect().bench.ask(get("/")).status == 200
    return seen[0]


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())
    await send(body(b"a", more=True))
    await asyncio.sleep(3600)


async def unanswered(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(3600)


async def background(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200, (b"content-length", b"0")))
    await send(body())
    await asyncio.sleep(3600)


def test_with_nothing_else_under_way_nothing_waits(bench: MakeBench) -> None:
    assert ask(bench, None) is EAGER


def test_one_long_stream_does_not_switch_the_fast_path_off(bench: MakeBench) -> None:
    assert ask(bench, stream) is EAGER


def test_nor_does_background_work(bench: MakeBench) -> None:
    assert ask(bench, background) is EAGER


def test_a_request_that_waits_for_its_answer_gives_the_loop_its_turn(bench: MakeBench) -> None:
    assert not ask(bench, unanswered)


def test_what_the_turn_itself_has_woken_gives_the_loop_its_turn(bench: MakeBench) -> None:
    """A stream that waits in ``receive()`` for its client's body: the bytes wake it, and it has a step to do."""
    seen: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"a", more=True))
        await receive()
        await receive()
        await send(body())

    one = bench(app)
    client = one.connect()
    client.send(get("/", "Content-Length: 2", method="POST"))
    client.send(b"x")
    assert one.scheduler.nothing_waits is False, "as of the turn that brought the byte"
    one.connect()
    seen.append(one.scheduler.nothing_waits)
    assert seen == [True], "a turn later it is served"
    client.send(b"y")
    assert client.answer("POST").complete
