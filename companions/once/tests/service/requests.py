"""Requests to the service in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from companions.once.tests.backends import Clock
from lastcall_once._types import Message, Scope
from lastcall_once.service.app import Service
from lastcall_once.service.core import Settings
from lastcall_once.service.keys import create
from lastcall_once.store import StoreError
from lastcall_once.stores.memory import MemoryStore

Headers = Sequence[tuple[bytes, bytes]]


class Response:
    """A response."""

    def __init__(self, messages: list[Message]) -> None:
        start, body = messages
        self.status: int = start["status"]
        self.headers: dict[bytes, bytes] = dict(start["headers"])
        assert len(self.headers) == len(start["headers"])
        self.body: bytes = body["body"]
        if self.body:
            assert self.headers[b"content-length"] == b"%d" % len(self.body)
            assert self.headers[b"content-type"] == b"application/json"

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of an error, after a look at the rest of it."""
        document = self.json
        assert document["detail"]["code"] == document["code"]
        assert document["detail"]["message"]
        return str(document["code"])


class Brittle(MemoryStore):
    """A store that can be down."""

    down = False

    def now(self) -> float:
        if self.down:
            raise StoreError("it is down")
        return super().now()


class Kit:
    """A service over a store in memory, on a clock, with a key."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.store = Brittle(clock=self.clock)
        self.service = Service(self.store, Settings(**settings), clock=self.clock)
        self.key = ""
        self.notice: Any = None

    async def new_key(self, **options: Any) -> str:
        return (await create(self.service.documents, now=self.clock(), **options))[0]

    async def ask(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        key: str | None = "",
        headers: Headers = (),
        raw: bytes | Iterable[bytes] | None = None,
        **more: Any,
    ) -> Response:
        """A request, answered; ``raw`` is a body as it is, or its pieces."""
        path, _, query = target.partition("?")
        found = [*headers]
        if key is not None:
            found.append((b"authorization", b"Bearer " + (key or self.key).encode()))
        if raw is None:
            raw = b"" if body is None else json.dumps(body).encode()
        pieces = [raw] if isinstance(raw, bytes) else list(raw)
        scope: Scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": found,
            "extensions": {} if self.notice is None else {"lastcall.drain": {"notice": self.notice}},
        } | more
        waiting = [
            {"type": "http.request", "body": piece, "more_body": number < len(pieces)}
            for number, piece in enumerate(pieces, 1)
        ]
        sent: list[Message] = []

        async def receive() -> Message:
            return waiting.pop(0) if waiting else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        await self.service(scope, receive, send)
        return Response(sent)

    async def lock(self, key: str, **options: Any) -> Response:
        return await self.ask("POST", "/v1/check-lock", {"key": key}, **options)

    async def lease(self, key: str, **body: Any) -> Any:
        return (await self.ask("POST", "/v1/ai/lease", {"key": key, **body})).json

    async def tool(self, agent: str, tool: str, **body: Any) -> Any:
        told = await self.ask("POST", "/v1/ai/run", {"agent_id": agent, "tool": tool, **body})
        assert told.status == 200, told.body
        return told.json


def with_kit(test: Callable[[Kit], Awaitable[None]], **settings: Any) -> None:
    """Run ``test(kit)`` in a loop of its own."""

    async def run() -> None:
        kit = Kit(**settings)
        await kit.service.open()
        kit.key = await kit.new_key()
        try:
            await test(kit)
        finally:
            kit.store.down = False
            await kit.service.close()

    asyncio.run(run())
