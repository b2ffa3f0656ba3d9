"""Sockets that systemd has opened for this process: ``sd_listen_fds(3)``."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import Final

from lastcall.base.errors import StartupError
from lastcall.base.record import Record

FIRST: Final = 3
"""The first descriptor that is passed: SD_LISTEN_FDS_START."""
_MOST: Final = 4096
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


class Activation(Record):
    """What was passed: descriptors, and their names (``FileDescriptorName=``, by default the socket unit's).

    ``meant_for``: the process that they were meant for where that is another one, else 0. A program between systemd
    and us that does not ``exec`` is the usual reason.
    """

    descriptors: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    meant_for: int = 0


def take_sockets(environ: MutableMapping[str, str], pid: int) -> Activation:
    """Take the sockets that the environment of the process ``pid`` names.

    The variables are removed, and the descriptors closed on exec, so that nobody takes them a second time: workers get
    theirs from their parent. Raises StartupError where what is named is not there.
    """
    meant, count, names, _ = (environ.pop(name, "") for name in _VARIABLES)
    if not (_number(meant) and _number(count)):
        return Activation()
    if int(meant) != pid:
        return Activation(meant_for=int(meant))
    if int(count) > _MOST:
        raise StartupError(f"LISTEN_FDS={count} are more sockets than anybody passes")
    descriptors = tuple(range(FIRST, FIRST + int(count)))
    for fd in descriptors:
        try:
            os.set_inheritable(fd, False)
        except OSError as exc:
            raise StartupError(f"LISTEN_FDS={count}, but descriptor {fd} is not there: {exc.strerror}") from None
    given = names.split(":") if names else []
    return Activation(descriptors, tuple((*given, *[""] * len(descriptors))[: len(descriptors)]))


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9
