"""What an application that is judged writes down, and how it finds the server's drain notice."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Message = dict[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]


def note(what: str, who: str, detail: str = "") -> None:
    """Append an event to ``$DRILL_EVENTS``: in one write, so that lines of several processes never mix."""
    path = os.environ.get("DRILL_EVENTS")
    if path:
        line = f"{time.monotonic():.6f} {what} {who} {detail}".rstrip() + "\n"
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


def drain_extension(scope: Message) -> Any:
    """The drain notice that this server offers, None if it has none."""
    for name, value in (scope.get("extensions") or {}).items():
        if name.endswith(".drain"):
            found = value.get("notice") if isinstance(value, dict) else value
            if hasattr(found, "wait"):
                return found
    return None
