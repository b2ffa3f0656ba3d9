"""WebSockets: an echo that says what it was told at the end, and one application for each way to answer a handshake."""

from __future__ import annotations

import asyncio
from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"http"})
        return
    assert (await receive())["type"] == "websocket.connect"
    path = scope["path"]
    if path == "/reject":
        await send({"type": "websocket.close"})
    elif path == "/deny":
        await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"password")]})
        await send({"type": "websocket.http.response.body", "body": b"who are you", "more_body": False})
    elif path == "/raise":
        raise RuntimeError("before the handshake")
    elif path == "/return":
        return
    elif path == "/long":
        await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        for number in range(400):
            await send({"type": "websocket.http.response.body", "body": bytes(65536), "more_body": number < 399})
        print("all is sent", flush=True)
    elif path == "/wait":
        print("waits", flush=True)
        print("told", await receive(), flush=True)
    else:
        await accepted(scope, receive, send)


async def accepted(scope: dict[str, Any], receive: Any, send: Any) -> None:
    offered = scope["subprotocols"]
    await send(
        {"type": "websocket.accept", "subprotocol": offered[0] if offered else None, "headers": [(b"x-a", b"b")]}
    )
    if scope["path"] == "/late":
        print("late", flush=True)
        await asyncio.sleep(1)
        got = []
        while (message := await receive())["type"] == "websocket.receive":
            got.append(message["text"])
        print("got", *got, flush=True)
        print("told", message["code"], flush=True)
        return
    if scope["path"] == "/busy":
        print("busy", flush=True)
        await asyncio.sleep(1.5)
        print("done", flush=True)
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            print("told", message["code"], repr(message["reason"]), flush=True)
            try:
                await send({"type": "websocket.send", "text": "late"})
            except OSError as error:
                print("raised", type(error).__name__, flush=True)
            return
        if message.get("text") == "close":
            await send({"type": "websocket.close", "code": 3001, "reason": "as you wish"})
        elif message.get("text") == "raise":
            raise RuntimeError("in the middle")
        elif message.get("text") == "return":
            return
        else:
            await send({**message, "type": "websocket.send"})
