"""A WebSocket that greets and then waits, and answers to HTTP."""

from __future__ import annotations

from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Accept, greet, and wait until the WebSocket is over."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "hello"})
        message = await receive()
        while message["type"] != "websocket.disconnect":
            message = await receive()
        print("app: websocket.disconnect", message.get("code"), flush=True)
    else:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
        await send({"type": "http.response.body", "body": b"ok\n"})


async def lifespan(receive: Any, send: Any) -> None:
    """Say that the application starts, and that it shuts down."""
    await receive()
    print("app: startup", flush=True)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print("app: shutdown", flush=True)
    await send({"type": "lifespan.shutdown.complete"})
