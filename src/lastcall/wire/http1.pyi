from enum import IntEnum
from typing import final

class Event(IntEnum):
    NEED_DATA = 0
    HEAD = 1
    DATA = 2
    END = 3
    FAILED = 4

COMMON_NAMES: tuple[bytes, ...]

@final
class RequestParser:
    limit_request_line: int
    limit_headers: int
    limit_header_bytes: int
    limit_body: int
    method: str
    path: str
    raw_path: bytes
    query_string: bytes
    headers: list[tuple[bytes, bytes]]
    content_length: int
    minor: int
    chunked: bool
    keep_alive: bool
    expect_continue: bool
    upgrade_websocket: bool
    has_body: bool
    named: bool
    status: int
    reason: str
    def __init__(
        self,
        *,
        limit_request_line: int = 16384,
        limit_headers: int = 128,
        limit_header_bytes: int = 65536,
        limit_body: int = -1,
    ) -> None: ...
    def receive_data(self, data: bytes) -> None: ...
    def next_event(self) -> tuple[Event, bytes | None]: ...
    @property
    def unconsumed(self) -> bytes: ...
    @property
    def idle(self) -> bool: ...
