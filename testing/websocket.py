"""A WebSocket client on a raw socket. wsproto makes and reads its frames; nothing is answered by itself."""

from __future__ import annotations

from typing import Any

from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol, Opcode

from testing.peer import Answer, Peer

HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
)
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""RFC 6455 1.3 has this key and its answer."""


class WebSocketPeer(Peer):
    """A client whose handshake has been answered: ``answer`` is what came. Frames are (opcode, payload)."""

    def __init__(
        self, address: tuple[str, int] | str, path: str = "/", more: str = "", *, deflate: bool = False
    ) -> None:
        super().__init__(address)
        if deflate:
            more += "Sec-WebSocket-Extensions: permessage-deflate\r\n"
        self.send(HANDSHAKE.format(path=path, more=more).encode())
        self.handshake: Answer = self.answer()
        extensions = []
        if deflate:
            extensions.append(PerMessageDeflate())
            extensions[0].finalize(self.handshake.headers["sec-websocket-extensions"])
        self._frames = FrameProtocol(client=True, extensions=list(extensions))
        self._came: list[tuple[Opcode, Any]] = []
        self._part: tuple[Opcode, Any] | None = None  # of a message whose end has not come

    def say(self, message: str | bytes) -> None:
        """Send a message in one frame."""
        self.send(bytes(self._frames.send_data(message, fin=True)))

    def ping(self, payload: bytes = b"") -> None:
        """Send a Ping."""
        self.send(bytes(self._frames.ping(payload)))

    def say_close(self, code: int | None = None, reason: str = "") -> None:
        """Send a Close."""
        self.send(bytes(self._frames.close(code, reason)) if code is not None else b"\x88\x80\0\0\0\0")

    def frame(self) -> tuple[Opcode, Any]:
        """The next frame of the server's."""
        while not self._came:
            data = self.read_some()
            assert data, "the server has closed the connection"
            self._frames.receive_bytes(data)
            for frame in self._frames.received_frames():
                payload = bytes(frame.payload) if isinstance(frame.payload, bytearray) else frame.payload
                if self._part is not None and frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION):
                    payload, self._part = self._part[1] + payload, None
                if frame.message_finished:
                    self._came.append((frame.opcode, payload))
                else:
                    self._part = (frame.opcode, payload)
        return self._came.pop(0)

    def message(self) -> Any:
        """The next frame's payload, which is of a message."""
        opcode, payload = self.frame()
        assert opcode in (Opcode.TEXT, Opcode.BINARY), (opcode, payload)
        return payload

    def close_frame(self) -> tuple[int, str]:
        """The code and reason of the next frame, which is a Close."""
        opcode, payload = self.frame()
        assert opcode is Opcode.CLOSE, (opcode, payload)
        return int(payload[0]), payload[1] or ""
