"""Streams as those clients ask for them that a stop meets most: browsers, MCP clients, clients of language models.

================================= ====================================================================================
``GET /``                         a page
``GET /events``                   one event with the process's number, for an EventSource, then nothing for ever
``POST /mcp``                     the least of an MCP server with sessions that any process of it knows
``GET /mcp``                      its channel for notifications: no event for ever
``POST /v1/chat/completions``     a language model's answer: two tokens, then nothing for ever
``GET /v1/responses/{id}``        the same, of an answer that was begun before
``GET /busy``                     holds one of the places of ``--limit-concurrency`` for ever; the answer has begun
================================= ====================================================================================

Whoever opens ``/events`` or the channel is named on stderr. A stream's client comes back after ``RETRY`` milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

from tests.frameworks.apps import common

RETRY = 200
OPENED = "a stream is open: "

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    path, method = scope["path"], scope["method"]
    if path == "/":
        await answer(send, b"<!doctype html><title>events</title>", b"text/html")
    elif path == "/mcp" and method == "POST":
        await mcp(receive, send)
    elif method == "DELETE":  # the end of a session
        await answer(send, b"", b"text/plain", status=405)
    elif path in ("/events", "/mcp"):
        await stream(send, f"retry: {RETRY}\n\n", *([f"data: {os.getpid()}\n\n"] if path == "/events" else []))
        common.say(OPENED + path)
        await asyncio.sleep(3600)
    elif path == "/busy":
        await stream(send, "busy")
        await asyncio.sleep(3600)
    elif path == "/v1/chat/completions":
        await tokens(send, [{"id": "x", "choices": [{"index": 0, "delta": {"content": word}}]} for word in "ab"])
    elif not path.startswith("/v1/"):
        await answer(send, b"", b"text/plain", status=404)
    else:
        kind = "response.output_text.delta"
        await tokens(send, [{"type": kind, "delta": word, "sequence_number": at} for at, word in enumerate("ab")])


async def stream(send: Send, *parts: str, kind: bytes = b"text/event-stream") -> None:
    headers = [(b"content-type", kind), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for part in parts:
        await send({"type": "http.response.body", "body": part.encode(), "more_body": True})


async def tokens(send: Send, events: list[dict[str, Any]]) -> None:
    await stream(send, *(f"data: {json.dumps(event)}\n\n" for event in events))
    await asyncio.sleep(3600)


async def answer(send: Send, body: bytes, kind: bytes, *headers: tuple[bytes, bytes], status: int = 200) -> None:
    fields = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def mcp(receive: Receive, send: Send) -> None:
    data = b""
    more = True
    while more:
        message = await receive()
        data += message.get("body", b"")
        more = message.get("more_body", False)
    asked = json.loads(data)
    if "id" not in asked:
        await answer(send, b"", b"application/json", status=202)
        return
    result: dict[str, Any] = {}
    if asked["method"] == "initialize":
        server = {"name": "sample", "version": "1"}
        version = asked["params"]["protocolVersion"]
        result = {"protocolVersion": version, "capabilities": {}, "serverInfo": server}
    body = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}).encode()
    await answer(send, body, b"application/json", (b"mcp-session-id", b"one-for-all"))


async def lifespan(receive: Receive, send: Send) -> None:
    await receive()
    common.say(common.OPENED)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    common.say(common.CLOSED)
    await send({"type": "lifespan.shutdown.complete"})
