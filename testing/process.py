"""Real server processes for tests: started, read, signalled and waited for, always in bounded time.

A test that needs a process writes::

    with ServerProcess(["--driver", "native"], "apps.hello:app", cwd=HERE) as server:
        url = server.wait_ready()[0]  # "http://127.0.0.1:PORT": the port is a free one
        ...
        assert server.stop() == 0  # SIGTERM, and the exit code
    assert "Traceback" not in server.stderr

Leaving the ``with`` block kills what still runs, by its own pid, and closes the pipes. Every wait has a limit and fails
with all that the process wrote, so a test never has to guess why a server did not come up.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal as signals
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from testing import clock
from testing.patience import Patience

READY_LINE = re.compile(r"lastcall running on (?:\x1b\[[\d;]*m)*([^\s\x1b]+)")
LISTENING_OPTIONS = ("--bind", "--fd", "--host", "--port", "--uds")
START_SECONDS = 15.0
STOP_SECONDS = 10.0


class ProcessFailure(AssertionError):
    """The process did not do what was waited for. The message holds everything that it wrote."""


class ServerProcess:
    """One ``python -m lastcall`` process of the Python that runs the tests.

    :param args: options of lastcall. Without one that says where to listen, ``--port 0`` is added.
    :param app: ``module:attribute``; None if ``command`` needs none.
    :param env: variables to set, over the environment of the tests without its ``LASTCALL_*`` and ``WEB_CONCURRENCY``.
    :param cwd: the working directory, where lastcall finds the module of ``app``.
    :param command: what to run in place of ``python -m lastcall``, say ``[sys.executable, "script.py"]``; then ``args``
        are passed as they are.
    :param pass_fds: descriptors that the process inherits, for ``--fd``.
    """

    def __init__(
        self,
        args: Sequence[str] = (),
        app: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        *,
        command: Sequence[str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        options = list(args)
        if command is None:
            command = [sys.executable, "-m", "lastcall"]
            if not any(option.partition("=")[0] in LISTENING_OPTIONS for option in options):
                options += ["--port", "0"]
        self.command = [*command, *([app] if app is not None else []), *options]
        self._env = _environment(env or {})
        self._cwd = cwd
        self._pass_fds = tuple(pass_fds)
        self._listeners = max(1, sum(option.partition("=")[0] == "--bind" for option in options))
        self._process: subprocess.Popen[str] | None = None
        self._watched: clock.Watched | None = None
        self._stdout = _Output()
        self._stderr = _Output()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> Self:
        """Start the process and the threads that read what it writes. Does not wait for it to be ready."""
        assert self._process is None, "a ServerProcess is started once"
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self._cwd,
            env=self._env,
            pass_fds=self._pass_fds,
            encoding="utf-8",
            errors="backslashreplace",
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._watched = clock.Watched(self._process.pid)
        self._stdout.read(self._process.stdout)
        self._stderr.read(self._process.stderr)
        return self

    @property
    def pid(self) -> int:
        """Process id."""
        return self._running.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while the process runs."""
        return self._running.poll()

    @property
    def stdout(self) -> str:
        """What came on stdout so far; after `wait`, all of it."""
        return self._stdout.text

    @property
    def stderr(self) -> str:
        """What came on stderr so far; after `wait`, all of it. The server's own lines are here."""
        return self._stderr.text

    @property
    def addresses(self) -> list[str]:
        """What the ready lines said so far, one entry per listener: ``http://127.0.0.1:PORT``, ``unix:PATH``."""
        return READY_LINE.findall(self.stderr)

    def wait_ready(self, timeout: float = START_SECONDS, listeners: int | None = None) -> list[str]:
        """Wait for the ready line of each listener and return their `addresses`.

        :param listeners: how many to wait for; default: the number of ``--bind`` options, at least one.
        :raises ProcessFailure: the process ended, or the time is over.
        """
        wanted = listeners or self._listeners
        if not self._stderr.wait(lambda text: len(READY_LINE.findall(text)) >= wanted, timeout):
            raise self._failure(f"no ready line ({timeout:g} s)")
        return self.addresses

    def wait_for(self, pattern: str, timeout: float = STOP_SECONDS) -> re.Match[str]:
        """Wait until the regular expression ``pattern`` is found on stderr, and return the match.

        :raises ProcessFailure: stderr ended without it, or the time is over.
        """
        expression = re.compile(pattern)
        if not self._stderr.wait(lambda text: expression.search(text) is not None, timeout):
            raise self._failure(f"{pattern!r} not on stderr ({timeout:g} s)")
        match = expression.search(self.stderr)
        assert match is not None
        return match

    @property
    def waited(self) -> float:
        """Seconds that its main thread has waited for a processor, as last seen."""
        return 0.0 if self._watched is None else self._watched.waited

    def signal(self, number: int) -> None:
        """Send a signal to the process, and to no other."""
        self._running.send_signal(number)

    def wait(self, timeout: float = STOP_SECONDS) -> int:
        """Wait for the end of the process and of its output; the exit code.

        :raises ProcessFailure: it still runs after ``timeout`` seconds.
        """
        patience = Patience(timeout)
        self._look_at_the_end(time.monotonic() + timeout)
        while self._running.poll() is None:
            if (left := patience.left) <= 0:
                raise self._failure(f"still running after {timeout:g} s")
            self._look_at_the_end(time.monotonic() + left)
        # A child that inherited the pipes may hold them open after its parent has gone.
        for output in (self._stdout, self._stderr):
            if not output.join(max(1.0, patience.left)):
                raise self._failure("the process has ended, but something else still holds its output open")
        return self._running.returncode

    def _look_at_the_end(self, deadline: float) -> None:
        """Wait for the end, and look what the clock has to know before the process is reaped."""
        pause = 0.0005
        with contextlib.suppress(ChildProcessError):  # somebody has reaped it: nothing is left to be seen
            while self._running.returncode is None and time.monotonic() < deadline:
                if os.waitid(os.P_PID, self._running.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
                    break
                time.sleep(pause)
                pause = min(2 * pause, 0.05)
        if self._watched is not None:
            self._watched.look()

    def stop(self, timeout: float = STOP_SECONDS) -> int:
        """SIGTERM, then `wait`: the exit code."""
        self.signal(signals.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        """SIGKILL if the process still runs, then close its pipes. Safe to call at any time, and again."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()  # nothing withstands SIGKILL
        if self._watched is not None:
            self._watched.forget()
        self._stdout.close()
        self._stderr.close()

    @property
    def _running(self) -> subprocess.Popen[str]:
        assert self._process is not None, "not started"
        return self._process

    def _failure(self, message: str) -> ProcessFailure:
        if self._stderr.join(0):  # it is ending, or has: then its exit code says more than the time
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._running.wait(1.0)
        code = self.returncode
        state = "running" if code is None else f"ended with exit code {code}"
        return ProcessFailure(
            f"{message}: {' '.join(self.command)} ({state})\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"
        )


class _Output:
    """One pipe, read by a thread so that the process never blocks on it; waiting is on a condition, not by polling."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._ended = False
        self._pipe: IO[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def text(self) -> str:
        with self._changed:
            return "".join(self._lines)

    def read(self, pipe: IO[str]) -> None:
        self._pipe = pipe
        self._reader = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self._reader.start()

    def wait(self, found: Callable[[str], bool], timeout: float) -> bool:
        """Whether ``found(text)`` became true before the end of the pipe and of the time."""
        patience = Patience(timeout)
        with self._changed:
            left = timeout
            while not self._changed.wait_for(lambda: found("".join(self._lines)) or self._ended, left):
                if (left := patience.left) <= 0:
                    break
            return found("".join(self._lines))

    def join(self, timeout: float) -> bool:
        """Wait for the end of the pipe; False if it is still open."""
        with self._changed:
            return self._changed.wait_for(lambda: self._ended, timeout)

    def close(self) -> None:
        if self._reader is None or self._pipe is None:
            return
        # Closing under a thread that still reads would block: where a child holds the pipe, the daemon thread stays,
        # and closes it when that has ended.
        self._reader.join(1.0)

    def _read(self, pipe: IO[str]) -> None:
        with pipe:
            for line in pipe:
                with self._changed:
                    self._lines.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def _environment(changes: Mapping[str, str]) -> dict[str, str]:
    """The environment of the tests, without what would configure lastcall from outside."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LASTCALL_")}
    kept.pop("WEB_CONCURRENCY", None)
    return {**kept, "PYTHONUNBUFFERED": "1", **changes}
