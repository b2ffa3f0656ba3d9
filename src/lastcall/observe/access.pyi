import logging
from collections.abc import Callable
from typing import Any

from lastcall.base.sinks import AccessSink
from lastcall.observe.output import Output

def escape(value: str | bytes) -> str: ...
def report(
    sink: AccessSink,
    client: tuple[str, int] | None,
    method: str,
    target: bytes,
    http_version: str,
    status: int,
    duration: float = 0.0,
    bytes_sent: int = 0,
    mark: str | None = None,
) -> None: ...
def wants(sink: AccessSink) -> bool: ...

class AccessLog(AccessSink):
    @property
    def dropped(self) -> int: ...
    def __init__(self, output: Output, *, colors: bool = False) -> None: ...

class ChosenAccess(AccessSink):
    def __init__(
        self, choose: Callable[[], AccessSink], watched: Callable[[], list[tuple[dict[Any, Any], Any]]]
    ) -> None: ...
    @property
    def sink(self) -> AccessSink: ...

class LoggerAccess(AccessSink):
    def __init__(self, logger: logging.Logger) -> None: ...
