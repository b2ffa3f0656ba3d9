"""Where control sockets are: the directories of the parent and of ``lastcall ctl``, which never asks more than these.

Everything here is about a directory that nobody else can write to: whoever could put a socket there would be taken for
the service. The temporary directory is everybody's, so what is below it has to be ours, and no symbolic link.
"""

from __future__ import annotations

import os
import re
import socket
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final

from lastcall.base.record import Record

SUFFIX: Final = ".sock"
STALE_AFTER: Final = 60.0
"""Seconds after which a socket that nobody listens on is a dead service's: one that starts binds before it listens."""

PATH_AT_MOST: Final = 107
"""Bytes of a unix socket's path, unix(7): ``sun_path`` has 108 with the last zero."""

RUN = "/run"
"""Of the machine, hier(7); the tests have one of their own."""


class Found(Record):
    """A control socket: what it is called, where it is, and whose it is."""

    name: str
    path: str
    uid: int


def places(environ: Mapping[str, str], uid: int, *, run: str | None = None) -> list[str]:
    """The directories in which a service of ``uid`` may have its control socket, the best first.

    ``/run/lastcall`` is root's own, and somebody else's where a unit says ``RuntimeDirectory=lastcall``.
    """
    run = RUN if run is None else run
    found = []
    session = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(session):  # XDG Base Directory Specification: others are invalid, and ignored
        found.append(f"{session.rstrip('/')}/lastcall")
    found += [f"{run}/user/{uid}/lastcall", f"{run}/lastcall", f"{tempfile.gettempdir()}/lastcall-{uid}"]
    return list(dict.fromkeys(found))


def prepared(directory: str, uid: int) -> bool:
    """Make the directory (0700) if it is not there; whether it is one that only ``uid`` can write to."""
    with suppress(OSError):
        if not _is_safe(os.stat(os.path.dirname(directory)), uid):
            return False  # a session's directory of somebody else, as with sudo -E
        with suppress(FileExistsError):
            os.mkdir(directory, 0o700)
        return _is_private(directory, uid)
    return False


def _is_safe(parent: os.stat_result, uid: int) -> bool:
    """Whether nobody else can take the place of what ``uid`` makes in there: theirs or root's, and closed or sticky."""
    return parent.st_uid in (0, uid) and bool(not parent.st_mode & 0o022 or parent.st_mode & stat.S_ISVTX)


def _is_private(directory: str, uid: int) -> bool:
    """Whether it is a directory, no link, that belongs to ``uid`` and that nobody else can write to."""
    status = os.lstat(directory)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == uid and not status.st_mode & 0o022


def default_paths(
    name: str, environ: Mapping[str, str], uid: int, pid: int, *, run: str | None = None
) -> Iterator[str]:
    """Paths for a service's socket, to be tried in order: by its name, then, if that is taken, with the pid too."""
    for directory in places(environ, uid, run=run):
        for chosen in (name, f"{name}-{pid}"):
            path = f"{directory}/{chosen}{SUFFIX}"
            if len(os.fsencode(path)) <= PATH_AT_MOST and prepared(directory, uid):
                yield path


def name_of(addresses: Sequence[tuple[str, int] | str], pid: int) -> str:
    """What a person calls the service: the port of its first address, else its unix socket's name, else the pid."""
    for address in addresses:
        if isinstance(address, tuple):
            return str(address[1])
    for address in addresses:
        if isinstance(address, str) and (stem := re.sub(r"[^\w.-]", "_", os.path.basename(address)).strip("._")):
            return stem.removesuffix(SUFFIX)[:32]
    return str(pid)


def find(environ: Mapping[str, str], uid: int, *, run: str | None = None) -> list[Found]:
    """The sockets on which a service of ``uid`` listens; for root, where it has none, those of everybody.

    Those of ``uid`` that services which were killed have left behind are removed.
    """
    run = RUN if run is None else run
    found = _find_in(places(environ, uid, run=run), uid)
    if uid != 0 or found:
        return found
    everybody = [f"{run}/lastcall"]
    for parent, pattern in ((f"{run}/user", r"\d+"), (tempfile.gettempdir(), r"lastcall-\d+")):
        with suppress(OSError):
            names = [one for one in sorted(os.listdir(parent)) if re.fullmatch(pattern, one)]
            everybody += [f"{parent}/{one}/lastcall" if pattern == r"\d+" else f"{parent}/{one}" for one in names]
    return _find_in(everybody, None)


def _find_in(directories: Sequence[str], uid: int | None) -> list[Found]:
    """The sockets in them that somebody listens on. ``uid`` None: in each, those of its owner."""
    found: dict[tuple[int, int], Found] = {}
    for directory in directories:
        with suppress(OSError):
            owner = os.lstat(directory).st_uid if uid is None else uid
            if not _is_private(directory, owner):
                continue
            for entry in sorted(os.listdir(directory)):
                path = f"{directory}/{entry}"
                status = os.lstat(path)
                if not entry.endswith(SUFFIX) or not stat.S_ISSOCK(status.st_mode):
                    continue
                if listens(path):
                    one = Found(entry.removesuffix(SUFFIX), path, status.st_uid)
                    found.setdefault((status.st_dev, status.st_ino), one)
                elif status.st_uid == uid and time.time() - status.st_mtime > STALE_AFTER:
                    os.unlink(path)
    return list(found.values())


def listens(path: str) -> bool:
    """Whether somebody listens there, or may: only a refused connection says that nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True
