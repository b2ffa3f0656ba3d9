import socket
from collections.abc import Callable

from lastcall.connection.hub import Hub
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
    hub: Hub
    loop: object
    ports: list[Port]
    streams: set[Stream]
    limit: int
    accepting: bool
    on_closed: Callable[[], object] | None
    def __init__(
        self,
        hub: Hub,
        factory: Callable[[Stream], object],
        *,
        limit: int,
    ) -> None: ...
    def listen(self, sock: socket.socket, *, shared: bool) -> None: ...
    def stop_accepting(self) -> None: ...
    def accept_waiting(self) -> int: ...
    def hold_door(self) -> None: ...
    def close_door(self) -> None: ...
    @property
    def connections(self) -> list[Connection]: ...
    def __len__(self) -> int: ...
    def close(self) -> None: ...
    def starve(self) -> None: ...
