"""The same as ``shutdown_hangs``, mended: it bounds what it waits for."""

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
    """Shut down within a second."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print("app: shutdown begins", flush=True)
    waiting = asyncio.ensure_future(asyncio.sleep(3600))
    await asyncio.wait([waiting], timeout=1)
    if not waiting.done():
        waiting.cancel()
        print("app: gave up waiting", flush=True)
    await send({"type": "lifespan.shutdown.complete"})
