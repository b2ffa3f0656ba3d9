"""What the server of a worker asks of the process above it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from lastcall.base.record import Record

if TYPE_CHECKING:
    from lastcall.base.progress import Progress
    from lastcall.connection.service import HTTPService
    from lastcall.drain.report import StopReport
    from lastcall.net.driver import Driver
    from lastcall.net.listener import Listener
    from lastcall.notice.running import RunningTasks
    from lastcall.server.controller import ShutdownController
    from lastcall.server.doors import Doors


class Serving(Record):
    """A server that is about to serve.

    ``service`` is what clients meet, ``private`` the same for the parent's own requests, which are not counted.
    ``prepare(listener, service)`` says what is spoken behind a listener; it has to come before the driver gets it.
    """

    driver: Driver
    service: HTTPService
    private: HTTPService
    tasks: RunningTasks
    prepare: Callable[[Listener, HTTPService], None]


class Parent(Protocol):
    """The link to a parent, at the worker's end. All of it but ``decides`` is called in the loop's thread.

    ``pid`` is the parent's process, ``role`` what this one is called behind ``--proc-title``. ``expects_lifespan``:
    the application supported lifespan when it was last started, so an exception in its start-up is a failure.
    """

    pid: int
    role: str
    expects_lifespan: bool

    @property
    def listeners(self) -> list[Listener]:
        """The listeners that it has given: the same list at each call, whose length may change."""

    def decides(self, signum: int) -> bool:
        """Whether a signal that has come is the parent's to answer, and counts for nothing here. In the handler."""

    def begin(self, controller: ShutdownController) -> None:
        """The loop runs, and the process is who it is to be: hear the parent's orders from now on, for ``controller``.

        Called before the application is imported.
        """

    def doors(self, serving: Serving) -> Doors:
        """The doors: nobody but the parent itself is let in before it says so."""

    def ready(self, *, lifespan: bool) -> None:
        """``lifespan.startup`` is complete, and requests would be served. ``lifespan``: the application supports it."""

    def wants_to_retire(self, cause: str) -> None:
        """This worker would stop if it had no parent: ask for a successor, and serve on."""

    def progress(self, progress: Progress | None) -> None:
        """How far the stop has come; None: there is nothing to wait for any more."""

    def stopped(self, report: StopReport) -> None:
        """The report of the stop, the last thing that there is to tell."""

    def end(self) -> None:
        """The loop is about to end: send what has to be sent yet, in bounded time."""

    def let_go(self) -> None:
        """In a forked child: close our copies, and touch no loop."""
