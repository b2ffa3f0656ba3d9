"""A working copy of a versioned application, as a deploy or an editor changes it."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from ..catalogue import APPS

_LINE = re.compile(r'^VERSION = ".*"$', re.MULTILINE)


class Checkout:
    """A temporary directory with a copy of `bench/apps/{app}.py`; leaving the context removes it."""

    def __init__(self, app: str) -> None:
        self.app = app
        self._source = (APPS / f"{app}.py").read_text()
        self._directory = tempfile.TemporaryDirectory(prefix="lastcall-bench-")
        self.save("0")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._directory.cleanup()

    @property
    def directory(self) -> Path:
        """Where the copy is."""
        return Path(self._directory.name)

    def save(self, version: str) -> None:
        """Write the file anew, with this version.

        Not twice within a second: compiled files know their source by its size and the second of its last change.
        """
        (self.directory / f"{self.app}.py").write_text(_LINE.sub(f'VERSION = "{version}"', self._source))
