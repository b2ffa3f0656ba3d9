"""A service that works for a while, behind the middleware, and writes down when each of its works began and ended.

Environment: STORE (a URL), LOG (a path), LEASE (seconds), NAMESPACE.

A line of the log: ``begin`` or ``end``, the path, the pid, the work's own name, and the time (``time.monotonic()``,
which is the machine's).
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from lastcall_once import IdempotencyMiddleware

LOG = os.open(os.environ["LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def note(what: str, path: str, name: str) -> None:
    os.write(LOG, f"{what} {path} {os.getpid()} {name} {time.monotonic():.6f}\n".encode())


async def work(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """``/KEY/SIZE?SECONDS`` answers ``SIZE`` bytes after a while, in one piece, ``/KEY/SIZE/stream`` in two."""
    if scope["type"] == "lifespan":
        while True:
            word = (await receive())["type"]
            await send({"type": f"{word}.complete"})
            if word == "lifespan.shutdown":
                return
    path = scope["path"]
    name = os.urandom(8).hex()
    note("begin", path, name)
    streamed = path.endswith("/stream")
    body = f"{name} ".encode() + os.urandom(int(path.split("/")[2]))
    headers = [(b"x-work", name.encode())]
    if not streamed:
        headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": 201, "headers": headers})
    half = len(body) // 2 if streamed else 0
    if half:
        await send({"type": "http.response.body", "body": body[:half], "more_body": True})
    await asyncio.sleep(float(scope["query_string"]))
    note("end", path, name)
    await send({"type": "http.response.body", "body": body[half:]})


app = IdempotencyMiddleware(
    work,  # type: ignore[arg-type]
    os.environ["STORE"],
    lease=float(os.environ["LEASE"]),
    namespace=os.environ["NAMESPACE"],
)
