"""What a newcomer reads where something is missing: one sentence that says what to install."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
Tools = Callable[..., dict[str, str]]


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    """An environment whose path has what a shell script needs, fake commands from the arguments, and nothing else."""

    def make(**commands: str) -> dict[str, str]:
        for name in ("cat", "grep", "sed", "sh"):
            for directory in os.get_exec_path():
                if Path(directory, name).exists():
                    (tmp_path / name).symlink_to(Path(directory, name))
                    break
        for name, script in ({"id": "echo 1000"} | commands).items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / name).chmod(0o755)
        return {"PATH": str(tmp_path), "HOME": str(tmp_path)}

    return make


def run(script: str, environment: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one of ``scripts/``."""
    shell = ["/bin/sh", str(PROJECT / "scripts" / script), *arguments]
    done = subprocess.run(shell, env=environment, cwd=PROJECT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


APT = "exit 100"  # a user who is not root must never get as far as calling it


def test_a_python_that_works_is_found(tools: Tools) -> None:
    environment = tools(**{"python3.11": "echo 3.11 ok", "python3.13": "exit 127", "python3.14": "echo 3.14 dev"})
    assert run("find-python", environment) == (0, f"{environment['PATH']}/python3.11\n", "")


def test_the_version_that_is_tested_in_full_comes_first(tools: Tools) -> None:
    environment = tools(**{"python3.13": "echo 3.13 ok", "python3.14": "echo 3.14 ok"})
    assert run("find-python", environment)[1].endswith("/python3.13\n")
    assert run("find-python", environment, "3.14")[1].endswith("/python3.14\n")
    assert run("find-python", environment, "3.12") == (1, "", "")


def test_pyenv_is_looked_into(tools: Tools, tmp_path: Path) -> None:
    environment = tools(**{"python3.13": "exit 127"})
    python = tmp_path / ".pyenv/versions/3.13.9/bin/python3.13"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho 3.13 ok\n")
    python.chmod(0o755)
    assert run("find-python", environment) == (0, f"{python}\n", "")


@pytest.mark.parametrize(
    ("commands", "sentence"),
    [
        ({"apt-get": APT}, "install it: sudo apt-get install python3 python3-dev python3-venv"),
        ({"apt-get": APT, "python3.12": "echo 3.12 dev"}, "install it: sudo apt-get install python3.12-dev"),
        ({"apt-get": APT, "python3": "echo 3.12 dev venv"}, "sudo apt-get install python3.12-dev python3.12-venv"),
        ({}, "install Python 3.11 or newer with its headers and venv"),
    ],
)
def test_a_missing_python_is_named(tools: Tools, commands: dict[str, str], sentence: str) -> None:
    code, out, err = run("find-python", tools(**commands))
    assert (code, out) == (1, "")
    assert sentence in err


def test_a_chosen_python_must_do(tools: Tools) -> None:
    environment = tools(old="true") | {"PYTHON": "old"}
    assert run("find-python", environment) == (
        1,
        "",
        "lastcall: PYTHON=old is not CPython 3.11 or newer, or does not run\n",
    )


def test_a_missing_compiler_is_named(tools: Tools) -> None:
    code, _, err = run("c-compiler", tools(**{"apt-get": APT}))
    assert code == 1
    assert "building it needs a C compiler" in err


def test_root_gets_it_installed(tools: Tools, tmp_path: Path) -> None:
    environment = tools(**{"id": "echo 0", "apt-get": f'echo "$@" >>{tmp_path}/calls'})
    assert run("c-compiler", environment)[0] == 0
    update, install = (tmp_path / "calls").read_text().splitlines()
    assert update.startswith("update")
    assert install.startswith("install")
    assert install.endswith("gcc libc6-dev")


def test_missing_programs_of_the_tests_are_named(tools: Tools) -> None:
    here = dict.fromkeys(
        ("curl", "google-chrome", "openssl", "systemd-socket-activate", "redis-server", "initdb"), "true"
    )
    present = {**here, "nc": "echo OpenBSD netcat >&2"}
    code, _, err = run("test-deps", tools(**present, **{"apt-get": APT}))
    assert code == 1
    assert err.endswith(": sudo apt-get install chromium-driver\n")


@pytest.mark.slow
def test_the_build_says_that_a_compiler_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", f"--build-lib={tmp_path}", f"--build-temp={tmp_path}"],
        env=os.environ | {"CC": "no-such-compiler"},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "lastcall: building it needs a C compiler, and 'no-such-compiler' was not found; install one first: gcc"
    )
    assert "Traceback" not in done.stderr
