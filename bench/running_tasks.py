#!/usr/bin/env python3
"""What keeping the running tasks costs per request: in memory, with it and without it, in turns.

    python bench/tasks.py [--requests 1000000] [--rounds 10]

Prints the median CPU time per request both ways and the difference, in microseconds. Run it with lastcall's own
environment: there are no sockets and no peers.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from typing import Any

from lastcall.asgi.scope import HTTPScopes
from lastcall.base.sinks import AccessSink
from lastcall.connection.deadlines import Deadlines
from lastcall.connection.http1 import HTTP1Connection
from lastcall.connection.memory import MemoryStream, NoTasks
from lastcall.connection.scheduler import Scheduler
from lastcall.connection.service import HTTPService
from lastcall.notice.running import RunningTasks

REQUEST = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"


async def plain(_scope: Any, _receive: Any, send: Any) -> None:
    """Answer at once."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def block(loop: asyncio.AbstractEventLoop, tasks: RunningTasks, requests: int) -> float:
    """CPU seconds per request of one block on a connection of its own."""

    async def run() -> float:
        scheduler = Scheduler(loop, Deadlines(), AccessSink())
        stream = MemoryStream(scheduler)
        connection = HTTP1Connection(HTTPService(plain, tasks, scheduler), HTTPScopes(), stream)
        stream.open()
        started = time.process_time()
        for _ in range(requests):
            connection.feed(REQUEST)
            stream.take()
        spent = time.process_time() - started
        assert connection.idle
        connection.close_now()
        await asyncio.sleep(0)
        scheduler.close()
        return spent / requests

    return loop.run_until_complete(run())


def measure(requests: int, rounds: int) -> tuple[float, float]:
    """Median microseconds per request with it and without, from ``rounds`` interleaved blocks of each."""
    loop = asyncio.new_event_loop()
    found: dict[type[RunningTasks], list[float]] = {RunningTasks: [], NoTasks: []}
    try:
        for number in range(rounds):
            for kind in (RunningTasks, NoTasks) if number % 2 else (NoTasks, RunningTasks):
                found[kind].append(block(loop, kind(), requests // rounds) * 1e6)
    finally:
        loop.close()
    return statistics.median(found[RunningTasks]), statistics.median(found[NoTasks])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="What keeping the running tasks costs per request, in memory.")
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    with_it, without = measure(options.requests, options.rounds)
    print(f"with it {with_it:.3f} µs, without {without:.3f} µs: {with_it - without:+.3f} µs per request")


if __name__ == "__main__":
    main()
