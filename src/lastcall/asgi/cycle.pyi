import asyncio
from collections.abc import Awaitable, Iterable
from contextvars import Context
from typing import Any, final

from lastcall.base.types import ASGIApp, Message
from lastcall.drain.ledger import Entry, Ledger

class AppRuntime:
    loop: asyncio.AbstractEventLoop
    app: ASGIApp
    ledger: Ledger
    state: dict[str, Any] | None
    def __init__(
        self,
        app: ASGIApp,
        loop: asyncio.AbstractEventLoop,
        ledger: Ledger,
        *,
        state: dict[str, Any] | None = None,
        root_path: str = "",
        default_headers: Iterable[tuple[bytes, bytes]] = (),
        scheme: str = "http",
        context: Context | None = None,
    ) -> None: ...

class HTTPCycle(Entry):
    buffered: int
    body_complete: bool
    disconnected: bool
    started: bool
    complete: bool
    ended: bool
    body_sent: int
    def receive(self) -> Awaitable[Message]: ...
    def send(self, message: Message) -> Awaitable[None]: ...

@final
class AppCoroutine:
    def send(self, value: object) -> object: ...
    def throw(self, kind: object, value: object = None, traceback: object = None) -> object: ...
    def close(self) -> None: ...

@final
class Receive:
    def send(self, value: object) -> object: ...
    def throw(self, kind: object, value: object = None, traceback: object = None) -> object: ...
    def close(self) -> None: ...

@final
class Writable:
    def send(self, value: object) -> object: ...
    def throw(self, kind: object, value: object = None, traceback: object = None) -> object: ...
    def close(self) -> None: ...
