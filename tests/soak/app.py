"""The application under soak: whatever a handler can do well or badly, and ``/stats``: what the process holds.

Every answer repeats the ``id`` of its request in ``x-id``, so one on the wrong connection, or out of order, is seen.
With ``SOAK_FAULTS=memory,tasks,descriptors,answers`` it does what the soak has to find; a test of the soak wants that.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from lastcall import ClientDisconnected
from tests.soak.content import CONTENT

Message = dict[str, Any]
PAGE = os.sysconf("SC_PAGESIZE")
ON_PURPOSE = "soak: raised on purpose"
SHUT_DOWN = "soak: the application has shut down"
FAULTS = frozenset(filter(None, os.environ.get("SOAK_FAULTS", "").split(",")))

active: Counter[str] = Counter()  # handlers that have begun and not ended, by path
ended: Counter[str] = Counter()  # how handlers ended, where it matters
leaked: list[object] = []  # only with SOAK_FAULTS


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request: what it asks for, and the means to answer."""

    path: str
    query: dict[str, str]
    receive: Callable[[], Awaitable[Message]]
    send: Callable[[Message], Awaitable[None]]

    def number(self, name: str) -> int:
        """A query parameter; 0 if it is missing."""
        return int(self.query.get(name, 0))

    async def start(self, length: int | None = None, status: int = 200) -> None:
        """Send the head: with a content-length, or leave the framing to the server."""
        headers = [(b"content-type", b"application/octet-stream"), (b"x-id", self.query.get("id", "-").encode())]
        if length is not None:
            headers.append((b"content-length", b"%d" % length))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def body(self, data: bytes | memoryview = b"", *, more: bool = False) -> None:
        """Send a part of the body; the last one unless ``more``."""
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def answer(self, data: bytes | memoryview, status: int = 200) -> None:
        """Send a whole response."""
        await self.start(len(data), status)
        await self.body(data)


async def plain(exchange: Exchange) -> None:
    await exchange.answer(b"ko" if "answers" in FAULTS else b"ok")


async def known_length(exchange: Exchange) -> None:
    await exchange.answer(CONTENT[: exchange.number("n")])


async def stream(exchange: Exchange) -> None:
    """``n`` bytes in pieces of ``piece``; no content-length, so the framing is the server's. The last part is empty."""
    n, piece = exchange.number("n"), max(1, exchange.number("piece"))
    await exchange.start()
    for at in range(0, n, piece):
        await exchange.body(CONTENT[at : min(n, at + piece)], more=True)
    await exchange.body()


async def endless(exchange: Exchange) -> None:
    """As much as the client takes; ``send()`` tells of its end."""
    await exchange.start()
    while True:
        await exchange.body(CONTENT[:16_384], more=True)


async def status_only(exchange: Exchange) -> None:
    await exchange.start(status=exchange.number("code"))
    await exchange.body()


async def upload(exchange: Exchange) -> None:
    """Answer with the length and the hash of what came; nothing if the client left before the end."""
    digest, length = hashlib.blake2b(digest_size=16), 0
    while True:
        message = await exchange.receive()
        if message["type"] == "http.disconnect":
            ended["upload cut"] += 1
            return
        digest.update(message["body"])
        length += len(message["body"])
        if not message["more_body"]:
            break
    await exchange.answer(f"{length} {digest.hexdigest()}".encode())


async def early(exchange: Exchange) -> None:
    """Answer without having looked at the body, or after its first piece."""
    if exchange.number("pieces"):
        await exchange.receive()
    await exchange.answer(b"early")


async def sleep(exchange: Exchange) -> None:
    await asyncio.sleep(exchange.number("ms") / 1000)
    await exchange.answer(b"slept")


async def background(exchange: Exchange) -> None:
    """Go on after the response; ``receive()`` then says that the exchange is over."""
    await exchange.answer(b"in background")
    await asyncio.sleep(exchange.number("ms") / 1000)
    message = await exchange.receive()
    while message["type"] != "http.disconnect":
        message = await exchange.receive()
    ended["background"] += 1


async def polling_events(exchange: Exchange) -> None:
    """Server-sent events; each turn cancels a ``receive()`` that has waited long enough."""
    await exchange.start()
    number = 0
    while True:
        await exchange.body(b"data: %d\n\n" % number, more=True)
        number += 1
        try:
            async with asyncio.timeout(exchange.number("ms") / 1000):
                message = await exchange.receive()
        except TimeoutError:
            continue
        if message["type"] == "http.disconnect":
            ended["events"] += 1
            return


async def listening_events(exchange: Exchange) -> None:
    """Server-sent events with a task beside the sender that waits for the client to leave."""

    async def listen() -> None:
        while (await exchange.receive())["type"] != "http.disconnect":
            pass

    await exchange.start()
    listener = asyncio.create_task(listen())
    number = 0
    try:
        while not listener.done():
            await exchange.body(b"data: %d\n\n" % number, more=True)
            number += 1
            await asyncio.wait([listener], timeout=exchange.number("ms") / 1000)
    finally:
        listener.cancel()
        ended["events"] += 1


async def sending_events(exchange: Exchange) -> None:
    """Server-sent events that learn only from ``send()`` that nobody listens."""
    await exchange.start()
    number = 0
    try:
        while True:
            await exchange.body(b"data: %d\n\n" % number, more=True)
            number += 1
            await asyncio.sleep(exchange.number("ms") / 1000)
    except ClientDisconnected:
        ended["events"] += 1
        raise  # as an application does that has no such clause; it is no error


async def raises(exchange: Exchange) -> None:
    """An exception before the response, or, with ``n``, after so many bytes of it."""
    ended["raised"] += 1
    if exchange.number("n"):
        await exchange.start()
        await exchange.body(CONTENT[: exchange.number("n")], more=True)
    raise RuntimeError(ON_PURPOSE)


async def silent(exchange: Exchange) -> None:
    """No response at all."""


async def unfinished(exchange: Exchange) -> None:
    """A response without its end."""
    await exchange.start()
    await exchange.body(CONTENT[: exchange.number("n")], more=True)


async def misjudged(exchange: Exchange) -> None:
    """``n`` bytes under a content-length of ``length``."""
    await exchange.start(exchange.number("length"))
    await exchange.body(CONTENT[: exchange.number("n")])


async def stats(exchange: Exchange) -> None:
    """What this process holds, as JSON. With ``collect``, after collecting garbage and counting lastcall's objects."""
    collect = exchange.number("collect")
    if collect:
        gc.collect()
    objects = gc.get_objects()
    ours: Counter[str] = Counter()
    if collect:
        ours.update(type(one).__name__ for one in objects if type(one).__module__.startswith("lastcall."))
    found: dict[str, Any] = {
        "rss": int(Path("/proc/self/statm").read_text().split()[1]) * PAGE,
        "fds": len(os.listdir("/proc/self/fd")) - 1,  # without the one that lists
        "tasks": len(asyncio.all_tasks()),
        "objects": len(objects),
        "blocks": sys.getallocatedblocks(),
        "cpu": time.process_time(),
        "ours": ours,
        "active": +active,
        "ended": ended,
    }
    del objects
    await exchange.answer(json.dumps(found).encode())


HANDLERS: dict[str, Callable[[Exchange], Awaitable[None]]] = {
    "/plain": plain,
    "/bytes": known_length,
    "/stream": stream,
    "/endless": endless,
    "/status": status_only,
    "/upload": upload,
    "/early": early,
    "/sleep": sleep,
    "/background": background,
    "/events/polling": polling_events,
    "/events/listening": listening_events,
    "/events/sending": sending_events,
    "/raises": raises,
    "/silent": silent,
    "/unfinished": unfinished,
    "/misjudged": misjudged,
    "/stats": stats,
}


async def app(scope: dict[str, Any], receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Any]) -> None:
    """The ASGI application."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    path = scope["path"]
    exchange = Exchange(path, dict(parse_qsl(scope["query_string"].decode())), receive, send)
    handler = HANDLERS.get(path)
    if handler is None:
        return await exchange.answer(b"not found", 404)
    if "memory" in FAULTS:
        leaked.append(bytes(20_000))
    if "descriptors" in FAULTS and path == "/upload":
        leaked.append(os.dup(2))
    if "tasks" in FAULTS and path == "/upload":
        leaked.append(asyncio.create_task(asyncio.sleep(3600)))
    active[path] += 1
    try:
        await handler(exchange)
    finally:
        active[path] -= 1


async def lifespan(receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Any]) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print(SHUT_DOWN, file=sys.stderr, flush=True)
    await send({"type": "lifespan.shutdown.complete"})
