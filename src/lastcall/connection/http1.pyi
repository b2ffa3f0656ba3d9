from typing import final

from lastcall.asgi.http import HTTPCycle
from lastcall.asgi.scope import HTTPScopes
from lastcall.connection.service import HTTPService
from lastcall.connection.stream import Connection, Stream

TRANSITIONS: dict[str, tuple[str, ...]]

@final
class HTTP1Cycle(HTTPCycle): ...

@final
class HTTP1Connection(Connection):
    service: HTTPService
    def __init__(self, service: HTTPService, scopes: HTTPScopes, stream: Stream) -> None: ...
    @property
    def idle(self) -> bool: ...
    @property
    def phase(self) -> str: ...
    def give_up_writing(self) -> None: ...
    def hand_over(self, successor: Connection) -> None: ...
