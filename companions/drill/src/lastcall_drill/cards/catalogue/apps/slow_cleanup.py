"""A response that takes a minute, and half a second of cleaning up when it is cancelled."""

from __future__ import annotations

import asyncio
from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Begin a response, and wait."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"begun\n", "more_body": True})
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.5)  # as a transaction that is rolled back
        print("app: handler ended", flush=True)


async def lifespan(receive: Any, send: Any) -> None:
    """Say that the application starts, and that it shuts down: what handlers use is gone then."""
    await receive()
    print("app: startup", flush=True)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print("app: shutdown", flush=True)
    await send({"type": "lifespan.shutdown.complete"})
