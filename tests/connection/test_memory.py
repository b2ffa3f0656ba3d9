"""What is kept, and for how long: idle connections hold no buffers, finished exchanges nothing at all."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lastcall.base.types import ASGIApp, Message, Receive, Scope, Send
from testing.memory import GET, Bench, answering, body, echo, get, post, start

MakeBench = Callable[..., Bench]


class Marker:
    """Something that an application holds for as long as its request lasts."""


@pytest.fixture(scope="module", autouse=True)
def frozen() -> Iterator[None]:
    """What was there before is not looked at again and again: the collector sees what these tests make."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def no_gc() -> Iterator[None]:
    """Reference counts alone must do."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def alive(kind: str) -> int:
    return sum(type(thing).__name__ == kind for thing in gc.get_objects())


async def normal(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send(start())
    await send(body(b"ok"))


async def listening(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    listener: asyncio.Task[Message] = asyncio.create_task(receive())  # type: ignore[arg-type]
    await asyncio.sleep(0)
    await send(start())
    await send(body(b"ok"))
    await listener


async def polling(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 0.1)
    await send(start())
    await send(body(b"ok"))


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError


async def cut(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())
    await send(body(b"x", more=True))
    raise RuntimeError


async def exiting(scope: Scope, receive: Receive, send: Send) -> None:
    sys.exit(3)


async def background(scope: Scope, receive: Receive, send: Send) -> None:
    await normal(scope, receive, send)
    await asyncio.sleep(0.1)


async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def misusing(scope: Scope, receive: Receive, send: Send) -> None:
    await send(body(b"before the start"))


@pytest.mark.parametrize(
    "app",
    [normal, listening, polling, failing, cut, exiting, background, waiting, misusing],
    ids=lambda app: app.__name__,
)
@pytest.mark.parametrize("leave", ["stay", "eof", "reset"])
@pytest.mark.parametrize("requests", [GET, post(2) + b"ok", GET * 3], ids=["get", "post", "pipelined"])
@pytest.mark.usefixtures("no_gc")
def test_no_reference_cycle_keeps_a_finished_exchange(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch, app: ASGIApp, leave: str, requests: bytes
) -> None:
    monkeypatch.setattr(logging.getLogger("lastcall.error"), "disabled", True)  # a logged traceback holds its frames
    markers: list[weakref.ref[Marker]] = []

    async def marked(scope: Scope, receive: Receive, send: Send) -> None:
        scope["marker"] = marker = Marker()
        markers.append(weakref.ref(marker))
        await app(scope, receive, send)

    one = bench(marked)
    client = one.connect()
    client.send(requests)
    one.advance(1)
    if app is waiting or leave == "reset":
        client.reset()  # a FIN before the response is no reason to leave it
    elif leave == "eof":
        client.eof()
    one.advance(1)
    assert one.tasks.count == 0
    assert markers
    assert [marker() for marker in markers] == [None] * len(markers)
    assert alive("HTTP1Cycle") == 0
    if client.stream.closed:
        del client
        assert (alive("HTTP1Connection"), alive("MemoryStream")) == (0, 0)


@pytest.mark.usefixtures("no_gc")
def test_the_scope_goes_when_the_application_drops_it(bench: MakeBench) -> None:
    """The server needs nothing of it any more, so a long response does not pin what an upload left behind."""
    seen: list[weakref.ref[Marker]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["marker"] = marker = Marker()
        seen.append(weakref.ref(marker))
        del scope, marker
        await send(start())
        await send(body(b"x", more=True))
        await asyncio.sleep(10)
        await send(body())

    one = bench(app)
    client = one.connect()
    client.send(GET)
    assert seen[0]() is None
    one.advance(20)
    assert client.answer().complete


def data_segment() -> int:
    """Bytes of this process's private writable memory (Linux)."""
    found = re.search(r"^VmData:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="ASan's allocator gives nothing back")
@pytest.mark.parametrize("traffic", ["nothing", "requests", "a body in pieces", "a large answer"])
def test_an_idle_connection_holds_no_buffers(bench: MakeBench, traffic: str) -> None:
    """A buffer's smallest block is 16 KiB: with one each, 2000 connections would hold 32 MB."""
    one = bench(echo)
    count = 2000
    clients = []
    before = 0
    for number in range(count + 100):
        if number == 100:
            before = data_segment()
        client = one.connect()
        if traffic == "requests":
            client.send(GET[:20], GET[20:] + GET[:5], GET[5:])
        elif traffic == "a body in pieces":
            client.send(post(20) + b"0123456789", b"0123456789")
        elif traffic == "a large answer":
            client.send(post(50_000) + b"x" * 50_000)
        client.take()
        clients.append(client)
    assert all(client.kept_alive for client in clients)
    assert (data_segment() - before) / count < 8 * 1024


def blocks_after(act: Callable[[], object], times: int) -> int:
    """How many more blocks Python's allocator has lent out after ``times`` calls; the first tenth is for warming up."""
    for _ in range(times // 10):
        act()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(times):
        act()
    gc.collect()
    return sys.getallocatedblocks() - before


@pytest.mark.parametrize(
    "app", [normal, listening, answering(), echo], ids=["normal", "listening", "answering", "echo"]
)
def test_ten_thousand_requests_leave_nothing_behind(bench: MakeBench, app: ASGIApp) -> None:
    one = bench(app, access=False)
    client = one.connect()
    requests = get("/some/path?query", "Cookie: a=b") + post(5) + b"hello"

    def exchange() -> None:
        client.send(requests)
        assert client.take().startswith(b"HTTP/1.1 200 OK\r\n")

    assert abs(blocks_after(exchange, 5000)) < 100


def test_thousands_of_connections_leave_nothing_behind(bench: MakeBench) -> None:
    one = bench(normal, access=False)

    def exchange() -> None:
        client = one.connect()
        client.send(get("/", "Connection: close"))
        client.eof()
        assert client.stream.closed

    assert abs(blocks_after(exchange, 2000)) < 100


def test_polling_for_a_disconnect_leaves_nothing_behind(bench: MakeBench) -> None:
    """An endless stream that looks for a disconnect once a second must not grow by a future a second."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        while True:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(receive(), 1)

    one = bench(app, access=False)
    client = one.connect()
    client.send(GET)
    assert abs(blocks_after(lambda: one.advance(1), 2000)) < 100
