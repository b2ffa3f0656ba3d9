"""The options of WebSockets. They are rows of the one table in :mod:`lastcall.config.options`."""

from __future__ import annotations

from typing import Final

from lastcall.config.kinds import Anything, Count, Seconds, Size, Switch
from lastcall.config.option import Only, Option

IMPLEMENTATIONS: Final = ("auto", "none", "websockets", "websockets-sansio", "wsproto")

WEBSOCKET: Final = (
    Option(
        name="ws",
        kind=Anything(placeholder="auto|none", python_type="str | type[object]"),
        default="auto",
        group="WebSocket",
        help=(
            "`none`: who asks for a WebSocket gets an answer of plain HTTP. Lastcall has an implementation of its own, "
            "whichever of uvicorn's names is given."
        ),
        only=Only(IMPLEMENTATIONS, ", ".join(IMPLEMENTATIONS), "lastcall has its own WebSocket implementation"),
    ),
    Option(
        name="ws_max_size",
        kind=Size(least=1),
        default=16 * 1024 * 1024,
        group="WebSocket",
        help="Size of a message, decompressed. A larger one closes its WebSocket (1009) before its rest is read.",
    ),
    Option(
        name="ws_max_queue",
        kind=Count(least=1),
        default=32,
        group="WebSocket",
        help="Messages that wait for the application; then nothing more is read, so the client has to wait.",
    ),
    Option(
        name="ws_max_queue_size",
        kind=Size(least=1),
        default=16 * 1024 * 1024,
        group="WebSocket",
        help="The same by their sizes together: bytes, or characters of text.",
    ),
    Option(
        name="ws_ping_interval",
        kind=Seconds(optional=True, positive=True),
        default=20.0,
        group="WebSocket",
        help="Time between two pings; `none`: none are sent.",
    ),
    Option(
        name="ws_ping_timeout",
        kind=Seconds(optional=True, positive=True),
        default=20.0,
        group="WebSocket",
        help=(
            "Time in which any byte must come after a ping; `none`: no limit. It does not run while nothing is read: "
            "the application's queue is full, or the client does not take what was sent."
        ),
    ),
    Option(
        name="ws_handshake_timeout",
        kind=Seconds(optional=True, positive=True),
        default=10.0,
        group="WebSocket",
        help="Time for the application to accept or refuse a WebSocket; then the client gets 503.",
    ),
    Option(
        name="ws_per_message_deflate",
        kind=Switch(form="value"),
        default=True,
        group="WebSocket",
        help="Compression of messages, where the client offers it (RFC 7692).",
    ),
)
