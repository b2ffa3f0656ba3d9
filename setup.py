"""Builds the compiled modules: every ``src/lastcall/**/*.pyx`` becomes one extension module.

Everything else about the package is in ``pyproject.toml``. The generated C goes to ``build/cython/<flavour>``, never
into ``src``; only modules whose sources changed are built again. What pip builds from a checkout for a wheel goes to a
directory of its own, which is gone afterwards: it may be of another Cython, and would make all of ``build`` stale, or
be left in a later wheel when its source is gone. Two environment variables choose another flavour:

LASTCALL_LINETRACE=1   line tracing, for coverage of the compiled modules (slow)
LASTCALL_SANITIZE=1    AddressSanitizer and debug information (CONTRIBUTING.md, "Memory checks")
"""

from __future__ import annotations

import atexit
import hashlib
import itertools
import multiprocessing
import os
import shlex
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import Cython
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, CompileError, LinkError, PlatformError
from setuptools.modified import newer_group

SOURCE = Path("src")
BUILD_ERRORS = (CCompilerError, CompileError, LinkError, PlatformError)

# No boundscheck or wraparound here: a function switches them off for itself, with a comment that says why it is safe.
DIRECTIVES: dict[str, Any] = {
    "language_level": 3,
    "annotation_typing": False,
    "binding": False,  # plain C methods: CPython specialises calls to them, and each call is a little cheaper
    # Signatures as CPython's own builtins carry them (__text_signature__): they cost a call nothing, and `make lint`
    # can compare them with the .pyi files.
    "embedsignature": True,
    "embedsignature.format": "clinic",
}


def switched_on(name: str) -> bool:
    """Whether the environment variable ``name`` asks for something."""
    return os.environ.get(name, "") not in ("", "0")


def cpu_count() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Flavour:
    """What the environment asks the compilers for. Each has its own directory for the generated C, in ``base``."""

    def __init__(self, base: Path) -> None:
        self.base = base
        names = []
        self.directives = dict(DIRECTIVES)
        self.macros: list[tuple[str, str | None]] = []
        self.compile_args: list[str] = []
        self.link_args: list[str] = []
        windows = sys.platform == "win32"
        if not windows:
            self.compile_args.append("-O3")
        if switched_on("LASTCALL_LINETRACE"):
            names.append("linetrace")
            self.directives["linetrace"] = True
            # From CPython 3.13 on Cython would use sys.monitoring; coverage's Cython plugin needs the older way.
            self.macros += [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")]
        if switched_on("LASTCALL_SANITIZE"):
            if windows:
                raise SystemExit("lastcall: LASTCALL_SANITIZE works with gcc and clang only.")
            names.append("sanitize")
            self.directives["nonecheck"] = True  # a None where an object must be is an exception then, and no crash
            self.compile_args[:] = ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address"]
            self.link_args.append("-fsanitize=address")
        self.name = "-".join(names) or "release"

    @property
    def c_directory(self) -> Path:
        """Where the generated C goes: never shared between versions of Cython or other directives, so never stale."""
        digest = hashlib.sha256(repr((Cython.__version__, self.directives)).encode()).hexdigest()
        return self.base / "cython" / f"{self.name}-{digest[:8]}"

    def stamp(self) -> str:
        """A file that is newer than an extension module exactly when that module was built with other settings."""
        settings = (Cython.__version__, self.directives, self.macros, self.compile_args, self.link_args, sys.version)
        digest = hashlib.sha256(repr(settings).encode()).hexdigest()
        path = self.base / f"flavour-{sysconfig.get_config_var('SOABI') or sys.implementation.cache_tag}"
        if not path.exists() or path.read_text() != digest:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(digest)
        return str(path)


def find_extensions() -> list[Extension]:
    """One extension per ``.pyx``, named after its path."""
    sources = sorted(SOURCE.glob("lastcall/**/*.pyx"))
    return [Extension(".".join(path.relative_to(SOURCE).with_suffix("").parts), [path.as_posix()]) for path in sources]


class Build(build):
    """``build`` that keeps what is built for a wheel apart from what is built in place."""

    def finalize_options(self) -> None:
        """Choose the directory."""
        if "bdist_wheel" in self.distribution.commands and self.build_base == "build":
            self.build_base = tempfile.mkdtemp(prefix="lastcall-build-")
            atexit.register(shutil.rmtree, self.build_base, ignore_errors=True)
        super().finalize_options()


class BuildModules(build_ext):
    """``build_ext`` that translates with Cython first, in parallel, and explains what is missing in one sentence."""

    def finalize_options(self) -> None:
        """Use every CPU, unless told otherwise."""
        super().finalize_options()
        if self.parallel is None:
            self.parallel = cpu_count()

    def run(self) -> None:
        """Translate what is stale, then compile what is stale."""
        self.require_headers()
        try:
            self.translate()
            super().run()
        except BUILD_ERRORS as exc:
            raise SystemExit(f"lastcall: the compiled modules could not be built: {exc}") from exc

    def build_extensions(self) -> None:
        """Check for the compiler, which is known only now, before the first file is given to it."""
        self.require_compiler()
        self._stale = {
            ext.name for ext in self.extensions if self.force or self.is_stale(ext, self.get_ext_fullpath(ext.name))
        }
        self._begun = itertools.count(1)
        super().build_extensions()

    def build_extension(self, ext: Extension) -> None:
        """Build one module; for an editable install take the one in ``src`` where it is up to date."""
        target = Path(self.get_ext_fullpath(ext.name))
        in_place = SOURCE / Path(self.get_ext_filename(ext.name))
        if self.editable_mode and not self.force and not self.is_stale(ext, in_place):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(in_place, target)
        else:
            if ext.name in self._stale:  # several are compiled side by side: each says when it begins
                print(f"--> compiling {next(self._begun)}/{len(self._stale)}: {ext.name}\n", end="", flush=True)
            super().build_extension(ext)

    @staticmethod
    def is_stale(ext: Extension, built: Path | str) -> bool:
        """Whether ``built`` is missing or older than what it is built from."""
        return bool(newer_group([*ext.sources, *ext.depends], str(built), "newer"))

    def translate(self) -> None:
        """Turn every ``.pyx`` that is newer than its C file into C, and point the extensions at the C files."""
        flavour = Flavour(Path(self.get_finalized_command("build").build_base))
        written = [path.stat().st_mtime for path in flavour.c_directory.rglob("*.c")]
        if len(written) < len(self.extensions) or any(
            path.stat().st_mtime > min(written) for path in SOURCE.rglob("*.p[xy][dx]")
        ):
            print("--> translating to C", flush=True)
        # A pool works only where it can fork: elsewhere each child would run this script again.
        can_fork = multiprocessing.get_start_method() == "fork"
        translated = cythonize(
            [Extension(ext.name, list(ext.sources)) for ext in self.extensions],
            build_dir=str(flavour.c_directory),
            include_path=[str(SOURCE)],
            compiler_directives=flavour.directives,
            nthreads=cpu_count() if can_fork else 0,
            force=self.force or None,
            quiet=True,
        )
        stamp = flavour.stamp()
        by_name = {ext.name: ext for ext in translated}
        for ext in self.extensions:
            ext.sources = by_name[ext.name].sources
            ext.depends = [stamp]
            ext.define_macros = flavour.macros
            ext.extra_compile_args = flavour.compile_args
            ext.extra_link_args = flavour.link_args

    @staticmethod
    def require_headers() -> None:
        """End with a clear sentence where the headers of this Python are missing."""
        include = sysconfig.get_path("include")
        if not Path(include, "Python.h").exists():
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            raise SystemExit(
                f"lastcall: the headers of Python {version} are missing (no Python.h in {include}); install them "
                f"first: python{version}-dev or python3-dev on Debian and Ubuntu, python3-devel on Fedora."
            )

    def require_compiler(self) -> None:
        """End with a clear sentence where the C compiler is missing."""
        command = getattr(self.compiler, "compiler_so", None)  # MSVC has none, and looks for itself
        if isinstance(command, str):
            command = shlex.split(command)
        if command and shutil.which(command[0]) is None:
            raise SystemExit(
                f"lastcall: building it needs a C compiler, and {command[0]!r} was not found; install one first: "
                "gcc (Debian and Ubuntu: build-essential, Fedora: gcc) or clang (macOS: xcode-select --install)."
            )


setup(ext_modules=find_extensions(), cmdclass={"build": Build, "build_ext": BuildModules})
