import asyncio
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import Any

from lastcall.base.types import ASGIApp
from lastcall.drain.policy import PolicyTable
from lastcall.drain.state import DrainState
from lastcall.notice.running import RunningTasks
from lastcall.notice.signal import DrainSignal

class AppRuntime:
    loop: asyncio.AbstractEventLoop
    app: ASGIApp
    tasks: RunningTasks
    signal: DrainSignal
    drain: DrainState
    state: dict[str, Any] | None
    asgi_spec: str
    left_open: bool
    def __init__(
        self,
        app: ASGIApp,
        loop: asyncio.AbstractEventLoop,
        tasks: RunningTasks,
        *,
        state: dict[str, Any] | None = None,
        default_headers: Iterable[tuple[bytes, bytes]] = (),
        context: Context | None = None,
        signal: DrainSignal | None = None,
        policies: PolicyTable | None = None,
        timeout_disconnect: float = 3.0,
        asgi_spec: str = "2.5",
    ) -> None: ...
    def let_go(self, leave: Callable[[BaseException | None], object]) -> None: ...
