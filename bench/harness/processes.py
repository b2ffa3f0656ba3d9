"""Server processes: started on one core, found with all their children, measured from outside, stopped by pid."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .catalogue import APPS, Server, Workload
from .errors import BenchError

READY_SECONDS = 15.0
STOP_SECONDS = 2.0


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def parents() -> dict[int, int]:
    """Parent of every process, from /proc."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                # "pid (name) state ppid …"; the name may hold anything, so look behind its last parenthesis
                found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def descendants(root: int, parent_of: Mapping[int, int]) -> list[int]:
    """`root` and every process below it."""
    tree = [root]
    for pid in tree:  # grows while it is walked
        tree.extend(child for child, parent in parent_of.items() if parent == pid)
    return tree


def cpu_ns(pids: Iterable[int]) -> int:
    """CPU time that these processes have used so far, user and system, all threads, in nanoseconds.

    Reads the kernel's CPU clock of each process (what `clock_getcpuclockid(3)` names), which counts threads that have
    ended as well and is exact where /proc/PID/stat counts ticks of 10 ms. Raises BenchError if a process is gone.
    """
    total = 0
    for pid in pids:
        try:
            total += time.clock_gettime_ns((~pid << 3) | 2)  # CPUCLOCK_SCHED of the process
        except OSError:
            raise BenchError(f"process {pid} of the server has ended") from None
    return total


def pss_bytes(pids: Iterable[int]) -> int:
    """Proportional set size of these processes in bytes, from smaps_rollup."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def open_descriptors(pids: Iterable[int]) -> int:
    """Open file descriptors of these processes."""
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


@dataclass
class Running:
    """A server process that answers on `port`."""

    process: subprocess.Popen[bytes]
    port: int
    output: IO[bytes]

    @property
    def pids(self) -> list[int]:
        """The server's process and all below it, found anew."""
        return descendants(self.process.pid, parents())

    def said(self) -> str:
        """The last lines that the server printed."""
        return printed(self.output)


def printed(output: IO[bytes], lines: int = 6) -> str:
    """The last lines of a server's output file; nothing when it went to /dev/null."""
    output.seek(0)
    return "\n".join(output.read().decode(errors="replace").strip().splitlines()[-lines:])


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server: SIGTERM to it, and SIGKILL to its process group when it has had STOP_SECONDS."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # start_new_session made it the leader of its own group
    process.wait(STOP_SECONDS)


@contextlib.contextmanager
def launched(
    server: Server,
    app: str,
    *,
    core: int | str,
    extra: Iterable[str],
    discard: bool = False,
    directory: Path = APPS,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """Start the server for `{app}.py` of `directory` on `core` and stop it on the way out; it may not answer yet.

    `core` is a number, or a list as taskset takes it. `environment` is added to this process's. The output goes to a
    temporary file, or to /dev/null with `discard`.
    """
    port = free_port()
    argv = ["taskset", "-c", str(core), *server.argv(app=app, port=port, extra=extra)]
    variables = {**os.environ, "PYTHONPATH": str(directory), **(environment or {})}
    with open(os.devnull, "w+b") if discard else tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            argv,
            cwd=directory,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield Running(process, port, output)
        finally:
            stop(process)


def await_answer(running: Running, name: str) -> None:
    """Return once the server has answered a GET with 200. Raises BenchError after READY_SECONDS."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if running.process.poll() is not None:
            raise BenchError(f"{name} ended with code {running.process.returncode}:\n{running.said()}")
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=1)
        try:
            connection.request("GET", "/")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.02)
    raise BenchError(f"{name} gave no answer 200 within {READY_SECONDS:.0f} s:\n{running.said()}")


@contextlib.contextmanager
def serving(
    server: Server, workload: Workload, *, core: int | str, extra: Iterable[str], discard: bool = False
) -> Iterator[Running]:
    """As `launched`, but the server answers, and it answers the workload correctly. Raises BenchError otherwise."""
    with launched(server, workload.app, core=core, extra=extra, discard=discard) as running:
        await_answer(running, server.name)
        verify(running.port, workload)
        yield running


def verify(port: int, workload: Workload) -> None:
    """Send the workload's request twice on one connection and compare the answers. Raises BenchError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.connect()
        connection.auto_open = 0  # a connection that is closed between the two must be noticed
        for _ in range(2):
            connection.request(
                "POST" if workload.body else "GET", "/", body=workload.body or None, headers=dict(workload.headers)
            )
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise BenchError(f"{workload.name}: status {answer.status} instead of 200")
            if body != workload.expected:
                raise BenchError(f"{workload.name}: wrong body ({len(body)} bytes of {len(workload.expected)})")
    except (OSError, http.client.HTTPException) as exc:
        raise BenchError(f"{workload.name}: {type(exc).__name__}: {exc}") from None
    finally:
        connection.close()
