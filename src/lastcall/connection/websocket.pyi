from typing import final

from lastcall.asgi.websocket import WebSocketCycle
from lastcall.base.options import WebSocketOptions
from lastcall.connection.service import Upgrades
from lastcall.connection.stream import Connection
from lastcall.wire.deflate import WORTH_IT as WORTH_IT
from lastcall.wire.deflate import Deflater as Deflater
from lastcall.wire.deflate import Inflater as Inflater
from lastcall.wire.deflate import agree as agree

TRANSITIONS: dict[str, tuple[str, ...]]

@final
class WebSocketUpgrades(Upgrades):
    options: WebSocketOptions
    def __init__(self, options: WebSocketOptions) -> None: ...

@final
class HTTP1WebSocketCycle(WebSocketCycle): ...

@final
class WebSocketConnection(Connection): ...
