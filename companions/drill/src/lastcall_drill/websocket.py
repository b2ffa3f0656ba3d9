"""A WebSocket client that notices everything, with wsproto as its codec."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, Unpack

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from lastcall_drill.connection import Socket, SocketOptions
from lastcall_drill.timeline import Timeline

_WEBSOCKETS_OWN: Final = ("host", "sec-websocket-protocol")  # header fields that wsproto writes itself


class WebSocketClient(Socket):
    """A WebSocket connection; the handshake is sent at once, with ``headers`` (lines ``Name: value``) in it.

    For its other parameters see ``Socket``.

    ``accepted`` is None while the handshake is not answered, and ``status`` what it was answered with if it was not
    accepted. ``messages`` are texts and bytes with their times. ``close_code`` is that of the server's Close frame,
    None without one. Pings are answered, and so is a Close frame, unless ``mute``.
    """

    def __init__(
        self,
        port: int,
        timeline: Timeline,
        name: str,
        target: str = "/ws",
        *,
        mute: bool = False,
        headers: Sequence[str] = (),
        **options: Unpack[SocketOptions],
    ) -> None:
        self.accepted: bool | None = None
        self.status = 0
        self.messages: list[tuple[float, str | bytes]] = []
        self.close_code: int | None = None
        self.close_reason = ""
        self.closed_at: float | None = None
        self._mute = mute
        self._ws = WSConnection(ConnectionType.CLIENT)
        super().__init__(port, timeline, name, **options)
        self._note("request", f"WebSocket {target}")
        pairs = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in headers)]
        host = next((value for name, value in pairs if name.lower() == "host"), "drill")
        extra = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in pairs if n.lower() not in _WEBSOCKETS_OWN]
        protocols = [one.strip() for n, v in pairs if n.lower() == "sec-websocket-protocol" for one in v.split(",")]
        self.send_event(Request(host=host, target=target, extra_headers=extra, subprotocols=protocols))

    def send_event(self, event: Event) -> float:
        """Send an event of wsproto's. Returns when; a connection that is over takes none."""
        with self._changed:
            try:
                data = self._ws.send(event)
            except LocalProtocolError:
                data = b""
        return self.send(data)

    def send_text(self, text: str) -> float:
        """Send a text message."""
        return self.send_event(TextMessage(data=text))

    def send_close(self, code: int = 1000) -> float:
        """Send a Close frame."""
        return self.send_event(CloseConnection(code=code))

    def wait_open(self, timeout: float) -> bool:
        """Wait for the answer to the handshake; whether it is accepted."""
        self._wait(lambda: self.accepted is not None or self.end is not None, timeout)
        return bool(self.accepted)

    def wait_messages(self, count: int, timeout: float) -> bool:
        """Wait until ``count`` messages have come; whether they have."""
        self._wait(lambda: len(self.messages) >= count or self.end is not None, timeout)
        return len(self.messages) >= count

    def wait_close(self, timeout: float) -> int | None:
        """Wait for the server's Close frame or the end of the connection. Returns the frame's code, None without."""
        self._wait(lambda: self.closed_at is not None or self.end is not None, timeout)
        return self.close_code

    def _take(self, data: bytes, now: float) -> None:
        try:
            self._ws.receive_data(data)
            for event in self._ws.events():
                self._happened(event, now)
        except RemoteProtocolError as error:
            if self.accepted is None:
                self.accepted = False
            self._note("note", f"no valid WebSocket answer: {error}", now)

    def _take_end(self, now: float) -> None:
        del now
        if self.accepted is None:
            self.accepted = False

    def _happened(self, event: Event, now: float) -> None:
        answer: Event | None = None
        if isinstance(event, AcceptConnection):
            self.accepted = True
            self._note("response", "101", now)
        elif isinstance(event, RejectConnection):
            self.accepted, self.status = False, event.status_code
            self._note("response", str(event.status_code), now)
        elif isinstance(event, TextMessage | BytesMessage):
            message = event.data if isinstance(event.data, str) else bytes(event.data)
            self.messages.append((now, message))
            self._note("note", f"message {message[:80]!r}", now)
        elif isinstance(event, Ping):
            answer = event.response()
        elif isinstance(event, CloseConnection) and self.closed_at is None:
            self.close_code, self.close_reason, self.closed_at = int(event.code), event.reason or "", now
            self._note("close-frame", f"{self.close_code} {self.close_reason}".rstrip(), now)
            answer = event.response()
        if answer is not None and not self._mute:
            try:
                self.send(self._ws.send(answer))
            except LocalProtocolError:  # we had closed before
                self._note("note", "both sides closed at once", time.monotonic())
