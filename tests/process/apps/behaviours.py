"""Applications that behave in every way that a stop has to cope with. Handlers by path; lifespans by attribute."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import gc
import itertools
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Lifespan = Callable[[Receive, Send], Awaitable[None]]


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


async def respond(send: Send, body: bytes) -> None:
    length = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": body})


# Handlers.


async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    say("slow began")
    await asyncio.sleep(float(scope["query_string"] or b"0.5"))
    await respond(send, b"slow")


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    say("stream began")
    await asyncio.sleep(1000)


async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
    say("stubborn began")
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            say("stubborn was cancelled")


async def block(scope: Scope, receive: Receive, send: Send) -> None:
    say("block began")
    time.sleep(1000)


async def thread(scope: Scope, receive: Receive, send: Send) -> None:
    threading.Thread(target=time.sleep, args=(1000,), name="never-ends").start()
    await respond(send, b"thread")


async def daemon(scope: Scope, receive: Receive, send: Send) -> None:
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    await respond(send, b"daemon")


async def executor(scope: Scope, receive: Receive, send: Send) -> None:
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 1000)
    await respond(send, b"executor")


async def exits_later(scope: Scope, receive: Receive, send: Send) -> None:
    async def leave() -> None:
        sys.exit(CODES[scope["query_string"] or b"7"])

    KEPT.append(asyncio.create_task(leave()))
    await asyncio.sleep(0.3)
    await respond(send, b"finished all the same")


async def exits_when_cancelled(scope: Scope, receive: Receive, send: Send) -> None:
    async def leave() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            sys.exit(7)

    KEPT.append(asyncio.create_task(leave()))
    await respond(send, b"exits_when_cancelled")


async def frozen(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, str(gc.get_freeze_count()).encode())


async def big(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, b"x" * int(scope["query_string"]))
    say("big has ended")


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, b"ok")


HANDLERS = {
    handler.__name__: handler
    for handler in (
        slow,
        stream,
        stubborn,
        block,
        thread,
        daemon,
        executor,
        exits_later,
        exits_when_cancelled,
        frozen,
        big,
    )
}
CODES = {b"7": 7, b"0": 0, b"none": None, b"text": "some words", b"-1": -1}
KEPT: list[asyncio.Task[None]] = []


# Lifespans.


async def orderly(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    say("the shutdown code ran")
    await send({"type": "lifespan.shutdown.complete"})


async def failing_startup(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


async def hung_startup(receive: Receive, send: Send) -> None:
    await receive()
    say("startup began")
    try:
        await asyncio.sleep(1000)
    finally:
        say("startup was interrupted")


async def blocking_startup(receive: Receive, send: Send) -> None:
    await receive()
    say("startup began")
    try:
        time.sleep(1000)
    finally:
        say("startup was interrupted")


async def blocking_startup_that_tells(receive: Receive, send: Send) -> None:
    """As Starlette's: whatever comes out of the application's code is told, with its traceback, and raised again."""
    await receive()
    try:
        say("startup began")
        time.sleep(1000)
    except BaseException:
        await send({"type": "lifespan.startup.failed", "message": traceback.format_exc()})
        raise


async def task_that_blocks_the_startup(receive: Receive, send: Send) -> None:
    async def work() -> None:
        say("startup began")
        time.sleep(1000)

    await receive()
    KEPT.append(asyncio.create_task(work()))
    await asyncio.sleep(1000)


async def startup_that_swallows(receive: Receive, send: Send) -> None:
    await receive()
    say("startup began")
    for _ in range(3):
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(1000)
        say("startup goes on")


async def then_serve(receive: Receive, send: Send) -> None:
    say("startup is complete")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    say("shutdown")
    await asyncio.sleep(0.1)
    say("the shutdown code ran")
    await send({"type": "lifespan.shutdown.complete"})


async def shortly_blocking_startup(receive: Receive, send: Send) -> None:
    """A migration, say: the signal comes in it, and it is over before that would interrupt it."""
    await receive()
    say("startup began")
    signal.raise_signal(signal.SIGTERM)  # heard at once, and then the loop does not turn before it is complete
    time.sleep(0.1)
    await then_serve(receive, send)


async def startup_that_swallows_and_completes(receive: Receive, send: Send) -> None:
    await receive()
    say("startup began")
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(1000)
    await then_serve(receive, send)


async def completes_late_and_ticks_in_its_shutdown(receive: Receive, send: Send) -> None:
    """Says how long the loop stood still at most while it was shut down."""
    await receive()
    say("startup began")
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(1000)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    say("shutdown began")
    times = [time.monotonic()]
    while times[-1] < times[0] + 2:
        await asyncio.sleep(0.05)
        times.append(time.monotonic())
    say("stood still" if max(b - a for a, b in itertools.pairwise(times)) > 1.8 else "turned")
    await send({"type": "lifespan.shutdown.complete"})


async def blocking_startup_that_swallows_and_completes(receive: Receive, send: Send) -> None:
    await receive()
    say("startup began")
    with contextlib.suppress(KeyboardInterrupt):
        time.sleep(1000)
    await then_serve(receive, send)


async def stubborn_startup(receive: Receive, send: Send) -> None:
    await receive()
    say("startup began")
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            say("startup goes on")


async def blocking_shutdown(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    say("shutdown began")
    time.sleep(1000)


async def dying(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await asyncio.sleep(0.05)
    raise RuntimeError("a listener of the application's died")


def app_with(lifespan: Lifespan) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
        else:
            await HANDLERS.get(scope["path"].strip("/"), hello)(scope, receive, send)

    return app


app = app_with(orderly)
app_failing_startup = app_with(failing_startup)
app_hung_startup = app_with(hung_startup)
app_blocking_startup = app_with(blocking_startup)
app_blocking_startup_that_tells = app_with(blocking_startup_that_tells)
app_task_that_blocks_the_startup = app_with(task_that_blocks_the_startup)
app_startup_that_swallows = app_with(startup_that_swallows)
app_shortly_blocking_startup = app_with(shortly_blocking_startup)
app_startup_that_swallows_and_completes = app_with(startup_that_swallows_and_completes)
app_blocking_startup_that_swallows_and_completes = app_with(blocking_startup_that_swallows_and_completes)
app_that_completes_late_and_ticks = app_with(completes_late_and_ticks_in_its_shutdown)
app_stubborn_startup = app_with(stubborn_startup)
app_blocking_shutdown = app_with(blocking_shutdown)
app_dying = app_with(dying)

atexit.register(say, "atexit ran")
