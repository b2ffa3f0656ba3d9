from typing import Any, Protocol, final

from lastcall.drain.ladder import MARGIN as MARGIN
from lastcall.drain.ladder import Phase

class _Mover(Protocol):
    def offer(self, connection: Any, /) -> object: ...
    def stop(self) -> object: ...

@final
class DrainState:
    phase: int
    since: float
    margin: float
    farewell: float
    farewell_over: bool
    listeners_closed: bool
    refusing: bool
    service_goes_on: bool
    mover: _Mover | None
    moved: int
    def __init__(self, phase: Phase = ...) -> None: ...
    @property
    def stopping(self) -> bool: ...
