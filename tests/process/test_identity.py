"""``--user``, ``--group``, ``--umask``, ``--pidfile``, ``--proc-title``, ``--chdir`` of a real process."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from testing.peer import Peer
from testing.process import ServerProcess
from testing.strangers import for_strangers
from tests.process.conftest import APPS, Start

NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that others can reach, unlike those of pytest."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def become() -> Iterator[Start]:
    """``start``, for processes that become another user."""
    with ExitStack() as stack:

        def begin(*options: str, env: Mapping[str, str] | None = None, before: Sequence[str] = ()) -> ServerProcess:
            listening = () if {"--uds", "--bind"} & set(options) else ("--port", "0")
            command = [*for_strangers(), *before, sys.executable, "-m", "lastcall", "whoami:app", *listening]
            server = stack.enter_context(ServerProcess(options, None, env, APPS, command=command))
            if not before:
                server.wait_ready()
            return server

        yield begin


def facts(server: ServerProcess) -> dict[str, Any]:
    with Peer(server.addresses[0]) as peer:
        found: dict[str, Any] = json.loads(peer.get("/").body)
        return found


@pytest.mark.parametrize("user", ["nobody", str(NOBODY.pw_uid)])
def test_another_user_for_good_and_before_the_import(become: Start, user: str) -> None:
    server = become("--user", user, env={"HOME": pwd.getpwuid(0).pw_dir})
    found = facts(server)
    assert found["uid"] == found["at_import"] == [NOBODY.pw_uid] * 3
    assert found["gid"] == [NOBODY.pw_gid] * 3
    assert set(found["groups"]) <= set(os.getgrouplist("nobody", NOBODY.pw_gid))
    assert found["home"] == NOBODY.pw_dir
    assert len(found["uids"]) > 1, "the watchdog's thread too"
    assert {tuple(line.split()[1:]) for line in found["uids"]} == {(str(NOBODY.pw_uid),) * 4}
    assert server.stop() == 0


def test_a_group_alone_and_a_home_that_somebody_chose(become: Start) -> None:
    server = become("--group", "12345", env={"HOME": "/srv"})
    found = facts(server)
    assert (found["uid"], found["gid"], found["home"]) == ([0] * 3, [12345] * 3, "/srv")
    assert server.stop() == 0


def test_a_number_that_the_system_does_not_know(become: Start) -> None:
    server = become("--user", "54321", "--group", "12345", env={"HOME": pwd.getpwuid(0).pw_dir})
    found = facts(server)
    assert (found["uid"], found["gid"], found["groups"]) == ([54321] * 3, [12345] * 3, [12345])
    assert found["home"] is None, "that of root is not theirs"
    assert server.stop() == 0


def test_what_is_needed_after_is_given_away_before(become: Start, place: Path) -> None:
    """The socket's file, the report and the pidfile, in a directory that stays root's."""
    socket, report, pidfile = place / "app.sock", place / "report.json", place / "app.pid"
    server = become(
        "--user", "nobody", "--bind", f"unix:{socket},mode=0660", "--drain-report", str(report),
        "--pidfile", str(pidfile),
    )  # fmt: skip
    assert (socket.stat().st_uid, stat.S_IMODE(socket.stat().st_mode)) == (NOBODY.pw_uid, 0o660)
    assert pidfile.read_text() == f"{server.pid}\n"
    assert facts(server)["uid"] == [NOBODY.pw_uid] * 3
    assert server.stop() == 0
    assert json.loads(report.read_text())["exit_code"] == 0
    assert report.stat().st_uid == NOBODY.pw_uid
    assert pidfile.read_text() == "", "it cannot be removed: nobody may remove anything there"
    assert "Traceback" not in server.stderr
    assert become("--user", "nobody", "--uds", str(socket), "--pidfile", str(pidfile)).stop() == 0


def test_a_file_that_somebody_else_has_put_there_is_not_given_away(become: Start, place: Path) -> None:
    secret, report = place / "secret", place / "report.json"
    secret.write_text("x")
    report.symlink_to(secret)
    server = become("--user", "nobody", "--drain-report", str(report))
    assert secret.stat().st_uid == 0
    assert server.stop() == 0
    assert secret.read_text() == "x"


def test_who_is_not_root_cannot_become_another(become: Start) -> None:
    setpriv = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]
    server = become("--user", "daemon", before=setpriv)
    assert server.wait() == 3
    assert server.stderr.startswith("Error: cannot become user daemon")
    assert server.stderr.count("\n") == 1
    server = become("--user", "54321", "--group", "54321", before=setpriv)
    server.wait_ready()
    assert facts(server)["uid"] == [54321] * 3, "it is that user already"
    assert server.stop() == 0


def test_a_python_that_the_user_cannot_read(start: Start, place: Path) -> None:
    """Else the first import of the standard library would say that there is no such module."""
    for_strangers()
    (place / "closed.py").touch(0o600)
    (place / "sitecustomize.py").write_text(f"import os; os.__file__ = {str(place / 'closed.py')!r}")
    server = start("whoami:app", "--user", "nobody", ready=False, env={"PYTHONPATH": str(place)})
    assert server.wait() == 3
    assert server.stderr.startswith("Error: user nobody cannot read")
    assert server.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--user", "no-such-user-here"], "--user"),
        (["--group", "no-such-group-here"], "--group"),
        (["--user", "54321"], "--group"),
        (["--user", str(2**32 - 1)], "--user"),
    ],
)
def test_somebody_unknown(start: Start, options: list[str], named: str) -> None:
    server = start("whoami:app", *options, ready=False)
    assert server.wait() == 2
    assert server.stderr.startswith("Error: --")
    assert named in server.stderr
    assert server.stderr.count("\n") == 1


def test_mask_directory_and_title(start: Start, place: Path) -> None:
    server = start(
        "whoami:app", "--umask", "027", "--chdir", str(place), "--proc-title", "shop", "--app-dir", str(APPS),
        "--pidfile", "app.pid",
    )  # fmt: skip
    found = facts(server)
    assert (found["umask"], found["cwd"], found["title"]) == (0o27, str(place), "shop")
    assert stat.S_IMODE((place / "app.pid").stat().st_mode) == 0o640
    assert server.stop() == 0
    assert list(place.iterdir()) == []


def test_a_title_without_the_package(start: Start, tmp_path: Path) -> None:
    (tmp_path / "setproctitle.py").write_text("raise ImportError")
    server = start("whoami:app", "--proc-title", "shop", ready=False, env={"PYTHONPATH": str(tmp_path)})
    assert server.wait() == 2
    assert "--proc-title" in server.stderr
    assert "lastcall[proctitle]" in server.stderr
    assert server.stderr.count("\n") == 1


# -- The pidfile ------------------------------------------------------------------------------------------------------


def test_a_pidfile_is_that_of_one_process(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "app.pid"
    server = start("whoami:app", "--pidfile", str(path))
    assert path.read_text() == f"{server.pid}\n"
    second = start("whoami:app", "--pidfile", str(path), ready=False)
    assert second.wait() == 3
    assert str(server.pid) in second.stderr
    assert second.stderr.count("\n") == 1
    assert path.read_text() == f"{server.pid}\n"
    assert list(tmp_path.iterdir()) == [path]
    assert server.stop() == 0
    assert not path.exists()


def test_a_pidfile_of_a_process_that_was_killed_is_replaced(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "app.pid"
    server = start("whoami:app", "--pidfile", str(path))
    server.signal(signal.SIGKILL)
    assert server.wait() == -signal.SIGKILL
    assert path.exists()
    server = start("whoami:app", "--pidfile", str(path))
    assert path.read_text() == f"{server.pid}\n"
    assert server.stop() == 0
    assert not path.exists()


def test_a_pidfile_that_has_become_anothers_stays(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "app.pid"
    server = start("whoami:app", "--pidfile", str(path))
    path.unlink()
    path.write_text("1\n")
    assert server.stop() == 0
    assert path.read_text() == "1\n"


def test_a_start_that_fails_leaves_no_pidfile(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "app.pid"
    server = start("whoami:no_such_thing", "--pidfile", str(path), ready=False)
    assert server.wait() == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["no/such/app.pid", "directory"])
def test_a_pidfile_that_cannot_be_written(start: Start, tmp_path: Path, name: str) -> None:
    (tmp_path / "directory").mkdir()
    server = start("whoami:app", "--pidfile", str(tmp_path / name), ready=False)
    assert server.wait() == 3
    assert server.stderr.startswith("Error: cannot write the pidfile")
    assert server.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["directory"]


# -- A parent and its workers -----------------------------------------------------------------------------------------


def test_workers_become_the_user_and_their_parent_stays(become: Start, place: Path) -> None:
    pidfile, socket = place / "app.pid", place / "app.sock"
    server = become(
        "--user", "nobody", "--workers", "2", "--proc-title", "shop", "--pidfile", str(pidfile), "--uds", str(socket)
    )
    found = facts(server)
    assert found["uid"] == found["at_import"] == [NOBODY.pw_uid] * 3
    assert found["title"].startswith("shop: ")
    assert pidfile.read_text() == f"{server.pid}\n"
    assert Path(f"/proc/{server.pid}/status").read_text().split("Uid:\t")[1].startswith("0\t")
    assert server.stop() == 0
    assert list(place.iterdir()) == []
