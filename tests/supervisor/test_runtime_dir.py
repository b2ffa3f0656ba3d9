"""Where control sockets are: only in directories that nobody else can write to."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lastcall.supervisor import runtime_dir
from lastcall.supervisor.runtime_dir import default_paths, find, name_of, places, prepared
from testing.control import serving

UID = os.geteuid()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for temporary files, for this test."""
    found = tmp_path / "tmp"
    found.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(found))
    return found


@contextmanager
def listening(path: Path) -> Iterator[None]:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        yield


def test_the_session_comes_first_and_the_temporary_directory_last(tmp_path: Path, temporary: Path) -> None:
    session, run = tmp_path / "session", tmp_path / "run"
    (run / "user" / str(UID)).mkdir(parents=True)
    environ = {"XDG_RUNTIME_DIR": str(session)}
    chosen = []
    for made in (temporary, run / "user" / str(UID), session):  # each better than the one before
        made.mkdir(mode=0o700, exist_ok=True)
        made_run = tmp_path / "none" if made == temporary else run
        chosen.append(next(default_paths("8000", environ, UID, 1, run=str(made_run))))
    assert chosen == [
        f"{temporary}/lastcall-{UID}/8000.sock",
        f"{run}/user/{UID}/lastcall/8000.sock",
        f"{session}/lastcall/8000.sock",
    ]


def test_a_relative_session_directory_is_invalid() -> None:
    assert "run/lastcall" not in places({"XDG_RUNTIME_DIR": "run"}, UID)


def test_a_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        assert prepared(str(tmp_path / "lastcall"), UID)
    finally:
        os.umask(before)
    assert (tmp_path / "lastcall").stat().st_mode & 0o777 == 0o700
    assert prepared(str(tmp_path / "lastcall"), UID), "it is there already"


def test_a_directory_that_somebody_else_may_have_prepared_is_not_used(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(own)
    for_all = tmp_path / "for_all"
    for_all.mkdir()
    for_all.chmod(0o777)
    file = tmp_path / "file"
    file.touch()
    assert [prepared(str(one), UID) for one in (own, link, for_all, file)] == [True, False, False, False]
    assert not prepared(str(own), UID + 1), "another user's"
    assert not prepared(str(for_all / "lastcall"), UID), "whoever can write there could replace it"
    assert not prepared(str(tmp_path / "no" / "lastcall"), UID)


def test_a_path_that_is_too_long_for_a_socket_is_passed_over(tmp_path: Path, temporary: Path) -> None:
    session = tmp_path / ("x" * 100)
    session.mkdir(mode=0o700)
    found = list(default_paths("8000", {"XDG_RUNTIME_DIR": str(session)}, UID, 1, run=str(tmp_path / "none")))
    assert [os.path.dirname(one) for one in found] == [f"{temporary}/lastcall-{UID}"] * 2


@pytest.mark.parametrize(
    ("addresses", "name"),
    [
        ([("127.0.0.1", 8000)], "8000"),
        (["/srv/app.sock", ("::", 80)], "80"),
        (["/srv/app.sock"], "app"),
        (["/srv/my app;rm.sock"], "my_app_rm"),
        (["/srv/..", "\0abstract"], "abstract"),
        (["/srv/" + "x" * 90], "x" * 32),
        ([], "77"),
    ],
)
def test_it_is_called_what_a_person_would_call_it(addresses: list[tuple[str, int] | str], name: str) -> None:
    assert name_of(addresses, 77) == name


def test_only_sockets_that_somebody_listens_on_are_found(tmp_path: Path) -> None:
    directory = tmp_path / "lastcall"
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    with listening(directory / "9000.sock"):
        with socket.socket(socket.AF_UNIX) as crashed:
            crashed.bind(str(directory / "8000.sock"))
        (directory / "7000.sock").touch()
        (directory / "notes.txt").touch()
        found = find(environ, UID, run=str(tmp_path / "none"))
    assert [(one.name, one.path) for one in found] == [("9000", f"{directory}/9000.sock")]


def test_what_a_killed_service_has_left_is_removed_but_not_one_that_may_be_starting(tmp_path: Path) -> None:
    directory = tmp_path / "lastcall"
    with listening(directory / "9000.sock"):
        for name in ("8000.sock", "8001.sock"):
            with socket.socket(socket.AF_UNIX) as crashed:
                crashed.bind(str(directory / name))
        (directory / "8002.sock").touch()  # no socket, and none of ours
        long_ago = time.time() - 2 * runtime_dir.STALE_AFTER
        for name in ("8000.sock", "8002.sock", "9000.sock"):
            os.utime(directory / name, (long_ago, long_ago))
        find({"XDG_RUNTIME_DIR": str(tmp_path)}, UID, run=str(tmp_path / "none"))
        assert sorted(os.listdir(directory)) == ["8001.sock", "8002.sock", "9000.sock"]


def test_sockets_in_a_directory_that_others_can_write_to_are_not_looked_at(tmp_path: Path, temporary: Path) -> None:
    with listening(temporary / f"lastcall-{UID}" / "8000.sock"):
        assert [one.name for one in find({}, UID, run=str(tmp_path / "none"))] == ["8000"]
        (temporary / f"lastcall-{UID}").chmod(0o777)
        assert find({}, UID, run=str(tmp_path / "none")) == []


@pytest.mark.skipif(UID != 0, reason="only root sees the services of others")
def test_root_finds_everybodys_where_it_has_none_itself(tmp_path: Path, temporary: Path) -> None:
    theirs = temporary / "lastcall-4242"
    with listening(theirs / "8000.sock"):
        os.chown(theirs, 4242, 4242)
        os.chown(theirs / "8000.sock", 4242, 4242)
        assert [(one.name, one.uid) for one in find({}, 0, run=str(tmp_path / "none"))] == [("8000", 4242)]
        with listening(temporary / "lastcall-0" / "9000.sock"):
            assert [one.name for one in find({}, 0, run=str(tmp_path / "none"))] == ["9000"]


def test_two_services_of_one_name_both_get_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(runtime_dir, "RUN", str(tmp_path / "run"))
    with serving(name="8000") as first, serving(name="8000") as second:
        assert first.path == f"{tmp_path}/lastcall/8000.sock"
        assert second.path == f"{tmp_path}/lastcall/8000-{os.getpid()}.sock"
        assert len(find(os.environ, UID)) == 2
    assert os.listdir(tmp_path / "lastcall") == []


def test_without_a_place_the_service_works_without_control(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("lastcall.supervisor.control_server.default_paths", lambda *_: iter(()))
    with serving() as parent:
        assert parent.path == ""
    assert "--control-socket" in caplog.text
