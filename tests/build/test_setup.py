"""setup.py, in a small project of its own: what it says while it builds, and what pip's builds leave behind."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

PYPROJECT = """
[build-system]
requires = ["setuptools>=77", "Cython>=3.1"]
build-backend = "setuptools.build_meta"
[project]
name = "lastcall"
version = "1"
[tool.setuptools]
include-package-data = false
packages = ["lastcall"]
package-dir = { "" = "src" }
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three compiled modules under the real setup.py, built in place."""
    root = tmp_path_factory.mktemp("built")
    package = root / "src/lastcall"
    package.mkdir(parents=True)
    shutil.copy(PROJECT / "setup.py", root)
    (root / "pyproject.toml").write_text(PYPROJECT)
    (package / "__init__.py").touch()
    for name in ("one", "two", "three"):
        (package / f"{name}.pyx").write_text(f"# cython: language_level=3\nNAME = {name!r}\n")
    assert compiled(build(root)) == 3
    return root


@pytest.fixture
def checkout(built: Path, tmp_path: Path) -> Path:
    """A copy of that, whose files are as old."""
    return shutil.copytree(built, tmp_path / "checkout")


def python(checkout: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def build(checkout: Path) -> str:
    """``make build``."""
    return python(checkout, "setup.py", "-q", "build_ext", "--inplace")


def wheel(checkout: Path, ending: str = ".so") -> set[str]:
    """What pip does for ``pip install /path/to/checkout``: the modules in the wheel."""
    script = "import sys, setuptools.build_meta as backend; backend.build_wheel(sys.argv[1])"
    python(checkout, "-c", script, str(checkout / "dist"))
    (made,) = (checkout / "dist").glob("*.whl")
    with zipfile.ZipFile(made) as archive:
        names = {Path(name).name.partition(".")[0] for name in archive.namelist() if name.endswith(ending)}
    made.unlink()
    return names


def compiled(output: str) -> int:
    return len(re.findall(r"^--> compiling \d+/\d+: lastcall\.\w+$", output, re.MULTILINE))


def files(directory: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file()}


def test_each_module_is_counted(checkout: Path) -> None:
    (checkout / "src/lastcall/two.pyx").write_text("NAME = 'changed'\n")
    assert re.findall(r"^--> compiling.*$", build(checkout), re.MULTILINE) == ["--> compiling 1/1: lastcall.two"]
    shutil.rmtree(checkout / "build")
    found = sorted(re.findall(r"^--> compiling (\d/3): lastcall\.\w+$", build(checkout), re.MULTILINE))
    assert found == ["1/3", "2/3", "3/3"]


def test_a_build_by_pip_leaves_the_build_directory_as_it_was(checkout: Path) -> None:
    before = files(checkout / "build")
    assert wheel(checkout) == {"one", "two", "three"}
    assert files(checkout / "build") == before
    assert compiled(build(checkout)) == 0, "nothing has become stale"
    # And nothing of one build gets into the next.
    for path in (checkout / "src/lastcall").glob("two.*"):
        path.unlink()
    assert wheel(checkout) == {"one", "three"}


def test_an_editable_install_takes_what_is_built(checkout: Path) -> None:
    script = "import sys, setuptools.build_meta as backend; backend.build_editable(sys.argv[1])"
    assert compiled(python(checkout, "-c", script, str(checkout / "dist"))) == 0
    assert compiled(build(checkout)) == 0


@pytest.mark.parametrize("companion", ["once", "drill"])
def test_companions_keep_their_builds_apart_too(tmp_path: Path, companion: str) -> None:
    package = tmp_path / "src/lastcall"
    package.mkdir(parents=True)
    shutil.copy(PROJECT / "companions" / companion / "setup.py", tmp_path)
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    for name in ("__init__", "one"):
        (package / f"{name}.py").touch()
    assert wheel(tmp_path, ".py") == {"__init__", "one"}
    (package / "one.py").rename(package / "two.py")
    assert wheel(tmp_path, ".py") == {"__init__", "two"}
    assert not (tmp_path / "build").exists()
