"""Environments: made once, kept, shared by parallel callers, and errors that say what is wrong."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from companions.drill.tests.wheels import build_wheel
from lastcall_drill.environments import (
    FRESH,
    EnvironmentError_,
    default_cache,
    environment_for,
    find_python,
)
from lastcall_drill.pip_errors import Kind, explain

SOURCE = "def main():\n    print('this is {}')\n"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that the tests share, since each environment takes two seconds or three."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that pip takes wheels from, and nothing else."""
    directory = tmp_path / "wheels"
    directory.mkdir()
    for version in ("1.0", "2.0"):
        build_wheel(directory, "drilltiny", version, SOURCE.format(version))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    return directory


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_it_is_made_once_and_kept(wheels: Path, kept: Path) -> None:
    said: list[str] = []
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda _: environment_for(["drilltiny==1.0"], cache=kept, say=said.append), range(3)))
    assert found[0] == found[1] == found[2]
    assert dict(found[0].versions) == {"drilltiny": "1.0"}
    assert found[0].python_version == platform.python_version()
    assert [line for line in said if line.startswith("installing")] == [
        f"installing drilltiny==1.0 for Python {platform.python_version()}"
    ]

    shutil.rmtree(wheels)  # nothing can be installed any more
    again = environment_for(["drilltiny==1.0"], cache=kept)
    assert again == found[0]
    assert subprocess.check_output([again.bin / "drilltiny"], text=True) == "this is 1.0\n"
    assert subprocess.check_output([again.python, "-c", "import drilltiny"], text=True) == ""


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_a_release_is_kept_for_ever_whatever_is_installed_beside_it(wheels: Path, tmp_path: Path) -> None:
    build_wheel(wheels, "acompanion", "1.0", SOURCE.format("beside"))
    wanted = ["drilltiny==1.0", "acompanion"]
    made = environment_for(wanted, cache=tmp_path)
    record = made.bin.parents[1] / "ready.json"
    data = json.loads(record.read_text())
    record.write_text(json.dumps({**data, "made": data["made"] - 2 * FRESH}))
    shutil.rmtree(wheels)
    assert environment_for(wanted, cache=tmp_path) == made


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_rests_of_a_build_that_was_cut_off_are_swept(wheels: Path, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentError_, match=r"2\.0$"):
        environment_for(["drilltiny==9.0"], cache=tmp_path)
    (place,) = tmp_path.glob("drilltiny-9.0-*")
    assert [path.name for path in place.iterdir()] == ["lock"]

    (place / "made-cafe").mkdir()
    (place / "ready.json").write_text("{ half of a rec")
    build_wheel(wheels, "drilltiny", "9.0", SOURCE.format("9.0"))
    made = environment_for(["drilltiny==9.0"], cache=tmp_path)
    assert made.versions["drilltiny"] == "9.0"
    assert [path.name for path in place.glob("made-*")] == [made.bin.parent.name]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_newest_release_is_looked_for_once_a_day(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = environment_for(["drilltiny"], cache=tmp_path)
    assert first.versions["drilltiny"] == "2.0"
    build_wheel(wheels, "drilltiny", "3.0", SOURCE.format("3.0"))
    assert environment_for(["drilltiny"], cache=tmp_path) == first

    record = first.bin.parents[1] / "ready.json"

    def a_day_later() -> None:
        data = json.loads(record.read_text())
        record.write_text(json.dumps({**data, "made": data["made"] - FRESH}))

    a_day_later()
    second = environment_for(["drilltiny"], cache=tmp_path)
    assert second.versions["drilltiny"] == "3.0"
    assert first.python.exists(), "a drill that still runs may use it"

    # Without a network, what was kept is better than nothing.
    a_day_later()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    said: list[str] = []
    assert environment_for(["drilltiny"], cache=tmp_path, say=said.append) == second
    assert "there is no network to look for a newer release of drilltiny" in said[-1]
    assert not first.python.exists()


@pytest.mark.soak
@pytest.mark.timeout(90)
def test_without_a_pip_beside_lastcall_the_environment_gets_one(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lastcall_drill.environments._own_pip", lambda: ())
    made = environment_for(["drilltiny==1.0"], cache=tmp_path)
    assert dict(made.versions) == {"drilltiny": "1.0"}, "its own pip is no part of what was asked for"
    assert (made.bin / "pip").exists()


@pytest.mark.parametrize("requirements", [[], ["--pre"], [""], ["a", " "]])
def test_what_is_no_requirement_is_refused(requirements: list[str], tmp_path: Path) -> None:
    with pytest.raises(EnvironmentError_):
        environment_for(requirements, cache=tmp_path)


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentError_):
        environment_for(["x==1"], cache=tmp_path / "file")


def test_the_cache_is_where_xdg_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "lastcall" / "drill"
    monkeypatch.setenv("HOME", str(tmp_path))
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert default_cache() == tmp_path / ".cache" / "lastcall" / "drill"


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_pythons_are_found_on_path_and_at_pyenv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = platform.python_version()
    assert find_python(None) == find_python(own) == find_python(own.rpartition(".")[0]) == (sys.executable, own)

    monkeypatch.setenv("PATH", str(tmp_path / "shims"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    script(tmp_path / "shims" / "python3.9", "exit 127")  # pyenv's, for a version that is not switched on
    for version in ("3.9.8", "3.9.18", "3.90.1"):
        script(tmp_path / "versions" / version / "bin" / "python", f"echo {version}")
    assert find_python("3.9") == (str(tmp_path / "versions/3.9.18/bin/python"), "3.9.18")
    assert find_python("3.9.8") == (str(tmp_path / "versions/3.9.8/bin/python"), "3.9.8")
    script(tmp_path / "shims" / "python3.9", "echo 3.9.2")
    assert find_python("3.9") == (str(tmp_path / "shims" / "python3.9"), "3.9.2")


@pytest.mark.parametrize("version", ["3.99", "three", "3.7"])
def test_pythons_that_cannot_be_had(version: str) -> None:
    with pytest.raises(EnvironmentError_, match=version):
        find_python(version)


@pytest.mark.parametrize(
    ("output", "kind", "named"),
    [
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(...)'\n"
            "ERROR: Could not find a version that satisfies the requirement a==1 (from versions: none)",
            Kind.NETWORK,
            "a==1",
        ),
        (
            "ERROR: Could not find a version that satisfies the requirement a==1 (from versions: 2.0, 3.0, 4.0rc1)",
            Kind.RELEASE,
            "3.0",
        ),
        (
            "ERROR: Ignored the following versions that require a different python version: 0.9 Requires-Python >=3.9; "
            "1 Requires-Python >=3.10\n"
            "ERROR: Could not find a version that satisfies the requirement a==1 (from versions: 0.1)",
            Kind.PYTHON,
            ">=3.10",
        ),
        (
            "ERROR: Package 'a' requires a different Python: 3.8.1 not in '>=3.10'",
            Kind.PYTHON,
            ">=3.10",
        ),
        (
            "ERROR: Could not find a version that satisfies the requirement a (from versions: none)",
            Kind.PROJECT,
            "3.8.1",
        ),
        (
            "ERROR: ResolutionImpossible: for help visit …",
            Kind.CONFLICT,
            "a==1",
        ),
        (
            "error: subprocess-exited-with-error\nERROR: Failed to build a",
            Kind.BUILD,
            "a==1",
        ),
        ("ERROR: No space left\nhint", Kind.OTHER, "No space left"),
        ("", Kind.OTHER, "a==1"),
    ],
)
def test_the_kind_of_pips_errors(output: str, kind: Kind, named: str) -> None:
    reason = explain(output, ["a==1"], "3.8.1")
    assert reason.kind is kind
    assert named in reason.sentence


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_real_release(tmp_path: Path) -> None:
    made = environment_for(["uvicorn==0.21.1"], cache=tmp_path)
    assert made.versions["uvicorn"] == "0.21.1"
    assert "0.21.1" in subprocess.check_output([made.bin / "uvicorn", "--version"], text=True)
    with pytest.raises(EnvironmentError_):
        environment_for(["uvicorn==0.21.99"], cache=tmp_path)
