from collections.abc import Awaitable

from lastcall.asgi.cycle import AppCycle
from lastcall.base.types import Message

class HTTPCycle(AppCycle):
    buffered: int
    body_complete: bool
    started: bool
    body_sent: int
    def send(self, message: Message) -> Awaitable[None]: ...
