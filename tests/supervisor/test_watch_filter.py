"""Which files count: uvicorn's rules, with uvicorn itself as the oracle; and bursts, with time as an argument."""

from __future__ import annotations

import math
from pathlib import Path, PurePath
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.base.errors import ConfigError
from lastcall.base.options import ReloadOptions
from lastcall.supervisor.watch import described, file_filter
from lastcall.supervisor.watch_filter import Burst, FileFilter

ROOT = PurePath("/srv/app")

names = st.sampled_from(
    [
        *("a.py", ".a.py", "a.pyc", "~a.py", ".py", "a.html", ".env", "a.sw.py", "a.tar.gz", "py", "A.PY", "b.py~"),
        *("t/a.py", "t/.hidden/a.py", "static/a.css", "t/a.html", "x y.py", "ü.py"),
    ]
)
patterns = st.lists(
    st.sampled_from(
        ["*.py", "*.html", ".*", ".py[cod]", "~*", "a.py", "t/*.py", "*", "*.css", ".env", "b*", "static/*", "[ab].py"]
    ),
    max_size=3,
    unique=True,
)


@given(names, patterns, patterns)
def test_a_file_counts_as_with_uvicorn(name: str, includes: list[str], excludes: list[str]) -> None:
    reload = pytest.importorskip("uvicorn.supervisors.watchfilesreload")
    path = f"{ROOT}/{name}"
    # uvicorn's Config takes excludes out of the includes before its filter sees them
    kept = [one for one in includes if one not in excludes]
    theirs = reload.FileFilter(SimpleNamespace(reload_includes=kept, reload_excludes=excludes))
    verdicts = set()
    for order in (sorted(theirs.includes), sorted(theirs.includes, reverse=True)):
        theirs.includes = order  # a set's, which is not the same in every process
        verdicts.add(theirs(Path(path)))
    assert FileFilter.of([ROOT], includes, excludes)(path) in verdicts


@pytest.mark.parametrize(
    "path",
    [
        "/srv/app/__pycache__/a.py",
        "/srv/app/.git/hooks/a.py",
        "/srv/app/.venv/lib/python3.13/site-packages/a.py",
        "/srv/app/my_env/lib/python3.13/site-packages/a.py",
        "/srv/app/node_modules/a/a.py",
        "/srv/elsewhere/a.py",
        "/srv/app",
    ],
)
def test_what_nobody_edits_does_not_count(path: str) -> None:
    assert not FileFilter.of([ROOT])(path)


def test_a_package_of_a_virtual_environment_can_be_watched_itself() -> None:
    root = PurePath("/srv/.venv/lib/python3.13/site-packages/mine")
    assert FileFilter.of([root])(f"{root}/a.py")


def test_the_very_name_of_a_file_wins_over_the_excludes() -> None:
    assert FileFilter.of([ROOT], [".env"])("/srv/app/.env")
    assert not FileFilter.of([ROOT], ["*"])("/srv/app/.env")


# -- what the options come to, on a disk -------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("src/pkg", "templates", "tests"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def roots(project: Path, **options: Any) -> list[str]:
    found = file_filter(ReloadOptions(**options), project)
    return [str(PurePath(root).relative_to(project)) for root in found.roots]


def test_without_options_the_current_directory_is_watched(project: Path) -> None:
    assert roots(project) == ["."]


def test_directories_below_others_are_watched_once(project: Path) -> None:
    assert roots(project, dirs=("src", "src/pkg", "tests", "src")) == ["src", "tests"]


def test_an_include_that_is_a_directory_is_watched(project: Path) -> None:
    assert roots(project, dirs=("src",), includes=("templates", "*.html")) == ["src", "templates"]
    assert roots(project, includes=("te*",)) == ["templates", "tests"]
    assert roots(project, includes=("*.html",)) == ["."]


def test_an_excluded_directory_counts_no_more_however_it_is_given(project: Path) -> None:
    for exclude in ("tests", str(project / "tests")):
        found = file_filter(ReloadOptions(excludes=(exclude,)), project)
        assert not found(f"{project}/tests/a.py")
        assert found(f"{project}/src/a.py")
    assert roots(project, dirs=("src", "tests"), excludes=("tests",)) == ["src"]


def test_a_directory_that_does_not_exist_is_an_error_that_names_it(project: Path) -> None:
    with pytest.raises(ConfigError, match="--reload-dir: 'nope'"):
        file_filter(ReloadOptions(dirs=("src", "nope")), project)


@pytest.mark.parametrize("pattern", ["", "/", "**/", "[", "..", "a\0b", "/absolute/*.py"])
def test_odd_patterns_are_no_traceback(project: Path, pattern: str) -> None:
    found = file_filter(ReloadOptions(includes=(pattern,), excludes=(pattern,)), project)
    assert found(f"{project}/src/a.txt") is False


def test_paths_are_told_as_one_would_type_them() -> None:
    paths = ["/srv/app/a.py", "/srv/app/b/c.py", "/srv/application/d.py", "/e.py"]
    assert described(paths, "/srv/app") == "a.py, b/c.py, /srv/application/d.py and 1 more"
    assert described(paths[:1], "/srv/app") == "a.py"


# -- bursts ------------------------------------------------------------------------------------------------------------


def test_a_burst_is_over_when_it_was_quiet_for_the_delay() -> None:
    burst = Burst(0.25)
    burst.add({"a"}, 10.0)
    burst.add({"b", "a"}, 10.2)
    assert burst.take(10.44) == []
    assert burst.deadline == pytest.approx(10.45)
    assert burst.take(10.46) == ["a", "b"]
    assert burst.deadline == math.inf
    assert burst.take(11.0) == []


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 5)), min_size=1), st.floats(0.01, 1))
def test_every_change_is_told_once_and_never_before_the_delay(changes: list[tuple[str, float]], delay: float) -> None:
    burst = Burst(delay)
    told: list[str] = []
    pending: set[str] = set()
    for path, now in sorted(changes, key=lambda one: one[1]):
        if found := burst.take(now):
            assert pending == set(found)
            told += found
            pending.clear()
        burst.add({path}, now)
        pending.add(path)
        assert burst.take(now + delay * 0.9) == []
    last = burst.deadline
    assert last < math.inf
    assert set(burst.take(last)) == pending
    assert set(told) | pending == {path for path, _ in changes}
