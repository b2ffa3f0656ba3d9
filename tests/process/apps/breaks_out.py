"""An application whose exceptions come out of the event loop, or that stops it, in one way for each path."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any


class Odd(Exception):
    """The application's own."""


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


def raise_odd(*_args: object) -> None:
    raise Odd("from a signal handler")


def by_signal() -> None:
    """Its handler raises in the main thread, which by then waits in the loop."""
    signal.signal(signal.SIGUSR1, raise_odd)
    say("handler set")


def by_stop() -> None:
    asyncio.get_running_loop().stop()


def by_stops() -> None:
    """Again and again, whatever the server does."""
    loop = asyncio.get_running_loop()
    loop.stop()
    loop.call_later(0.02, by_stops)


def by_debug() -> None:
    """The loop's own checks raise."""
    loop = asyncio.get_running_loop()
    loop.slow_callback_duration = None  # type: ignore[assignment]
    loop.set_debug(True)


WAYS = {"/signal": by_signal, "/stop": by_stop, "/stops": by_stops, "/debug": by_debug}


async def app(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    if scope["type"] == "lifespan":
        await receive()
        if way := os.environ.get("STARTING"):
            WAYS[way]()
            await asyncio.sleep(1000)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        say("shutdown began")
        await asyncio.sleep(0.05)
        say("the shutdown code ran")
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] in WAYS:
        WAYS[scope["path"]]()
    if scope["path"] == "/slow":
        say("slow began")
        try:
            await asyncio.sleep(1000)
        finally:
            say("slow was cancelled")
    length = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": b"ok"})
