"""What the sample applications have in common: contents and waiting, no framework. README of the routes:

=========================== ==========================================================================================
``GET  /``                  the page that the browser opens
``GET  /json``              ``{"framework": NAME, "answer": 42}``; HEAD too
``GET  /items/{id}?q=``     ``{"id": ID, "q": Q}``; not a number: 404, or what the framework says
``GET  /client``            the client's ``[host, port]`` and the HTTP version, both from the scope
``GET  /image/{name}``      an SVG image as wide as the client's port number
``POST /upload``            ``{"length": N, "sha256": HEX}`` of the raw body
``POST /form``              the same for the multipart file ``file``, with its ``filename`` and the field ``field``
``GET  /stream``            five pieces; ``?gate=NAME`` waits for ``POST /gate/NAME`` before each but the first,
                            ``?until=PATH`` until that file is there
``POST /gate/{name}``       204, and the next piece of that stream
``GET  /events``            three server-sent events
``GET  /meet/{number}``     answers when ``number`` requests are there at the same time
``GET  /large``             `LARGE` bytes at once
``GET  /login``             303 to ``/whoami`` with two cookies
``GET  /whoami``            the cookies
``GET  /state``             what the lifespan has set
``GET  /fail``              raises
=========================== ==========================================================================================
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

PIECES = [b"piece %d\n" % number for number in range(5)]
EVENTS = [b"id: %d\ndata: event %d\n\n" % (number, number) for number in range(3)]
LARGE = 20_000_000
COOKIES = {"session": "abc123", "theme": "dark"}
STATE = "set by lifespan.startup"
FAILURE = "this sample application fails on purpose"
STREAMED = "sample application: all pieces sent"
OPENED = "sample application: opened"
CLOSED = "sample application: closed"

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>lastcall sample</title>
<link rel="icon" href="data:,">
<img id="first" src="/image/first">
<form method="post" action="/form" enctype="multipart/form-data">
  <input name="field" value="from the form">
  <input type="file" name="file">
  <button>send</button>
</form>
"""

_gates: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(0))
_meetings: dict[int, asyncio.Barrier] = {}


def say(text: str) -> None:
    """One line on stderr, among the server's own."""
    print(text, file=sys.stderr, flush=True)


def digest(body: bytes | bytearray) -> dict[str, Any]:
    return {"length": len(body), "sha256": hashlib.sha256(body).hexdigest()}


def client(scope: Mapping[str, Any]) -> dict[str, Any]:
    return {"client": list(scope["client"]), "http_version": scope["http_version"]}


def image(scope: Mapping[str, Any]) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{scope["client"][1]}" height="1"/>'


async def pieces(gate: str = "", until: str = "") -> AsyncIterator[bytes]:
    for number, piece in enumerate(PIECES):
        if number and gate:
            await _gates[gate].acquire()
        while number and until and not Path(until).exists():
            await asyncio.sleep(0.01)
        yield piece
    say(STREAMED)


def open_gate(name: str) -> None:
    _gates[name].release()


async def events() -> AsyncIterator[bytes]:
    for event in EVENTS:
        yield event


async def meet(number: int) -> dict[str, int]:
    await _meetings.setdefault(number, asyncio.Barrier(number)).wait()
    return {"met": number}


def large() -> bytes:
    return bytes(range(250)) * (LARGE // 250)
