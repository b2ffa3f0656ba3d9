"""A service that charges cards, behind the middleware. What it did is in the file EFFECTS, a line for each time.

Environment: STORE (a URL), EFFECTS (a path), LEASE and WAIT (seconds; no WAIT: none), NAMESPACE, FAIL_OPEN (1: yes),
BELOW (1: a BaseHTTPMiddleware is outside of once).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from lastcall_once.middleware import IdempotencyMiddleware

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


async def charges(scope: Scope, receive: Receive, send: Send) -> None:
    """``/charge?SECONDS`` answers at its end, ``/stream?SECONDS`` begins at once and is quiet until its end.

    ``/large`` answers with a megabyte of noise, ``/pieces`` with noise in pieces.
    """
    if scope["type"] == "lifespan":
        while True:
            word = (await receive())["type"]
            await send({"type": f"{word}.complete"})
            if word == "lifespan.shutdown":
                return
    with open(os.environ["EFFECTS"], "a") as effects:
        effects.write(f"{scope['path']}\n")
    headers = [(b"content-type", b"text/plain"), (b"x-charge", str(os.getpid()).encode())]
    if scope["path"] in ("/stream", "/pieces"):
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.body", "body": b"charging, ", "more_body": True})
    say("began")
    if scope["path"] == "/pieces":
        for size in (1, 70_000, 0, 3, 200_000):
            await send({"type": "http.response.body", "body": os.urandom(size), "more_body": True})
    await asyncio.sleep(float(scope["query_string"] or b"0"))
    body = os.urandom(1 << 20) if scope["path"] == "/large" else b"charged by %d" % os.getpid()
    if scope["path"] not in ("/stream", "/pieces"):
        await send({"type": "http.response.start", "status": 201, "headers": headers})
    await send({"type": "http.response.body", "body": body})
    say("ended")


app = IdempotencyMiddleware(
    charges,  # type: ignore[arg-type]
    os.environ.get("STORE", "memory:"),
    lease=float(os.environ.get("LEASE", "30")),
    wait=float(os.environ["WAIT"]) if "WAIT" in os.environ else None,
    fail_open=os.environ.get("FAIL_OPEN") == "1",
    namespace=os.environ.get("NAMESPACE", "http"),
)

if os.environ.get("BELOW") == "1":
    from starlette.middleware.base import BaseHTTPMiddleware

    async def pass_on(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    app = BaseHTTPMiddleware(app, dispatch=pass_on)  # type: ignore[assignment]
