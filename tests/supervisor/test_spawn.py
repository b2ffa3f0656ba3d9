"""Processes that the parent starts, and how it hears of their end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lastcall.supervisor import spawn
from lastcall.supervisor.spawn import Process, interpreter_flags, start, worker_environment

pytestmark = pytest.mark.slow


async def run(code: str, *, number: int | None = None, pidfd: bool = True) -> int:
    """Run Python code; the exit code as ``on_exit`` is told it, exactly once."""
    told: asyncio.Queue[int] = asyncio.Queue()
    process = start([sys.executable, "-c", code], told.put_nowait, environ=dict(os.environ), descriptors=())
    if number is not None:
        process.send(number)
    if not pidfd:
        while process.code is None:
            await asyncio.sleep(0.01)
            process.look()
    found = await asyncio.wait_for(told.get(), 20)
    process.look()
    process.send(signal.SIGKILL)  # nobody's number any more: nothing is sent
    assert told.empty()
    return found


@pytest.mark.parametrize("pidfd", [True, False], ids=["pidfd", "looking"])
def test_the_end_is_told(pidfd: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not pidfd:
        monkeypatch.delattr(os, "pidfd_open")
    assert asyncio.run(run("raise SystemExit(7)", pidfd=pidfd)) == 7
    assert asyncio.run(run("import time; time.sleep(60)", number=signal.SIGKILL, pidfd=pidfd)) == -signal.SIGKILL


def test_a_process_is_reaped_only_after_it_was_said_to_go() -> None:
    order: list[str] = []

    async def main() -> None:
        done = asyncio.Event()

        def ended(_code: int) -> None:
            order.append("told")
            done.set()

        process = start([sys.executable, "-c", ""], ended, environ=dict(os.environ), descriptors=())

        def before() -> None:
            os.kill(process.pid, 0)  # still there, as a zombie: its number is its own
            order.append("before")

        process.before_reaping = before
        await asyncio.wait_for(done.wait(), 20)

    asyncio.run(main())
    assert order == ["before", "told"]


def test_workers_are_started_from_the_main_thread_only() -> None:
    caught: list[BaseException] = []

    def elsewhere() -> None:
        try:
            start(["true"], lambda code: None, environ={}, descriptors=())
        except RuntimeError as exc:
            caught.append(exc)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(caught) == 1


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    async def main() -> Process:
        return start([str(tmp_path / "none")], lambda code: None, environ={}, descriptors=())

    with pytest.raises(FileNotFoundError):
        asyncio.run(main())


def test_what_systemd_says_to_the_parent_is_not_for_workers() -> None:
    environ = {"NOTIFY_SOCKET": "/n", "LISTEN_FDS": "1", "LISTEN_PID": "5", "WATCHDOG_USEC": "9", "PATH": "/bin"}
    assert worker_environment(environ, "host-4") == {"PATH": "/bin", "LASTCALL_WORKER_ID": "host-4"}


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["-O"],
        ["-OO", "-B"],
        ["-I"],
        ["-E", "-s"],
        ["-P"],
        ["-b", "-b"],
        ["-X", "dev"],
        ["-X", "utf8", "-X", "frozen_modules=off"],
        ["-W", "error::DeprecationWarning", "-W", "ignore"],
    ],
    ids=" ".join,
)
def test_another_interpreter_gets_the_flags_of_this_one(flags: list[str], tmp_path: Path) -> None:
    """Two generations: what the second one has must be what the first one has."""
    look = "import sys; print(sys.flags, sys.warnoptions, sorted(sys._xoptions.items(), key=str))"
    source = (
        f"{look}\nimport subprocess\n"
        "from lastcall.supervisor.spawn import interpreter_flags\n"
        f"subprocess.run([sys.executable, *interpreter_flags(), '-c', {look!r}], check=True)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(source.replace("subprocess.run", "sys.stdout.flush(); subprocess.run"))
    found = subprocess.run([sys.executable, *flags, str(script)], capture_output=True, text=True, check=True)
    first, second = found.stdout.splitlines()
    # -P is added where lastcall is installed: the working directory must not shadow Python's own modules.
    assert second.replace("safe_path=True", "") == first.replace("safe_path=False", "").replace("safe_path=True", "")


def test_a_directory_full_of_pythons_names_does_not_disturb_workers(tmp_path: Path) -> None:
    (tmp_path / "signal.py").write_text("raise RuntimeError('the wrong one')")
    code = "import lastcall.cli.worker, signal; print(signal.SIGTERM)"
    found = subprocess.run(
        [sys.executable, *interpreter_flags(), "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == str(int(signal.SIGTERM)) or "SIGTERM" in found.stdout
    assert spawn.MODULE == "lastcall.cli.worker"
