"""An ASGI 2 application with lifespan and an endless stream, started by ``lastcall.run(App(), port=...)``."""

from __future__ import annotations

import asyncio
import atexit
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import lastcall

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class App:
    """Calling it with a scope gives the instance that takes ``receive`` and ``send``."""

    def __call__(self, scope: dict[str, Any]) -> Callable[[Receive, Send], Awaitable[None]]:
        return self.lifespan if scope["type"] == "lifespan" else self.events

    async def lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                print("the shutdown code ran", flush=True)
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def events(self, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await receive()
        number = 0
        while True:
            number += 1
            await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
            try:
                message = await asyncio.wait_for(receive(), timeout=1)
            except TimeoutError:
                continue
            if message["type"] == "http.disconnect":
                return


if __name__ == "__main__":
    atexit.register(print, "atexit ran", flush=True)
    try:
        options: Any = {name: float(value) for name, value in (a.split("=") for a in sys.argv[1:])}
        lastcall.run(App(), port=0, **options)
    finally:
        print("finally ran", flush=True)
    print("run() returned", flush=True)
