"""What the migration guide says of streams whose client leaves, with Starlette's own responses and its recipes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import ModuleType
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from testing.pages import page
from testing.peer import eventually
from testing.running import running

GUIDE = "docs/how-to/migrate-from-uvicorn.md"


@pytest.fixture(scope="module")
def recipes() -> ModuleType:
    """The file on the page."""
    module = ModuleType("streams")
    exec(page(GUIDE).files["streams.py"], module.__dict__)
    return module


class Witness:
    """An application with one stream, and what became of it when its client left."""

    def __init__(self, response: Callable[..., Any], *, inside: Callable[[Any], Any] = lambda app: app) -> None:
        self.finally_in_the_same_task: bool | None = None
        self.background_ran = False
        self.raised: list[type[BaseException]] = []
        self.ended = False
        self._response = response
        self._app = inside(Starlette(routes=[Route("/", self._endpoint)]))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """What stands around the application: Sentry, say, or OpenTelemetry."""
        try:
            await self._app(scope, receive, send)
        except BaseException as exc:
            self.raised.append(type(exc))  # itself, it would keep the generator alive by its traceback
            raise
        finally:
            self.ended = True

    async def _endpoint(self, request: Request) -> Any:
        return self._response(self._ticks(), background=BackgroundTask(self._background))

    async def _ticks(self) -> AsyncIterator[bytes]:
        task = asyncio.current_task()
        try:
            while True:
                yield b"tick"
                await asyncio.sleep(0.01)
        finally:
            self.finally_in_the_same_task = asyncio.current_task() is task

    async def _background(self) -> None:
        self.background_ran = True

    def serve_one_who_leaves(self, **options: Any) -> None:
        """A client takes a chunk, and is gone."""
        with running(self, **options) as server:
            with server.peer() as peer:
                peer.request("/")
                peer.head()
                peer.chunk()
            eventually(lambda: self.ended and self.finally_in_the_same_task is not None)
            server.stop()


def test_at_2_5_starlettes_own_response_ends_as_the_page_says() -> None:
    one = Witness(StreamingResponse)
    one.serve_one_who_leaves()
    assert one.finally_in_the_same_task is False
    assert not one.background_ran
    assert one.raised == [ClientDisconnect]


def test_at_2_3_it_ends_as_under_uvicorn() -> None:
    one = Witness(StreamingResponse)
    one.serve_one_who_leaves(asgi_spec="2.3")
    assert one.finally_in_the_same_task is True
    assert one.background_ran
    assert one.raised == []


@pytest.mark.parametrize("spec", ["2.3", "2.5"])
def test_the_response_of_the_page_ends_so_at_both(spec: str, recipes: ModuleType) -> None:
    one = Witness(recipes.Stream)
    one.serve_one_who_leaves(asgi_spec=spec)
    assert one.finally_in_the_same_task is True
    assert one.background_ran
    assert one.raised == []


def test_the_middleware_of_the_page_keeps_it_from_those_around(recipes: ModuleType) -> None:
    one = Witness(StreamingResponse, inside=recipes.QuietDisconnects)
    one.serve_one_who_leaves()
    assert one.raised == []
