"""Processes at a terminal, and what stands on its screen: a pseudo-terminal under a model of a screen (pyte).

with AtTerminal([sys.executable, "-m", "lastcall", "app:app"], columns=60, lines=12) as terminal:
    terminal.wait_for("running on")
    terminal.type("\\x03")           # Ctrl-C, echoed as any terminal does
    assert terminal.wait() == 0
    print(terminal.text)            # with what has been scrolled away
"""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import pyte

from testing.patience import Patience

PATIENCE = 15.0


class AtTerminal:
    """One process in a session of its own, whose controlling terminal is a new one.

    :param files: ``stdout``, ``stderr``: a file in place of the terminal.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        columns: int = 250,
        lines: int = 40,
        encoding: str = "utf-8",
        files: Mapping[str, IO[bytes]] | None = None,
    ) -> None:
        self._screen = pyte.HistoryScreen(columns, lines, history=2000, ratio=0.5)
        self._stream = pyte.Stream(self._screen)
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self._changed = threading.Condition()
        self._ended = False
        self.raw = b""
        ours, theirs = pty.openpty()
        self._ours = ours
        self._wake, self._woken = os.pipe()
        self._closed = False
        self._set_size(columns, lines)
        # setsid -c makes standard input the controlling terminal. In place of preexec_fn: there are threads here.
        self.process = subprocess.Popen(
            ["setsid", "-c", *command],
            cwd=cwd,
            env=dict(env),
            stdin=theirs,
            stdout=(files or {}).get("stdout", theirs),
            stderr=(files or {}).get("stderr", theirs),
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(PATIENCE)
        self._close()
        os.close(self._wake)
        os.close(self._woken)

    def hang_up(self) -> None:
        """Close the window: the kernel sends SIGHUP to the process and to those in its group, and writing fails."""
        os.write(self._woken, b".")
        self._reader.join(PATIENCE)
        self._close()

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(self._ours)

    @property
    def rows(self) -> list[str]:
        """What a person sees who scrolls back to the beginning: row by row, without blank ones at the end."""
        with self._changed:
            above = [
                "".join(row[x].data for x in range(max(row, default=-1) + 1)).rstrip()
                for row in self._screen.history.top
            ]
            rows = above + [row.rstrip() for row in self._screen.display]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    @property
    def text(self) -> str:
        """``rows``, joined."""
        return "\n".join(self.rows)

    def resize(self, columns: int, lines: int) -> None:
        """Give the window another size. The kernel tells the processes in it (SIGWINCH)."""
        screen = self._screen
        with self._changed:
            # As terminals do that do not wrap anew: rows leave at the top until the cursor's is in the window. (pyte's
            # own resize() drops rows at the top in any case, and leaves the cursor where it was.)
            y = screen.cursor.y
            excess = max(0, y + 1 - lines)
            screen.cursor.y = screen.lines - 1
            for _ in range(excess):
                screen.index()
            screen.cursor.y = y - excess
            for row in [row for row in screen.buffer if row >= lines]:
                del screen.buffer[row]
            for line in screen.buffer.values():
                for x in [x for x in line if x >= columns]:
                    del line[x]
            screen.lines, screen.columns = lines, columns
            screen.cursor.x = min(screen.cursor.x, columns - 1)
            screen.dirty.update(range(lines))
        self._set_size(columns, lines)

    def type(self, keys: str) -> None:
        """What a person types."""
        os.write(self._ours, keys.encode())

    def wait_for(self, text: str, *, gone: bool = False) -> None:
        """Wait until ``text`` stands on the screen; with ``gone``, until it does not."""
        self.wait_until(lambda rows: (text in "\n".join(rows)) is not gone, text)

    def wait_until(self, holds: Callable[[list[str]], bool], what: str) -> None:
        """Wait until ``holds(rows)``."""
        patience = Patience(PATIENCE)
        while not holds(self.rows):
            with self._changed:
                left = patience.left
                if left <= 0 or (self._ended and not self._changed.wait(0.01)):
                    break
                self._changed.wait(min(left, 1.0))
        assert holds(self.rows), f"{what!r} was waited for; the screen is\n{self.text}"

    def wait(self) -> int:
        """Wait for the end of the process and of all that it wrote; the exit code."""
        patience = Patience(PATIENCE)
        while (code := self.process.poll()) is None:
            assert not patience.over, f"still running; the screen is\n{self.text}"
            time.sleep(0.01)
        self._reader.join(PATIENCE)
        return code

    def _set_size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def _read(self) -> None:
        while True:
            try:
                if self._wake in select.select([self._ours, self._wake], [], [])[0]:
                    data = b""
                else:
                    data = os.read(self._ours, 65536)
            except OSError:  # EIO: nobody has the other end any more
                data = b""
            with self._changed:
                self.raw += data
                self._stream.feed(self._decoder.decode(data))
                self._ended = not data
                self._changed.notify_all()
            if not data:
                return
