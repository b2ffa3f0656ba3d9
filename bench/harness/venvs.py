"""One venv per server under build/bench-venvs, so that no server's dependencies touch another's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .catalogue import BENCH, BUILD, ROOT, Catalogue, Server
from .errors import BenchError

PYTHON = (3, 13)

_VERSIONS = """
import importlib.metadata, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def _is_wanted(python: str) -> bool:
    """Whether `python` starts and is the CPython that the figures are for."""
    code = "import sys; print(sys.implementation.name, *sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return False
    return done.stdout.split() == ["cpython", *map(str, PYTHON)]


def find_python() -> str:
    """The CPython 3.13 to make venvs from: this one, python3.13 on the path, or pyenv's. Raises BenchError."""
    name = "python{}.{}".format(*PYTHON)
    candidates = [getattr(sys, "_base_executable", sys.executable), shutil.which(name)]
    pyenv = Path.home() / ".pyenv" / "versions"
    candidates += sorted((str(path) for path in pyenv.glob("{}.{}*/bin/python".format(*PYTHON))), reverse=True)
    for python in candidates:
        if python and _is_wanted(python):
            return python
    raise BenchError(f"no CPython {PYTHON[0]}.{PYTHON[1]} found; install {name}")


def _run(argv: Sequence[str]) -> str:
    """Run a tool to its end and return its output. Raises BenchError with the last lines of what it said."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise BenchError(f"{Path(argv[0]).name} failed: {tail}")
    return done.stdout


def ensure(server: Server, catalogue: Catalogue, *, refresh: bool = False) -> None:
    """Make the server ready to start: its venv with the newest releases, or the compiled C loop.

    A venv that holds the same requirements already is left alone unless `refresh`. Raises BenchError when the server
    cannot be installed or imported.
    """
    if server.role == "limit":
        build_cloop()
        return
    requirements = [*server.install, *catalogue.common_install]
    stamp = server.venv / "bench-requirements.json"
    wanted = json.dumps({"requirements": requirements, "source": server.source})
    if refresh or not stamp.exists() or stamp.read_text() != wanted:
        stamp.unlink(missing_ok=True)
        if not server.venv.exists():
            _run([find_python(), "-m", "venv", str(server.venv)])
        python = str(server.venv / "bin" / "python")
        _run([python, "-m", "pip", "install", "--quiet", "--upgrade", "--upgrade-strategy", "eager", *requirements])
        stamp.write_text(wanted)
    if server.source:
        # Each time: in a copy of another working tree's venv it names that tree.
        version = "python{}.{}".format(*PYTHON)
        path = server.venv / "lib" / version / "site-packages" / "bench-source.pth"
        path.write_text(f"{ROOT / server.source}\n")
        # As pip does for the packages that it installs; PYTHONDONTWRITEBYTECODE may be set where this runs.
        _run([str(server.venv / "bin" / "python"), "-m", "compileall", "-q", str(ROOT / server.source / "lastcall")])
    if server.probe:
        _run([str(server.venv / "bin" / "python"), "-c", server.probe])


def build_cloop() -> None:
    """Compile bench/cloop.c to build/cloop if it is newer. Raises BenchError without a compiler."""
    source, target = BENCH / "cloop.c", BUILD / "cloop"
    if target.exists() and target.stat().st_mtime >= source.stat().st_mtime:
        return
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        raise BenchError("no C compiler for bench/cloop.c: on Debian and Ubuntu, apt-get install gcc libc6-dev")
    BUILD.mkdir(exist_ok=True)
    _run([compiler, "-O2", "-Wall", "-Wextra", "-o", str(target), str(source)])


def versions(server: Server, catalogue: Catalogue) -> dict[str, str]:
    """Installed versions of the server's own and of the common distributions; nothing for the C loop."""
    if server.role == "limit":
        return {}
    names = [*server.distributions, *catalogue.common_distributions]
    python = str(server.venv / "bin" / "python")
    found: dict[str, str] = json.loads(_run([python, "-c", _VERSIONS, *names]))
    if server.source:
        found = {server.name: _working_tree_version(python), **found}
    return found


def _working_tree_version(python: str) -> str:
    """lastcall's version and the commit it was measured at."""
    version = _run([python, "-c", "import lastcall; print(lastcall.__version__)"]).strip()
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    return f"{version} ({done.stdout.strip()})" if done.returncode == 0 else version


def python_version(server: Server) -> str:
    """Full version of the interpreter in the server's venv."""
    code = "import platform; print(platform.python_implementation(), platform.python_version())"
    return _run([str(server.venv / "bin" / "python"), "-c", code]).strip()


def stale_extensions(server: Server) -> list[str]:
    """Compiled modules of the working tree that are older than their source, or missing, as paths in the repository."""
    if not server.source:
        return []
    tag = "cpython-{}{}".format(*PYTHON)
    stale = []
    for source in sorted((ROOT / server.source).rglob("*.pyx")):
        built = next(iter(source.parent.glob(f"{source.stem}.{tag}-*.so")), None)
        if built is None or built.stat().st_mtime < source.stat().st_mtime:
            stale.append(str(source.relative_to(ROOT)))
    return stale
