import asyncio
from collections.abc import Callable
from typing import final

from lastcall.base.sinks import AccessSink
from lastcall.connection.deadlines import Deadlines, Timed

class Runnable(Timed): ...
class Flushable: ...

@final
class Scheduler:
    loop: asyncio.AbstractEventLoop
    access: AccessSink
    deadlines: Deadlines
    flushes: int
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        deadlines: Deadlines,
        access: AccessSink,
        *,
        date_header: bool = True,
        server_header: bool = True,
        clock: Callable[[], float] | None = None,
        time: Callable[[], float] | None = None,
    ) -> None: ...
    @property
    def nothing_waits(self) -> bool: ...
    def close(self) -> None: ...
