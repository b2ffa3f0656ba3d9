"""Whether a file that SQLite has open is still the one that others would open."""

from __future__ import annotations

import os
from pathlib import Path

from lastcall_once.store import StoreError


class FileInUse:
    """The file at ``path``, known by its device and inode. Made when SQLite has it open; raises OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity = _identity(path)

    def check(self) -> None:
        """Raise StoreError if the path leads to no file, or to another one. One that is put back is fine again.

        SQLite never takes notice: it goes on with the file that it has open. And whoever opens another one under the
        name of this one has the log of this one (``-wal``) written over it.
        """
        try:
            if _identity(self._path) == self._identity:
                return
            what = "was replaced by another file"
        except (FileNotFoundError, NotADirectoryError):
            what = "was removed"
        raise StoreError(
            f"{self._path} {what} while it was open here: put it back, or stop all that use the store, remove the -wal "
            "and the -shm beside the file, and start them again"
        )


def _identity(path: Path) -> tuple[int, int]:
    found = os.stat(path)  # not Path.stat: this is for each transaction
    return found.st_dev, found.st_ino
