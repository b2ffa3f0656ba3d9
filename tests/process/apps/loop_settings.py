"""An application that changes its event loop's settings in lifespan.startup, as the variable ``SETTING`` says.

It leaves behind what a stop has to deal with: a task that runs on, an async generator in the middle, and with ``/slow``
a request that is in flight.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

KEPT: list[object] = []


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


def refuse(*_args: object, **_keywords: object) -> Any:
    raise RuntimeError("the application's own refuses")


def exits(*_args: object) -> Any:
    raise SystemExit(9)


def eager(loop: asyncio.AbstractEventLoop) -> None:
    # Before Python 3.12 there is none: then one that cannot make any task stands for it.
    loop.set_task_factory(getattr(asyncio, "eager_task_factory", refuse))


def debug(loop: asyncio.AbstractEventLoop) -> None:
    # Made before, run in debug mode: one that is slow, and one that fails.
    loop.call_soon(time.sleep, 0.02)
    loop.call_soon(refuse)
    loop.slow_callback_duration = 0.0
    loop.set_debug(True)


SETTINGS: dict[str, Callable[[asyncio.AbstractEventLoop], None]] = {
    "eager": eager,
    "refusing factory": lambda loop: loop.set_task_factory(refuse),
    "futures": lambda loop: loop.set_task_factory(lambda loop, coro, **_: (coro.close(), loop.create_future())[1]),
    "raising handler": lambda loop: loop.set_exception_handler(refuse),
    "exiting handler": lambda loop: loop.set_exception_handler(exits),
    "debug": debug,
}


async def goes_on() -> None:
    try:
        await asyncio.sleep(1000)
    finally:
        say("the task was cancelled")


async def numbers() -> AsyncIterator[int]:
    try:
        yield 1
        yield 2
    finally:
        await asyncio.sleep(0)
        say("the generator was closed")


async def lifespan(receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    loop = asyncio.get_running_loop()
    await receive()
    KEPT.append(asyncio.create_task(goes_on()))
    KEPT.append(generator := numbers())
    await anext(generator)
    SETTINGS[os.environ["SETTING"]](loop)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    say("shutdown began")
    await asyncio.sleep(0)
    say("the shutdown code ran")
    await send({"type": "lifespan.shutdown.complete"})


async def app(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    if scope["path"] == "/breaks":
        asyncio.get_running_loop().call_soon(refuse)
    if scope["path"] == "/slow":
        say("slow began")
        await asyncio.sleep(0.3)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
