"""A turn that runs out of time while sockets are ready."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from lastcall.base.types import Receive, Scope, Send
from testing.running import respond, routes
from tests.net.conftest import WAITING, Serve


def test_what_a_turn_had_no_time_for_is_served_though_nothing_else_happens(serve: Serve) -> None:
    """A connection is reported once by an edge-triggered epoll: what a turn leaves must bring the next turn itself."""
    began, go = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/hold":
            began.set()
            go.wait(5)
        time.sleep(0.01)  # longer than a turn
        await respond(send, b"here")

    server = serve(app)
    with server.peer() as holding, server.peer() as one, server.peer() as two, server.peer() as three:
        waiting = (one, two, three)
        for peer in waiting:
            assert peer.get("/").body == b"here"
        holding.request("/hold")
        assert began.wait(5)
        for peer in waiting:
            peer.request("/")
        go.set()
        asked = time.monotonic()
        for peer in (holding, *waiting):
            assert peer.answer().body == b"here"
        assert time.monotonic() - asked < 2


@WAITING
@pytest.mark.parametrize("begun", [True, False])
def test_a_handler_that_tries_for_ever_to_send_to_nobody_freezes_nobody(serve: Serve, begun: bool) -> None:
    """If its response had begun it is cancelled in the end; if not, it is not. The others are served all the same."""
    began, trying, cancelled, over = (threading.Event() for _ in range(4))

    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"some", "more_body": True})
        await receive()
        began.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        kind = "http.response.body" if begun else "http.response.start"
        try:
            while not over.is_set():
                try:
                    await send({"type": kind, "status": 200, "headers": [], "body": b"x", "more_body": True})
                except OSError:
                    trying.set()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    server = serve(routes(stubborn=stubborn), timeout_disconnect=0.3)
    with server.peer() as peer:
        peer.request("/stubborn")
        assert began.wait(5)
        peer.reset()
    assert trying.wait(5)
    with server.peer() as other:
        for _ in range(20):
            assert other.get().status == 200
    if begun:
        assert cancelled.wait(5)
    else:
        assert not cancelled.wait(1)
    over.set()
