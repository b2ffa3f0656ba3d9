"""An application whose process takes its time to end, by environment variables that are numbers of seconds.

``ATEXIT``: in an atexit function. ``DESTRUCTOR``: in a destructor that runs when the interpreter takes itself apart.
``FAIL``, set to anything: ``lifespan.startup`` fails, in a process that by then has a thread that does not end.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any


def take(name: str, write: Any = os.write, sleep: Any = time.sleep, environ: Any = dict(os.environ)) -> None:  # noqa: B006
    """Everything is an argument: the modules' own names are gone in a late destructor."""
    if name in environ:
        write(1, b"%s began\n" % name.lower().encode())
        sleep(float(environ[name]))
        write(1, b"%s ended\n" % name.lower().encode())


class Destroyed:
    def __del__(self, take: Callable[[str], None] = take) -> None:
        take("DESTRUCTOR")


sys.kept_to_the_end = Destroyed()  # type: ignore[attr-defined]
atexit.register(take, "ATEXIT")


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    await receive()
    if "FAIL" in os.environ:
        threading.Thread(target=time.sleep, args=(1000,), name="never-ends").start()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
