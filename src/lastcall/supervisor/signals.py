"""The parent's signals, as orders.

Stop signals are counted by ``server.signals``, with ``drain.escalation``'s rule: two within half a second are one, so
that a terminal's, which go to the whole process group, count once (workers take none from it). The third is the
watchdog's, which needs neither the loop nor the interpreter: it has the stacks of all workers written, kills them, and
ends the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from lastcall.server.other_signals import HangUp, listening
from lastcall.server.signals import SignalHandler, waking


class Orders(Protocol):
    """What signals order. Called in the loop."""

    def stop_signal(self, name: str, level: int) -> None:
        """A stop signal that counts: ``level`` is 1 for the first, 2 for the second."""

    def reload(self) -> None:
        """SIGHUP."""

    def scale_by(self, more: int) -> None:
        """SIGTTIN: one more slot; SIGTTOU: one less."""

    def upgrade(self) -> None:
        """SIGUSR2."""


class Signals:
    """Takes the signals of the process. Between ``install()`` and ``obeyed()``, stop signals are kept.

    ``on_interrupt`` is called in the handler of SIGINT, ``on_order`` in the loop, before each order to stop.
    """

    importing = False
    starting = False

    def __init__(self, on_interrupt: Callable[[], object], on_order: Callable[[], object]) -> None:
        self._on_interrupt = on_interrupt
        self._on_order = on_order
        self.handler = SignalHandler(self)
        self._hang_up = HangUp()
        self._early: list[tuple[str, int]] = []
        self._told: Callable[[str, int], object] | None = None

    def install(self) -> None:
        """Take over the stop signals, in the main thread.

        Who has started us may have left SIGCHLD ignored: then the kernel keeps no exit codes (wait(2), Notes), and a
        start that cannot succeed is tried for ever.
        """
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.handler.install()

    def interrupt_start(self) -> bool:
        """The parent runs nobody else's code that would have to be interrupted."""
        return False

    def signal_received(self, name: str, level: int) -> None:
        """A stop signal counts; called in the handler."""
        if name == "SIGINT":
            self._on_interrupt()
        if self._told is None:
            self._early.append((name, level))
        else:
            self._told(name, level)

    @contextlib.contextmanager
    def obeyed(self, orders: Orders) -> Iterator[None]:
        """Hand signals to ``orders`` while the block runs, in the running loop; those of before at once."""
        loop = asyncio.get_running_loop()

        def told(name: str, level: int) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: all is over
                loop.call_soon_threadsafe(self._on_order)
                loop.call_soon_threadsafe(orders.stop_signal, name, level)

        def hang_up() -> None:
            if self._hang_up.is_the_end():
                orders.stop_signal("SIGHUP", 1)
            else:
                orders.reload()

        handlers: Mapping[int, Callable[[], object]] = {
            signal.SIGHUP: hang_up,
            signal.SIGTTIN: lambda: orders.scale_by(1),
            signal.SIGTTOU: lambda: orders.scale_by(-1),
            signal.SIGUSR2: orders.upgrade,
        }
        with waking(loop), listening(loop, handlers):
            self._told = told
            for name, level in self._early:
                told(name, level)
            self._early.clear()
            yield
