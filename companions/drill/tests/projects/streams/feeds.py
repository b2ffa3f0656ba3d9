"""A FastAPI project whose event stream does not know that servers stop, and others that do."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import StreamingResponse

import lastcall


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield


app = FastAPI(lifespan=lifespan)
tasks: set[asyncio.Task[None]] = set()


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


@app.get("/unavailable")
async def unavailable() -> None:
    """A long poll that knows of the stop, and answers it with an error."""
    await lastcall.drain_notice().wait()
    raise HTTPException(503)


@app.get("/raises")
async def raises() -> None:
    await lastcall.drain_notice().wait()
    raise LookupError("nobody is subscribed")


@app.get("/poll")
async def poll() -> None:
    await asyncio.sleep(60)


@app.get("/mail")
async def mail() -> StreamingResponse:
    threading.Thread(target=time.sleep, args=(60,), name="mailer").start()
    return StreamingResponse(polite_ticks(), media_type="text/event-stream")


@app.get("/poller")
async def poller() -> StreamingResponse:
    tasks.add(asyncio.create_task(swallow(), name="poller"))
    return StreamingResponse(polite_ticks(), media_type="text/event-stream")


async def swallow() -> None:
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)


@app.get("/items/[1]")
async def bracketed() -> StreamingResponse:
    return StreamingResponse(ticks(), media_type="text/event-stream")


@app.post("/answers")
async def answers(request: Request) -> StreamingResponse:
    """Streams only to who asks properly."""
    if await request.json() != {"question": "why?"} or request.headers.get("x-token") != "it's me":
        raise HTTPException(422)
    return StreamingResponse(polite_ticks(), media_type="text/plain")


@app.websocket("/room")
async def room(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.receive()


@app.get("/now")
async def now() -> dict[str, str]:
    return {"time": "now"}


@asynccontextmanager
async def broken_lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    raise RuntimeError("the database did not close")


broken = FastAPI(lifespan=broken_lifespan)
broken.add_api_route("/polite", polite)


@asynccontextmanager
async def hanging_lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    await asyncio.sleep(60)


hanging = FastAPI(lifespan=hanging_lifespan)
hanging.add_api_route("/polite", polite)
