"""An application that keeps Python from hearing signals: by a C call that holds the GIL, and by taking descriptors.

``HOLD``: ``import``, while it is imported, or ``startup``, in ``lifespan.startup``. ``HANDLER``, the name of a signal:
it has its own handler of that.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def say(words: str) -> None:
    """One line on stdout, at once."""
    os.write(1, f"{words}\n".encode())


def hold() -> None:
    """Tens of seconds in one C call, which says itself that it has begun."""
    word = map(os.write, (1,), (b"holding\n",))
    sum(itertools.chain(word, itertools.repeat(1, 3 * 10**9)))


def compute(depth: int) -> list[int]:
    """Python code whose frames come and go all the time."""
    with contextlib.nullcontext():
        return compute(depth - 1) if depth else [number for number in range(3)]


def fill(fd: int) -> None:
    """Leave no room in a pipe."""
    os.set_blocking(fd, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(fd, b"x" * 512)
    os.set_blocking(fd, True)


def borrow_descriptor() -> None:
    """Leave the process without a wake-up descriptor for signals, as loops do when their last handler is removed."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, lambda: None)
    loop.remove_signal_handler(signal.SIGUSR1)
    signal.set_wakeup_fd(-1)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        borrow_descriptor()
        if os.environ.get("HOLD") == "startup":
            hold()
        if "HANDLER" in os.environ:
            number = getattr(signal, os.environ["HANDLER"]) - int(os.environ.get("BELOW", "0"))
            signal.signal(number, lambda *_: print("my own handler", flush=True))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/hold":
        hold()
    elif scope["path"] == "/compute":
        say("computing")
        while True:
            compute(30)
    elif scope["path"] == "/full":
        fill(2)
        hold()
    elif scope["path"] == "/idle":
        # A turn of the loop that leaves nothing to do behind it.
        asyncio.get_running_loop().call_later(0.5, Path(os.environ["RACE_WHEN"]).touch)
    elif scope["path"] == "/thread":
        sys.setswitchinterval(1e-4)
        threading.Thread(target=hold, daemon=True).start()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def sleepy(scope: Scope, receive: Receive, send: Send) -> None:
    """Its start-up sleeps in the loop."""
    borrow_descriptor()
    await asyncio.sleep(1000)


if os.environ.get("HOLD") == "import":
    hold()
