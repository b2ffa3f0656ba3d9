"""Coverage of the compiled modules: Cython's plugin wants the generated C beside the ``.pyx``; ours is in ``build``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from Cython.Coverage import Plugin

PROJECT = Path(__file__).parents[1]


class BuildDirectoryPlugin(Plugin):
    """Knows where ``setup.py`` puts the C of a build with LASTCALL_LINETRACE=1."""

    def _find_source_files(self, filename: str) -> tuple[str | None, str | None]:
        source = Path(filename)
        if source.is_relative_to(PROJECT / "src"):
            # The module is what comes before the first dot, of x.pyx as of x.cpython-313-x86_64-linux-gnu.so.
            c_name = source.relative_to(PROJECT).with_name(f"{source.name.partition('.')[0]}.c")
            newest = sorted(PROJECT.glob(f"build/cython/linetrace*/{c_name}"), key=lambda path: path.stat().st_mtime)
            if newest:
                return str(newest[-1]), None
        return None, None


def coverage_init(registry: Any, options: dict[str, Any]) -> None:
    """Called by coverage for a plugin that its configuration names."""
    plugin = BuildDirectoryPlugin()
    registry.add_configurer(plugin)
    registry.add_file_tracer(plugin)
