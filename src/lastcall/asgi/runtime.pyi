import asyncio
from collections.abc import Iterable
from contextvars import Context
from typing import Any

from lastcall.base.types import ASGIApp
from lastcall.drain.ledger import Ledger

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
