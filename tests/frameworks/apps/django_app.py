"""The sample application in Django: settings, views and URLs in one file.

``bare`` is what ``django-admin startproject`` writes into ``asgi.py``; Django itself has no lifespan. ``app`` is the
same behind a few lines that have one, as in projects that open a pool at startup.
"""

from __future__ import annotations

from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse, StreamingHttpResponse
from django.urls import path

from lastcall.base.types import Receive, Scope, Send
from tests.frameworks.apps import common

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    DATA_UPLOAD_MAX_MEMORY_SIZE=None,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="only for tests",
)
django.setup(set_prefix=False)


async def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(common.PAGE)


async def json(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"framework": "django", "answer": 42})


async def item(request: HttpRequest, id: int) -> HttpResponse:
    return JsonResponse({"id": id, "q": request.GET.get("q")})


async def client(request: Any) -> HttpResponse:
    return JsonResponse(common.client(request.scope))


async def image(request: Any, name: str) -> HttpResponse:
    return HttpResponse(common.image(request.scope), content_type="image/svg+xml")


async def upload(request: HttpRequest) -> HttpResponse:
    return JsonResponse(common.digest(request.body))


async def form(request: HttpRequest) -> HttpResponse:
    file = request.FILES["file"]
    return JsonResponse({"field": request.POST["field"], "filename": file.name, **common.digest(file.read())})


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    pieces = common.pieces(request.GET.get("gate", ""), request.GET.get("until", ""))
    return StreamingHttpResponse(pieces, content_type="text/plain")


async def gate(request: HttpRequest, name: str) -> HttpResponse:
    common.open_gate(name)
    return HttpResponse(status=204)


async def events(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(common.events(), content_type="text/event-stream")


async def meet(request: HttpRequest, number: int) -> HttpResponse:
    return JsonResponse(await common.meet(number))


def large(request: HttpRequest) -> HttpResponse:
    """Not async: Django runs it in its thread."""
    return HttpResponse(common.large(), content_type="application/octet-stream")


async def login(request: HttpRequest) -> HttpResponse:
    response = HttpResponseRedirect("/whoami")
    response.status_code = 303
    for name, value in common.COOKIES.items():
        response.set_cookie(name, value)
    return response


async def whoami(request: HttpRequest) -> HttpResponse:
    return JsonResponse(request.COOKIES)


async def state(request: Any) -> HttpResponse:
    return JsonResponse({"value": request.scope["state"]["value"]})


async def fail(request: HttpRequest) -> HttpResponse:
    raise RuntimeError(common.FAILURE)


urlpatterns = [
    path("", page),
    path("json", json),
    path("items/<int:id>", item),
    path("client", client),
    path("image/<name>", image),
    path("upload", upload),
    path("form", form),
    path("stream", stream),
    path("gate/<name>", gate),
    path("events", events),
    path("meet/<int:number>", meet),
    path("large", large),
    path("login", login),
    path("whoami", whoami),
    path("state", state),
    path("fail", fail),
]

bare = get_asgi_application()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "lifespan":
        await bare(scope, receive, send)
        return
    await receive()
    scope["state"]["value"] = common.STATE
    common.say(common.OPENED)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    common.say(common.CLOSED)
    await send({"type": "lifespan.shutdown.complete"})
