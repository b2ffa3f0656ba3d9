"""A server as a child process in a session of its own, of which nothing is left in the end."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from lastcall_drill.errors import DrillError
from lastcall_drill.timeline import Timeline
from lastcall_drill.verdicts import Source

MARK: Final = "LASTCALL_DRILL_PROCESS"
"""Environment variable by which a descendant is known that has left the session."""

POLL: Final = 0.01
"""Seconds between two looks at something that cannot be waited for."""

_PORTS: Final = range(18000, 32000)  # below those that the kernel gives to outgoing connections
_LISTEN: Final = "0A"  # the state's name in /proc/net/tcp
_taken: set[int] = set()
_running: set[ServerProcess] = set()
_lock = threading.Lock()
_halted = threading.Event()


class HaltedError(DrillError):
    """Everything is being ended: see :func:`halt`."""


class ServerProcess:
    """A command that serves. It starts at once, in a session and process group of its own.

    ``env`` is its whole environment, ``cwd`` its directory, ``deadline`` the seconds after which it is killed whatever
    it does. Its output goes to a file and never blocks it. Raises DrillError if there is no such command. Use it as a
    context manager, or call :meth:`kill` in the end: also when it has exited, for the sake of its children.
    """

    def __init__(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, timeline: Timeline, deadline: float
    ) -> None:
        self.argv = list(argv)
        self.started = time.monotonic()
        self.exited: float | None = None
        self.killed = False  # by us, while it was running
        self._overdue = False  # it was waited for, and did not come to its end
        self._timeline = timeline
        self._mark = uuid.uuid4().hex
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by kill()
        self._text: str | None = None
        self._closing = threading.Lock()
        self._ended = threading.Event()
        if _halted.is_set():
            raise HaltedError("the drill is being ended")
        try:
            self._process = subprocess.Popen(
                self.argv,
                env={**env, MARK: self._mark},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            self._output.close()
            raise DrillError(_not_started(self.argv[0], error)) from None
        with _lock:
            _running.add(self)
        words = " ".join((Path(self.argv[0]).name, *self.argv[1:]))
        timeline.add(Source.PROCESS, "start", who=str(self.pid), detail=words, at=self.started)
        self._timer = threading.Timer(deadline, self._out_of_time)
        self._timer.daemon = True
        self._timer.start()
        threading.Thread(target=self._reap, name=f"drill-wait-{self.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its group and session."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet, in whatever way."""
        return not self._ended.is_set()

    @property
    def exit_code(self) -> int | None:
        """The exit code, minus the number of the signal that ended it. None while it runs, or if :meth:`kill` did."""
        return self._process.returncode if self._ended.is_set() and not self.killed else None

    def signal(self, number: int, *, group: bool = False) -> float:
        """Send a signal to it, or to its whole group as a terminal does. Returns when. It may have exited."""
        name = signal.Signals(number).name
        at = self._timeline.signal(f"{name} to the process group" if group else name)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number) if group else self._process.send_signal(number)
        return at

    def wait(self, timeout: float) -> int | None:
        """Wait up to ``timeout`` seconds for its exit. Returns the exit code, None if it still runs."""
        if not self._ended.wait(max(0.0, timeout)):
            self._overdue = True
        return self.exit_code

    def wait_for_port(self, port: int, timeout: float, *, host: str = "127.0.0.1", path: Path | None = None) -> None:
        """Wait until somebody listens on a port, or on the unix socket ``path``.

        A listener may still have to load its application: send it a request to know more. Raises DrillError with the
        end of the output if the process exits or the time is over.
        """
        until = time.monotonic() + timeout
        while not (listens(host, port) if path is None else path.is_socket()):
            if self._ended.wait(POLL):
                raise DrillError(f"the server exited with code {self.exit_code} before it listened:\n{self.tail()}")
            if time.monotonic() > until:
                raise DrillError(f"the server did not listen within {timeout:g} s:\n{self.tail()}")

    def children(self) -> list[int]:
        """Ids of the running processes that it has started, by parentage or by what they have inherited.

        Empty where there is no ``/proc``.
        """
        return [pid for pid in _processes() if pid != self.pid and self._is_ours(pid)]

    def output(self) -> str:
        """All that it has written, on stdout and stderr."""
        if self._text is not None:
            return self._text
        data = os.pread(self._output.fileno(), os.fstat(self._output.fileno()).st_size, 0)
        return data.decode("utf-8", "replace")

    def tail(self, lines: int = 15) -> str:
        """The last lines of its output."""
        return "\n".join(self.output().rstrip().splitlines()[-lines:])

    def kill(self) -> None:
        """Kill what is left of it: the process, its group and session, and descendants that have left both."""
        self._timer.cancel()
        if not self._ended.is_set():
            self.killed = True
            # Nobody may have asked it to end: that is no fault of the server's.
            what, why = ("killed", "still running") if self._overdue else ("ended", "no longer needed")
            self._timeline.add(Source.DRILL, what, f"{why} when its scenario was over", who=str(self.pid))
        for _ in range(100):  # a process that forks while it is killed is met in the next round
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            left = self.children()
            for pid in left:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            if self._ended.wait(POLL) and not left:
                break
        with self._closing:  # the deadline may have come at the same time
            if self._text is None:
                self._text = self.output()
                self._output.close()
        with _lock:
            _running.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _reap(self) -> None:
        code = self._process.wait()
        how = "ended by the drill" if self.killed else exit_words(code)
        self.exited = self._timeline.add(Source.PROCESS, "exit", how, who=str(self.pid))
        self._ended.set()

    def _out_of_time(self) -> None:
        self._timeline.add(Source.DRILL, "note", "the scenario's hard deadline has passed")
        self._overdue = True
        self.kill()

    def _is_ours(self, pid: int) -> bool:
        try:
            if os.getsid(pid) == self.pid:
                return True
            return f"{MARK}={self._mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False


def _not_started(command: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and error.filename == command:
        return f"{command} is not on PATH" if "/" not in command else f"there is no file {command}"
    return f"{command} cannot be started: {error.strerror}"


def exit_words(code: int) -> str:
    """An exit code in words: ``exit code 0``, ``ended by SIGKILL``."""
    return f"exit code {code}" if code >= 0 else f"ended by {signal.Signals(-code).name}"


def halt() -> None:
    """End all drills of this process: kill every server, and let whoever waits or starts one raise HaltedError."""
    _halted.set()
    with _lock:
        left = list(_running)
    for one in left:
        one.kill()


def end_children() -> None:
    """Kill every descendant of this process, and what those start: for the end of a drill that installs something."""
    parents = {pid: parent for pid in _processes() if (parent := _parent(pid)) is not None}
    ours = {os.getpid()}
    for _ in parents:  # at most as many generations as there are processes
        found = {pid for pid, parent in parents.items() if parent in ours} - ours
        if not found:
            break
        ours |= found
    for pid in ours - {os.getpid()}:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def pause(seconds: float) -> None:
    """Sleep. Raises HaltedError when the drill is ended meanwhile."""
    if _halted.wait(max(0.0, seconds)):
        raise HaltedError("the drill is being ended")


def listens(host: str, port: int) -> bool:
    """Whether somebody listens on a port. Asks the kernel, so that the server sees no connection."""
    tables = [table for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")) if table.exists()]
    if not tables:
        with socket.socket() as probe:
            return probe.connect_ex((host, port)) == 0
    rows = (line.split() for table in tables for line in table.read_text().splitlines()[1:])
    return any(row[3] == _LISTEN and int(row[1].rpartition(":")[2], 16) == port for row in rows)


def free_port() -> int:
    """A port of the loopback interface that can be bound, and that this process has not given away before."""
    with _lock:
        for port in random.sample(_PORTS, len(_PORTS)):
            if port not in _taken and _can_be_bound(port):
                _taken.add(port)
                return port
    raise DrillError("no port between 18000 and 32000 is free")


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def _can_be_bound(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _processes() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except FileNotFoundError:
        return []
