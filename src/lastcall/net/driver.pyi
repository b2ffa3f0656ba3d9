import socket
from collections.abc import Callable

from lastcall.connection.scheduler import Scheduler
from lastcall.connection.stream import Connection, Stream

STARVED_SECONDS: float
COMPLAINT_SECONDS: float
ACCEPT_WAITING_SECONDS: float

class Port:
    fd: int
    sock: socket.socket
    shared: bool
    def __init__(self, sock: socket.socket, shared: bool) -> None: ...

class Driver:
    scheduler: Scheduler
    loop: object
    ports: list[Port]
    streams: set[Stream]
    limit: int
    accepting: bool
    on_closed: Callable[[], object] | None
    def __init__(
        self,
        scheduler: Scheduler,
        factory: Callable[[Stream], object],
        *,
        limit: int,
    ) -> None: ...
    def listen(self, sock: socket.socket, *, shared: bool) -> None: ...
    def stop_accepting(self) -> None: ...
    def accept_waiting(self) -> int: ...
    def stop_new_connections(self) -> None: ...
    def accept_backlog(self) -> None: ...
    @property
    def connections(self) -> list[Connection]: ...
    def __len__(self) -> int: ...
    def close(self) -> None: ...
    def starve(self) -> None: ...
