"""Work after the response, as Starlette's and FastAPI's background tasks do it."""

from __future__ import annotations

import asyncio
from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer at once, and go on working in the same call for two seconds."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await send({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"9")]})
    await send({"type": "http.response.body", "body": b"accepted\n"})
    print("app: work begins", flush=True)
    await asyncio.sleep(2)
    print("app: work done", flush=True)


async def lifespan(receive: Any, send: Any) -> None:
    """Say that the application starts, and that it shuts down."""
    await receive()
    print("app: startup", flush=True)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print("app: shutdown", flush=True)
    await send({"type": "lifespan.shutdown.complete"})
