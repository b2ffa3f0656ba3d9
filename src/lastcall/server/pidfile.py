"""``--pidfile``: the number of the process that serves, in a file, for tools that ask for one.

The file appears whole, by link(2), which fails where another one is there. One of a process that lives is left alone,
and so is the one that has come in the place of ours when we remove it. A number alone says little: it is given to
somebody else after a while, and in a container to the same program at each start. So a process that began after the
file was written does not have it.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from lastcall.base.errors import StartupError

if TYPE_CHECKING:
    from lastcall.server.identity import Identity

logger = logging.getLogger("lastcall.error")

_SLACK: Final = 2.0
"""Seconds by which a process's start, in ticks since boot, and a file's time may disagree."""
_ROUNDS: Final = 10
_LONGEST: Final = 64


class PidFile:
    """The file at ``path`` (relative: to the working directory of now), for the process ``pid`` (0: this one)."""

    def __init__(self, path: str, pid: int = 0) -> None:
        self._path = os.path.join(os.getcwd(), path)
        self._pid = pid or os.getpid()
        self._fd = -1

    def write(self, *, instead_of: int = 0) -> None:
        """Write it. ``instead_of``: a process that lives, has it, and hands it over (0: none).

        Raises StartupError where another process has it, and where it cannot be written.
        """
        fresh = f"{self._path}.{self._pid}.new"
        try:
            self._fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            try:
                os.write(self._fd, b"%d\n" % self._pid)
                self._place(fresh, instead_of)
            finally:
                with suppress(OSError):
                    os.unlink(fresh)
        except OSError as exc:
            self.forget()
            raise StartupError(f"cannot write the pidfile {self._path}: {exc.strerror}") from exc
        except StartupError:
            self.forget()
            raise

    def give(self, identity: Identity) -> None:
        """Let ``identity``, which the process is about to become, change it. Removing needs the directory's consent."""
        if self._fd >= 0:
            with suppress(OSError):
                os.fchown(self._fd, identity.uid, identity.gid)

    def remove(self) -> None:
        """Remove it if it is still ours. Where the directory is another user's, it is left behind empty."""
        if self._fd < 0:
            return
        try:
            if _same(os.stat(self._path), os.fstat(self._fd)):
                os.unlink(self._path)
        except FileNotFoundError:
            pass
        except OSError as exc:
            logger.debug("The pidfile %s cannot be removed (%s): it is left empty", self._path, exc.strerror)
            with suppress(OSError):
                os.ftruncate(self._fd, 0)
        self.forget()

    def forget(self) -> None:
        """Leave it where it is: it is another process's from now on."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _place(self, fresh: str, instead_of: int) -> None:
        for _ in range(_ROUNDS):
            try:
                os.link(fresh, self._path)
            except FileExistsError:
                self._clear(instead_of)
            else:
                return
        raise StartupError(f"cannot write the pidfile {self._path}: others write it too")

    def _clear(self, instead_of: int) -> None:
        """Move a stale file out of the way; raises StartupError where it is not stale."""
        looked = _look(self._path)
        if looked is None:
            return
        found, pid = looked
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EEXIST, "what is there is no file")
        if pid not in (0, instead_of, self._pid) and _has_it(pid, found.st_mtime):
            raise StartupError(
                f"the pidfile {self._path} is that of process {pid}, which runs: is the server up already?"
            )
        aside = f"{self._path}.{self._pid}.old"
        os.rename(self._path, aside)
        if not _same(os.stat(aside), found):  # somebody was faster: it is theirs
            with suppress(OSError):
                os.link(aside, self._path)
        os.unlink(aside)


def _look(path: str) -> tuple[os.stat_result, int] | None:
    """The file at ``path`` and the process that it names (0: none); None if it is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        text = os.read(fd, _LONGEST).decode("ascii", "replace").strip()
        pid = int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 0
        return os.fstat(fd), pid
    finally:
        os.close(fd)


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _has_it(pid: int, written: float) -> bool:
    """Whether the process lives that wrote its number at ``written`` (seconds since the epoch)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it lives, and is another user's
    started = _started(pid)
    return started is None or started <= written + _SLACK


def _started(pid: int) -> float | None:
    """When a process began, in seconds since the epoch (proc(5), field 22 of ``stat``); None if that is not known."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        with open("/proc/stat", "rb") as file:
            boot = next(int(line.split()[1]) for line in file if line.startswith(b"btime "))
        return boot + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, StopIteration):
        return None
