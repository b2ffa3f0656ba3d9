"""SIGHUP, and the signals of a parent: those that do not stop a server, or only sometimes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lastcall.server.forks import let_go_in_children


def has_terminal() -> bool:
    """Whether this process has a controlling terminal that is still there (tty(4): opening /dev/tty fails if not)."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class HangUp:
    """Tells a SIGHUP that a person sends from that of a terminal that is gone. Made when the process starts."""

    def __init__(self) -> None:
        self._ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._had_terminal = has_terminal()

    @property
    def ignored(self) -> bool:
        """Whether the process was started with SIGHUP ignored, as nohup(1) does."""
        return self._ignored

    def is_the_end(self) -> bool:
        """Asked when SIGHUP has come: whether the terminal that the process was started on is gone."""
        return not self._ignored and self._had_terminal and not has_terminal()


@contextlib.contextmanager
def listening(loop: asyncio.AbstractEventLoop, handlers: Mapping[int, Callable[[], object]]) -> Iterator[None]:
    """Have ``handlers`` called in ``loop`` while the block runs, but for signals that the program handles itself.

    Outside the main thread, and with a loop that takes no handlers, this does nothing. Forked children do not have
    them: there the wake-up descriptor, which they share with this process, would wake it.
    """
    earlier: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            before = signal.getsignal(number)
            if before in (signal.SIG_DFL, signal.SIG_IGN):
                with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                    loop.add_signal_handler(number, handler)
                    earlier[number] = before

    def let_go() -> None:
        signal.set_wakeup_fd(-1)
        for number, before in earlier.items():
            signal.signal(number, before)

    with contextlib.ExitStack() as stack:
        if earlier:
            stack.enter_context(let_go_in_children(let_go))
        try:
            yield
        finally:
            for number, before in earlier.items():
                with contextlib.suppress(RuntimeError, ValueError):
                    if not loop.is_closed():
                        loop.remove_signal_handler(number)
                    signal.signal(number, before)
