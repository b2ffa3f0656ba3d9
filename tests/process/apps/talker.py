"""Everybody who may write to a terminal while a stop goes on: this application, by each way there is.

``GET /wait`` is a stream that lasts until the word ``end``; ``GET /endless`` one that only a disconnect ends, and ``GET
/deaf`` one that nothing ends. Words are the names of files in the directory of ``$WORDS``: ``print``, say, prints.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lastcall.base.types import Receive, Scope, Send

DIRECTORY = Path(os.environ["WORDS"])
logger = logging.getLogger("talker")
logger.addHandler(logging.StreamHandler())
logger.propagate = False


def in_pieces() -> None:
    print("begun,", end=" ", flush=True)


def fail() -> None:
    try:
        raise ValueError("told on stderr")
    except ValueError:
        traceback.print_exc()


def in_thread() -> None:
    thread = threading.Thread(target=print, args=("from a thread",))
    thread.start()
    thread.join()


def child() -> None:
    subprocess.run(["echo", "from a child"], check=True)


def bytes_below() -> None:
    sys.stdout.buffer.write(b"below the text\n")
    sys.stdout.buffer.flush()


def much() -> None:
    for number in range(30):
        print(f"line {number}", file=sys.stderr if number % 2 else sys.stdout, flush=True)


WORDS: dict[str, Callable[[], object]] = {
    "print": lambda: print("printed to stdout"),
    "print-error": lambda: print("printed to stderr", file=sys.stderr),
    "begin": in_pieces,
    "go-on": lambda: print("and done", flush=True),
    "log": lambda: logger.warning("logged by the application"),
    "error": lambda: logging.getLogger("lastcall.error").error("logged by the server"),
    "fail": fail,
    "thread": in_thread,
    "child": child,
    "bytes": bytes_below,
    "much": much,
}


async def obey(send: Send) -> None:
    """Do what is asked for, each thing once, until it is ``end``."""
    while not (DIRECTORY / "end").exists():
        for word, act in WORDS.items():
            if (DIRECTORY / word).exists():
                (DIRECTORY / word).unlink()
                act()
                (DIRECTORY / f"{word}.done").touch()
        await send({"type": "http.response.body", "body": b".", "more_body": True})
        await asyncio.sleep(0.01)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The application."""
    if scope["type"] != "http":
        raise RuntimeError("no lifespan")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/wait":
        await obey(send)
    elif scope["path"] == "/deaf":
        await send({"type": "http.response.body", "body": b".", "more_body": True})
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(1000)
    elif scope["path"] == "/endless":
        await send({"type": "http.response.body", "body": b".", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    await send({"type": "http.response.body", "body": b"ok"})
