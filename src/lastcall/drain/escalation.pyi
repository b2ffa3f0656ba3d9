from typing import final

DEBOUNCE: float

@final
class Escalation:
    @property
    def level(self) -> int: ...
    def press(self, now: float, weight: int = 1) -> bool: ...
