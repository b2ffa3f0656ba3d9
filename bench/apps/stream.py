"""Send 100 chunks of 64 bytes without a content-length, so the server frames them. Workload stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

CHUNKS = 100
CHUNK = b"0123456789abcdef" * 4


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Answer 200 with 6400 bytes in 100 `send()` calls and an empty last one; any scope but http is refused."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"text/plain; charset=utf-8")],
        }
    )
    for _ in range(CHUNKS):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
