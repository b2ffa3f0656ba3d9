"""Says which of some modules, slow to import, are there before it is; and has a cycle that only the collector ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

SLOW = {
    "configparser",
    "dataclasses",
    "difflib",
    "email.utils",
    "encodings.idna",
    "json",
    "logging.config",
    "platform",
    "random",
    "urllib.parse",
    "lastcall.asgi.wsgi",
    "lastcall.config.keywords",
    "lastcall.net.portable",
    "lastcall.observe.custom",
}

os.write(1, f"slow modules: {sorted(SLOW & sys.modules.keys())}\n".encode())


class Cycle:
    def __init__(self) -> None:
        self.self = self

    def __del__(self) -> None:
        os.write(1, b"the cycle was collected\n")


cycle = Cycle()


async def app(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    raise NotImplementedError
