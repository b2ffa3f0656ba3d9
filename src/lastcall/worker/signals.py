"""Signals that mean something to the parent, and reach its workers where they are sent to the process group."""

from __future__ import annotations

import signal
from contextlib import suppress
from types import FrameType

IGNORED = ("SIGHUP", "SIGUSR1", "SIGUSR2")
"""They get a handler that does nothing: what is ignored would stay so in the programs that the application starts."""

FROM_TERMINALS = ("SIGTTIN", "SIGTTOU")
"""A handler does not do for these: the kernel sends them again and again, for as long as the call is repeated."""


def leave_to_parent() -> None:
    """Let none of them end or stop this process. Those that somebody handles already stay as they are."""
    for name in (*IGNORED, *FROM_TERMINALS):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _nothing if name in IGNORED else signal.SIG_IGN)
            if name in IGNORED:
                signal.siginterrupt(number, False)


def unblock() -> None:
    """Hear what was held back while there were no handlers: a parent may block signals before it starts us."""
    names = ("SIGINT", "SIGTERM", "SIGQUIT", *IGNORED, *FROM_TERMINALS)
    with suppress(AttributeError):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {getattr(signal, name) for name in names if hasattr(signal, name)})


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """The parent hears of it."""
