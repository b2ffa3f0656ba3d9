"""Streams of Starlette whose ``finally`` awaits, and needs what the lifespan closes.

From HTTP specification 2.4 on Starlette leaves the generator of a stream to the collector when ``send()`` raises, and
asyncio closes it in a task of its own.

========================= ============================================================================================
``GET /stream``           a line each 20 ms, for ever; its ``finally`` takes ``TAKES`` seconds, then says what it found
``GET /cycle``            the same, in a reference cycle with its generator
``GET /never-closed``     the same, with a ``finally`` that does not end
``GET /thread``           at the drain notice drops the last reference to its generator, in a thread, and answers
``GET /wild``             raises SystemExit in a task of its own, out of the loop
========================= ============================================================================================

``EAGER``: the loop has asyncio's eager task factory, where there is one.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from lastcall import drain_notice
from tests.frameworks.apps import common

STEP = 0.02
TAKES = 0.3
ROLLED_BACK = "the generator has rolled back"
TOO_LATE = "the database is closed"

database = {"open": False}
tasks: list[asyncio.Task[None]] = []


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    database["open"] = True
    if "EAGER" in os.environ:
        asyncio.get_running_loop().set_task_factory(getattr(asyncio, "eager_task_factory", None))
    common.say(common.OPENED)
    yield
    database["open"] = False
    common.say(common.CLOSED)


async def feed(takes: float, kept: list[Any]) -> AsyncIterator[str]:
    try:
        while True:
            yield "tick\n"
            await asyncio.sleep(STEP)
    finally:
        with anyio.CancelScope(shield=True):  # BaseHTTPMiddleware cancels it, and goes on cancelling
            await asyncio.sleep(takes)
        common.say(ROLLED_BACK if database["open"] else TOO_LATE)
        kept.clear()


async def stream(request: Request) -> Response:
    return StreamingResponse(feed(TAKES, []))


async def cycle(request: Request) -> Response:
    kept: list[Any] = []
    kept.append(feed(TAKES, kept))
    return StreamingResponse(kept[0])


async def never_closed(request: Request) -> Response:
    return StreamingResponse(feed(3600, []))


async def in_thread(request: Request) -> Response:
    held = [feed(TAKES, [])]
    await anext(held[0])
    common.say("the generator waits")
    await drain_notice().wait()
    await asyncio.to_thread(held.clear)
    return PlainTextResponse("dropped")


async def wild(request: Request) -> Response:
    async def leave() -> None:
        sys.exit(0)

    tasks.append(asyncio.create_task(leave()))
    return PlainTextResponse("leaving")


class PassOn(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


ROUTES = [
    Route("/stream", stream),
    Route("/cycle", cycle),
    Route("/never-closed", never_closed),
    Route("/thread", in_thread),
    Route("/wild", wild),
]

app = Starlette(routes=ROUTES, lifespan=lifespan)
wrapped = Starlette(routes=ROUTES, lifespan=lifespan, middleware=[Middleware(PassOn)])
