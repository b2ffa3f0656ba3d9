"""A lifespan whose task ends with an exception while the server serves: readiness, one line, ``--lifespan-died``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from lastcall.base.types import Receive, Scope, Send
from testing.peer import eventually
from testing.running import Lines, Running, respond, running, server_log

READY, LIVE = "/-/ready", "/-/live"


class Mortal:
    """An application whose lifespan ends as ``end`` says: in the turn after it was told to, or ``at_once``."""

    def __init__(self, end: str = "raises", *, at_once: bool = False) -> None:
        self.told = asyncio.Event()
        self._end = end
        self._at_once = at_once

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await respond(send, b"served")
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        if not self._at_once:
            await self.told.wait()
        if self._end == "returns":
            return
        if self._end == "as Starlette":
            await send({"type": "lifespan.shutdown.failed", "message": "lost the queue"})
        raise RuntimeError("lost the queue")


@pytest.fixture
def log() -> Iterator[Lines]:
    with server_log() as lines:
        yield lines


def ask(server: Running, path: str) -> tuple[int, bytes]:
    with server.peer() as peer:
        answer = peer.get(path)
    return answer.status, answer.body


def one_line(log: Lines) -> str:
    [record] = [record for record in log.records if record.levelno >= logging.WARNING]
    return f"{record.getMessage()} {record.exc_info}"


@pytest.mark.parametrize("end", ["raises", "as Starlette"])
@pytest.mark.parametrize("at_once", [False, True])
def test_readiness_is_503_and_serving_goes_on(log: Lines, end: str, at_once: bool) -> None:
    app = Mortal(end, at_once=at_once)
    with running(app, lifespan="on", health_path="/-") as server:
        if not at_once:
            assert ask(server, READY) == (200, b"ok\n")
            server.call(app.told.set)
        eventually(lambda: ask(server, READY)[0] == 503)
        assert ask(server, LIVE) == (200, b"ok\n")
        assert ask(server, "/") == (200, b"served")
        assert not server.server.should_exit
        assert "lost the queue" in one_line(log)
        report = server.stop()
    assert (report.lifespan, report.exit_code) == ("died while serving", 4)


@pytest.mark.parametrize("end", ["raises", "as Starlette"])
@pytest.mark.parametrize("at_once", [False, True])
def test_it_may_be_an_order_to_stop(log: Lines, end: str, at_once: bool) -> None:
    app = Mortal(end, at_once=at_once)
    with running(app, lifespan="on", lifespan_died="stop", wait=not at_once) as server:
        if not at_once:
            server.call(app.told.set)
        report = server.join()
    assert (report.cause, report.lifespan, report.exit_code) == ("lifespan-died", "died while serving", 4)
    assert "lost the queue" in one_line(log)


@pytest.mark.parametrize("died", ["serve", "stop"])
def test_a_plain_return_is_no_death(log: Lines, died: str) -> None:
    app = Mortal("returns")
    with running(app, lifespan="on", health_path="/-", lifespan_died=died) as server:
        server.call(app.told.set)
        eventually(lambda: any("returned while serving" in line for line in log.messages()))
        assert ask(server, READY) == (200, b"ok\n")
        assert not server.server.should_exit
        assert server.stop().exit_code == 0


def test_a_death_in_the_stop_is_no_other_order(log: Lines) -> None:
    app = Mortal()

    def both() -> None:
        server.server.drain("first")
        app.told.set()

    with running(app, lifespan="on", lifespan_died="stop") as server:
        server.call(both)
        report = server.join()
    assert (report.cause, report.exit_code) == ("first", 4)
