"""2 ms of CPU, then a short answer: a handler that two workers on two cores do twice as often. Used by `fleet`."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

BURN_NS = 2_000_000


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Answer 200 with 13 bytes once this thread has used 2 ms of CPU; any scope but http is refused."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    end = time.thread_time_ns() + BURN_NS
    while time.thread_time_ns() < end:
        pass
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"13")],
        }
    )
    await send({"type": "http.response.body", "body": b"Hello, World!"})
