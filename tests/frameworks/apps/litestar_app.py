"""The sample application in Litestar."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from litestar import Litestar, MediaType, Request, Response, get, post, route
from litestar.datastructures import State, UploadFile
from litestar.enums import RequestEncodingType
from litestar.params import Body
from litestar.response import Redirect, ServerSentEvent, ServerSentEventMessage, Stream

from tests.frameworks.apps import common

AnyRequest = Request[Any, Any, Any]


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    common.say(common.OPENED)
    app.state.value = common.STATE
    yield
    common.say(common.CLOSED)


@dataclass
class Upload:
    file: UploadFile
    field: str


@get("/", media_type=MediaType.HTML)
async def page() -> str:
    return common.PAGE


@route("/json", http_method=["GET", "HEAD"])
async def json() -> dict[str, Any]:
    return {"framework": "litestar", "answer": 42}


@get("/items/{id:int}")
async def item(request: AnyRequest) -> dict[str, Any]:
    return {"id": request.path_params["id"], "q": request.query_params.get("q")}


@get("/client")
async def client(request: AnyRequest) -> dict[str, Any]:
    return common.client(request.scope)


@get("/image/{name:str}")
async def image(request: AnyRequest) -> Response[str]:
    return Response(common.image(request.scope), media_type="image/svg+xml")


@post("/upload", status_code=200)
async def upload(request: AnyRequest) -> dict[str, Any]:
    return common.digest(await request.body())


@post("/form", status_code=200)
async def form(data: Annotated[Upload, Body(media_type=RequestEncodingType.MULTI_PART)]) -> dict[str, Any]:
    return {"field": data.field, "filename": data.file.filename, **common.digest(await data.file.read())}


@get("/stream")
async def stream(request: AnyRequest) -> Stream:
    query = request.query_params
    return Stream(common.pieces(query.get("gate", ""), query.get("until", "")), media_type="text/plain")


@post("/gate/{name:str}", status_code=204)
async def gate(request: AnyRequest) -> None:
    common.open_gate(request.path_params["name"])


async def messages() -> AsyncIterator[ServerSentEventMessage]:
    for number in range(len(common.EVENTS)):
        yield ServerSentEventMessage(data=f"event {number}", id=number)


@get("/events")
async def events() -> ServerSentEvent:
    return ServerSentEvent(messages())


@get("/meet/{number:int}")
async def meet(request: AnyRequest) -> dict[str, int]:
    return await common.meet(request.path_params["number"])


@get("/large", sync_to_thread=True, media_type="application/octet-stream")
def large() -> bytes:
    return common.large()


@get("/login")
async def login() -> Redirect:
    response = Redirect("/whoami", status_code=303)
    for name, value in common.COOKIES.items():
        response.set_cookie(name, value)
    return response


@get("/whoami")
async def whoami(request: AnyRequest) -> dict[str, str]:
    return request.cookies


@get("/state")
async def state_(state: State) -> dict[str, str]:
    return {"value": state.value}


@get("/fail")
async def fail() -> None:
    raise RuntimeError(common.FAILURE)


app = Litestar(
    route_handlers=[
        page,
        json,
        item,
        client,
        image,
        upload,
        form,
        stream,
        gate,
        events,
        meet,
        large,
        login,
        whoami,
        state_,
        fail,
    ],
    lifespan=[lifespan],
)
