"""An application that changes the exit code when the stop is over. ``ATEXIT``: seconds in an atexit function."""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

KEPT: list[asyncio.Task[None]] = []


async def stubborn() -> None:
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            os.write(1, b"swallowed a cancel\n")


async def interrupted() -> None:
    try:
        await asyncio.sleep(1000)
    finally:
        raise KeyboardInterrupt


async def leave() -> None:
    sys.exit(3)


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        time.sleep(float(os.environ.get("SHUTDOWN", "0")))
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/thread":
        threading.Thread(target=time.sleep, args=(1000,), name="never-ends").start()
    elif scope["path"] == "/task":
        KEPT.append(asyncio.create_task(stubborn()))
    elif scope["path"] == "/interrupted":
        KEPT.append(asyncio.create_task(interrupted()))
    elif scope["path"] == "/exit":
        KEPT.append(asyncio.create_task(leave()))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
    if scope["path"] == "/wait":
        os.write(1, b"waiting\n")
        await asyncio.sleep(1000)


if "ATEXIT" in os.environ:
    atexit.register(time.sleep, float(os.environ["ATEXIT"]))
