"""The sample application in Starlette."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.frameworks.apps import common


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    common.say(common.OPENED)
    yield {"value": common.STATE}
    common.say(common.CLOSED)


async def page(request: Request) -> Response:
    return HTMLResponse(common.PAGE)


async def json(request: Request) -> Response:
    return JSONResponse({"framework": "starlette", "answer": 42})


async def item(request: Request) -> Response:
    return JSONResponse({"id": request.path_params["id"], "q": request.query_params.get("q")})


async def client(request: Request) -> Response:
    return JSONResponse(common.client(request.scope))


async def image(request: Request) -> Response:
    return Response(common.image(request.scope), media_type="image/svg+xml")


async def upload(request: Request) -> Response:
    body = bytearray()
    async for piece in request.stream():
        body += piece
    return JSONResponse(common.digest(body))


async def form(request: Request) -> Response:
    async with request.form() as fields:
        file = fields["file"]
        assert isinstance(file, UploadFile)
        return JSONResponse({"field": fields["field"], "filename": file.filename, **common.digest(await file.read())})


async def stream(request: Request) -> Response:
    query = request.query_params
    pieces = common.pieces(query.get("gate", ""), query.get("until", ""))
    return StreamingResponse(pieces, media_type="text/plain")


async def gate(request: Request) -> Response:
    common.open_gate(request.path_params["name"])
    return Response(status_code=204)


async def events(request: Request) -> Response:
    return StreamingResponse(common.events(), media_type="text/event-stream")


async def meet(request: Request) -> Response:
    return JSONResponse(await common.meet(request.path_params["number"]))


async def large(request: Request) -> Response:
    return Response(common.large(), media_type="application/octet-stream")


async def login(request: Request) -> Response:
    response = RedirectResponse("/whoami", 303)
    for name, value in common.COOKIES.items():
        response.set_cookie(name, value)
    return response


async def whoami(request: Request) -> Response:
    return JSONResponse(request.cookies)


async def state(request: Request) -> Response:
    return JSONResponse({"value": request.state.value})


async def fail(request: Request) -> Response:
    raise RuntimeError(common.FAILURE)


app = Starlette(
    routes=[
        Route("/", page),
        Route("/json", json),
        Route("/items/{id:int}", item),
        Route("/client", client),
        Route("/image/{name}", image),
        Route("/upload", upload, methods=["POST"]),
        Route("/form", form, methods=["POST"]),
        Route("/stream", stream),
        Route("/gate/{name}", gate, methods=["POST"]),
        Route("/events", events),
        Route("/meet/{number:int}", meet),
        Route("/large", large),
        Route("/login", login),
        Route("/whoami", whoami),
        Route("/state", state),
        Route("/fail", fail),
    ],
    lifespan=lifespan,
)
