"""Which changed files count for ``--reload``, by uvicorn's rules; and when a burst of changes is over. Pure.

The rules, in order (uvicorn 0.54, ``FileFilter``): a file counts if its name matches an include and no exclude, and is
in no excluded directory. Includes are ``*.py`` and those that are given; excludes are ``.*``, ``.py[cod]``, ``.sw.*``,
``~*`` and those that are given. A default is off where the other option names it. An include that is a file's very name
(its path ends with it) wins over every exclude.

Three differences. Where several includes match, uvicorn obeys the one that a set happens to give first. An excluded
directory may be given as a relative path, which uvicorn compares with absolute ones in vain. What is in ``IGNORED``
directories below a watched one never counts.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from pathlib import PurePath
from typing import Final

from lastcall.base.record import Record

INCLUDES: Final = ("*.py",)
EXCLUDES: Final = (".*", ".py[cod]", ".sw.*", "~*")

IGNORED: Final = frozenset(
    {
        "__pycache__",
        ".git",
        ".hg",
        ".svn",
        ".venv",
        "venv",
        "site-packages",
        "node_modules",
        ".tox",
        ".nox",
        ".idea",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        ".hypothesis",
    }
)
"""Names of directories whose files nobody edits. One that is watched itself (``--reload-dir``) is not meant."""


class FileFilter(Record):
    """Whether a path counts. All paths are absolute.

    ``roots`` are the watched directories, ``includes`` and ``excludes`` patterns as ``PurePath.match`` has them,
    ``excluded`` directories of which nothing counts.
    """

    roots: tuple[PurePath, ...]
    includes: tuple[str, ...] = INCLUDES
    excludes: tuple[str, ...] = EXCLUDES
    excluded: tuple[PurePath, ...] = ()

    @classmethod
    def of(
        cls,
        roots: Iterable[PurePath],
        includes: Iterable[str] = (),
        excludes: Iterable[str] = (),
        excluded: Iterable[PurePath] = (),
    ) -> FileFilter:
        """The filter of what was given: with the defaults that are not taken back."""
        excludes = tuple(excludes)
        wanted = tuple(one for one in includes if one not in excludes)
        return cls(
            roots=tuple(roots),
            includes=(*(one for one in INCLUDES if one not in excludes), *wanted),
            excludes=(*(one for one in EXCLUDES if one not in wanted), *excludes),
            excluded=tuple(excluded),
        )

    def __call__(self, name: str) -> bool:
        """Whether a change of this file is a reason to reload."""
        path = PurePath(name)
        root = next((one for one in self.roots if one in path.parents), None)
        if root is None or not IGNORED.isdisjoint(path.relative_to(root).parts[:-1]):
            return False
        matching = [one for one in self.includes if path.match(one)]
        return any(name.endswith(one) for one in matching) or (bool(matching) and not self._is_excluded(path))

    def _is_excluded(self, path: PurePath) -> bool:
        return any(one in path.parents for one in self.excluded) or any(path.match(one) for one in self.excludes)


class Burst:
    """Changes that come close together are one: it is over when there was none for ``delay`` seconds."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._paths: set[str] = set()
        self._last = -math.inf

    def add(self, paths: Collection[str], now: float) -> None:
        """These have changed at ``now``. Times may come a little out of order: they are from several threads."""
        if paths:
            self._paths.update(paths)
            self._last = max(self._last, now)

    @property
    def deadline(self) -> float:
        """When it is over, if nothing more comes; infinity while nothing has."""
        return self._last + self._delay if self._paths else math.inf

    def take(self, now: float) -> list[str]:
        """The paths of a burst that is over by now, sorted, each once; else nothing."""
        if now < self.deadline:
            return []
        paths, self._paths = sorted(self._paths), set()
        return paths
