"""An application for gunicorn's workers. ``LIFE``: what goes wrong in its lifespan, else nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import Any
from urllib.parse import parse_qsl

if os.environ.get("LIFE") == "import":
    raise RuntimeError("a broken deployment")


KEPT: list[Any] = []


async def leave(code: int) -> None:
    sys.exit(code)


def say(text: str) -> None:
    os.write(2, f"@{os.getpid()} {text}\n".encode())


async def lifespan(receive: Any, send: Any) -> None:
    await receive()
    if os.environ.get("LIFE") == "startup":
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()
    if os.environ.get("LIFE") == "shutdown":
        raise RuntimeError("no farewell")
    say("shut down")
    await send({"type": "lifespan.shutdown.complete"})


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    query = dict(parse_qsl(scope["query_string"].decode()))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-pid", b"%d" % os.getpid())]})
    if scope["path"] == "/stream":
        for _ in range(int(query["n"])):
            await send({"type": "http.response.body", "body": b"tick\n", "more_body": True})
            await asyncio.sleep(float(query.get("pause", "0.5")))
    if scope["path"] == "/block":
        say("blocks")
        while True:
            time.sleep(0.05)
    if scope["path"] == "/exit":
        KEPT.append(asyncio.ensure_future(leave(int(query["code"]))))  # out of a request only that request ends
    if scope["path"] == "/handler":
        owner = signal.getsignal(signal.SIGTERM).__self__  # type: ignore[union-attr]
        await send({"type": "http.response.body", "body": str(owner.should_exit).encode()})
        return
    await send({"type": "http.response.body", "body": b"%d" % os.getpid()})


def make() -> Any:
    """A factory, as gunicorn calls one."""
    return app
