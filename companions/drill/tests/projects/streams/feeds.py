"""A FastAPI project whose event stream does not know that servers stop, and others that do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

import lastcall


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/two words")
@app.get("/events")
async def events() -> StreamingResponse:
    return StreamingResponse(ticks(), media_type="text/event-stream")


async def ticks() -> AsyncIterator[str]:
    while True:
        yield "data: tick\n\n"
        await asyncio.sleep(0.05)


@app.get("/polite")
async def polite() -> StreamingResponse:
    return StreamingResponse(polite_ticks(), media_type="text/event-stream")


async def polite_ticks() -> AsyncIterator[str]:
    notice = lastcall.drain_notice()
    while not notice.is_set():
        yield "data: tick\n\n"
        await asyncio.sleep(0.05)
    yield "event: bye\ndata: \n\n"


@app.get("/now")
async def now() -> dict[str, str]:
    return {"time": "now"}


@asynccontextmanager
async def broken_lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    raise RuntimeError("the database did not close")


broken = FastAPI(lifespan=broken_lifespan)
broken.add_api_route("/polite", polite)
