"""Requests to an ASGI application in memory, on a clock of its own: what a client sends, sees, and when it leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from lastcall.drain.ladder import Phase
from lastcall.notice.notice import DrainNotice
from lastcall.notice.signal import DrainSignal
from lastcall_once._types import ASGIApp, Message, Receive, Scope, Send
from lastcall_once.middleware import IdempotencyMiddleware
from lastcall_once.records import Record
from lastcall_once.store import StoreError
from lastcall_once.stores.memory import MemoryStore
from testing.loop import VirtualLoop

Headers = Sequence[tuple[bytes, bytes]]


def http_scope(
    method: str = "POST", path: str = "/pay", query: bytes = b"", headers: Headers = (), **more: Any
) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": list(headers),
        "extensions": {},
    } | more


class Call:
    """One request. ``leave()`` is the client's hanging up; ``on_message`` is called before a message is taken."""

    def __init__(
        self,
        app: ASGIApp,
        key: str | None = "k",
        *,
        body: bytes | Iterable[bytes] = b"{}",
        authorization: str | None = None,
        headers: Headers = (),
        notice: DrainNotice | None = None,
        on_message: Callable[[Message], Awaitable[None]] | None = None,
        **scope: Any,
    ) -> None:
        all_headers = [*headers]
        if key is not None:
            all_headers.append((b"idempotency-key", key.encode("latin-1")))
        if authorization is not None:
            all_headers.append((b"authorization", authorization.encode()))
        self.scope = http_scope(headers=all_headers, **scope)
        if notice is not None:
            self.scope["extensions"]["lastcall.drain"] = {"notice": notice}
        self.messages: list[Message] = []
        self.on_message = on_message
        self._left = asyncio.Event()
        pieces = [body] if isinstance(body, bytes) else list(body)
        self._body = [
            {"type": "http.request", "body": piece, "more_body": number < len(pieces)}
            for number, piece in enumerate(pieces, 1)
        ]
        self.task = asyncio.ensure_future(app(self.scope, self._receive, self._send))

    def leave(self) -> None:
        self._left.set()

    async def _receive(self) -> Message:
        if self._body:
            return self._body.pop(0)
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self.on_message is not None:
            await self.on_message(message)
        if self._left.is_set():
            raise OSError("gone")
        self.messages.append(message)

    @property
    def complete(self) -> bool:
        return bool(self.messages) and not self.messages[-1].get("more_body", len(self.messages) == 1)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return list(self.messages[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def replayed(self) -> bool:
        return (b"idempotent-replayed", b"true") in self.headers

    @property
    def code(self) -> str:
        """The problem's code, after a look at the rest of it."""
        headers = dict(self.headers)
        assert headers[b"content-type"] == b"application/problem+json"
        assert headers[b"content-length"] == str(len(self.body)).encode()
        document = json.loads(self.body)
        assert document["status"] == self.status
        assert document["type"] == f"urn:lastcall:problem:{document['code']}"
        assert document["title"]
        assert document["detail"]
        return str(document["code"])


async def call(app: ASGIApp, key: str | None = "k", **options: Any) -> Call:
    """A request, answered."""
    made = Call(app, key, **options)
    await made.task
    assert made.complete
    return made


class BrittleStore(MemoryStore):
    """A store that can be down, altogether or in single operations."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock=clock)
        self.down: set[str] = set()
        self.opened = self.closed = 0

    def _fail(self, operation: str) -> None:
        if operation in self.down:
            raise StoreError(f"down: {operation}")

    async def open(self) -> None:
        self._fail("open")
        self.opened += 1
        await super().open()

    async def close(self) -> None:
        self.closed += 1
        await super().close()

    async def acquire(self, *args: Any, **named: Any) -> Any:
        self._fail("acquire")
        return await super().acquire(*args, **named)

    async def renew(self, *args: Any, **named: Any) -> bool:
        self._fail("renew")
        return await super().renew(*args, **named)

    async def finish(self, *args: Any, **named: Any) -> bool:
        self._fail("finish")
        return await super().finish(*args, **named)


class Handler:
    """An application that counts its runs, and answers each with its number when ``go`` is set."""

    def __init__(self) -> None:
        self.runs = 0
        self.ended = 0
        self.go = asyncio.Event()
        self.go.set()
        self.status = 200
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.runs += 1
        mine = self.runs
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message["more_body"]:
                break
        self.bodies.append(body)
        await self.go.wait()
        answer = b"run %d" % mine
        headers = [(b"content-length", b"%d" % len(answer)), (b"x-run", b"%d" % mine)]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})
        self.ended += 1


class Setting:
    """An application behind the middleware, with a store, on a clock that costs nothing."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.store = BrittleStore(loop.time)
        self.handler = Handler()
        self.signal = DrainSignal(loop.time)
        self.notice = DrainNotice(self.signal)

    def guard(self, app: ASGIApp | None = None, **options: Any) -> IdempotencyMiddleware:
        return IdempotencyMiddleware(app or self.handler, self.store, **options)

    async def record(self, key: str = "k") -> Record:
        """The only record whose key ends so."""
        found = [record for record in await self.store.scan() if record.key.endswith(f":{key}")]
        assert len(found) == 1
        return found[0]

    def drain(self, grace: float = 10.0) -> None:
        """The stop has come to DRAINING; responses will be disconnected after ``grace`` seconds."""
        at = self.loop.time() + grace
        self.signal.state.phase = Phase.DRAINING
        self.signal.give(at, at)


async def until(true: Callable[[], object]) -> None:
    """Wait, in time that costs nothing."""
    for _ in range(10_000):
        if true():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came")
