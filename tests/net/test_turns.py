"""A turn that runs out of time while sockets are ready."""

from __future__ import annotations

import threading
import time

from lastcall.base.types import Receive, Scope, Send
from testing.running import respond
from tests.net.conftest import Serve


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
