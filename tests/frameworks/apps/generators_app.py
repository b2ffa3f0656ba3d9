"""Streams made of plain generators, in Starlette and in FastAPI, below no middleware or BaseHTTPMiddleware.

================================= ====================================================================================
``GET /told/{how}``               one line, then nothing until the drain notice, then another. ``how`` it learns of it:
                                  ``callback``, ``wait``, ``thread`` (a generator that is a plain function), ``scope``
                                  or, in FastAPI, ``sse`` (FastAPI's own server-sent events)
``GET /closing``                  in FastAPI: its own server-sent events: one, for ever; says ``close()`` to the notice
``GET /untold``                   one line, then a queue that stays empty, for ever
``GET /silent``                   a queue that stays empty, for ever
``GET /events/endless``           a line each 20 ms, for ever
``GET /tokens``                   60 tokens in 3 s, then ``[DONE]``
``GET /background?until=PATH``    an answer, and a background task that ends when the file is there
``GET /never``                    never an answer
================================= ====================================================================================
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import fastapi
import fastapi.sse
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from lastcall import DrainNotice, drain_notice  # so: a process asks before its first request
from tests.frameworks.apps import common

STEP = 0.02
TOKENS = [f"data: token {number}\n\n" for number in range(60)]
DONE = "data: [DONE]\n\n"
ENDED = "the generator has ended: "
WORKED = "the background task has ended"


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    common.say(common.OPENED)
    yield
    common.say(common.CLOSED)


async def told_by_callback() -> AsyncIterator[str]:
    queue: asyncio.Queue[str | None] = asyncio.Queue()
    drain_notice().add_callback(partial(queue.put_nowait, None))
    yield "hello\n"
    while (line := await queue.get()) is not None:
        yield line
    yield "bye\n"


async def told_by_waiting(notice: DrainNotice) -> AsyncIterator[str]:
    yield "hello\n"
    await notice.wait()
    yield "bye\n"


def told_in_a_thread() -> Iterator[str]:
    notice = drain_notice()
    yield "hello\n"
    while not notice.is_set():
        time.sleep(STEP)
    yield "bye\n"


async def told(request: Request) -> Response:
    match request.path_params["how"]:
        case "callback":
            return StreamingResponse(told_by_callback())
        case "wait":
            return StreamingResponse(told_by_waiting(drain_notice()))
        case "thread":
            return StreamingResponse(told_in_a_thread())
        case _:
            return StreamingResponse(told_by_waiting(request.scope["extensions"]["lastcall.drain"]["notice"]))


async def told_by_fastapi() -> AsyncIterator[str]:
    """FastAPI runs this generator in a task of its own."""
    async for line in told_by_callback():
        yield line.strip()


async def closing_by_fastapi() -> AsyncIterator[str]:
    drain_notice().close()
    async for line in never("/closing", "hello"):
        yield line


async def never(path: str, first: str = "") -> AsyncIterator[str]:
    queue: asyncio.Queue[str] = asyncio.Queue()
    try:
        if first:
            yield first
        yield await queue.get()
    finally:
        common.say(ENDED + path)


async def untold(request: Request) -> Response:
    return StreamingResponse(never("/untold", "hello\n"))


async def silent(request: Request) -> Response:
    return StreamingResponse(never("/silent"))


async def tick() -> AsyncIterator[str]:
    try:
        while True:
            yield "tick\n"
            await asyncio.sleep(STEP)
    finally:
        common.say(ENDED + "/events/endless")


async def endless(request: Request) -> Response:
    return StreamingResponse(tick(), media_type="text/event-stream")


async def speak() -> AsyncIterator[str]:
    for token in TOKENS:
        await asyncio.sleep(3 / len(TOKENS))
        yield token
    yield DONE


async def tokens(request: Request) -> Response:
    return StreamingResponse(speak(), media_type="text/event-stream")


async def work(until: Path) -> None:
    while not until.exists():
        await asyncio.sleep(STEP)
    common.say(WORKED)


async def background(request: Request) -> Response:
    return PlainTextResponse("accepted", background=BackgroundTask(work, Path(request.query_params["until"])))


async def answer_never(request: Request) -> Response:
    try:
        await asyncio.sleep(3600)
    finally:
        common.say(ENDED + "/never")
    return Response()


class PassOn(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


ROUTES = {
    "/told/{how}": told,
    "/untold": untold,
    "/silent": silent,
    "/events/endless": endless,
    "/tokens": tokens,
    "/background": background,
    "/never": answer_never,
}

starlette = Starlette(routes=[Route(path, endpoint) for path, endpoint in ROUTES.items()], lifespan=lifespan)
wrapped = Starlette(routes=starlette.routes, lifespan=lifespan, middleware=[Middleware(PassOn)])
in_fastapi = fastapi.FastAPI(lifespan=lifespan)
in_fastapi.get("/told/sse", response_class=fastapi.sse.EventSourceResponse)(told_by_fastapi)
in_fastapi.get("/closing", response_class=fastapi.sse.EventSourceResponse)(closing_by_fastapi)
for _path, _endpoint in ROUTES.items():
    in_fastapi.get(_path)(_endpoint)
