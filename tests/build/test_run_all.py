"""``make test`` runs everything, whatever fails, and ends with one list."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


def run_all(tmp_path: Path, *targets: str) -> tuple[int, list[str]]:
    rules = [
        "good: ; @echo running $@",
        'bad: ; @echo running $@; echo "Python 3.13: tests/test_a.py::test_b" >>$(FAILED_TESTS); exit 1',
        "worse: ; @echo running $@; exit 2",
    ]
    (tmp_path / "Makefile").write_text("\n".join(rules) + "\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        [PROJECT / "scripts/run-all", *targets],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.splitlines()


def test_what_comes_behind_a_failure_runs_and_the_list_is_at_the_end(tmp_path: Path) -> None:
    code, lines = run_all(tmp_path, "bad", "good", "worse", "good")
    assert code == 1
    assert [line for line in lines if line.startswith("running")] == [
        "running bad", "running good", "running worse", "running good"
    ]  # fmt: skip
    assert lines[-3:] == ["--> failed:", "    Python 3.13: tests/test_a.py::test_b", "    make worse"]


def test_without_a_failure_there_is_no_list(tmp_path: Path) -> None:
    assert run_all(tmp_path, "good", "good") == (0, ["running good", "running good"])
    assert run_all(tmp_path, "bad")[0] == 1
    assert run_all(tmp_path, "good")[0] == 0, "a list of an earlier run does not count"


FAILING = """
import pytest
@pytest.fixture
def broken():
    raise RuntimeError
def test_good(): pass
def test_bad(): assert False
def test_without(broken): pass
"""


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("spread", [[], ["-p", "xdist", "-n", "2"]], ids=["one process", "several"])
def test_failed_tests_are_named(tmp_path: Path, spread: list[str]) -> None:
    (tmp_path / "test_it.py").write_text(FAILING)
    (tmp_path / "test_broken.py").write_text("import nothing_of_this_name")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    names = tmp_path / "names"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "testing.failures", "--continue-on-collection-errors", *spread, "."],
        cwd=tmp_path,
        env={**environment, "FAILED_TESTS": str(names), "PYTHONPATH": str(PROJECT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    version = f"Python {sys.version_info.major}.{sys.version_info.minor}: "
    assert sorted(set(names.read_text().splitlines())) == [
        f"{version}test_broken.py (collection)",
        f"{version}test_it.py::test_bad",
        f"{version}test_it.py::test_without (setup)",
    ]
