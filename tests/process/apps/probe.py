"""A raw ASGI application that says what a stop does to it, and when.

Each line on stdout is ``@SECONDS WORDS``, on the clock of ``time.monotonic()``, which all processes of a machine share.
Handlers by path, their parameters in the query; lifespans by attribute. ``id`` is what the words begin with.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl

import lastcall

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

KEPT: set[asyncio.Task[None]] = set()


def say(text: str) -> None:
    os.write(1, f"@{time.monotonic():.4f} {text}\n".encode())


class Request:
    """What the handlers below are given."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.query = dict(parse_qsl(scope["query_string"].decode(), keep_blank_values=True))
        self.id = self.query.get("id", scope["path"].strip("/"))
        self.notice = scope["extensions"]["lastcall.drain"]["notice"]

    def number(self, name: str, default: float) -> float:
        return float(self.query.get(name, default))

    def say(self, text: str) -> None:
        say(f"{self.id} {text}")

    async def start(self, length: int | None = None) -> None:
        headers = [] if length is None else [(b"content-length", str(length).encode())]
        await self.send({"type": "http.response.start", "status": 200, "headers": headers})

    async def body(self, data: bytes, *, more: bool = True) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def respond(self, data: bytes) -> None:
        await self.start(len(data))
        await self.body(data, more=False)

    async def left(self) -> None:
        """Wait for ``http.disconnect``, and say when it came."""
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.say("http.disconnect")

    @contextmanager
    def told(self) -> Iterator[None]:
        """Say how the block ends."""
        self.say("began")
        try:
            yield
        except asyncio.CancelledError:
            self.say("CancelledError")
            raise
        except OSError as error:
            self.say(type(error).__name__)
            raise
        finally:
            self.say("finally")


# Responses that begin and do not end, each of which notices the disconnect in its own way.


async def inf(request: Request) -> None:
    """A chunk each ``every`` seconds, the first after ``delay``; never reads ``receive()``. With ``deaf``, goes on when
    ``send()`` raises."""
    with request.told():
        await asyncio.sleep(request.number("delay", 0))
        await request.start()
        while True:
            try:
                await request.body(b"data: tick\n\n")
            except OSError:
                if "deaf" not in request.query:
                    raise
                request.say("send raised")
                await asyncio.sleep(1000)
            await asyncio.sleep(request.number("every", 0.1))


async def infr(request: Request) -> None:
    """The same, with a second task that waits for ``http.disconnect``, and ends it: Starlette up to HTTP 2.3."""
    ticking = asyncio.ensure_future(inf(request))
    leaving = asyncio.ensure_future(request.left())
    await asyncio.wait({ticking, leaving}, return_when=asyncio.FIRST_COMPLETED)
    for task in (ticking, leaving):
        task.cancel()
    await asyncio.wait({ticking, leaving})


async def quiet(request: Request) -> None:
    """One chunk, then it waits for something else: neither reads nor sends."""
    with request.told():
        await request.start()
        await request.body(b"first")
        await asyncio.sleep(1000)


async def returns(request: Request) -> None:
    """Begins, waits for the disconnect, and returns as if all were well. ``length`` declares more than is sent."""
    with request.told():
        await request.start(int(request.query["length"]) if "length" in request.query else None)
        await request.body(b"first")
        await request.left()
        try:
            await request.body(b"", more=False)
        except OSError as error:
            request.say(type(error).__name__)


async def fin(request: Request) -> None:
    """``n`` chunks, one each ``every`` seconds."""
    with request.told():
        await request.start()
        for number in range(int(request.number("n", 5))):
            await request.body(b"data: %d\n\n" % number)
            await asyncio.sleep(request.number("every", 0.1))
        await request.body(b"", more=False)


async def big(request: Request) -> None:
    """``n`` bytes, as fast as the client takes them."""
    with request.told():
        size = int(request.number("n", 1e7))
        await request.start(size)
        while size > 0:
            piece = min(size, 65536)
            size -= piece
            await request.body(bytes(piece), more=size > 0)


async def whole(request: Request) -> None:
    """``n`` bytes in one piece."""
    with request.told():
        await request.respond(bytes(int(request.number("n", 1e7))))


# Requests whose response has not begun.


async def slow(request: Request) -> None:
    """An answer after ``s`` seconds; ``cleanup`` seconds of work in ``finally``."""
    try:
        with request.told():
            await asyncio.sleep(request.number("s", 0.5))
    finally:
        if "cleanup" in request.query:
            await asyncio.sleep(request.number("cleanup", 0))
            request.say("cleaned up")
    await request.respond(b"slow")


async def mute(request: Request) -> None:
    """Sends nothing; waits for ``http.disconnect``."""
    with request.told():
        await request.left()


async def echo(request: Request) -> None:
    """How many bytes the body has."""
    with request.told():
        size = 0
        more = True
        while more:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                request.say("http.disconnect")
                return
            size += len(message["body"])
            more = message["more_body"]
        await request.respond(str(size).encode())


async def ok(request: Request) -> None:
    await request.respond(b"ok")


# Work beside the response.


async def bg(request: Request) -> None:
    """Work of ``s`` seconds after a complete response."""
    await request.respond(b"bg")
    with request.told():
        await asyncio.sleep(request.number("s", 0.5))
        request.say("done")


def begin(coro: Any, name: str) -> asyncio.Task[None]:
    task = asyncio.create_task(coro, name=name)
    KEPT.add(task)
    task.add_done_callback(KEPT.discard)
    return task


async def track(request: Request) -> None:
    """A task of ``s`` seconds that is tracked; with ``told``, it ends by itself at the notice."""

    async def job() -> None:
        with request.told():
            if "told" in request.query:
                await lastcall.drain_notice().wait()
            else:
                await asyncio.sleep(request.number("s", 0.5))
            request.say("done")

    lastcall.track(begin(job(), request.id))
    await request.respond(b"track")


async def untracked(request: Request) -> None:
    async def job() -> None:
        with request.told():
            await asyncio.sleep(1000)

    begin(job(), request.id)
    await request.respond(b"untracked")


# What applications get.


async def notice(request: Request) -> None:
    """What the notice says, now or after ``s`` seconds, as JSON."""
    await asyncio.sleep(request.number("s", 0))
    if "wait" in request.query:
        request.say("began")
        await request.notice.wait()
    found = {
        "stopping": request.notice.stopping,
        "is_set": request.notice.is_set(),
        "remaining": request.notice.remaining(),
        "same": lastcall.drain_notice() == request.notice,
    }
    await request.respond(json.dumps(found).encode())


async def farewell(request: Request) -> None:
    """A stream that ends at the notice with words of its own."""
    with request.told():
        await request.start()
        await request.body(b"data: hello\n\n")
        await lastcall.drain_notice().wait()
        request.say("notice")
        await request.body(b"event: bye\n\n", more=False)


async def callback(request: Request) -> None:
    """The same with a callback and a queue."""
    queue: asyncio.Queue[bytes] = asyncio.Queue()

    def noticed() -> None:
        request.say("notice")
        queue.put_nowait(b"event: bye\n\n")

    request.notice.add_callback(noticed)
    with request.told():
        await request.start()
        await request.body(b"data: hello\n\n")
        await request.body(await queue.get(), more=False)


async def threads(request: Request) -> None:
    """A thread that looks at the notice; the answer is what it saw, and in how many looks."""

    def look() -> bytes:
        looks = 0
        while not request.notice.is_set():
            looks += 1
            time.sleep(0.01)
        return json.dumps({"looks": looks, "remaining": request.notice.remaining()}).encode()

    request.say("began")
    await request.respond(await asyncio.to_thread(look))


async def choose(request: Request) -> None:
    """A stream that says ``close`` or ``finish`` for itself, at once or ``late`` seconds after the notice; then a chunk
    each tenth of a second, for ``s`` seconds."""
    await request.start()
    await request.body(b"data: hello\n\n")
    with request.told():
        if "late" in request.query:
            await request.notice.wait()
            await asyncio.sleep(request.number("late", 0))
        request.say("chooses")
        getattr(request.notice, request.query["say"])()
        for _ in range(int(request.number("s", 1) * 10)):
            await request.body(b"data: tick\n\n")
            await asyncio.sleep(0.1)
        await request.body(b"", more=False)


async def poller(request: Request) -> None:
    """What sse-starlette does: looks at ``should_exit`` of the object whose method is the signal handler."""
    with request.told():
        handler = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
        await request.start()
        await request.body(b"data: hello\n\n")
        try:
            while not getattr(handler, "should_exit", False):
                await asyncio.sleep(0.01)
        finally:
            request.say(f"should_exit {getattr(handler, 'should_exit', None)}")
        await request.body(b"event: bye\n\n", more=False)


# What applications should not do.


async def stubborn(request: Request) -> None:
    """Swallows every CancelledError; with ``body``, after its response has begun, and goes on sending."""
    request.say("began")
    if "body" in request.query:
        await request.start()
        await request.body(b"first")
    while True:
        try:
            await asyncio.sleep(0.05)
            if "body" in request.query:
                await request.body(b"more")
        except asyncio.CancelledError:
            request.say("CancelledError")
        except OSError:
            continue


async def block(request: Request) -> None:
    """Blocks the event loop for ``s`` seconds; with ``delay``, so many seconds after it was called."""
    if "delay" in request.query:
        request.say("waits")
        await asyncio.sleep(request.number("delay", 0))
    request.say("began")
    time.sleep(request.number("s", 1))
    request.say("went on")
    await request.respond(b"block")


async def spawn(request: Request) -> None:
    """Tasks for ever: each one leaves another behind, also when it is cancelled. With ``tracked``, it has that one
    tracked; with ``late``, only when it has begun."""

    async def again(number: int) -> None:
        try:
            await asyncio.sleep(0.05)
        finally:
            task = begin(again(number + 1), f"{request.id}-{number + 1}")
            if "late" in request.query:
                await asyncio.sleep(0)
            if "tracked" in request.query:
                lastcall.track(task)

    task = begin(again(0), f"{request.id}-0")
    if "tracked" in request.query:
        lastcall.track(task)
    await request.respond(b"spawn")


async def replace(request: Request) -> None:
    """Puts a handler of its own in the place of the server's; with ``chain``, one that calls it."""
    earlier = signal.getsignal(signal.SIGTERM)

    def handler(number: int, frame: Any) -> None:
        say("the application's own handler")
        if "chain" in request.query:
            assert callable(earlier)
            earlier(number, frame)

    signal.signal(signal.SIGTERM, handler)
    await request.respond(b"replace")


async def leave(request: Request) -> None:
    sys.exit(7)


HANDLERS = {
    handler.__name__: handler
    for handler in (
        *(inf, infr, quiet, returns, fin, big, whole, slow, mute, echo, ok, bg, track, untracked),
        *(notice, farewell, callback, threads, choose, poller, stubborn, block, spawn, replace, leave),
    )
} | {"plain": fin}


# Lifespans.


async def orderly(receive: Receive, send: Send) -> None:
    await receive()
    # Outside of any request: this is the notice of the server as a whole.
    lastcall.drain_notice().add_callback(lambda: say("the server's notice"))
    await send({"type": "lifespan.startup.complete"})
    await receive()
    say("shutdown began")
    await asyncio.sleep(float(os.environ.get("SHUTDOWN", "0")))
    say("shutdown ended")
    await send({"type": "lifespan.shutdown.complete"})


async def failing(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    say("shutdown began")
    await send({"type": "lifespan.shutdown.failed", "message": "the database did not close"})


async def raising(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    say("shutdown began")
    raise RuntimeError("the pool would not close")


async def replacing(receive: Receive, send: Send) -> None:
    """Replaces the handlers in its start-up, as some programs do."""
    signal.signal(signal.SIGTERM, lambda *_: say("the application's own handler"))
    await orderly(receive, send)


def app_with(lifespan: Callable[[Receive, Send], Awaitable[None]]) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
        else:
            request = Request(scope, receive, send)
            await HANDLERS.get(scope["path"].split("/")[1], ok)(request)

    return app


app = app_with(orderly)
app_failing = app_with(failing)
app_raising = app_with(raising)
app_replacing = app_with(replacing)

atexit.register(say, "atexit")
