"""The doors of a server: the listeners by which clients come in, opened at the start and closed in a stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from lastcall.net.listener import Owner
from lastcall.server.guarding import guarded

if TYPE_CHECKING:
    from lastcall.net.driver import Driver
    from lastcall.net.listener import Listener


class Doors(Protocol):
    """What the start and the stop do with listeners. Only the first may raise."""

    def open(self) -> None:
        """Accept from now on. Raises StartupError, or OSError, where the system refuses."""

    def stop_newcomers(self) -> None:
        """``DRAINING`` begins: let in only those who wait already."""

    def close(self) -> None:
        """The linger is over: accept who waits, then close what is ours."""


class OwnDoors(Doors):
    """The doors of a process without a parent. ``prepare(listener)`` says what is spoken behind each."""

    def __init__(
        self, driver: Driver, listeners: list[Listener], prepare: Callable[[Listener], None], backlog: int
    ) -> None:
        self._driver = driver
        self._listeners = listeners
        self._prepare = prepare
        self._backlog = backlog

    def open(self) -> None:
        for listener in self._listeners:
            self._prepare(listener)
            listener.listen(self._backlog)
        for listener in self._listeners:
            self._driver.listen(listener)

    def stop_newcomers(self) -> None:
        for listener in self._listeners:
            guarded(listener.unlink, "a listener")
        guarded(self._driver.stop_new_connections, "the listeners")

    def close(self) -> None:
        """See ``Doors``. Clients that are in an accept queue of ours are let in: closing would reset them."""
        guarded(self._driver.accept_backlog, "the accept queue")
        for listener in self._listeners:
            if listener.owner == Owner.OURS:
                guarded(listener.close, "a listener")
