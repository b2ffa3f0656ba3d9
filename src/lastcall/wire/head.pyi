from collections.abc import Iterable
from typing import final

@final
class ResponseHead:
    status: int
    content_length: int
    close: bool
    has_date: bool
    has_server: bool
    bodiless: bool
    @property
    def fields(self) -> tuple[tuple[bytes, bytes], ...]: ...

def checked(
    status: int, headers: Iterable[tuple[bytes, bytes]] | None = None, defaults: Iterable[tuple[bytes, bytes]] = ()
) -> ResponseHead: ...
