"""Runs what the console blocks of a page say, and compares what comes out."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from testing.pages import Page, Step

PATIENCE = 40.0
PORT = "8000"
ADDRESS_FLAGS = re.compile(r"--(bind|fd|host|port|uds)\b")
READY = "lastcall running on"
STOPPED = "Stopped ("


class Program:
    """A child process whose output (both streams in one) a thread collects; it can be waited for line by line."""

    def __init__(self, command: str, cwd: Path, env: dict[str, str]) -> None:
        self.command = command
        # A session of its own: a signal for it is for nobody else, and a shell's children end with it.
        self.process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            start_new_session=True,
        )
        self._lines: list[str] = []
        self._ended = False
        self._seen = 0
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self._lines.append(line.rstrip())
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def expect(self, lines: Sequence[str], timeout: float = PATIENCE) -> None:
        """Wait for ``lines``, in this order, in what came since the last call; others may come between them."""
        for line in lines:
            if line and not self.find(line, timeout):
                raise AssertionError(f"$ {self.command}\nexpected: {line}\n--- came\n" + "\n".join(self._lines))

    def find(self, line: str, timeout: float) -> bool:
        """Whether ``line`` came since the last call, or comes within ``timeout`` seconds."""
        wanted = _pattern(line)

        def found() -> bool:
            for number in range(self._seen, len(self._lines)):
                if wanted.fullmatch(self._lines[number]):
                    self._seen = number + 1
                    return True
            return False

        with self._changed:
            result = False

            def look() -> bool:
                nonlocal result
                result = result or found()
                return result or self._ended

            self._changed.wait_for(look, timeout)
            return result

    def wait(self, timeout: float = PATIENCE) -> int:
        """The exit code."""
        code = self.process.wait(timeout)
        self._reader.join(timeout)
        return code

    def kill(self) -> None:
        """End it, and whatever it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        self._reader.join(1.0)
        assert self.process.stdout is not None
        if not self._reader.is_alive():
            self.process.stdout.close()


class Console:
    """The directory, the environment, and the server of one page. Port 8000 of the page is a free port here.

    ``places`` are other addresses of the page, with those that they are here. ``failed`` is the exit code of the last
    command that was waited for; ``patience`` is in seconds.
    """

    def __init__(self, page: Page, directory: Path, places: Mapping[str, str] | None = None) -> None:
        self._page = page
        self._places = dict(places or {})
        self._directory = directory / "work"
        self._port = str(free_port())
        self._server: Program | None = None
        self._told = False  # to stop
        self._background: list[tuple[Program, tuple[str, ...]]] = []
        self.failed = 0
        self.patience = PATIENCE
        self._env = _environment(directory)
        self._directory.mkdir()
        for name, text in page.files.items():
            (self._directory / name).write_text(self._here(text), encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._stop_server()
                for program, expected in self._background:
                    program.expect(expected, 2.0)
        finally:
            for program in [p for p, _ in self._background] + ([self._server] if self._server else []):
                program.kill()

    def run(self, step: Step) -> None:
        """One step."""
        expected = tuple(self._here(line) for line in step.expected)
        command = self._here(step.command)
        if command in ("^C", "kill %1"):
            assert self._server is not None, f"{command} without a server"
            self._server.process.send_signal(signal.SIGINT if command == "^C" else signal.SIGTERM)
            self._told = True
            self._server.expect(expected)
            if any(STOPPED in line for line in expected) or not expected:
                assert self._server.wait() == 0, self._server.command
        elif not command:
            assert self._server is not None, "output of a server that was not started"
            self._server.expect(expected)
        elif any(READY in line for line in expected):
            self._start_server(command.removesuffix("&").strip(), expected)
        elif command.endswith("&"):
            program = Program(f"exec {command.removesuffix('&').strip()}", self._directory, self._env)
            # Until its first line, or for a moment: its request shall be under way before the next step.
            begun = program.find(expected[0], 0.2)
            self._background.append((program, expected[begun:]))
        else:
            self._run_command(command, expected)

    def _start_server(self, command: str, expected: tuple[str, ...]) -> None:
        self._stop_server()
        env = dict(self._env)
        if not ADDRESS_FLAGS.search(command):
            env["LASTCALL_PORT"] = self._port
        self._server, self._told = Program(f"exec {command}", self._directory, env), False
        self._server.expect(expected, self.patience)

    def _stop_server(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            try:
                if server.process.poll() is None and not self._told:
                    server.process.send_signal(signal.SIGTERM)
                assert server.wait() == 0, server.command
            finally:
                server.kill()

    def _run_command(self, command: str, expected: tuple[str, ...]) -> None:
        # A server that is to fail listens before it does, perhaps beside the page's own: on a port of the kernel's.
        env = {**self._env, "LASTCALL_PORT": "0"} if re.match(r"lastcall \w+:\w+", command) else self._env
        program = Program(f"(exit {self.failed}); {command}", self._directory, env)
        try:
            self.failed = program.wait()
            program.expect(expected, self.patience)
        finally:
            program.kill()

    def _here(self, text: str) -> str:
        for there, here in self._places.items():
            text = text.replace(there, here)
        return re.sub(rf"\b{PORT}\b", self._port, text)


def free_port() -> int:
    """A port that nobody uses now, neither with IPv4 nor with IPv6."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as probe:
        number: int = probe.getsockname()[1]
        return number


def _pattern(line: str) -> re.Pattern[str]:
    """``…`` is anything; seconds with a decimal are as the machine was fast."""
    text = re.escape(line.rstrip()).replace("…", ".*")
    return re.compile(re.sub(r"after \d+\\\.\d\\ s|after\\ \d+\\\.\d\\ s", r"after \\d+\\.\\d s", text))


def _environment(directory: Path) -> dict[str, str]:
    """Commands by their names, of the Python that runs the tests; a quiet curl; nothing that configures lastcall."""
    programs = directory / "bin"
    programs.mkdir()
    modules = {"lastcall": "lastcall", "lastcall-doctor": "lastcall_doctor", "lastcall-drill": "lastcall_drill"}
    modules["lastcall-once"] = "lastcall_once"
    for name, command in {"python": "", **{name: f"-m {module}" for name, module in modules.items()}}.items():
        path = programs / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" {command} "$@"\n', encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    (directory / ".curlrc").write_text('silent\nshow-error\nnoproxy = "*"\nmax-time = 15\n', encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LASTCALL_", "WEB_CONCURRENCY"))}
    return {
        **kept,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "CURL_HOME": str(directory),
        "PYTHONUNBUFFERED": "1",
        # Of each page's own service: `lastcall ctl` would find those of other tests, too.
        "LASTCALL_CONTROL_SOCKET": str(directory / "control.sock"),
    }
