"""What is left when objects die in any order, and what the log says of time."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable

from lastcall.asgi.scope import HTTPScopes
from lastcall.base.sinks import AccessSink
from lastcall.base.types import Receive, Scope, Send
from lastcall.connection.deadlines import Deadlines
from lastcall.connection.http1 import HTTP1Connection
from lastcall.connection.memory import MemoryStream
from lastcall.connection.scheduler import Scheduler
from lastcall.connection.service import HTTPService
from lastcall.notice.running import RunningTasks
from testing.memory import GET, Bench, Stage, answering, body, get, start

MakeBench = Callable[..., Bench]


def test_open_connections_die_with_their_server_in_whatever_order() -> None:
    """The collector may free the deadlines before the connections whose nodes are in them (ASan saw the write)."""
    gc.collect()
    gc.freeze()  # what others have left: it makes every look take long
    gc.disable()
    try:
        for _ in range(20):
            loop = asyncio.new_event_loop()
            scheduler = Scheduler(loop, Deadlines(), AccessSink())
            service = HTTPService(answering(), RunningTasks(), scheduler)
            for _ in range(3):
                stream = MemoryStream(scheduler)
                HTTP1Connection(service, HTTPScopes(), stream)
                stream.open()
            scheduler.close()
            loop.close()
            del loop, scheduler, service, stream
            gc.collect()
        assert not [found for found in gc.get_objects() if isinstance(found, HTTP1Connection)]
    finally:
        gc.enable()
        gc.unfreeze()


def test_the_duration_includes_what_a_handler_does_without_suspending(bench: MakeBench) -> None:
    clock = [0.0]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        clock[0] += 0.25
        await send(start(200, (b"content-length", b"0")))
        await send(body())

    one = bench(app, clock=lambda loop: loop.time() + clock[0])
    one.ask(GET)
    assert abs(one.records[0].duration - 0.25) < 1e-6


def test_a_body_in_tiny_chunks_costs_what_its_bytes_cost(bench: MakeBench) -> None:
    """One object per chunk would be some thirty times as much as is counted."""
    stage = Stage()
    client = bench(stage).connect()
    client.send(get("/", "Transfer-Encoding: chunked", method="POST"), b"2\r\nab\r\n" * 20_000)
    call = stage.last
    call.do(call.receive)
    assert call.results[-1]["body"] == b"ab" * 20_000
    before = sys.getallocatedblocks()
    client.send(b"2\r\nab\r\n" * 10_000)
    assert sys.getallocatedblocks() - before < 1000
