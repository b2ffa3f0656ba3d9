from collections.abc import Callable
from contextvars import Context
from typing import Any, final

from lastcall.asgi.cycle import HTTPCycle
from lastcall.asgi.runtime import AppRuntime
from lastcall.base.options import HTTPOptions
from lastcall.base.types import ASGIApp
from lastcall.connection.hub import Hub
from lastcall.connection.stream import Connection, Stream
from lastcall.drain.ledger import Ledger

@final
class HTTPService(AppRuntime):
    hub: Hub
    requests: int
    draining: bool
    refusing: bool
    def __init__(
        self,
        app: ASGIApp,
        ledger: Ledger,
        hub: Hub,
        options: HTTPOptions | None = None,
        *,
        state: dict[str, Any] | None = None,
        on_max_requests: Callable[[], object] | None = None,
        context: Context | None = None,
    ) -> None: ...

@final
class HTTP1Cycle(HTTPCycle): ...

@final
class HTTP1Connection(Connection):
    service: HTTPService
    def __init__(self, service: HTTPService, stream: Stream) -> None: ...
    @property
    def idle(self) -> bool: ...
