"""What a server asks of a process that it has for its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lastcall.drain.ladder import Phase

if TYPE_CHECKING:
    from lastcall.base.progress import Progress


class Guard(Protocol):
    """What a process of our own does for its server. It knows nothing of the server, and is only told."""

    def ready(self) -> None:
        """Requests are served from now on."""

    def bound(self, seconds: float) -> None:
        """The stop takes at most ``seconds`` from now on; infinity: it has no limit. In any thread, and in handlers."""

    def entered(self, phase: Phase) -> None:
        """A phase after ``SERVING`` has begun."""

    def again(self, seconds: float, since: float) -> float:
        """More seconds for what has had so many since ``since``; 0.0: no more."""

    def loaded(self) -> None:
        """The application is imported, and starts now."""

    def turned(self) -> None:
        """The loop has turned in the start since the stop order."""

    def progress(self, progress: Progress | None) -> None:
        """How far the stop is, each second; None: it is over."""

    def bound_sockets(self, files: list[tuple[str, tuple[int, int]]]) -> None:
        """All addresses are bound, and nothing of the application is imported yet: privileges can go.

        ``files``: the unix sockets that we have made: path, and (device, inode). Raises StartupError.
        """

    def own_sockets(self, files: list[tuple[str, tuple[int, int]]]) -> None:
        """Of the unix sockets that we have made, these are left to be removed."""
