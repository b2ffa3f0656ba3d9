"""A server of the MCP Python SDK over Streamable HTTP; says when a tool runs and when a channel is open.

``app`` lets everything take its course, ``closing_channels`` has each GET closed at a stop: tool calls are POSTs, the
channel for notifications is a GET.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from mcp.server.mcpserver import MCPServer
from starlette.types import Message, Receive, Scope, Send

from tests.frameworks.apps import common

BEGAN = "the tool has begun"
CHANNEL = "a GET has been answered"


@asynccontextmanager
async def lifespan(server: MCPServer) -> AsyncIterator[None]:
    common.say(common.OPENED)
    yield
    common.say(common.CLOSED)


server = MCPServer("sample", lifespan=lifespan, log_level="WARNING")


@server.tool()
async def wait_for(path: str) -> str:
    """Return once the file ``path`` is there."""
    common.say(BEGAN)
    while not Path(path).exists():
        await anyio.sleep(0.01)
    return "the file is there"


sdk = server.streamable_http_app()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    async def announce(message: Message) -> None:
        await send(message)
        if message["type"] == "http.response.start" and scope["method"] == "GET":
            common.say(CHANNEL)

    await sdk(scope, receive, announce)


async def closing_channels(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http" and scope["method"] == "GET":
        scope["extensions"]["lastcall.drain"]["notice"].close()
    await app(scope, receive, send)
