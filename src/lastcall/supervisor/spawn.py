"""Worker processes: fresh interpreters, started from the main thread, and how the parent hears of their end.

A worker is never a fork of the parent: a fork has the parent's threads' locks and none of its threads, and its memory.
The kernel sends a worker SIGTERM when *the thread* that made it ends (``PR_SET_PDEATHSIG``, prctl(2)), so a thread that
ends before the process must not make any.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

MODULE = "lastcall.cli.worker"

NUMBER = "LASTCALL_WORKER_ID"
"""The variable that tells the application which worker it is in (``worker_id``)."""

_PARENTS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
"""Variables by which systemd speaks to the process that it has started, and to no other (sd_notify(3))."""

_FLAGS = (
    ("inspect", "-i"),
    ("dont_write_bytecode", "-B"),
    ("no_site", "-S"),
    ("verbose", "-v"),
    ("bytes_warning", "-b"),
    ("quiet", "-q"),
)


class Process:
    """One process that we have started. ``on_exit(code)`` is called once, in the loop: minus the signal's number.

    Its number stays its own until ``on_exit`` is called: it is not reaped before.
    """

    def __init__(self, popen: subprocess.Popen[bytes], on_exit: Callable[[int], None]) -> None:
        self.pid = popen.pid
        self.code: int | None = None
        self.before_reaping: Callable[[], None] | None = None
        self._popen = popen
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._pidfd = -1
        with suppress(OSError, AttributeError):  # not Linux, or no descriptor is free: `look` finds it
            self._pidfd = os.pidfd_open(popen.pid)
            self._loop.add_reader(self._pidfd, self.look)

    def look(self) -> None:
        """Look whether it has ended."""
        if self.code is not None:
            return
        with suppress(ChildProcessError):  # somebody else has reaped it: what it ended with is not known
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
                return
        if self.before_reaping is not None:
            self.before_reaping()
        code = self._popen.wait()
        self.code = code
        self._unwatch()
        self._on_exit(code)

    def send(self, number: int) -> None:
        """Send it a signal; nothing where it has ended."""
        if self.code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def forget(self) -> None:
        """Watch it no longer, whatever becomes of it."""
        self._unwatch()
        if self.code is None:
            self.code = self._popen.returncode = 0  # Popen would warn of a process that still runs

    def _unwatch(self) -> None:
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1


def worker_id(service: str, number: int) -> str:
    """What worker ``number`` is called; ``service`` is ``service_id()``."""
    return f"{service}-{number}"


def service_id() -> str:
    """A name that no other run of any service has, on any host.

    Whoever shares something with other hosts, leases in a database say, knows its workers apart by it. In a container
    process numbers do not do: they are the same in each.
    """
    return f"{socket.gethostname()}-{os.urandom(4).hex()}"


def start_worker(name: str, channel: int, on_exit: Callable[[int], None]) -> Process:
    """Start the worker ``name`` (``worker_id``), whose end of the channel is ``channel``; raises OSError."""
    command = [sys.executable, *interpreter_flags(), "-m", MODULE, str(channel)]
    return start(command, on_exit, environ=worker_environment(os.environ, name), descriptors=(channel,))


def start(
    command: Sequence[str],
    on_exit: Callable[[int], None],
    *,
    environ: Mapping[str, str],
    descriptors: Sequence[int],
    cwd: str | None = None,
) -> Process:
    """Start ``command`` with exactly these descriptors and nothing to read; raises OSError.

    Raises RuntimeError outside the main thread, with whose end the process would be told to end too.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("workers are started from the main thread only")
    popen = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        pass_fds=descriptors,
        env=dict(environ),
        cwd=cwd,
    )
    return Process(popen, on_exit)


def worker_environment(environ: Mapping[str, str], name: str) -> dict[str, str]:
    """The environment of the worker ``name``."""
    kept = {name: value for name, value in environ.items() if name not in _PARENTS}
    return {**kept, NUMBER: name}


def interpreter_flags() -> list[str]:
    """What makes another interpreter behave as this one does: ``-O``, ``-X``, ``-W``, ``-I`` and their like."""
    flags: Any = sys.flags
    found = []
    for name, letter in _FLAGS:
        found += [letter] * getattr(flags, name)
    found += ["-O"] * flags.optimize
    if flags.isolated:
        found.append("-I")
    else:
        found += ["-E"] * flags.ignore_environment + ["-s"] * flags.no_user_site
        if flags.safe_path or not _found_in_first_place():
            # "-m" alone puts the working directory first: its signal.py, or types.py, would be taken for Python's own.
            found.append("-P")
    for name, value in sorted(getattr(sys, "_xoptions", {}).items()):
        found += ["-X", name if value is True else f"{name}={value}"]
    if not flags.dev_mode and sys.warnoptions:
        found += [f"-W{option}" for option in sys.warnoptions]
    elif flags.dev_mode:
        found += [f"-W{option}" for option in sys.warnoptions if option != "default"]
    return found


def _found_in_first_place() -> bool:
    """Whether this process found lastcall in the directory that ``-m`` or a script puts first: no package is there."""
    if not sys.path:
        return False
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return os.path.realpath(sys.path[0] or os.getcwd()) == os.path.realpath(home)
