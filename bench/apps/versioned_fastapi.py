"""As `versioned`, with FastAPI: what its import takes is part of every reload. Used by `fleet`."""

from __future__ import annotations

import os
import time

_began = time.monotonic()

from fastapi import FastAPI  # noqa: E402
from fastapi.responses import PlainTextResponse  # noqa: E402

VERSION = "0"

app = FastAPI()

_ended = time.monotonic()


@app.get("/", response_class=PlainTextResponse)
async def root() -> str:
    """Answer `VERSION PID BEGAN ENDED`, the last two by the monotonic clock."""
    return f"{VERSION} {os.getpid()} {_began} {_ended}"
