"""Puts the user's application, ``$DRILL_APP`` (``module:attribute``), behind events in the file ``$DRILL_EVENTS``.

It passes every message on as it is, and writes what the application gets to see.
"""

from __future__ import annotations

import asyncio
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .events import drain_extension, note

if TYPE_CHECKING:
    from .events import Message, Receive, Send


def load(name: str) -> Any:
    """The object that ``module:attribute`` names; the attribute may have dots.

    If there is none, the drill reads why among the events, and the server ends with ImportError.
    """
    module, _, attributes = name.partition(":")
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module + ".").startswith(error.name + "."):
            raise refused("there is no module " + error.name) from None
        raise  # it is there, and what it imports is not
    for attribute in (attributes or "app").split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError:
            raise refused("module " + module + " has no attribute " + (attributes or "app")) from None
    return found


def refused(sentence: str) -> ImportError:
    """An error with a sentence, which is noted for the drill."""
    note("note", "application", sentence)
    return ImportError(sentence)


# None where there is nothing to watch, so that this module can be imported anywhere.
application: Any = load(os.environ["DRILL_APP"]) if "DRILL_APP" in os.environ else None


def named(scope: Message) -> str:
    """Who is called, among the events: a path, with the method before it if that is not GET."""
    if scope["type"] == "lifespan":
        return f"worker-{os.getpid()}"
    path = quote(scope["path"])  # a name in the events has no spaces
    word: str = scope.get("method", "WEBSOCKET")
    return path if word == "GET" else f"{word}:{path}"


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """The application, watched."""
    who = named(scope)

    async def watched_receive() -> Message:
        message = await receive()
        kind = message["type"]
        if kind in ("lifespan.startup", "lifespan.shutdown"):
            note(kind.replace(".", "-"), who)
        elif kind.endswith(".disconnect"):
            note("disconnect", who, str(message.get("code", "")))
        return message

    async def watched_send(message: Message) -> None:
        kind = message["type"]
        if kind == "lifespan.shutdown.complete":
            note("lifespan-end", who)
        elif kind in ("lifespan.startup.complete", "lifespan.startup.failed", "lifespan.shutdown.failed"):
            note("note", who, kind)
        try:
            await send(message)
        except OSError as error:
            note("disconnect", who, "send() raised " + type(error).__name__)
            raise

    await watched(scope, watched_receive, watched_send, who)


async def watched(scope: Message, receive: Receive, send: Send, who: str) -> None:
    """One call of the application, between its events."""
    lifespan = scope["type"] == "lifespan"
    how = "returned"
    listener = None if lifespan else asyncio.ensure_future(listen(scope, who))
    if not lifespan:
        note("request", who)
    try:
        await application(scope, receive, send)
    except asyncio.CancelledError:
        note("cancel", who)
        how = "cancelled"
        raise
    except BaseException as error:
        how = "raised " + type(error).__name__
        raise
    finally:
        if listener is not None:
            listener.cancel()
        note("note" if lifespan else "task-end", who, "lifespan " + how if lifespan else how)


async def listen(scope: Message, who: str) -> None:
    """Note the server's drain notice, if it gives any."""
    found = drain_extension(scope)
    if found is not None:
        await found.wait()
        note("notice", who)
