from collections.abc import Iterable
from typing import final

@final
class ResponseHead:
    status: int
    block: bytes
    content_length: int
    close: bool
    has_date: bool
    has_server: bool
    bodiless: bool

def encode_head(
    status: int, headers: Iterable[tuple[bytes, bytes]] | None = None, defaults: Iterable[tuple[bytes, bytes]] = ()
) -> tuple[bytes, ResponseHead]: ...
