"""The same as ``background_work``, mended: the lifespan's shutdown waits for the work."""

from __future__ import annotations

import asyncio
from typing import Any

working: set[asyncio.Task[None]] = set()


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer at once, and hand the work to a task that the lifespan knows."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    task = asyncio.ensure_future(work())
    working.add(task)
    task.add_done_callback(working.discard)
    await send({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"9")]})
    await send({"type": "http.response.body", "body": b"accepted\n"})


async def work() -> None:
    """Two seconds of it."""
    print("app: work begins", flush=True)
    await asyncio.sleep(2)
    print("app: work done", flush=True)


async def lifespan(receive: Any, send: Any) -> None:
    """Shut down when the work is done, or after ten seconds."""
    await receive()
    print("app: startup", flush=True)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    if working:
        await asyncio.wait(working, timeout=10)
    print("app: shutdown", flush=True)
    await send({"type": "lifespan.shutdown.complete"})
