"""An application that leaves work to ``atexit``, as profilers, log handlers and metrics libraries do."""

from __future__ import annotations

import atexit
from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer every request at once."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
    await send({"type": "http.response.body", "body": b"ok\n"})


async def lifespan(receive: Any, send: Any) -> None:
    """Leave something to the end of the process."""
    await receive()
    atexit.register(print, "app: flushed", flush=True)
    print("app: startup", flush=True)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print("app: shutdown", flush=True)
    await send({"type": "lifespan.shutdown.complete"})
