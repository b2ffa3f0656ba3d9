"""What a stop came to."""

from __future__ import annotations

from lastcall.base.record import Record


class StopReport(Record):
    """How the server stopped.

    ``cause`` is what ordered the stop (``SIGTERM``, ``SIGINT``, ``api``, ``max-requests``, ``cancelled``);
    ``seconds`` run from the order to the end of ``lifespan.shutdown``. ``in_flight`` were running at the order or came
    later; each of them finished, was cancelled, or was abandoned. ``lifespan`` is the outcome's word.
    """

    cause: str
    exit_code: int
    seconds: float
    in_flight: int
    finished: int
    cancelled: int
    abandoned: tuple[str, ...]
    lifespan: str

    def __str__(self) -> str:
        text = (
            f"Stopped ({self.cause}) after {self.seconds:.1f} s: "
            f"{self.finished} of {self.in_flight} requests finished, {self.cancelled} cancelled, "
            f"{len(self.abandoned)} abandoned; lifespan {self.lifespan}; exit code {self.exit_code}"
        )
        return f"{text}: {', '.join(self.abandoned[:5])}" if self.abandoned else text
