"""The sample application in FastAPI."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Form, Request, Response, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse

from tests.frameworks.apps import common


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    common.say(common.OPENED)
    yield {"value": common.STATE}
    common.say(common.CLOSED)


app = FastAPI(lifespan=lifespan)


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    return common.PAGE


@app.api_route("/json", methods=["GET", "HEAD"])
async def json() -> dict[str, Any]:
    return {"framework": "fastapi", "answer": 42}


@app.get("/items/{id}")
async def item(id: int, q: str | None = None) -> dict[str, Any]:
    return {"id": id, "q": q}


@app.get("/client")
async def client(request: Request) -> dict[str, Any]:
    return common.client(request.scope)


@app.get("/image/{name}")
async def image(name: str, request: Request) -> Response:
    return Response(common.image(request.scope), media_type="image/svg+xml")


@app.post("/upload")
async def upload(request: Request) -> dict[str, Any]:
    return common.digest(await request.body())


@app.post("/form")
async def form(file: UploadFile, field: Annotated[str, Form()]) -> dict[str, Any]:
    return {"field": field, "filename": file.filename, **common.digest(await file.read())}


@app.get("/stream")
async def stream(gate: str = "", until: str = "") -> StreamingResponse:
    return StreamingResponse(common.pieces(gate, until), media_type="text/plain")


@app.post("/gate/{name}")
async def gate(name: str) -> Response:
    common.open_gate(name)
    return Response(status_code=204)


@app.get("/events")
async def events() -> StreamingResponse:
    return StreamingResponse(common.events(), media_type="text/event-stream")


@app.get("/meet/{number}")
async def meet(number: int) -> dict[str, int]:
    return await common.meet(number)


@app.get("/large")
def large() -> Response:
    """Not async: FastAPI runs it in its thread pool."""
    return Response(common.large(), media_type="application/octet-stream")


@app.get("/login")
async def login() -> RedirectResponse:
    response = RedirectResponse("/whoami", 303)
    for name, value in common.COOKIES.items():
        response.set_cookie(name, value)
    return response


@app.get("/whoami")
async def whoami(request: Request) -> dict[str, str]:
    return request.cookies


@app.get("/state")
async def state(request: Request) -> dict[str, str]:
    return {"value": request.state.value}


@app.get("/fail")
async def fail() -> None:
    raise RuntimeError(common.FAILURE)
