from typing import final

from lastcall.connection.stream import Stream
from lastcall.net.driver import Driver

@final
class NativeStream(Stream):
    fd: int

@final
class Reactor(Driver):
    epoll: int
