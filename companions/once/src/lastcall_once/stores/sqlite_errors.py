"""What SQLite's errors mean for whoever runs the store."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from lastcall_once.store import StoreError


def is_busy(exc: sqlite3.Error) -> bool:
    """Whether others have the file."""
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


_REASONS = {
    sqlite3.SQLITE_BUSY: "another process has held {path} for longer than the timeout",
    sqlite3.SQLITE_LOCKED: "another process has held {path} for longer than the timeout",
    sqlite3.SQLITE_READONLY: "{path} cannot be written: it, or its directory, is read-only for this user",
    sqlite3.SQLITE_FULL: "there is no space left for {path}",
    sqlite3.SQLITE_IOERR: "the disk of {path} fails",
    sqlite3.SQLITE_CANTOPEN: "{path} cannot be opened: is its directory there, and may this user write in it?",
    sqlite3.SQLITE_PERM: "this user may not open {path}",
    sqlite3.SQLITE_CORRUPT: "{path} is damaged: move it away, or restore a copy",
    sqlite3.SQLITE_NOTADB: "{path} is no SQLite database, or is damaged: move it away, or name another file",
}


def explained(exc: BaseException, path: Path) -> BaseException:
    """A StoreError that says what is wrong."""
    if isinstance(exc, StoreError):
        return exc
    if isinstance(exc, OSError):
        reason, detail = "{path} cannot be made", exc.strerror or str(exc)
    elif isinstance(exc, sqlite3.Error):
        code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
        reason, detail = _REASONS.get(code, "SQLite cannot use {path}"), str(exc)
    else:
        reason, detail = "{path} has something that this release cannot read", repr(exc)
    error = StoreError(f"{reason.format(path=path)} ({detail})")
    error.__cause__ = exc
    return error
