"""Heartbeats: a page of memory that the workers write to, and the parent reads. And how much memory a worker holds.

A worker's event loop writes the time (``time.monotonic()``, one clock for all processes of a machine) to its place. A
message for each would wake the parent; so it looks when it likes, and a worker whose loop hangs needs not to be asked.
"""

from __future__ import annotations

import mmap
import os
import tempfile

PLACES = 4096
"""Workers that live at the same time, at most."""

_DOUBLE = 8
_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


class Beats:
    """The page, made here. ``fd`` is what workers get; ``take()`` gives a place, ``give_back()`` ends its use."""

    def __init__(self) -> None:
        size = PLACES * _DOUBLE
        self.fd = _memory(size)
        self._map = mmap.mmap(self.fd, size)
        self._times = memoryview(self._map).cast("d")
        self._free = list(range(PLACES - 1, -1, -1))

    def take(self) -> int:
        """A place where nobody has written yet; raises OSError where none is left."""
        if not self._free:
            raise OSError(f"there are {PLACES} workers already")
        place = self._free.pop()
        self._times[place] = 0.0
        return place

    def give_back(self, place: int) -> None:
        """The worker at ``place`` is gone."""
        self._free.append(place)

    def age(self, place: int, now: float) -> float | None:
        """Seconds since the last beat at ``place``; None before the first."""
        last: float = self._times[place]
        return None if last == 0.0 else max(0.0, now - last)

    def close(self) -> None:
        """Give the memory back; workers keep theirs."""
        self._times.release()
        self._map.close()
        os.close(self.fd)


def resident(pid: int) -> int:
    """Bytes of memory that the process holds; 0 where that cannot be found out (proc(5), statm)."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE_SIZE
    except (OSError, IndexError, ValueError):
        return 0


def _memory(size: int) -> int:
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("lastcall-beats", os.MFD_CLOEXEC)
    else:
        fd, path = tempfile.mkstemp(prefix="lastcall-beats-")
        os.unlink(path)
    os.ftruncate(fd, size)
    return fd
