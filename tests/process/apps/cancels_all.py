"""An application that cancels all other tasks of the loop: in a request, or where ``WHEN`` says."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

KEPT: list[asyncio.Task[None]] = []


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


def cancel_all(when: str) -> None:
    if os.environ.get("WHEN", "request") == when:
        spared = (asyncio.current_task(), *KEPT)
        for task in asyncio.all_tasks():
            if task not in spared and task.get_name() != "lastcall-lifespan":
                task.cancel()


async def in_teardown() -> None:
    try:
        await asyncio.sleep(1000)
    finally:
        cancel_all("teardown")
        await asyncio.sleep(0.1)
        say("torn down")


async def app(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    if scope["type"] == "lifespan":
        await receive()
        cancel_all("startup")
        await asyncio.sleep(0.1)
        await send({"type": "lifespan.startup.complete"})
        KEPT.append(asyncio.create_task(in_teardown()))
        await receive()
        cancel_all("shutdown")
        await asyncio.sleep(0.1)
        say("the shutdown code ran")
        await send({"type": "lifespan.shutdown.complete"})
        return
    cancel_all("request")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
