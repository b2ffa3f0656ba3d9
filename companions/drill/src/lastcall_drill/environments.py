"""Virtual environments with a certain release in them, made by the standard ``venv`` and pip, and kept.

They are kept under the user's cache directory (``$XDG_CACHE_HOME``, or ``~/.cache``), in ``lastcall/drill/``. Each set
of requirements on each Python has a directory of its own, with::

    lock            held by the process that makes one
    ready.json      which environment is the complete one, and what is in it
    made-XXXXXXXX/  the environment

An environment cannot be renamed: its scripts name the interpreter by its path. So it is made where it stays, and what
is renamed into place is the record that says it is complete. What has no record is the rest of a build that was cut
off, and is swept by the next one.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from lastcall_drill.errors import DrillError
from lastcall_drill.pip_errors import NETWORK, explain
from lastcall_drill.record import Record

Say = Callable[[str], None]

FORMAT: Final = 1
FRESH: Final = 86400.0
"""Seconds for which the newest release stays the newest. What is made for a release is never looked at again."""

_BUILD_SECONDS: Final = 900.0
_PROBE_SECONDS: Final = 20.0
_WORD: Final = re.compile(r"[^A-Za-z0-9.]+")
_PYTHON: Final = re.compile(r"\d+\.\d+(\.\d+)?")
_PIP_FOR_OTHERS: Final = (22, 3)  # the first pip that installs into another environment
_OLDEST: Final = (3, 8)  # importlib.metadata is of 3.8
_PROBE: Final = "import sys, venv, ensurepip; print('.'.join(map(str, sys.version_info[:3])))"
_VERSIONS: Final = (
    "import json\nfrom importlib.metadata import distributions\n"
    "print(json.dumps({d.metadata['Name']: d.version for d in distributions() if d.metadata['Name']}))"
)
# Variables that would lead pip or the new interpreter to another place than the new environment.
_MISLEADING: Final = frozenset(
    {"PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "PIP_PREFIX", "PIP_ROOT", "PIP_TARGET", "PIP_USER"}
)
_TOOLS: Final = frozenset({"pip", "setuptools", "wheel"})


class EnvironmentError_(DrillError):
    """An environment cannot be had. Its text is a plain sentence that says which, and why."""


class Environment(Record):
    """An environment that is complete.

    ``python`` is its interpreter, ``bin`` the directory of its commands, ``versions`` the distributions in it
    (without pip and setuptools) by name, ``python_version`` as in ``3.13.0``.
    """

    python: Path
    bin: Path
    versions: Mapping[str, str]
    python_version: str


def environment_for(
    requirements: Sequence[str],
    *,
    python: str | None = None,
    cache: Path | None = None,
    say: Say | None = None,
) -> Environment:
    """An environment in which ``requirements`` are installed: the one that was kept, or a new one.

    ``requirements`` are as pip takes them (``uvicorn==0.21.1``). The first is what it is made for: without ``==`` that
    means the newest release, which is looked for once a day. ``python`` is a version (``3.12`` or ``3.12.1``; None: the
    Python that runs this), ``cache`` the directory to keep environments in. ``say`` is told, in a line, what takes
    time. One that was kept needs no network. Parallel callers, processes or threads, get the same one. Raises
    EnvironmentError_.
    """
    tell = say or (lambda _line: None)
    wanted = tuple(sorted({one.strip() for one in requirements}))
    if not wanted or any(not one or one.startswith("-") for one in wanted):
        raise EnvironmentError_(
            f"{list(requirements)} is no list of requirements: expected names such as uvicorn==0.21.1"
        )
    moving = "==" not in requirements[0]
    interpreter, version = find_python(python)
    folder = (cache or default_cache()) / _directory_name(wanted, version)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept = _kept(folder, version)
        if kept is not None and not (moving and _stale(folder, time.time())):
            return kept
        with _locked(folder / "lock", lambda: tell(f"waiting for another drill that installs {', '.join(wanted)}")):
            kept = _kept(folder, version)  # the one who held the lock may have made it
            if kept is not None and not (moving and _stale(folder, time.time())):
                return kept
            return _make(folder, wanted, interpreter, version, kept, tell)
    except OSError as error:
        raise EnvironmentError_(f"no environment can be kept in {folder}: {error.strerror or error}") from None


def default_cache() -> Path:
    """Where environments are kept: ``lastcall/drill`` in ``$XDG_CACHE_HOME``, or in ``~/.cache``."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    # The specification of XDG says that a relative path is to be ignored.
    return (Path(root) if Path(root).is_absolute() else Path.home() / ".cache") / "lastcall" / "drill"


def find_python(version: str | None) -> tuple[str, str]:
    """The path of an interpreter of this version that can make environments, and its full version.

    Looks at the Python that runs this, at ``$PATH``, and at what pyenv has installed. Raises EnvironmentError_.
    """
    own = platform.python_version()
    if version is None:
        return sys.executable, own
    if not _PYTHON.fullmatch(version):
        raise EnvironmentError_(f"{version!r} is no version of Python: expected one such as 3.12 or 3.12.1")
    if tuple(map(int, version.split(".")))[:2] < _OLDEST:
        raise EnvironmentError_(f"Python {version} is too old for the drill: expected 3.8 or later")
    if _is_of(own, version):
        return sys.executable, own
    for candidate in _candidates(version):
        found = _probe(candidate)
        if found and _is_of(found, version):
            return str(candidate), found
    raise EnvironmentError_(
        f"Python {version} is asked for, and there is none with venv on PATH or in pyenv's directory of versions"
    )


def _candidates(version: str) -> Iterator[Path]:
    minor = ".".join(version.split(".")[:2])
    for directory in os.environ.get("PATH", "").split(os.pathsep):
        path = Path(directory) / f"python{minor}"
        if directory and os.access(path, os.X_OK):
            yield path
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = [path for path in root.glob(f"{version}*/bin/python") if _is_of(path.parts[-3], version)]
    yield from sorted(found, key=lambda path: [int(n) for n in re.findall(r"\d+", path.parts[-3])], reverse=True)


def _is_of(full: str, wanted: str) -> bool:
    """``3.12.1`` is of ``3.12``, and ``3.1`` is not."""
    return f"{full}.".startswith(f"{wanted}.")


def _probe(path: Path) -> str:
    """The version of an interpreter that runs and can make environments, else the empty string."""
    # A shim of pyenv's is there for every version, and fails for those which are not switched on.
    try:
        done = subprocess.run(
            [path, "-I", "-c", _PROBE], capture_output=True, text=True, check=False, timeout=_PROBE_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _directory_name(requirements: Sequence[str], version: str) -> str:
    identity = [FORMAT, requirements, platform.python_implementation(), version, platform.machine(), sys.platform]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
    readable = _WORD.sub("-", requirements[0])[:40].strip("-.")
    return f"{readable}-py{version}-{digest}"


def _kept(folder: Path, version: str) -> Environment | None:
    record = _record(folder)
    name = record.get("directory")
    versions = record.get("versions")
    if not isinstance(name, str) or not isinstance(versions, dict) or os.sep in name:
        return None
    environment = _environment(folder / name, versions, version)
    # The interpreter is a link: whoever takes the Python away which it leads to, takes this environment away.
    return environment if os.access(environment.python, os.X_OK) else None


def _record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / "ready.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and record.get("format") == FORMAT else {}


def _environment(root: Path, versions: Mapping[str, str], version: str) -> Environment:
    return Environment(root / "bin" / "python", root / "bin", versions, version)


def _stale(folder: Path, now: float) -> bool:
    """Whether a newer release may be out. ``now`` is ``time.time()``."""
    made = _record(folder).get("made")
    return not isinstance(made, int | float) or not 0 <= now - made < FRESH


@contextmanager
def _locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file gives the lock back


def _make(
    folder: Path, requirements: Sequence[str], interpreter: str, version: str, kept: Environment | None, tell: Say
) -> Environment:
    """Make one, or say why not. ``kept`` is one that may be out of date: it is better than none."""
    what = ", ".join(requirements)
    in_use = str(_record(folder).get("directory", ""))
    _sweep(folder, {in_use})
    root = folder / f"made-{secrets.token_hex(4)}"
    tell(f"installing {what} for Python {version}")
    try:
        python = str(root / "bin" / "python")
        pip = _make_venv(root, interpreter, f"no virtual environment can be made with Python {version}")
        done = _pip(pip, requirements)
        if done.returncode != 0:
            reason = explain(done.stdout + done.stderr, requirements, version)
            if kept is None or reason.kind is not NETWORK:
                raise EnvironmentError_(reason.sentence)
            tell(f"there is no network to look for a newer release of {what}; the one that was kept is used")
            shutil.rmtree(root, ignore_errors=True)
            return kept
        listed = json.loads(_run([python, "-I", "-c", _VERSIONS], f"the releases of {what} cannot be listed"))
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        raise
    versions = {name: listed[name] for name in sorted(listed, key=str.lower) if name.lower() not in _TOOLS}
    record = {"format": FORMAT, "directory": root.name, "versions": versions, "made": time.time()}
    unfinished = folder / "ready.json.new"
    unfinished.write_text(json.dumps(record, indent=1), "utf-8")
    unfinished.replace(folder / "ready.json")
    # A drill that is running may still use the one before: it goes with the next sweep.
    return _environment(root, versions, version)


def _make_venv(root: Path, interpreter: str, failure: str) -> list[str]:
    """Make an empty environment, and return the command that is its pip."""
    if interpreter == sys.executable and _own_pip() >= _PIP_FOR_OTHERS:
        # Most of the time that an environment takes is for a pip of its own.
        _run([interpreter, "-m", "venv", "--without-pip", str(root)], failure)
        return [interpreter, "-m", "pip", "--python", str(root / "bin" / "python")]
    _run([interpreter, "-m", "venv", str(root)], failure)
    return [str(root / "bin" / "python"), "-m", "pip"]


def _own_pip() -> tuple[int, ...]:
    """The version of the pip beside this program, () if there is none."""
    try:
        release = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError:
        return ()
    return tuple(int(number) for number in re.findall(r"\d+", release)[:2])


def _sweep(folder: Path, keep: set[str]) -> None:
    for path in folder.glob("made-*"):
        if path.name not in keep:
            shutil.rmtree(path, ignore_errors=True)


def _pip(pip: Sequence[str], requirements: Sequence[str]) -> subprocess.CompletedProcess[str]:
    options = ("--quiet", "--disable-pip-version-check", "--no-input", "--retries=1", "--timeout=20")
    try:
        return subprocess.run(
            [*pip, "install", *options, *requirements],
            env=_clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_BUILD_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentError_(f"{', '.join(requirements)} was not installed within {_BUILD_SECONDS:g} s") from None


def _run(argv: Sequence[str], failure: str) -> str:
    try:
        done = subprocess.run(
            argv,
            env=_clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentError_(f"{failure}: {error}") from None
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise EnvironmentError_(f"{failure}: {lines[-1]}")
    return done.stdout


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _MISLEADING}
