"""Signals: counted, debounced, turned into orders for the server (see docs/explanation: the ladder).

What must happen although Python hears nothing is compiled: ``sigaction`` wakes the loop, ``watchdog`` ends the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Protocol

from lastcall.base.early_exit import handler_before
from lastcall.drain.escalation import Escalation
from lastcall.server import sigaction, watchdog
from lastcall.server.forks import let_go_in_children

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

    def interrupt_start(self) -> bool:
        """Whether an order was given in the start, and the loop has not turned since: only an exception helps.

        Asked a moment after the order. True: KeyboardInterrupt is raised in the main thread.
        """

    def signal_received(self, name: str, level: int) -> None:
        """A stop signal counts: ``level`` is 1 for the first, 2 for the second."""


LEAVING = 2.0
"""Seconds in which the watchdog's thread, which has been woken, leaves: a busy machine may let it wait."""


class SignalHandler:
    """The object whose bound method is the installed handler.

    A bound method and not ``loop.add_signal_handler``: libraries look for ``signal.getsignal(SIGTERM).__self__`` and
    its ``should_exit`` (sse-starlette polls it). ``should_exit`` turns true when what still runs is about to be
    cancelled, not at the signal. The third signal, and the second in the start, are the watchdog's, in a process of our
    own; in another they do no more than the second does. ``kept(signum)``, if given, says of each signal that comes
    whether somebody else answers it, so that it does not count.
    """

    def __init__(self, server: Obeys, kept: Callable[[int], bool] | None = None) -> None:
        self.should_exit = False
        self._server = server
        self._kept = kept
        self._escalation = Escalation()
        self._ordered = math.inf  # when the first signal came
        self._earlier: dict[signal.Signals, Any] = {}
        self._retired = False
        self._in_children = contextlib.ExitStack()

    def install(self) -> None:
        """Take over the stop signals. Does nothing outside the main thread, where Python allows no handlers."""
        if threading.current_thread() is threading.main_thread():
            self._in_children.enter_context(let_go_in_children(self.leave_to_child))
            sigaction.skip()
            for signum in STOP_SIGNALS:
                self._earlier[signum] = handler_before(signum, signal.signal(signum, self.handle))
                sigaction.catch(signum)

    def restore(self) -> None:
        """Put the earlier handlers back. No signal is raised again.

        Servers that share a process may end in any order: one that is not the last that was installed leaves the
        handler alone, and the one that has it passes over those that have ended.
        """
        self._retired = True
        self._in_children.close()
        for signum in self._earlier:
            with contextlib.suppress(ValueError):
                if signal.getsignal(signum) == self.handle:
                    handler = self._before(signum)
                    # None: not installed from Python; what it was cannot be said, the default is the best guess.
                    signal.signal(signum, signal.SIG_DFL if handler is None else handler)
                    if isinstance(getattr(handler, "__self__", None), SignalHandler):
                        sigaction.catch(signum)

    def leave_to_child(self) -> None:
        """In a forked child, before ``fork()`` returns: the earlier handlers come back, the parent's pipes go."""
        self.restore()
        watchdog.forget()
        sigaction.leave_wakers()

    def replaced(self) -> list[str]:
        """The names of the signals whose handler is neither ours nor that of another server, which would tell us."""
        found = {signum.name: getattr(signal.getsignal(signum), "__self__", None) for signum in self._earlier}
        return [name for name, owner in found.items() if not isinstance(owner, SignalHandler)]

    def ignore(self) -> None:
        """Let the stop signals have no effect any more, in a process that has nothing left to do but to end.

        The interpreter gives up its handlers in the last moment of the process, and the kernel's default would kill.
        """
        self._in_children.close()  # whose hooks would keep all that we refer to from being destroyed
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
        """The handler. It may be called once for several signals, which come with the times at which they came."""
        now = time.monotonic()
        signals, once_more = sigaction.take(signum, now)
        if any([self._hear(signal.Signals(number), when) for number, when in signals]):
            raise KeyboardInterrupt
        if once_more and now >= self._ordered + watchdog.BLOCKED_START and self._server.interrupt_start():
            raise KeyboardInterrupt

    def _hear(self, signum: signal.Signals, when: float) -> bool:
        """One signal; whether an import is to be interrupted. Another server that was here before hears of it too."""
        before = getattr(self._before(signum), "__self__", None)
        interrupt = isinstance(before, SignalHandler) and before._hear(signum, when)
        if self._kept is not None and self._kept(signum):
            return interrupt
        if self._escalation.press(when, STOP_SIGNALS.get(signum, 1)):
            self._ordered = min(self._ordered, when)
            if self._escalation.level >= 2 and watchdog.leaves_at_second():
                time.sleep(LEAVING)  # its thread ends the process with 5; an end in order must not come before that
            self._server.signal_received(signum.name, min(self._escalation.level, 2))
            interrupt |= self._server.importing
        return interrupt


@contextlib.contextmanager
def waking(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Have every stop signal wake ``loop`` while the block runs; outside the main thread this does nothing.

    Python runs a handler between two bytecodes. A signal that comes when the loop has none left before it goes to
    sleep would else not be heard of until something else wakes it: a server that is idle, for ever.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waker = sigaction.open_waker()
    loop.add_reader(waker[0], sigaction.drain, waker[0])
    try:
        yield
    finally:
        loop.remove_reader(waker[0])
        sigaction.close_waker(waker)
