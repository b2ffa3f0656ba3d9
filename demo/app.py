"""The demo: one page with two live streams, a slow request and an upload, in plain ASGI 3.

Open the page, start the slow request, press Ctrl-C in the terminal. The slow request is finished. One stream asks to be
told of the stop (``lastcall.drain_notice``), says goodbye and ends; the page shows the seconds that are left. The other
knows nothing of it, would never end by itself, and is cut. Then the application's own shutdown code runs. What happened
is printed to stderr here, and listed in the page there.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from lastcall import drain_notice
from lastcall.base.types import Receive, Scope, Send

PAGE = Path(__file__).with_name("page.html").read_bytes()
SLOW_SECONDS = 4
TICK_SECONDS = 1.0


def say(text: str) -> None:
    """One line on stderr, which is where the server's own lines go."""
    print(f"demo:     {text}", file=sys.stderr, flush=True)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI 3 application."""
    if scope["type"] == "lifespan":
        await lifespan(scope["state"], receive, send)
    elif scope["type"] == "http":
        handler = ROUTES.get((scope["method"], scope["path"]), not_found)
        await handler(scope["state"], receive, send)
    else:
        raise RuntimeError(f"the demo does not speak {scope['type']}")


async def lifespan(state: dict[str, Any], receive: Receive, send: Send) -> None:
    """Counts what the process did, and says so at the end."""
    await receive()
    state["counts"] = {"streams": 0, "slow requests finished": 0, "uploads": 0}
    say("lifespan.startup: this is where an application opens its database")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    served = ", ".join(f"{name}: {number}" for name, number in state["counts"].items())
    say(f"lifespan.shutdown: this is where it closes it again ({served})")
    await send({"type": "lifespan.shutdown.complete"})


async def page(state: dict[str, Any], receive: Receive, send: Send) -> None:
    """``GET /``: the page."""
    await answer(send, 200, PAGE, b"text/html; charset=utf-8")


async def stream(state: dict[str, Any], receive: Receive, send: Send) -> None:
    """``GET /clock``: server-sent events, one a second, for ever; a stop cuts it, visibly."""
    state["counts"]["streams"] += 1
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    gone = asyncio.ensure_future(disconnected(receive))
    ending = "disconnected"
    try:
        while not gone.done():
            await send(event(time.strftime("%H:%M:%S")))
            await asyncio.wait([gone], timeout=TICK_SECONDS)
    except OSError:
        pass  # send() after a disconnect raises one (ASGI HTTP spec 2.4), and says the same as `gone`
    except asyncio.CancelledError:
        ending = "cancelled by the server"
        raise
    finally:
        gone.cancel()
        say(f"a clock stream ended: {ending}")


async def news(state: dict[str, Any], receive: Receive, send: Send) -> None:
    """``GET /news``: server-sent events, one a second, until the server is told to stop: then a goodbye, and the end.

    ``goodbye`` has the seconds after which responses that still run will be cut.
    """
    state["counts"]["streams"] += 1
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    notice = drain_notice()
    told = asyncio.ensure_future(notice.wait())
    gone = asyncio.ensure_future(disconnected(receive))
    number = 0
    try:
        while not (told.done() or gone.done()):
            number += 1
            await send(event(f"number {number}"))
            await asyncio.wait([told, gone], timeout=TICK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not gone.done():
            remaining = notice.remaining()
            seconds = None if remaining is None or remaining == math.inf else round(remaining, 1)
            await send(event(json.dumps({"seconds": seconds}), name="goodbye"))
            await send({"type": "http.response.body", "body": b""})
            say("a news stream has said goodbye")
    except OSError:
        pass  # the client has left, as above
    finally:
        told.cancel()
        gone.cancel()


def event(data: str, name: str = "message") -> dict[str, Any]:
    """The message that sends one server-sent event."""
    return {"type": "http.response.body", "body": f"event: {name}\ndata: {data}\n\n".encode(), "more_body": True}


async def slow(state: dict[str, Any], receive: Receive, send: Send) -> None:
    """``GET /slow``: work for a few seconds, then one answer. A stop waits for it."""
    say(f"slow request: {SLOW_SECONDS} seconds of work begin")
    try:
        for second in range(1, SLOW_SECONDS + 1):
            await asyncio.sleep(1)
            say(f"slow request: {second} of {SLOW_SECONDS}")
    except asyncio.CancelledError:
        say("slow request: cancelled")
        raise
    state["counts"]["slow requests finished"] += 1
    await answer(send, 200, f"{SLOW_SECONDS} seconds of work, done in full".encode(), b"text/plain")
    say("slow request: answered")


async def echo(state: dict[str, Any], receive: Receive, send: Send) -> None:
    """``POST /echo``: reads the body as it comes and says how long it was and how it begins."""
    size, beginning, more = 0, b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        chunk = message.get("body", b"")
        beginning += chunk[: 200 - len(beginning)]
        size += len(chunk)
        more = message.get("more_body", False)
    state["counts"]["uploads"] += 1
    result = {"bytes": size, "begins": beginning.decode("utf-8", "replace")}
    await answer(send, 200, json.dumps(result).encode(), b"application/json")


async def not_found(state: dict[str, Any], receive: Receive, send: Send) -> None:
    """Everything else."""
    await answer(send, 404, b"Not found: the demo is at /\n", b"text/plain")


async def answer(send: Send, status: int, body: bytes, content_type: bytes) -> None:
    """A whole response."""
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def disconnected(receive: Receive) -> None:
    """Returns when ``receive()`` says that the client has left, or that the server disconnected the response."""
    while (await receive())["type"] != "http.disconnect":
        pass


Handler = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]
ROUTES: dict[tuple[str, str], Handler] = {
    ("GET", "/"): page,
    ("HEAD", "/"): page,
    ("GET", "/clock"): stream,
    ("GET", "/news"): news,
    ("GET", "/slow"): slow,
    ("POST", "/echo"): echo,
}
