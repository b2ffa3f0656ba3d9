"""Streams of unmodified sse-starlette. Each says on stderr when its generator has ended.

====================== ===============================================================================================
``GET /endless``       a number each 20 ms, for ever
``GET /quiet``         never an event, for ever
``GET /finite/{n}``    ``n`` numbers, 20 ms apart
``GET /farewell``      a number each 20 ms until sse-starlette sets its ``shutdown_event``, then ``event: bye``
====================== ===============================================================================================
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from tests.frameworks.apps import common

STEP = 0.02
ENDED = "the generator has ended: "


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    common.say(common.OPENED)
    yield
    common.say(common.CLOSED)


async def count(path: str, end: int | None) -> AsyncIterator[dict[str, str]]:
    try:
        for number in itertools.count() if end is None else range(end):
            yield {"data": str(number)}
            await anyio.sleep(STEP)
    finally:
        common.say(ENDED + path)


async def say_nothing(path: str) -> AsyncIterator[dict[str, str]]:
    try:
        await anyio.sleep_forever()
        yield {}
    finally:
        common.say(ENDED + path)


async def count_until(event: anyio.Event, path: str) -> AsyncIterator[dict[str, str]]:
    try:
        for number in itertools.count():
            if event.is_set():
                break
            yield {"data": str(number)}
            await anyio.sleep(STEP)
        yield {"event": "bye", "data": "come back"}
    finally:
        common.say(ENDED + path)


async def endless(request: Request) -> EventSourceResponse:
    return EventSourceResponse(count(request.url.path, None))


async def quiet(request: Request) -> EventSourceResponse:
    return EventSourceResponse(say_nothing(request.url.path))


async def finite(request: Request) -> EventSourceResponse:
    return EventSourceResponse(count(request.url.path, request.path_params["n"]))


async def farewell(request: Request) -> EventSourceResponse:
    event = anyio.Event()
    content = count_until(event, request.url.path)
    return EventSourceResponse(content, shutdown_event=event, shutdown_grace_period=0.3)


app = Starlette(
    routes=[
        Route("/endless", endless),
        Route("/quiet", quiet),
        Route("/finite/{n:int}", finite),
        Route("/farewell", farewell),
    ],
    lifespan=lifespan,
)
