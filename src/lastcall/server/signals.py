"""Signals: counted, debounced, turned into orders for the server (see docs/explanation: the ladder)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, Protocol

from lastcall.drain.escalation import Escalation

STOP_SIGNALS: dict[signal.Signals, int] = {signal.SIGINT: 1, signal.SIGTERM: 1}
if hasattr(signal, "SIGQUIT"):
    STOP_SIGNALS[signal.SIGQUIT] = 2


class Obeys(Protocol):
    """Who takes the orders; called in the main thread, between two bytecodes of whatever runs there."""

    @property
    def importing(self) -> bool:
        """True while the application is being imported: only an exception interrupts that."""

    @property
    def starting(self) -> bool:
        """True before the first request can be served."""

    def signal_received(self, name: str, level: int) -> None:
        """A stop signal counts: ``level`` is 1 for the first, 2 for the second."""

    def abandon_now(self) -> None:
        """The third signal in a process of our own: end it, in the handler, since the loop may be blocked."""


class SignalHandler:
    """The object whose bound method is the installed handler.

    A bound method and not ``loop.add_signal_handler``: libraries look for ``signal.getsignal(SIGTERM).__self__`` and
    its ``should_exit`` (sse-starlette polls it), and the third signal must act although the loop is blocked.
    ``should_exit`` turns true when what still runs is about to be cancelled, not at the signal.
    """

    def __init__(self, server: Obeys, *, own_process: bool) -> None:
        self.should_exit = False
        self._server = server
        self._own_process = own_process
        self._escalation = Escalation()
        self._earlier: dict[signal.Signals, Any] = {}
        self._retired = False

    def install(self) -> None:
        """Take over the stop signals. Does nothing outside the main thread, where Python allows no handlers."""
        if threading.current_thread() is threading.main_thread():
            for signum in STOP_SIGNALS:
                self._earlier[signum] = signal.signal(signum, self.handle)

    def restore(self) -> None:
        """Put the earlier handlers back. No signal is raised again.

        Servers that share a process may end in any order: one that is not the last that was installed leaves the
        handler alone, and the one that has it passes over those that have ended.
        """
        self._retired = True
        for signum in self._earlier:
            with contextlib.suppress(ValueError):
                if signal.getsignal(signum) == self.handle:
                    handler = self._before(signum)
                    # None: not installed from Python; what it was cannot be said, the default is the best guess.
                    signal.signal(signum, signal.SIG_DFL if handler is None else handler)

    def replaced(self) -> list[str]:
        """The names of the signals whose handler is neither ours nor that of another server, which would tell us."""
        found = {signum.name: getattr(signal.getsignal(signum), "__self__", None) for signum in self._earlier}
        return [name for name, owner in found.items() if not isinstance(owner, SignalHandler)]

    def ignore(self) -> None:
        """Let the stop signals have no effect any more, in a process that has nothing left to do but to end.

        The interpreter gives up its handlers in the last moment of the process, and the kernel's default would kill.
        """
        for signum in self._earlier:
            with contextlib.suppress(ValueError):
                if signal.getsignal(signum) == self.handle:
                    signal.signal(signum, signal.SIG_IGN)

    def _before(self, signum: signal.Signals) -> Any:
        """The handler that was there before, but for those of servers that have ended."""
        handler = self._earlier.get(signum)
        owner = getattr(handler, "__self__", None)
        return owner._before(signum) if isinstance(owner, SignalHandler) and owner._retired else handler

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """The handler. Another server of this process that was there before hears of the signal too."""
        number = signal.Signals(signum)
        before = self._before(number)
        if isinstance(getattr(before, "__self__", None), SignalHandler):
            before(signum, frame)
        if not self._escalation.press(time.monotonic(), STOP_SIGNALS[number]):
            return
        level = self._escalation.level
        if level >= 3 and self._own_process:
            # Not descriptor 2 as such: without a standard error that is whatever was opened first.
            if sys.__stderr__ is not None:
                with contextlib.suppress(OSError, ValueError):
                    line = b"lastcall: third stop signal: everything is abandoned, exit code 5\n"
                    os.write(sys.__stderr__.fileno(), line)
            self._server.abandon_now()
        if level == 2 and self._own_process and self._server.starting:
            self._server.abandon_now()
        self._server.signal_received(number.name, min(level, 2))
        if self._server.importing:
            raise KeyboardInterrupt


@contextlib.contextmanager
def waking(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Have every signal wake ``loop`` while the block runs; outside the main thread this does nothing.

    Python runs a handler between two bytecodes. A signal that comes when the loop has none left before it goes to
    sleep would else not be heard of until something else wakes it: a server that is idle, for ever. Who has a wake-up
    descriptor already (uvloop, ``loop.add_signal_handler``) keeps it: it wakes the loop as well.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        earlier = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        if earlier != -1:
            signal.set_wakeup_fd(earlier)
            yield
            return

        def awake() -> None:
            with contextlib.suppress(BlockingIOError):
                reader.recv(4096)

        loop.add_reader(reader, awake)
        try:
            yield
        finally:
            loop.remove_reader(reader)
            with contextlib.suppress(ValueError):  # a coroutine that is finalized in another thread
                now = signal.set_wakeup_fd(-1)
                if now not in (-1, writer.fileno()):
                    signal.set_wakeup_fd(now)  # somebody has set another one meanwhile
