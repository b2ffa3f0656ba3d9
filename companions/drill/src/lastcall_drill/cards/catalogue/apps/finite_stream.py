"""A stream of three seconds that ends early when its client leaves, as an answer that is generated does."""

from __future__ import annotations

import asyncio
from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Send fifteen events, unless the server says that the client has left."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    left = asyncio.ensure_future(disconnected(receive))
    try:
        for number in range(15):
            await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
            await asyncio.wait([left], timeout=0.2)
            if left.done():
                return
        await send({"type": "http.response.body", "body": b"data: end\n\n"})
    finally:
        left.cancel()


async def disconnected(receive: Any) -> None:
    """Wait until the server says that the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
    print("app: http.disconnect", flush=True)


async def lifespan(receive: Any, send: Any) -> None:
    """Say that the application starts, and that it shuts down."""
    await receive()
    print("app: startup", flush=True)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print("app: shutdown", flush=True)
    await send({"type": "lifespan.shutdown.complete"})
