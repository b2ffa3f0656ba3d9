"""An application whose cleaning up is many small steps: in a request that was cancelled, and in its shutdown."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any


async def clean(what: str) -> None:
    os.write(1, f"{what} began\n".encode())
    for _ in range(int(os.environ.get("STEPS", "30"))):
        await asyncio.sleep(0.01)
    os.write(1, f"{what} ended\n".encode())


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await clean("shutdown")
        await send({"type": "lifespan.shutdown.complete"})
        return
    os.write(1, b"request began\n")
    try:
        await asyncio.sleep(1000)
    finally:
        await clean("cleanup")
