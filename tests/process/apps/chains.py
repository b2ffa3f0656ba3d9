"""An application with handlers of its own for stop signals, which call those of before; its start-up takes long.

``HANDLERS``: the names of the signals. ``BLOCK``: whether the start-up blocks the loop. ``DEFAULT``: whether it leaves
SIGTERM to the kernel from then on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def say(words: str) -> None:
    """One line on stdout, at once."""
    os.write(1, f"{words}\n".encode())


def chain(number: int) -> None:
    """Put a handler before the one that is there."""
    before = signal.getsignal(number)
    assert callable(before)

    def handler(signum: int, frame: FrameType | None) -> None:
        say("my own handler")
        before(signum, frame)
        if "DEFAULT" in os.environ:
            signal.signal(number, signal.SIG_DFL)

    signal.signal(number, handler)


for name in os.environ["HANDLERS"].split():
    chain(getattr(signal, name))


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "lifespan":
        return
    await receive()
    say("startup began")
    try:
        if "BLOCK" in os.environ:
            time.sleep(1000)
        await asyncio.sleep(1000)
    finally:
        await asyncio.sleep(1.5)
        say("startup was interrupted")
