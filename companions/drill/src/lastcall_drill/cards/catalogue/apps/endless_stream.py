"""A stream of events that never ends by itself, and a lifespan that says what it does.

As in uvicorn's issue 451: the stream ends when its client leaves, and at nothing else.
"""

from __future__ import annotations

import asyncio
from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer every path with the stream."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    left = asyncio.ensure_future(disconnected(receive))
    try:
        while not left.done():
            await send({"type": "http.response.body", "body": b"data: tick\n\n", "more_body": True})
            await asyncio.wait([left], timeout=0.2)
        await send({"type": "http.response.body", "body": b""})
    except asyncio.CancelledError:
        print("app: stream cancelled", flush=True)
        raise
    finally:
        left.cancel()
        print("app: stream ended", flush=True)


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
