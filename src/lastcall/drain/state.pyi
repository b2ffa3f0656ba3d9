from typing import final

from lastcall.drain.ladder import MARGIN as MARGIN
from lastcall.drain.ladder import Phase

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
    def __init__(self, phase: Phase = ...) -> None: ...
    @property
    def stopping(self) -> bool: ...
