"""What the tests of workers serve."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    path: str = scope["path"]
    if path == "/stream":  # two seconds
        await stream(send)
        return
    if path == "/block":
        time.sleep(float(scope["query_string"] or b"1"))
    if path == "/block-in-stop":
        await scope["extensions"]["lastcall.drain"]["notice"].wait()
        time.sleep(3600)
    if path == "/midway":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"so far", "more_body": True})
        raise RuntimeError("midway")
    if path == "/raise":
        raise RuntimeError("as asked")
    if path == "/stubborn":
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(3600)
    if path == "/wait":
        await asyncio.sleep(3600)
    status = int(path[1:]) if path[1:].isdigit() else 200
    body = b"%d %s" % (os.getpid(), os.environ.get("LASTCALL_WORKER_ID", "").encode())
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def stream(send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for n in range(20):
        await send({"type": "http.response.body", "body": b"%d\n" % n, "more_body": True})
        await asyncio.sleep(0.1)
    await send({"type": "http.response.body", "body": b"end\n"})


async def lifespan(receive: Any, send: Any) -> None:
    await receive()
    start = os.environ.get("START", "")
    if start == "fail":
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        return
    if start == "hang":
        await asyncio.sleep(3600)
    await send({"type": "lifespan.startup.complete"})
    if start == "die":
        await asyncio.sleep(0.2)
        raise RuntimeError("the lifespan dies")
    await receive()
    print("lifespan.shutdown", flush=True)
    await send({"type": "lifespan.shutdown.complete"})
