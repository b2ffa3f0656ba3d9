"""``--asgi-spec 2.3``: the scope says so, and a ``send()`` after the client has left does nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from lastcall.base.errors import ClientDisconnected
from lastcall.base.types import Receive, Scope, Send
from testing.memory import GET, Bench, answering, body, start
from testing.running import respond, running

MakeBench = Callable[..., Bench]
CHUNK = b"x" * 100_000


@pytest.mark.parametrize("version", ["2.3", "2.5"])
def test_the_scope_has_the_version_that_was_asked_for(version: str) -> None:
    seen: list[dict[str, str]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(dict(scope["asgi"]))
        scope["asgi"].clear()  # each has its own
        await respond(send)

    with running(app, asgi_spec=version) as server, server.peer() as peer:
        assert [peer.get().status for _ in range(2)] == [200, 200]
    assert seen == [{"version": "3.0", "spec_version": version}] * 2


@pytest.mark.parametrize("before", ["nothing", "the head", "a chunk", "too much"])
def test_at_2_3_what_is_sent_after_the_client_has_left_is_ignored(bench: MakeBench, before: str) -> None:
    done: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if before != "nothing":
            await send(start())
        if before == "a chunk":
            await send(body(b"x", more=True))
        if before == "too much":
            await send(body(CHUNK, more=True))  # waits for its client, and is woken when that leaves
        else:
            while (await receive())["type"] != "http.disconnect":
                pass
        if before == "nothing":
            await send(start())
        for _ in range(3):
            await send(body(CHUNK, more=True))
        await send(body())
        done.append(before)

    one = bench(app, asgi_spec="2.3")
    client = one.connect(capacity=1000)
    client.send(GET)
    client.reset()
    one.advance(0.1)
    assert done == [before]
    assert one.tasks.count == 0


def test_at_2_5_it_raises(bench: MakeBench) -> None:
    raised: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        try:
            while True:
                await send(body(CHUNK, more=True))
        except ClientDisconnected as exc:
            raised.append(exc)

    one = bench(app, asgi_spec="2.5")
    client = one.connect(capacity=1000)
    client.send(GET)
    client.reset()
    assert len(raised) == 1


def test_at_2_3_a_task_that_only_sends_into_the_void_leaves_turns_to_others(bench: MakeBench) -> None:
    turns: list[int] = []
    sent: list[int] = []

    def turn() -> None:
        turns.append(len(sent))
        if len(sent) < 1000:
            one.loop.call_soon(turn)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        while (await receive())["type"] != "http.disconnect":
            pass
        one.loop.call_soon(turn)
        for number in range(1000):
            await send(body(b"x", more=True))
            sent.append(number)

    one = bench(app, asgi_spec="2.3")
    client = one.connect()
    client.send(GET)
    client.reset()
    assert len(sent) == 1000
    assert max(after - before for before, after in itertools.pairwise(turns)) <= 101


def test_at_2_3_a_mistake_is_one_as_long_as_the_client_is_there(bench: MakeBench) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(Exception, match="unknown ASGI message"):
            await send({"type": "http.response.nonsense"})
        await answering()(scope, receive, send)

    assert bench(app, asgi_spec="2.3").ask(GET).status == 200
