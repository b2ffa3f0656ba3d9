from collections.abc import Awaitable

from lastcall.asgi.cycle import AppCycle
from lastcall.base.types import Message
from lastcall.drain.report import BROKEN_OFF as BROKEN_OFF
from lastcall.drain.report import CLOSED_BY_POLICY as CLOSED_BY_POLICY

class HTTPCycle(AppCycle):
    buffered: int
    body_complete: bool
    started: bool
    body_sent: int
    refused: bool
    def send(self, message: Message) -> Awaitable[None]: ...
