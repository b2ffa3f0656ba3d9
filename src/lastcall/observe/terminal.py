"""The terminal while a stop goes on: a list of who is left, redrawn each second, below whatever else is written there.

The terminal is shared: with messages and access lines, with the application's ``print``, its logging and tracebacks,
with other threads, child processes, and the terminal's own echo of ``^C``. Two rules keep the screen right:

- **The list never moves the cursor.** It is drawn below the line that the cursor is in, and the cursor returns to where
  it was; to take the list away is to erase from the cursor to the end of the screen. So nobody's line is written on,
  whoever left the cursor there, with or without a newline, and a window may change its size.
- **Each write takes the list away and puts it back.** Lines of ours go through ``Output``, which asks the owner. Those
  of the application go through ``sys.stdout`` and ``sys.stderr``, at whose lowest layer (the FileIO) ``write`` is
  replaced meanwhile: whoever kept a reference to the stream, a logging handler say, is seen too.

A worker does the same for what it writes, as a *guest*: it draws nothing, and takes its parent's list away, which the
parent puts back within a second. What is written past those objects, by a child process or C code, comes where the
cursor stands, in an empty line as a rule; a second line from there before the next second is written over the list's
first. No scrolling region is set and
no mode changed: a process that is killed leaves an ordinary terminal behind.

Not rich or curses: both want all writers to go through them, and cost a start 50 to 150 ms; this is six sequences that
every terminal since the VT100 has.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TextIO

from lastcall.base.progress import Progress
from lastcall.observe.access import escape
from lastcall.observe.output import Output, own_terminal, pass_echo
from lastcall.observe.style import BOLD, is_terminal, paint

LISTED: Final = 8
"""How many pieces of work are listed at most; fewer where the window is low."""

PATIENCE: Final = 0.05
"""Seconds that a line of ours waits for another thread's write to the same terminal. A stopped terminal (Ctrl-S) makes
that write wait for ever; from then on ours do not wait for it."""

ERASE_BELOW: Final = "\x1b[J"
ERASE_RIGHT: Final = "\x1b[K"
INDEX: Final = "\x1bD"  # a line down in the same column; at the bottom of the screen that scrolls
UP: Final = "\x1b[{}A"
SAVE: Final = "\x1b7"
RESTORE: Final = "\x1b8"


class Terminal:
    """The owner of the terminal behind ``output``. Made by ``take``; ``release`` gives it back.

    ``guest``: the list is another process's.
    """

    def __init__(self, output: Output, device: int, encoding: str, *, colors: bool, guest: bool = False) -> None:
        self.device = device
        self._output = output
        self._encoding = encoding
        self._colors = colors
        self._guest = guest
        self._lock = threading.RLock()  # a signal handler may print in the middle of a write of the same thread's
        self._depth = 0
        self._stalled = False
        self._unfinished = b""
        self._progress: Progress | None = None
        self._drawn = False
        self._begun = False  # somebody else's line has no end yet
        self._pid = os.getpid()
        self._released = False
        self._taps: list[tuple[io.FileIO, Any, Any]] = []

    @classmethod
    def take(cls, stream: TextIO, *, colors: bool, guest: bool = False) -> Terminal | None:
        """Own the terminal that ``stream`` writes to; None where somebody else owns one, or writes past what we see."""
        try:
            output = Output(stream.fileno())
            streams = {id(one): one for one in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__, stream)}
            raws = [_raw(one) for one in streams.values() if one is not None and _device(one) == output.device]
        except (OSError, ValueError):
            return None
        if output.device is None or None in raws:
            return None
        terminal = cls(output, output.device, stream.encoding, colors=colors, guest=guest)
        if not own_terminal(terminal):
            return None
        for raw in {id(raw): raw for raw in raws if raw is not None}.values():
            terminal._tap(raw)
        return terminal

    def show(self, progress: Progress | None) -> None:
        """Show what is left, in place of what was shown before; None takes that away."""
        if not self._enter():
            return
        try:
            self._progress = progress
            self._draw()
        finally:
            self._leave()

    def settle(self) -> None:
        """Put the cursor behind an echo of ``^C``: what other processes write begins in a line of its own."""
        if self.begin(line=True):
            self.end(b"")

    def release(self) -> None:
        """Take away what is shown, and own the terminal no longer."""
        if self._released:
            return
        self.show(None)
        self._released = True
        own_terminal(None)
        for raw, ours, earlier in self._taps:
            if (
                vars(raw).get("write") is ours
            ):  # else somebody has replaced it since, and calls ours, which does nothing
                if earlier is None:
                    del vars(raw)["write"]
                else:
                    raw.write = earlier  # type: ignore[method-assign]

    # -- around each write ----------------------------------------------------------------------------------------

    def begin(self, *, line: bool) -> bool:
        """Somebody is going to write: take the list away. ``line``: whole lines of ours, which begin in a new one.

        False where that is not to be, or cannot be: then ``end`` is not called.
        """
        if not self._enter():
            return False
        try:
            if self._depth == 1:
                self._erase()
            if pass_echo(self._output.fd) or (line and self._begun):
                self._write("\n")
                self._begun = False
        except BaseException:
            self._leave()
            raise
        return True

    def end(self, data: bytes = b"\n") -> None:
        """It has been written, and ``data`` ends like it: put the list back."""
        try:
            if data:
                self._begun = data[-1] != 0x0A
            if self._depth == 1:
                self._draw()
        finally:
            self._leave()

    def _tap(self, raw: io.FileIO) -> None:
        """See to what is written to ``raw``."""
        write: Callable[[Any], int | None] = raw.write

        def write_in_turn(data: Any) -> int | None:
            ours = self.begin(line=False)
            written: int | None = None
            try:
                written = write(data)
            finally:
                if ours:
                    self.end(bytes(data[: written or 0][-1:]))
            return written

        self._taps.append((raw, write_in_turn, vars(raw).get("write")))
        raw.write = write_in_turn  # type: ignore[method-assign]

    def _enter(self) -> bool:
        if self._released or os.getpid() != self._pid:  # a forked child: the list is its parent's
            return False
        if not self._lock.acquire(timeout=0.0 if self._stalled else PATIENCE):
            self._stalled = True
            return False
        self._stalled = False
        self._depth += 1
        return True

    def _leave(self) -> None:
        self._depth -= 1
        self._lock.release()

    # -- drawing --------------------------------------------------------------------------------------------------

    def _erase(self) -> None:
        if (self._drawn or self._guest) and self._write(ERASE_BELOW):
            self._drawn = False

    def _draw(self) -> None:
        """Draw the list, over the earlier one if that is there."""
        if self._guest:
            return
        rows = self._rows(*_size(self._output.fd))
        if not rows:
            self._erase()
            return
        # Room for it first, which may scroll; after that nothing scrolls, and the saved position stays the same place.
        room = INDEX * len(rows) + UP.format(len(rows))
        drawn = "".join(f"\r\n{row}{ERASE_RIGHT}" for row in rows)
        if self._write(f"{room}{SAVE}{drawn}{ERASE_BELOW}{RESTORE}"):
            self._drawn = True

    def _rows(self, columns: int, lines: int) -> list[str]:
        """The rows to draw in a window of this size; each fits, so that none is wrapped."""
        progress, room = self._progress, lines - 2  # the cursor's line, and one above
        if progress is None or room < 1 or columns < 2:
            return []
        rows = [progress.summary]
        listed = min(len(progress.oldest), LISTED, room - 1)
        if 0 < listed < progress.count and listed == room - 1:
            listed -= 1  # the row that says how many more there are needs a place as well
        for one in progress.oldest[:listed]:
            name = one.name if one.name.isascii() and one.name.isprintable() else escape(one.name)
            rows.append(f"  {one.seconds:4.0f} s  {one.kind:<10}  {name}")
        if listed < progress.count and len(rows) < room:
            rows.append(f"  and {progress.count - listed} more")
        cut = [row[: columns - 1] for row in rows]
        return [paint(cut[0], BOLD, self._colors), *cut[1:]]

    def _write(self, text: str) -> bool:
        """Write without waiting: a terminal that is stopped (Ctrl-S) must not hold the stop. False: it took nothing.

        What it took only a part of is ended by the next write, lest half a sequence be seen as letters.
        """
        data = self._unfinished + text.encode(self._encoding, "backslashreplace")
        written = self._output.write_as_owner(data)
        if written:
            self._unfinished = data[written:]
        return written > 0


def _raw(stream: Any) -> io.FileIO | None:
    """The lowest layer of a text stream; None for a stream that is made in another way.

    What wraps such a stream and hands its attributes on, as colorama does, has one too.
    """
    binary = getattr(stream, "buffer", None)
    raw = binary if type(binary) is io.FileIO else getattr(binary, "raw", None)
    return raw if type(raw) is io.FileIO else None


def _device(stream: Any) -> int | None:
    """Which terminal it writes to; None for anything else."""
    try:
        return os.fstat(stream.fileno()).st_rdev if is_terminal(stream) else None
    except (AttributeError, OSError, ValueError):
        return None


def _size(fd: int) -> tuple[int, int]:
    """Columns and lines of the window now."""
    columns, lines = 0, 0
    with suppress(OSError):
        columns, lines = os.get_terminal_size(fd)
    return columns or 80, lines or 24
