from collections.abc import Callable
from contextvars import Context
from typing import Any, final

from lastcall.asgi.runtime import AppRuntime
from lastcall.base.options import HTTPOptions
from lastcall.base.types import ASGIApp
from lastcall.connection.counts import ResponseCounts
from lastcall.connection.scheduler import Scheduler
from lastcall.drain.policy import PolicyTable
from lastcall.notice.running import RunningTasks
from lastcall.notice.signal import DrainSignal

class Upgrades: ...

@final
class HTTPService(AppRuntime):
    scheduler: Scheduler
    options: HTTPOptions
    keep_alive: bool
    requests: int
    lifespan_died: bool
    backlog_answered: int
    counts: ResponseCounts | None
    random: Callable[[], float] | None
    def __init__(
        self,
        app: ASGIApp,
        tasks: RunningTasks,
        scheduler: Scheduler,
        options: HTTPOptions | None = None,
        *,
        state: dict[str, Any] | None = None,
        on_max_requests: Callable[[], object] | None = None,
        context: Context | None = None,
        signal: DrainSignal | None = None,
        policies: PolicyTable | None = None,
        timeout_disconnect: float = 3.0,
        asgi_spec: str = "2.5",
        counts: ResponseCounts | None = None,
        access_log: bool = True,
        websockets: Upgrades | None = None,
    ) -> None: ...
