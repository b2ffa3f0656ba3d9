from collections.abc import Awaitable as AwaitableOf
from types import CodeType, FrameType
from typing import final

from lastcall.asgi.awaitables import Awaitable
from lastcall.asgi.runtime import AppRuntime
from lastcall.base.types import Message
from lastcall.drain.report import CLOSED_BY_POLICY as CLOSED_BY_POLICY
from lastcall.notice.notice import DrainNotice
from lastcall.notice.running import RunningTask

class AppCycle(RunningTask):
    disconnected: bool
    complete: bool
    ended: bool
    @property
    def runtime(self) -> AppRuntime: ...
    @property
    def ran_after_response(self) -> bool: ...
    def receive(self) -> AwaitableOf[Message]: ...

@final
class AppCoroutine(Awaitable):
    __name__: str
    __qualname__: str
    cr_frame: FrameType | None
    cr_code: CodeType | None
    cr_running: bool
    cr_await: object
    @property
    def notice(self) -> DrainNotice: ...

@final
class Receive(Awaitable): ...

@final
class Sending(Awaitable): ...
