"""Answers which version of it is running, in which process, and when it was imported. Used by `fleet`.

The benchmark serves a copy of this file and writes a new VERSION into it, as a deploy or an editor does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

VERSION = "0"

_began = time.monotonic()
time.sleep(float(os.environ.get("BENCH_IMPORT_SECONDS", "0")))  # stands for the imports of a real application
_ended = time.monotonic()


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Answer 200 with `VERSION PID BEGAN ENDED`, the last two by the monotonic clock; any scope but http is refused."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    body = f"{VERSION} {os.getpid()} {_began} {_ended}".encode()
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())],
        }
    )
    await send({"type": "http.response.body", "body": body})
