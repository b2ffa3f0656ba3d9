"""A service that charges cards, behind the middleware. What it did is in the file EFFECTS, a line for each time.

Environment: STORE (a URL), EFFECTS (a path), LEASE and WAIT (seconds; no WAIT: none).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from lastcall.once.middleware import IdempotencyMiddleware

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


async def charges(scope: Scope, receive: Receive, send: Send) -> None:
    """``/charge?SECONDS`` answers at its end, ``/stream?SECONDS`` begins at once and is quiet until its end."""
    if scope["type"] == "lifespan":
        while True:
            word = (await receive())["type"]
            await send({"type": f"{word}.complete"})
            if word == "lifespan.shutdown":
                return
    with open(os.environ["EFFECTS"], "a") as effects:
        effects.write(f"{scope['path']}\n")
    headers = [(b"content-type", b"text/plain"), (b"x-charge", str(os.getpid()).encode())]
    if scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.body", "body": b"charging, ", "more_body": True})
    say("began")
    await asyncio.sleep(float(scope["query_string"] or b"0"))
    body = b"charged by %d" % os.getpid()
    if scope["path"] != "/stream":
        await send({"type": "http.response.start", "status": 201, "headers": headers})
    await send({"type": "http.response.body", "body": body})
    say("ended")


app = IdempotencyMiddleware(
    charges,  # type: ignore[arg-type]
    os.environ.get("STORE", "memory:"),
    lease=float(os.environ.get("LEASE", "30")),
    wait=float(os.environ["WAIT"]) if "WAIT" in os.environ else None,
)
