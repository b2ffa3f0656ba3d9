"""Whether this process is a forked child of the one that serves, and its end if it is.

A child that runs the application's code must not go on with the server's. Whoever calls an application remembers in
which process, and looks when the call is over.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn


def leave(exc: BaseException | None = None) -> NoReturn:
    """End a child with the code that the interpreter would give it for ``exc``, by default the one that is handled.

    Nothing is run, flushed or reported: all that there is belongs to the parent.
    """
    os._exit(exit_code(sys.exception() if exc is None else exc))


def leave_if_child(pid: int, exc: BaseException | None = None) -> None:
    """``leave()``, unless this is the process ``pid``."""
    if os.getpid() != pid:
        leave(exc)


def exit_code(exc: BaseException | None) -> int:
    """The exit code that an exception stands for, in the eight bits that the system keeps; 0 for None."""
    if isinstance(exc, BaseExceptionGroup):
        return max(map(exit_code, exc.exceptions))
    if isinstance(exc, SystemExit):
        if exc.code is None:
            return 0
        return exc.code & 0xFF if isinstance(exc.code, int) else 1
    if isinstance(exc, KeyboardInterrupt):
        return 128 + signal.SIGINT
    if exc is not None and isinstance(exc.__cause__, SystemExit):
        return exit_code(exc.__cause__)  # it was put into words for a person
    return 0 if exc is None else 1
