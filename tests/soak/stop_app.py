"""The application whose stop is measured. On stdout, at its end, it says how many handlers ended and when the last did.

Answers repeat the query string, so that each client knows its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

from lastcall import drain_notice

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

SOON_SECONDS = 0.01
EVENT_SECONDS = 0.5
EVENT = b"data: tick\n\n"
FAREWELL = b"data: farewell\n\n"

ended = 0
last_end = 0.0


async def start(send: Send, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": list(headers)})


async def piece(send: Send, data: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def now(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer at once."""
    token = scope["query_string"]
    await start(send, (b"content-length", str(len(token)).encode()))
    await piece(send, token, more=False)


async def soon(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer after a while."""
    await asyncio.sleep(SOON_SECONDS)
    await now(scope, receive, send)


async def pieces(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer in chunks, with a turn of the loop between them."""
    await start(send)
    for byte in scope["query_string"]:
        await piece(send, bytes([byte]))
        await asyncio.sleep(0)
    await piece(send, b"", more=False)


async def upload(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the whole body, then answer."""
    while True:
        message = await receive()
        assert message["type"] == "http.request", "the client has left"
        if not message["more_body"]:
            return await now(scope, receive, send)


async def leaving(scope: Scope, receive: Receive, send: Send) -> None:
    """Events until the server stops, then a farewell."""
    notice = drain_notice()
    await start(send, (b"content-type", b"text/event-stream"))
    while not notice.is_set():
        await piece(send, EVENT)
        try:
            async with asyncio.timeout(EVENT_SECONDS):
                await notice.wait()
        except TimeoutError:
            continue
    await piece(send, FAREWELL, more=False)


async def endless(scope: Scope, receive: Receive, send: Send) -> None:
    """Events for ever."""
    await start(send, (b"content-type", b"text/event-stream"))
    while True:
        await piece(send, EVENT)
        await asyncio.sleep(EVENT_SECONDS)


async def quiet(scope: Scope, receive: Receive, send: Send) -> None:
    """One event, then a queue that stays empty: neither ``send()`` nor ``receive()`` would tell of an end."""
    await start(send, (b"content-type", b"text/event-stream"))
    await piece(send, EVENT)
    await asyncio.Event().wait()


async def finite(scope: Scope, receive: Receive, send: Send) -> None:
    """A piece each tenth of a second, for as many tenths as the query string says."""
    await start(send)
    for number in range(int(scope["query_string"])):
        await piece(send, b"%d\n" % number)
        await asyncio.sleep(0.1)
    await piece(send, b"end\n", more=False)


async def block(scope: Scope, receive: Receive, send: Send) -> None:
    """Keep the loop from everything else for as many seconds as the query string says."""
    os.write(1, b"blocking\n")
    time.sleep(float(scope["query_string"]))
    await now(scope, receive, send)


HANDLERS = {
    handler.__name__: handler for handler in (now, soon, pieces, upload, leaving, endless, quiet, finite, block)
}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI."""
    global ended, last_end  # noqa: PLW0603 - the figures of one process
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        os.write(1, json.dumps({"ended": ended, "last_end": last_end}).encode() + b"\n")
        await send({"type": "lifespan.shutdown.complete"})
        return
    try:
        await HANDLERS[scope["path"].strip("/")](scope, receive, send)
    finally:
        ended += 1
        last_end = time.monotonic()
