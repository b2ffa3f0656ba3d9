"""``--reload``: tells when source files have changed, by ``watchfiles``, which watches directories.

Never single files: a watch on a file is lost when an editor first replaces it by another. Those that are given by name
(environment, configuration, log configuration) are watched through their directory, and looked at when anything changes
there: so they are seen too where they are links into a directory that is swapped as a whole.

Each watch has a thread, since its wait is a blocking one; the threads only report to the loop, where filter and burst
decide. They are daemons, and ``stop()`` waits for them all the same: a thread that is still in compiled code when the
interpreter ends may abort the process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lastcall.base.errors import ConfigError
from lastcall.supervisor.watch_filter import IGNORED, Burst, FileFilter

if TYPE_CHECKING:
    from lastcall.base.options import ReloadOptions

logger = logging.getLogger("lastcall.error")

LOOK_MS: Final = 50
"""How often a watch looks for changes, at most: a twentieth of a percent of a core while there are none."""

LOOK_AT_LEAST_MS: Final = 10

CHECK_MS: Final = 1000
"""How often it is checked that a watched directory is still the one whose changes are reported."""

GONE_SECONDS: Final = 0.5
JOIN_SECONDS: Final = 2.0
NAMED: Final = 3

NEW_FILES_AT_MOST: Final = 2000
"""Files that are looked at in directories that have just appeared."""

_ADDED: Final = 1  # watchfiles.Change.added


class Watcher:
    """Calls ``on_change(paths)`` in the loop of ``start()`` when watched files have been quiet for ``options.delay``.

    ``extra_files`` count whatever they are called, and whether they exist yet or not. Raises ConfigError for a
    ``--reload-dir`` that is no directory, and where watchfiles is not installed.
    """

    def __init__(
        self,
        options: ReloadOptions,
        extra_files: Iterable[str | os.PathLike[str]],
        on_change: Callable[[list[str]], object],
    ) -> None:
        _require_watchfiles()
        self.filter = file_filter(options, Path.cwd())
        self._burst = Burst(options.delay)
        self._on_change = on_change
        self._files = {one: _signature(one) for one in map(os.path.abspath, extra_files)}
        self._look_ms = min(LOOK_MS, max(LOOK_AT_LEAST_MS, int(options.delay * 500)))
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def directories(self) -> list[str]:
        """The directories that are watched, with all below them."""
        return [str(root) for root in self.filter.roots]

    def start(self) -> None:
        """Watch, from the running loop. Changes from a moment after this on are reported."""
        self._loop = asyncio.get_running_loop()
        self._watch(self.directories, recursive=True)
        # Not with all that is below them: the directory of an environment file may be a home, or /etc.
        others = {os.path.dirname(file) for file in self._files if not self._covers(file)}
        if others:
            self._watch(sorted(others), recursive=False)

    def stop(self) -> None:
        """Report nothing more, and end the threads, which takes a look's time. May be called again."""
        self._stopped.set()
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()
        for thread in self._threads:
            thread.join(JOIN_SECONDS)
        self._threads.clear()

    def _covers(self, file: str) -> bool:
        return any(root in Path(file).parents for root in self.filter.roots)

    def _watch(self, directories: Sequence[str], *, recursive: bool) -> None:
        def run() -> None:
            batches = _batches(directories, self._stopped, look_ms=self._look_ms, recursive=recursive)
            for paths, certain in batches:
                loop = self._loop
                if loop is None:
                    return
                # A batch is closed by a look that found no more: what it has is older than that.
                when = time.monotonic() - self._look_ms / 1000
                try:
                    loop.call_soon_threadsafe(self._heard, paths, certain, when)
                except RuntimeError:  # the loop is closed
                    return

        thread = threading.Thread(target=run, name="lastcall-watch", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _heard(self, paths: set[str], certain: bool, when: float) -> None:
        if self._loop is None:
            return
        relevant = {path for path in paths if certain or self.filter(path)} | self._changed_files()
        if relevant:
            self._burst.add(relevant, when)
            self._arm(self._loop)

    def _changed_files(self) -> set[str]:
        """Those given by name that are not what they were."""
        changed = set()
        for file, before in self._files.items():
            now = _signature(file)
            if now != before:
                self._files[file] = now
                changed.add(file)
        return changed

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # Its clock and the threads' may be two (uvloop): only the difference is used.
        self._timer = loop.call_later(max(0.0, self._burst.deadline - time.monotonic()), self._over)

    def _over(self) -> None:
        self._timer = None
        paths = self._burst.take(time.monotonic())
        if paths:
            self._on_change(paths)
        elif self._loop is not None and self._burst.deadline < float("inf"):
            self._arm(self._loop)


def file_filter(options: ReloadOptions, cwd: Path) -> FileFilter:
    """What ``--reload-dir``, ``--reload-include`` and ``--reload-exclude`` come to in the directory ``cwd``.

    As with uvicorn, an include that is a directory, or a pattern of directories, adds them to what is watched; without
    any directory that is ``cwd``. Raises ConfigError for a ``--reload-dir`` that is none.
    """
    roots = [(cwd / one).resolve() for one in options.dirs]
    for given, root in zip(options.dirs, roots, strict=True):
        if not root.is_dir():
            raise ConfigError("--reload-dir", given, "a directory that exists")
    roots += [one for pattern in options.includes for one in _directories(pattern, cwd)]
    excluded = [one for pattern in options.excludes for one in _directories(pattern, cwd)]
    roots = [one for one in roots if one not in excluded and not any(other in one.parents for other in excluded)]
    kept = sorted(one for one in {*roots} if not any(other in one.parents for other in roots))
    return FileFilter.of(kept or [cwd.resolve()], options.includes, options.excludes, excluded)


def described(paths: Sequence[str], cwd: str | None = None) -> str:
    """The changed files for a line of the log: relative to ``cwd`` (None: the current directory) where they are below.

    >>> described(["/srv/app/a.py", "/etc/app.env"], "/srv/app")
    'a.py, /etc/app.env'
    """
    here = os.getcwd() if cwd is None else cwd
    names = [os.path.relpath(one, here) if one.startswith(here + os.sep) else one for one in paths[:NAMED]]
    more = len(paths) - len(names)
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")


def _directories(pattern: str, cwd: Path) -> list[Path]:
    """The directories that a pattern names. ``.*`` is no name of hidden ones, but of hidden files."""
    if pattern == ".*":
        return []
    try:
        if (cwd / pattern).is_dir():
            return [(cwd / pattern).resolve()]
        return [] if os.path.isabs(pattern) else [one.resolve() for one in cwd.glob(pattern) if one.is_dir()]
    except (OSError, ValueError, NotImplementedError):  # a pattern that is no path, or no glob
        return []


def _require_watchfiles() -> None:
    try:
        import watchfiles  # noqa: F401, PLC0415 - for development only
    except ImportError:
        raise ConfigError("--reload", True, "watchfiles to be installed: pip install 'lastcall[reload]'") from None


def _signature(file: str) -> tuple[int, int, int, int] | None:
    """What differs when a file was written to, or another has taken its place; None while there is none."""
    status = _stat(file)
    return None if status is None else (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class _Held:
    """The directories as they are now, held open: as long as they are, no other one gets the same inode number."""

    def __init__(self, directories: Sequence[str]) -> None:
        self._directories = directories
        self._held = [_opened(one) for one in directories]
        self.identities = [None if one is None else _identity(os.fstat(one)) for one in self._held]

    @property
    def there(self) -> list[str]:
        """Those that exist."""
        return [one for one, held in zip(self._directories, self._held, strict=True) if held is not None]

    @property
    def current(self) -> bool:
        """Whether all are still the same."""
        return [_identity(_stat(one)) for one in self._directories] == self.identities

    def close(self) -> None:
        """Let go."""
        for held in self._held:
            if held is not None:
                os.close(held)


def _opened(directory: str) -> int | None:
    try:
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _identity(status: os.stat_result | None) -> tuple[int, int] | None:
    return None if status is None else (status.st_dev, status.st_ino)


def _batches(
    directories: Sequence[str], stopped: threading.Event, *, look_ms: int, recursive: bool
) -> Iterator[tuple[set[str], bool]]:
    """Paths that have changed, batch by batch, until ``stopped``: a burst is many batches. In a thread of its own.

    A directory that is replaced (a checkout, a swapped link) is watched anew, and reported itself, with True: nobody
    knows what is different in it, so it counts. While one is not there, the others are watched.
    """
    polling: bool | None = None  # as watchfiles' own variables say
    held = _Held(directories)
    try:
        while not stopped.is_set():
            try:
                for changes in _until_replaced(held, stopped, look_ms, recursive, polling):
                    yield _expanded(changes, recursive=recursive), False
            except OSError as exc:
                if polling:
                    logger.error("--reload: files are not watched any more: %s", exc)
                    return
                polling = True
                logger.warning("--reload: the system does not tell of changes (%s): files are polled", exc)
            except Exception as exc:  # of watchfiles' compiled part
                logger.error("--reload: files are not watched any more: %s", exc)
                return
            before, held = held, _Held(directories)
            before.close()
            pairs = zip(directories, before.identities, held.identities, strict=True)
            if replaced := {one for one, old, new in pairs if new is not None and new != old}:
                yield replaced, True
    finally:
        held.close()


def _until_replaced(
    held: _Held, stopped: threading.Event, look_ms: int, recursive: bool, polling: bool | None
) -> Iterator[set[tuple[int, str]]]:
    """Changes until one of the directories is another, gone, or there again. Raises what watchfiles raises."""
    from watchfiles import watch  # noqa: PLC0415 - for development only

    if not held.there:
        while held.current and not stopped.wait(GONE_SECONDS):
            pass
        return
    for changes in watch(
        *held.there,
        watch_filter=None,
        debounce=1,  # the waiting is ours
        step=look_ms,
        stop_event=stopped,
        rust_timeout=CHECK_MS,
        yield_on_timeout=True,
        force_polling=polling,
        recursive=recursive,
        ignore_permission_denied=True,
    ):
        if changes:
            yield {(int(change), path) for change, path in changes}
        if not held.current:
            return


def _expanded(changes: set[tuple[int, str]], *, recursive: bool) -> set[str]:
    """The paths, and for a directory that is new, what is in it: of files that came with it nothing else is told."""
    paths = {path for _, path in changes}
    if recursive:
        left = NEW_FILES_AT_MOST
        for directory in [path for change, path in changes if change == _ADDED and os.path.isdir(path)]:
            for here, below, files in os.walk(directory):
                below[:] = [one for one in below if one not in IGNORED]
                paths.update(os.path.join(here, one) for one in files)
                left -= len(files) + 1
                if left < 0:
                    return paths
    return paths
