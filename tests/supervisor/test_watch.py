"""The watcher of files, with real files and a real watchfiles."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from lastcall.base.errors import ConfigError
from lastcall.base.options import ReloadOptions
from lastcall.supervisor import watch
from lastcall.supervisor.watch import Watcher

watchfiles = pytest.importorskip("watchfiles")

PATIENCE = 10.0


class Seen:
    """What a watcher has told, change by change."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self.changes: asyncio.Queue[list[str]] = asyncio.Queue()

    def told(self, paths: list[str]) -> None:
        self.changes.put_nowait([os.path.relpath(one, self.project) for one in paths])

    async def next(self) -> list[str]:
        """The next change."""
        async with asyncio.timeout(PATIENCE):
            return await self.changes.get()

    async def nothing_but(self, act: Callable[[], object], marker: Path) -> None:
        """Nothing that ``act`` does is told: the marker, which is written behind it, is the next change, and alone."""
        act()
        marker.write_text("marker")
        assert await self.next() == [os.path.relpath(marker, self.project)]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "project"
    (found / "pkg").mkdir(parents=True)
    (found / "app.py").write_text("old")
    (found / "pkg" / "a.py").write_text("old")
    (found / ".env").write_text("A=1")
    monkeypatch.chdir(found)
    return found


def watching(
    project: Path, scenario: Callable[[Seen], Awaitable[None]], *extra: Path, delay: float = 0.05, **options: object
) -> None:
    """Run ``scenario`` while the project is watched. Returns when the watcher's threads are gone."""

    async def run() -> None:
        seen = Seen(project)
        watcher = Watcher(ReloadOptions(wanted=True, delay=delay, **options), extra, seen.told)  # type: ignore[arg-type]
        watcher.start()
        try:
            await until_it_watches(project, seen, watcher)
            await scenario(seen)
        finally:
            watcher.stop()

    asyncio.run(run())
    assert [one.name for one in threading.enumerate() if one.name == "lastcall-watch"] == []


async def until_it_watches(project: Path, seen: Seen, watcher: Watcher) -> None:
    """The watches are set up in threads: write until something is told, then until all of it is."""
    probe = Path(watcher.directories[0]) / "probe.py"
    while watcher._burst.deadline == math.inf and seen.changes.empty():
        probe.write_text(str(time.monotonic()))
        await asyncio.sleep(0.05)
    last = probe.with_name("probe_last.py")
    last.touch()
    while os.path.relpath(last, project) not in await seen.next():
        pass


def replace(path: Path, text: str) -> None:
    """As editors save: a new file in place of the old one."""
    new = path.with_name(f"{path.name}.tmp")
    new.write_text(text)
    new.replace(path)


def change_by_time(path: Path) -> None:
    """A poll compares times of modification, by the second."""
    path.write_text("new")
    os.utime(path, (time.time() + 10, time.time() + 10))


def test_a_file_that_is_replaced_again_and_again_is_told_each_time(project: Path) -> None:
    async def scenario(seen: Seen) -> None:
        for text in "abc":
            replace(project / "app.py", text)
            assert await seen.next() == ["app.py"]
        (project / "pkg" / "a.py").write_text("new")
        assert await seen.next() == ["pkg/a.py"]
        (project / "pkg" / "a.py").unlink()
        assert await seen.next() == ["pkg/a.py"]

    watching(project, scenario)


@pytest.mark.slow
def test_a_burst_of_many_batches_is_one_change(project: Path) -> None:
    async def scenario(seen: Seen) -> None:
        for n in range(12):
            (project / f"b{n}.py").write_text("x")
            await asyncio.sleep(0.06)  # so that each is a batch of its own; less than the delay
        assert await seen.next() == sorted(f"b{n}.py" for n in range(12))

    watching(project, scenario, delay=1.0)


def test_what_does_not_count_is_not_told(project: Path) -> None:
    def act() -> None:
        for name in ("__pycache__/app.pyc", ".git/index.py", "venv/lib/site-packages/x.py", "notes.txt", ".hidden.py"):
            path = project / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
        (project / "pkg").touch()
        (project / "empty").mkdir()

    async def scenario(seen: Seen) -> None:
        await seen.nothing_but(act, project / "marker.py")

    watching(project, scenario)


def test_what_comes_with_a_new_directory_is_told(project: Path, tmp_path: Path) -> None:
    async def scenario(seen: Seen) -> None:
        (tmp_path / "new" / "deep").mkdir(parents=True)
        (tmp_path / "new" / "deep" / "b.py").touch()
        (tmp_path / "new" / "__pycache__").mkdir()
        (tmp_path / "new" / "__pycache__" / "c.py").touch()
        (tmp_path / "new").rename(project / "new")
        assert await seen.next() == ["new/deep/b.py"]

    watching(project, scenario)


def test_files_given_by_name_count_wherever_they_are_and_their_neighbours_do_not(project: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "etc"
    (elsewhere / "deep").mkdir(parents=True)
    later = elsewhere / "log.yaml"
    configuration = elsewhere / "app.toml"
    configuration.write_text("a = 1")

    async def scenario(seen: Seen) -> None:
        for file in (project / ".env", configuration):
            for text in ("a", "b"):
                replace(file, text * 3)
                assert await seen.next() == [os.path.relpath(file, project)]
            file.write_text("in place")
            assert await seen.next() == [os.path.relpath(file, project)]
        later.write_text("new")
        assert await seen.next() == [os.path.relpath(later, project)]
        await seen.nothing_but(lambda: (elsewhere / "other.toml").write_text("x"), project / "marker.py")
        await seen.nothing_but(lambda: (elsewhere / "deep" / "a.py").write_text("x"), project / "marker.py")

    watching(project, scenario, project / ".env", configuration, later)


def test_a_link_into_a_directory_that_is_swapped_counts(project: Path, tmp_path: Path) -> None:
    """As Kubernetes mounts a ConfigMap: file -> ..data/file, ..data -> a directory of its own."""
    mount = tmp_path / "config"
    for name, text in (("one", "A=1"), ("two", "A=22")):
        (mount / name).mkdir(parents=True)
        (mount / name / "app.env").write_text(text)
    (mount / "..data").symlink_to("one")
    (mount / "app.env").symlink_to("..data/app.env")

    async def scenario(seen: Seen) -> None:
        (mount / "..tmp").symlink_to("two")
        (mount / "..tmp").rename(mount / "..data")
        assert await seen.next() == ["../config/app.env"]

    watching(project, scenario, mount / "app.env")


@pytest.mark.slow
def test_a_directory_that_goes_and_comes_again_is_watched_again(project: Path) -> None:
    src = project / "src"
    src.mkdir()

    async def scenario(seen: Seen) -> None:
        shutil.rmtree(src)
        src.mkdir()
        (src / "a.py").write_text("x")
        # The directory itself is told, as one of which nobody knows what has changed in it
        while "src" not in await seen.next():
            pass
        # … and from here on its files.
        while True:
            (src / "b.py").write_text(str(time.monotonic()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    if await seen.changes.get() == ["src/b.py"]:
                        return

    watching(project, scenario, dirs=("src",))


def test_polling_is_watchfiles_own_variable(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHFILES_FORCE_POLLING", "true")
    monkeypatch.setenv("WATCHFILES_POLL_DELAY_MS", "20")

    async def scenario(seen: Seen) -> None:
        change_by_time(project / "app.py")
        assert await seen.next() == ["app.py"]

    watching(project, scenario)


def test_where_the_system_has_no_watch_left_files_are_polled(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = watchfiles.watch

    def full(*paths: str, **options: object) -> Iterator[object]:
        if not options["force_polling"]:
            raise OSError("OS file watch limit reached. about ['/srv']")
        return real(*paths, **options)

    monkeypatch.setattr(watchfiles, "watch", full)

    async def scenario(seen: Seen) -> None:
        change_by_time(project / "app.py")
        assert await seen.next() == ["app.py"]

    watching(project, scenario)
    assert caplog.text.count("files are polled") == 1
    assert "watch limit" in caplog.text


def test_without_watchfiles_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(ConfigError, match=r"pip install 'lastcall\[reload\]'"):
        Watcher(ReloadOptions(wanted=True), (), print)


PROGRAM = """
import asyncio, sys, time
from lastcall.base.options import ReloadOptions
from lastcall.supervisor.watch import Watcher

async def main():
    watcher = Watcher(ReloadOptions(wanted=True), (), print)
    watcher.start()
    await asyncio.sleep({seconds})
    begun = time.process_time()
    await asyncio.sleep({seconds})
    print("cpu", time.process_time() - begun)
    {end}

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", ["watcher.stop()", "pass", "sys.exit(7)", "raise KeyboardInterrupt"])
def test_its_thread_keeps_no_process_from_ending(project: Path, end: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(seconds=0.3, end=end)],
        cwd=project,
        timeout=20,
        capture_output=True,
        text=True,
        check=False,
    )
    wanted = {"sys.exit(7)": 7, "raise KeyboardInterrupt": -2}.get(end, 0)
    assert (done.returncode, "Traceback" in done.stderr) == (wanted, "Keyboard" in end), done.stderr


@pytest.mark.slow
def test_it_costs_next_to_nothing_while_nothing_changes(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(seconds=2, end="watcher.stop()")],
        cwd=project,
        timeout=25,
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout.removeprefix("cpu")) < 0.02  # of 2 s: a hundredth of a core
    assert watch.LOOK_MS >= 50
