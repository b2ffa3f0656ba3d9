from lastcall.connection.scheduler import Scheduler
from lastcall.connection.stream import Connection, Stream
from lastcall.notice.running import RunningTasks

class NoTasks(RunningTasks): ...

class MemoryConnection(Connection):
    received: bytes
    opened_once: bool
    ended: bool
    def __init__(self, stream: Stream) -> None: ...
    def write(self, data: bytes) -> None: ...

class MemoryStream(Stream):
    written: bytes
    capacity: int | None
    arriving: bytes
    unread: int
    was_reset: bool
    movable: bool
    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    def __init__(
        self,
        scheduler: Scheduler,
        *,
        capacity: int | None = None,
        client: tuple[str, int] | None = ("127.0.0.1", 50000),
        server: tuple[str, int | None] | None = ("127.0.0.1", 8000),
    ) -> None: ...
    def open(self) -> None: ...
    def drain(self, n: int | None = None) -> None: ...
    def take(self) -> bytes: ...
