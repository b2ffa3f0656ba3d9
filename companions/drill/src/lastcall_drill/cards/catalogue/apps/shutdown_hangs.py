"""A lifespan whose shutdown waits for something that never comes, as a broker that is gone."""

from __future__ import annotations

import asyncio
from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer every request at once."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
    await send({"type": "http.response.body", "body": b"ok\n"})


async def lifespan(receive: Any, send: Any) -> None:
    """Shut down, and never be done."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print("app: shutdown begins", flush=True)
    await asyncio.sleep(3600)
    await send({"type": "lifespan.shutdown.complete"})
