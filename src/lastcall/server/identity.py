"""What a process is to the system: whose it is, its file mode mask, and its title.

A process that starts as root binds its addresses, opens its log files and writes its pidfile, and then becomes
``--user`` and ``--group`` for good; the application is imported as that user. Workers do the same each for itself, and
their parent stays root, so that it can bind once more.

The order is that of every daemon: supplementary groups, group, and the user last, since setuid(2) takes the right to
the others away; then a look whether it is so.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from lastcall.base.errors import ConfigError, StartupError
from lastcall.base.record import Record

if TYPE_CHECKING:
    from lastcall.base.options import ProcessOptions

logger = logging.getLogger("lastcall.error")

_UNSIGNED_32: Final = 1 << 32


class Identity(Record):
    """A user and a group. ``name`` and ``home`` are "" where the system knows no such user."""

    uid: int
    gid: int
    name: str = ""
    home: str = ""

    def __str__(self) -> str:
        return f"{self.name or self.uid}, group {self.gid}"


def find_identity(process: ProcessOptions) -> Identity | None:
    """Whom the options ask to become; None: nobody else. Looks into the system's tables of users and groups.

    Raises ConfigError for a name that is in none of them, and for a number without a group.
    """
    if process.user is None and process.group is None:
        return None
    import grp  # noqa: PLC0415 - few servers need them
    import pwd  # noqa: PLC0415

    entry: pwd.struct_passwd | None = None
    uid = os.geteuid()
    with suppress(KeyError):
        entry = pwd.getpwuid(uid)
    if process.user is not None:
        number = _number(process.user)
        entry = None
        with suppress(KeyError):
            entry = pwd.getpwnam(process.user) if number is None else pwd.getpwuid(number)
        if entry is None and number is None:
            raise ConfigError("--user", process.user, "a user of this system, by name or number")
        uid = number if entry is None and number is not None else entry.pw_uid  # type: ignore[union-attr]
    if process.group is None:
        if entry is None:
            raise ConfigError("--user", process.user, "--group beside it, since the system knows no such user")
        gid = entry.pw_gid
    elif (number := _number(process.group)) is not None:
        gid = number
    else:
        try:
            gid = grp.getgrnam(process.group).gr_gid
        except KeyError:
            raise ConfigError("--group", process.group, "a group of this system, by name or number") from None
    return Identity(uid, gid, "" if entry is None else entry.pw_name, "" if entry is None else entry.pw_dir)


def become(identity: Identity) -> None:
    """Make the process, with all its threads, that of ``identity``, for good; nothing where it is already.

    ``HOME``, ``USER`` and ``LOGNAME`` become the new user's where they are still the earlier one's: what looks for its
    cache in the home of root would fail. Clears PR_SET_PDEATHSIG, as setuid(2) does.

    Raises StartupError where the system refuses, and where the process could become root again.
    """
    if _is(identity) and os.getuid() != 0:
        return  # its own groups stay
    before = _known_as()
    try:
        if identity.name:
            os.initgroups(identity.name, identity.gid)
        else:
            os.setgroups([identity.gid])
        os.setgid(identity.gid)
        os.setuid(identity.uid)
    except OSError as exc:
        raise StartupError(f"cannot become user {identity}: {exc.strerror} (only root can)") from exc
    if not _is(identity):
        raise StartupError(f"cannot become user {identity}: the system says it is done, and it is not")
    if identity.uid != 0:
        with suppress(OSError):
            os.setuid(0)
            raise StartupError(f"cannot become user {identity} for good: the way back to root is open")
    if not os.access(os.__file__, os.R_OK):
        # Else the next import of the standard library would say that there is no such module.
        raise StartupError(f"user {identity.name or identity.uid} cannot read this Python's own library, {os.__file__}")
    _rename(before, identity)


def hand_over(identity: Identity, sockets: Iterable[tuple[str, tuple[int, int]]], report: str | None) -> None:
    """Give away what the process has to get at after it became ``identity``; to be called before.

    ``sockets`` are the files of unix sockets that it made, each with (device, inode). ``report``: the file of
    ``--drain-report``, which is made if the user could not make it. Where something cannot be given away, that is a
    warning: the server serves without it.
    """
    if _is(identity):
        return
    for path, inode in sockets:
        _give(path, identity, inode)
    if report is not None:
        if not os.path.lexists(report) and not _may_write(os.path.dirname(report) or ".", identity):
            with suppress(OSError):
                os.close(os.open(report, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
        if os.path.isfile(report) and not os.path.islink(report):
            _give(report, identity, None)


def set_umask(process: ProcessOptions) -> None:
    """``--umask``: first of all, so that it holds for log files too. Sockets have the mode that their address says."""
    if process.umask is not None:
        os.umask(process.umask)


def set_title(process: ProcessOptions, role: str = "") -> None:
    """``--proc-title``: what ``ps`` shows. ``role`` comes behind it, where there are several processes.

    Raises ConfigError where setproctitle is not installed.
    """
    if process.title is None:
        return
    try:
        import setproctitle  # noqa: PLC0415 - an extra
    except ImportError:
        install = "setproctitle to be installed: pip install 'lastcall[proctitle]'"
        raise ConfigError("--proc-title", process.title, install) from None
    setproctitle.setproctitle(f"{process.title}: {role}" if role else process.title)


def _number(text: str) -> int | None:
    """The number of a user or a group; -1, which means "leave it" to the system, is none."""
    if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < _UNSIGNED_32 - 1:
        return int(text)
    return None


def _is(identity: Identity) -> bool:
    """Whether the process is that of ``identity``: real, effective and saved."""
    users, groups = (os.getuid(), os.geteuid()), (os.getgid(), os.getegid())
    if hasattr(os, "getresuid"):
        users, groups = os.getresuid(), os.getresgid()  # type: ignore[assignment]
    return set(users) == {identity.uid} and set(groups) == {identity.gid}


def _known_as() -> tuple[str, str]:
    """Name and home of the user of now."""
    import pwd  # noqa: PLC0415

    with suppress(KeyError):
        entry = pwd.getpwuid(os.getuid())
        return entry.pw_name, entry.pw_dir
    return "", ""


def _rename(before: tuple[str, str], identity: Identity) -> None:
    """Change the variables that name the user, where they are those of the earlier one."""
    name, home = before
    for variable, earlier, new in (
        ("HOME", home, identity.home),
        ("USER", name, identity.name),
        ("LOGNAME", name, identity.name),
    ):
        if earlier and os.environ.get(variable) == earlier:
            if new:
                os.environ[variable] = new
            else:
                del os.environ[variable]


def _give(path: str, identity: Identity, inode: tuple[int, int] | None) -> None:
    """Change the owner of the file that is at ``path``, and of no other that somebody puts there meanwhile."""
    try:
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(fd)
            ours = (found.st_dev, found.st_ino) == inode if inode is not None else stat.S_ISREG(found.st_mode)
            if ours and (inode is not None or found.st_nlink == 1):
                os.chown(f"/proc/self/fd/{fd}", identity.uid, identity.gid)
        finally:
            os.close(fd)
    except OSError as exc:
        logger.warning("%s cannot be given to user %s: %s", path, identity, exc.strerror)


def _may_write(directory: str, identity: Identity) -> bool:
    """Whether ``identity`` may make files there, as far as the mode says (access lists are not looked at)."""
    try:
        found = os.stat(directory)
    except OSError:
        return False
    if identity.uid == 0:
        return True
    groups = os.getgrouplist(identity.name, identity.gid) if identity.name else [identity.gid]
    shift = 6 if found.st_uid == identity.uid else 3 if found.st_gid in groups else 0
    return found.st_mode >> shift & 0o3 == 0o3
