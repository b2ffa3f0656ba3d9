"""What the judged servers serve: one route for each way in which an application can meet a shutdown.

It writes what it sees, see ``events``. WHO is the path, with ``:ID`` for a request with ``?id=ID``, or ``worker-PID``
for the lifespan.

Routes, with their query parameters (``s`` and other times are seconds):

========== ======================= =====================================================================================
/ok                                answers at once
/pid                               answers with its process id
/slow      s=1, cleanup=0          answers after s; cancelled, it needs ``cleanup`` for its ``finally``
/block     s=1                     blocks the event loop for s, then answers
/inf       every=0.2               sends a chunk each time, for ever, and never calls ``receive()``
/infr      every=0.2               the same, but waits for ``http.disconnect`` too, and ends then
/fin       n=5, every=0.2          sends n chunks and ends
/notice    every=0.2               as /infr, and ends with a last chunk at the server's drain notice, if it has any
/mute                              begins a response and waits for ``http.disconnect``
/wait                              waits for ``http.disconnect``, and answers nothing
/bg        s=1                     answers, then works for s
/upload                            reads the body, answers with its length
/big       kib=8192                sends that much as fast as the server takes it
/swallow   s=3600                  waits for s and ignores every cancel
/ws        every=0                 a WebSocket that echoes, or sends a message each time; with ``bye``: says farewell
========== ======================= =====================================================================================

``$DRILL_STARTUP`` and ``$DRILL_SHUTDOWN`` let the lifespan misbehave: ``hang``, ``slow:SECONDS``, ``raise``,
``failed``, ``block:SECONDS``, and ``stagger:SECONDS``: as slow, and three times as slow in all workers but one.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from .events import drain_extension, note

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .events import Message, Receive, Send

    Route = Callable[["Request"], Awaitable[None]]


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """The application."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await Request(scope, receive, send).run(websocket)
    else:
        request = Request(scope, receive, send)
        await request.run(ROUTES.get(scope["path"], missing))


# lifespan


async def lifespan(receive: Receive, send: Send) -> None:
    """The lifespan protocol, with the misbehaviour that the environment asks for."""
    who = f"worker-{os.getpid()}"
    try:
        while True:
            message = await receive()
            phase = message["type"].rpartition(".")[2]
            note("lifespan-" + phase, who)
            await misbehave(phase, os.environ.get("DRILL_" + phase.upper(), ""), send)
            note("ready" if phase == "startup" else "lifespan-end", who)
            await send({"type": message["type"] + ".complete"})
            if phase == "shutdown":
                return
    except asyncio.CancelledError:
        note("cancel", who, "the lifespan")
        raise


async def misbehave(phase: str, how: str, send: Send) -> None:
    """What the environment asks for in this phase of the lifespan."""
    word, _, seconds = how.partition(":")
    if word == "hang":
        await asyncio.sleep(3600)
    elif word == "slow":
        await asyncio.sleep(float(seconds))
    elif word == "stagger":
        await asyncio.sleep(float(seconds) * (1 if first_worker() else 3))
    elif word == "block":
        time.sleep(float(seconds))
    elif word == "raise":
        raise RuntimeError("the drill's application fails in lifespan." + phase)
    elif word == "failed":
        await send({"type": "lifespan." + phase + ".failed", "message": "the drill's application says so"})


def first_worker() -> bool:
    """Whether this process is the first to ask."""
    try:
        os.close(os.open(os.environ["DRILL_EVENTS"] + ".first", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


# requests


class Request:
    """One request or WebSocket: its parameters, and the events that it writes."""

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.query = {key: values[-1] for key, values in parse_qs(scope["query_string"].decode()).items()}
        self.who = scope["path"] + (":" + self.query["id"] if "id" in self.query else "")

    def number(self, name: str, default: float) -> float:
        """A parameter of the query string."""
        return float(self.query.get(name, default))

    async def run(self, route: Route) -> None:
        """Run a route between the events ``request`` and ``task-end``."""
        note("request", self.who)
        how = "returned"
        try:
            await route(self)
        except asyncio.CancelledError:
            note("cancel", self.who)
            how = "cancelled"
            raise
        except OSError as error:
            # ASGI HTTP 2.4: send() after the client has left.
            note("disconnect", self.who, "send() raised " + type(error).__name__)
            how = "raised"
            raise
        finally:
            note("task-end", self.who, how)

    async def start(self, length: int | None = None, kind: str = "text/plain") -> None:
        """The head of a response, status 200."""
        headers = [(b"content-type", kind.encode())]
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        await self.send({"type": "http.response.start", "status": 200, "headers": headers})

    async def chunk(self, data: bytes, more: bool = True) -> None:
        """A part of the body."""
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def answer(self, text: str) -> None:
        """A whole response."""
        await self.start(len(text))
        await self.chunk(text.encode(), False)

    async def disconnected(self) -> None:
        """Wait for ``http.disconnect``."""
        while (await self.receive())["type"] != "http.disconnect":
            pass
        note("disconnect", self.who)


async def missing(request: Request) -> None:
    """Any other path."""
    await request.send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
    await request.chunk(b"", False)


async def ok(request: Request) -> None:
    """Answer at once."""
    await request.answer("ok")


async def pid(request: Request) -> None:
    """Answer with the process id."""
    await request.answer(str(os.getpid()))


async def slow(request: Request) -> None:
    """Answer after a while; a ``finally`` that takes time."""
    try:
        await asyncio.sleep(request.number("s", 1))
        await request.answer("slow")
    finally:
        if request.number("cleanup", 0):
            await asyncio.sleep(request.number("cleanup", 0))
            note("note", request.who, "cleaned up")


async def block(request: Request) -> None:
    """Block the event loop."""
    note("note", request.who, "blocks")
    time.sleep(request.number("s", 1))
    await request.answer("blocked")


async def events(request: Request) -> None:
    """Send chunks for ever."""
    await request.start(kind="text/event-stream")
    while True:
        await request.chunk(b"data: tick\n\n")
        await asyncio.sleep(request.number("every", 0.2))


async def inf(request: Request) -> None:
    """An endless stream that looks at nothing."""
    await events(request)


async def until(request: Request, *ends: Awaitable[None]) -> None:
    """An endless stream that ends when one of ``ends`` does."""
    stream = asyncio.ensure_future(events(request))
    tasks = [stream] + [asyncio.ensure_future(one) for one in ends]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if stream in done:
            stream.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def infr(request: Request) -> None:
    """An endless stream that ends with its client."""
    await until(request, request.disconnected())


async def notice(request: Request) -> None:
    """An endless stream that ends when it is told that the server drains."""
    await until(request, request.disconnected(), told(request))
    await request.chunk(b"data: bye\n\n", False)


async def told(request: Request) -> None:
    """Wait for the server's drain notice: an extension ``NAME.drain`` whose value has ``wait()``."""
    found = drain_extension(request.scope)
    if found is None:
        await asyncio.sleep(3600)
    else:
        await found.wait()
        note("notice", request.who)


async def fin(request: Request) -> None:
    """A stream that ends by itself."""
    note("note", request.who, f"worker {os.getpid()}")
    await request.start(kind="text/event-stream")
    for number in range(int(request.number("n", 5))):
        await request.chunk(b"data: %d\n\n" % number)
        await asyncio.sleep(request.number("every", 0.2))
    await request.chunk(b"data: end\n\n", False)


async def mute(request: Request) -> None:
    """A response that has begun and says nothing more."""
    await request.start(kind="text/event-stream")
    await request.chunk(b": hello\n\n")
    await request.disconnected()


async def wait(request: Request) -> None:
    """A request that waits for its client to leave."""
    await request.disconnected()


async def background(request: Request) -> None:
    """Work after the response, as Starlette's BackgroundTasks do it."""
    await request.answer("accepted")
    note("note", request.who, "works")
    try:
        await asyncio.sleep(request.number("s", 1))
        note("note", request.who, "work done")
    finally:
        note("note", request.who, "finally")


async def upload(request: Request) -> None:
    """Read a body."""
    size = 0
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            note("disconnect", request.who)
            return
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await request.answer(str(size))


async def big(request: Request) -> None:
    """A large body."""
    size = int(request.number("kib", 8192))
    await request.start(size * 1024)
    for _ in range(size // 64):
        await request.chunk(b"x" * 65536)
    await request.chunk(b"", False)


async def swallow(request: Request) -> None:
    """Ignore every cancel."""
    await request.start()
    await request.chunk(b"begun")
    end = time.monotonic() + request.number("s", 3600)
    while time.monotonic() < end:
        try:
            await asyncio.sleep(end - time.monotonic())
        except asyncio.CancelledError:
            note("cancel", request.who, "swallowed")
    await request.chunk(b"", False)


async def websocket(request: Request) -> None:
    """Echo, or send by itself; note with which code it ends."""
    await request.receive()
    await request.send({"type": "websocket.accept"})
    tasks = [asyncio.ensure_future(echo(request))]
    if request.number("every", 0):
        tasks.append(asyncio.ensure_future(ticks(request)))
    if "bye" in request.query:
        tasks.append(asyncio.ensure_future(farewell(request)))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def echo(request: Request) -> None:
    """Echo until the end."""
    while True:
        message = await request.receive()
        if message["type"] == "websocket.disconnect":
            note("disconnect", request.who, str(message.get("code")))
            return
        await request.send({"type": "websocket.send", "text": message.get("text") or ""})


async def ticks(request: Request) -> None:
    """Send a message each time."""
    while True:
        await request.send({"type": "websocket.send", "text": "tick"})
        await asyncio.sleep(request.number("every", 0.2))


async def farewell(request: Request) -> None:
    """Say farewell at the server's notice, and go on: the server closes."""
    await told(request)
    await request.send({"type": "websocket.send", "text": "bye"})
    await asyncio.sleep(3600)


ROUTES: dict[str, Route] = {
    "/ok": ok,
    "/pid": pid,
    "/slow": slow,
    "/block": block,
    "/inf": inf,
    "/infr": infr,
    "/notice": notice,
    "/fin": fin,
    "/mute": mute,
    "/wait": wait,
    "/bg": background,
    "/upload": upload,
    "/big": big,
    "/swallow": swallow,
}

atexit.register(note, "note", f"worker-{os.getpid()}", "atexit")
