"""A thread's turn at the GIL, where the event loop that waits for it never rests.

Theory of operation
-------------------
A thread that wants the GIL waits for it to be released, and only after 5 ms without a release does it make the holder
give way (``sys.setswitchinterval``). A loop that is at work all the time releases it in every ``select``, many times in
5 ms, and has it back within a microsecond, before the thread has woken up. On a busy machine that may go on for
seconds, during which nothing that the loop has asked of the thread is answered.

So the loop looks after a while whether its questions are being answered. If none has been, it waits for the thread
itself, for as long as the interpreter's own switch takes at most. The thread may also be waiting for its disk, where
that does not help: each further turn comes twice as late.
"""

from __future__ import annotations

import asyncio
import threading

_PATIENCE = 0.02  # seconds without an answer until the loop steps back
_TURN = 0.005  # seconds for which it does, unless the answer comes before


class Turns:
    """Counts the questions of a loop to one thread, and the thread's answers."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asked = 0
        self._answered = 0  # written by the thread, and by nobody else
        self._seen = 0
        self._patience = _PATIENCE
        self._timer: asyncio.TimerHandle | None = None
        self._news = threading.Event()

    def asked(self) -> None:
        """One question has been put. In the loop."""
        self._asked += 1
        if self._timer is None:
            self._seen, self._patience = self._answered, _PATIENCE
            self._timer = self._loop.call_later(_PATIENCE, self._look)

    def answered(self, count: int) -> None:
        """So many of them have been answered. In the thread."""
        self._answered += count
        self._news.set()

    def close(self) -> None:
        """Look no more. In the loop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._answered == self._asked:
            return
        if self._answered == self._seen:
            self._step_back()
            self._patience *= 2
        else:
            self._patience = _PATIENCE
        self._seen = self._answered
        self._timer = self._loop.call_later(self._patience, self._look)

    def _step_back(self) -> None:
        self._news.clear()
        if self._answered == self._seen:  # still: what comes from here on sets the event
            self._news.wait(_TURN)
