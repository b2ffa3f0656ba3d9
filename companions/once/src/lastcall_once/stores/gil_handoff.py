"""The hand-off of the GIL to a thread whose event loop is never idle.

Theory of operation
-------------------
A thread that wants the GIL waits for it to be released, and only after 5 ms without a release does it make the holder
give way (``sys.setswitchinterval``). A busy loop releases it in every ``select``, many times in 5 ms, and has it back
within a microsecond, before the thread has woken up. On a busy machine that may go on for seconds, during which the
thread answers no request of the loop.

So the loop checks after a while whether its requests are being answered. If none has been, it blocks until the thread
answers, for as long as the interpreter's own switch takes at most. The thread may also be waiting for its disk, where
that does not help: each further hand-off comes twice as late.
"""

from __future__ import annotations

import asyncio
import threading

_FIRST_CHECK = 0.02  # seconds without an answer until the loop hands the GIL over
_LONGEST_BLOCK = 0.005  # seconds for which the loop blocks, unless an answer comes before


class GilHandoff:
    """Counts the requests of a loop to one thread, and the thread's answers."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._requests = 0
        self._answers = 0  # written by the thread only
        self._answers_before = 0  # at the last check
        self._delay = _FIRST_CHECK
        self._timer: asyncio.TimerHandle | None = None
        self._answered = threading.Event()

    def requested(self) -> None:
        """Count one request. In the loop."""
        self._requests += 1
        if self._timer is None:
            self._answers_before, self._delay = self._answers, _FIRST_CHECK
            self._timer = self._loop.call_later(_FIRST_CHECK, self._check)

    def answered(self, count: int) -> None:
        """Count so many answers. In the thread."""
        self._answers += count
        self._answered.set()

    def close(self) -> None:
        """Check no more. In the loop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = None
        if self._answers == self._requests:
            return
        if self._answers == self._answers_before:
            self._hand_over()
            self._delay *= 2
        else:
            self._delay = _FIRST_CHECK
        self._answers_before = self._answers
        self._timer = self._loop.call_later(self._delay, self._check)

    def _hand_over(self) -> None:
        self._answered.clear()
        if self._answers == self._answers_before:  # still: an answer from here on sets the event
            self._answered.wait(_LONGEST_BLOCK)
