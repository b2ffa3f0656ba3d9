"""Everything about the package is in ``pyproject.toml``. This only keeps builds apart.

setuptools collects a wheel's modules in ``build/lib``, and takes nothing out of it: what was renamed since the last
build would be in the next wheel too. So each wheel is built in a directory of its own, which is gone afterwards.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile

from setuptools import setup
from setuptools.command.build import build


class Build(build):
    """``build`` that keeps what is built for a wheel apart."""

    build_base: str

    def finalize_options(self) -> None:
        """Choose the directory."""
        if "bdist_wheel" in self.distribution.commands and self.build_base == "build":
            self.build_base = tempfile.mkdtemp(prefix="lastcall-build-")
            atexit.register(shutil.rmtree, self.build_base, ignore_errors=True)
        super().finalize_options()


setup(cmdclass={"build": Build})
