from typing import final

@final
class ResponseCounts:
    served: int
    errors: int
    def count(self, failed: bool, seconds: float) -> None: ...
    @property
    def latency(self) -> tuple[int, ...]: ...
