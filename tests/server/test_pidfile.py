"""Whose a pidfile is, without a server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lastcall.base.errors import StartupError
from lastcall.server.pidfile import PidFile


@pytest.fixture
def other() -> Iterator[int]:
    """A process that lives."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid
        process.communicate(b"\n")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.pid"


def write(path: Path) -> PidFile:
    file = PidFile(str(path))
    file.write()
    return file


@pytest.mark.parametrize(
    "text",
    ["", "\n", "nonsense", "0", "-1", pytest.param("9" * 4000, id="long"), "999999999", "\0", "ours"],
)
def test_one_that_names_nobody_is_replaced(path: Path, text: str) -> None:
    """Our own number: in a container each start has the same."""
    path.write_text(str(os.getpid()) if text == "ours" else text)
    file = write(path)
    assert path.read_text() == f"{os.getpid()}\n"
    file.remove()
    assert list(path.parent.iterdir()) == []


def test_one_of_a_process_that_lives_is_not(path: Path, other: int) -> None:
    path.write_text(f"{other}\n")
    with pytest.raises(StartupError, match=str(other)):
        write(path)
    assert path.read_text() == f"{other}\n"
    assert list(path.parent.iterdir()) == [path]


def test_one_whose_number_was_given_to_somebody_else(path: Path, other: int) -> None:
    path.write_text(f"{other}\n")
    os.utime(path, (1_000_000_000, 1_000_000_000))  # long before that process began
    write(path).remove()


def test_the_one_that_hands_it_over_may_live(path: Path, other: int) -> None:
    path.write_text(f"{other}\n")
    file = PidFile(str(path))
    file.write(instead_of=other)
    assert path.read_text() == f"{os.getpid()}\n"
    file.remove()


def test_who_has_handed_it_over_does_not_remove_it(path: Path) -> None:
    old = write(path)
    new = PidFile(str(path), os.getppid())
    new.write(instead_of=os.getpid())
    old.remove()
    assert path.read_text() == f"{os.getppid()}\n"
    new.forget()
    new.remove()
    assert path.exists(), "forgotten"


def test_a_link_is_not_followed(path: Path) -> None:
    target = path.with_name("target")
    target.write_text("x")
    path.symlink_to(target)
    with pytest.raises(StartupError):
        write(path)
    assert target.read_text() == "x"
    assert path.is_symlink()


def test_it_is_where_it_was_whatever_becomes_of_the_working_directory(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    file = write(Path("a.pid"))
    monkeypatch.chdir("/")
    file.remove()
    assert list(path.parent.iterdir()) == []
