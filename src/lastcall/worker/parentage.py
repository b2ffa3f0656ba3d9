"""Whether the parent lives, and that no worker outlives it.

Theory of operation
-------------------
Three things end a worker whose parent has gone, however it went. The kernel sends SIGTERM when the thread ends that has
started us (``PR_SET_PDEATHSIG``): that interrupts an import, too, and a loop that is blocked hears of it like of any
other signal. The channel's end is an order to drain. And a parent that went before the first was set has closed its end
of the channel, so who looks there afterwards has missed nothing.

While it lives, signals that come are its affair: a process group doubles them, and it alone knows what they are to
mean. That it lives is that we are still its child. When it dies, the kernel gives us another parent (init, or a
subreaper, which is never the same process) before it sends the signal: who gets that one sees the change.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from lastcall.server import sigaction


class Parentage:
    """The process that has started this one: ``pid`` is what ``os.getppid()`` said first of all."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    @property
    def alive(self) -> bool:
        """Whether the parent still is our parent."""
        return os.getppid() == self.pid

    def end_with_it(self) -> None:
        """Have the kernel send SIGTERM when it ends; only after a change of identity, which would take that back.

        The caller looks at the channel afterwards. Where the system has no such thing, the channel has to do.
        """
        with suppress(OSError):
            sigaction.end_with_parent(signal.SIGTERM)
