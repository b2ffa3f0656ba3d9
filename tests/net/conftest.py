"""Every behaviour of the package net holds for both drivers and on both event loops."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from lastcall.server.loops import loop_factory
from testing.driving import Bench
from testing.moving import connect, pair, start
from testing.running import Lines, Running, running, server_log

__all__ = ["connect", "driver", "log", "loop", "pair", "serve", "start"]

Serve = Callable[..., Running]


@pytest.fixture(params=["native", "asyncio"])
def driver(request: pytest.FixtureRequest) -> str:
    """``--driver``."""
    name: str = request.param
    return name


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    """``--loop``."""
    name: str = request.param
    return name


WAITING = pytest.mark.parametrize(("driver", "loop"), [("native", "uvloop"), ("asyncio", "asyncio")])
"""For what takes a second or more and is no matter of the pair: each driver and each loop once."""


@pytest.fixture
def log() -> Iterator[Lines]:
    """The server's messages. None of them may be about an internal error."""
    with server_log() as lines:
        yield lines
    assert [line for line in lines.messages(logging.ERROR) if "internal error" in line] == []


@pytest.fixture
def bench(driver: str, loop: str) -> Iterator[Bench]:
    found = Bench(driver, loop_factory(loop)())
    yield found
    found.close()


@pytest.fixture
def serve(driver: str, loop: str, log: Lines) -> Iterator[Serve]:
    """``serve(app, **options)``: a running server, stopped at the end of the test."""
    with ExitStack() as stack:

        def start(app: object, *, sockets: Sequence[socket.socket] | None = None, **options: Any) -> Running:
            return stack.enter_context(running(app, sockets=sockets, **{"driver": driver, "loop": loop} | options))

        yield start
