"""The sample application in Quart."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from quart import Quart, Response, redirect, request
from werkzeug.wrappers import Response as BaseResponse

from tests.frameworks.apps import common

app = Quart(__name__)


@app.while_serving
async def lifespan() -> AsyncGenerator[None, None]:
    common.say(common.OPENED)
    app.config["VALUE"] = common.STATE
    yield
    common.say(common.CLOSED)


@app.get("/")
async def page() -> str:
    return common.PAGE


@app.get("/json")
async def json() -> dict[str, Any]:
    return {"framework": "quart", "answer": 42}


@app.get("/items/<int:id>")
async def item(id: int) -> dict[str, Any]:
    return {"id": id, "q": request.args.get("q")}


@app.get("/client")
async def client() -> dict[str, Any]:
    return common.client(request.scope)


@app.get("/image/<name>")
async def image(name: str) -> Response:
    return Response(common.image(request.scope), mimetype="image/svg+xml")


@app.post("/upload")
async def upload() -> dict[str, Any]:
    body = bytearray()
    async for piece in request.body:
        body += piece
    return common.digest(body)


@app.post("/form")
async def form() -> dict[str, Any]:
    file = (await request.files)["file"]
    field = (await request.form)["field"]
    return {"field": field, "filename": file.filename, **common.digest(file.read())}


@app.get("/stream")
async def stream() -> Response:
    pieces = common.pieces(request.args.get("gate", ""), request.args.get("until", ""))
    return Response(pieces, mimetype="text/plain")


@app.post("/gate/<name>")
async def gate(name: str) -> tuple[str, int]:
    common.open_gate(name)
    return "", 204


@app.get("/events")
async def events() -> Response:
    return Response(common.events(), mimetype="text/event-stream")


@app.get("/meet/<int:number>")
async def meet(number: int) -> dict[str, int]:
    return await common.meet(number)


@app.get("/large")
def large() -> Response:
    """Not async: Quart runs it in a thread."""
    return Response(common.large(), mimetype="application/octet-stream")


@app.get("/login")
async def login() -> BaseResponse:
    response = redirect("/whoami", 303)
    for name, value in common.COOKIES.items():
        response.set_cookie(name, value)
    return response


@app.get("/whoami")
async def whoami() -> dict[str, str]:
    return dict(request.cookies)


@app.get("/state")
async def state() -> dict[str, str]:
    return {"value": app.config["VALUE"]}


@app.get("/fail")
async def fail() -> str:
    raise RuntimeError(common.FAILURE)
