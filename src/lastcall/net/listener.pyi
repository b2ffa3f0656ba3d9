import socket
from collections.abc import Callable
from enum import IntEnum
from ssl import SSLContext
from typing import final

from lastcall.connection.stream import Stream

Address = tuple[str, int] | str

class Owner(IntEnum):
    OURS = 0
    INHERITED = 1
    SLOT = 2
    SHARED = 3

@final
class Listener:
    sock: socket.socket
    fd: int
    owner: int
    scheme: str
    tls: SSLContext | None
    root_path: str
    protocol: Callable[[Stream], object] | None
    inode: tuple[int, int] | None
    path: str
    key: int | None
    def __init__(
        self,
        sock: socket.socket,
        owner: Owner = Owner.OURS,
        *,
        scheme: str = "http",
        tls: SSLContext | None = None,
        protocol: Callable[[Stream], object] | None = None,
    ) -> None: ...
    @property
    def address(self) -> Address: ...
    @property
    def url(self) -> str: ...
    def listen(self, backlog: int) -> None: ...
    def unlink(self) -> None: ...
    def close(self) -> None: ...
    def let_go(self) -> None: ...

def unlink_socket(path: str, inode: tuple[int, int]) -> None: ...
def inode_of(path: str) -> tuple[int, int] | None: ...
