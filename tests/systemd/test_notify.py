"""sd_notify: what goes over the socket, and that a manager that is away bothers nobody."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lastcall.systemd.notify import Notifier, Place, take_place
from testing.manager import Manager


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    address = tmp_path / "notify" if request.param == "path" else f"@lastcall-test-{os.getpid()}"
    with Manager(address) as manager:
        yield manager


@pytest.fixture
def notifier(manager: Manager) -> Iterator[Notifier]:
    notifier = Notifier(Place(manager.address))
    yield notifier
    notifier.close()


def test_every_message(manager: Manager, notifier: Notifier) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert notifier.ready("up")
    assert notifier.reloading("again")
    assert notifier.stopping()
    assert notifier.main_pid(42)
    assert notifier.status("half-way")
    assert notifier.alive()
    assert notifier.extend(2.5)
    ready, reloading, stopping, *rest = manager.rest()
    assert ready == {"READY": "1", "STATUS": "up"}
    assert before <= int(reloading.pop("MONOTONIC_USEC")) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert reloading == {"RELOADING": "1", "STATUS": "again"}
    assert stopping == {"STOPPING": "1"}
    assert rest == [{"MAINPID": "42"}, {"STATUS": "half-way"}, {"WATCHDOG": "1"}, {"EXTEND_TIMEOUT_USEC": "2500000"}]


def test_a_status_is_one_line_whatever_is_in_it(manager: Manager, notifier: Notifier) -> None:
    assert notifier.status("GET /a\nMAINPID=1\r\0\x1b \udcff" + "x" * 100_000)
    (message,) = manager.rest()
    assert list(message) == ["STATUS"]
    assert message["STATUS"].startswith("GET /a MAINPID=1   ")
    assert len(message["STATUS"]) <= 300


def test_a_manager_that_restarts_is_told_again(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    notifier = Notifier(Place(str(path)))
    assert not notifier.ready()
    with Manager(path) as manager:
        assert notifier.ready()
        assert manager.rest() == [{"READY": "1"}]
    assert not notifier.stopping()
    with Manager(path) as manager:
        assert notifier.stopping()
    notifier.close()
    assert not notifier.status("gone")


def test_a_manager_that_reads_nothing_is_not_waited_for(manager: Manager, notifier: Notifier) -> None:
    count = 0
    while notifier.status("x" * 200):
        count += 1
        assert count < 100_000
    assert count > 0, "then its queue is full"
    assert not notifier.alive()
    manager.sock.recv(4096)
    assert notifier.alive()


def test_what_must_not_be_lost_waits_for_room(manager: Manager, notifier: Notifier) -> None:
    while notifier.status("x"):
        pass
    code = "import os, socket, sys, time; s = socket.socket(fileno=int(sys.argv[1])); time.sleep(0.2); s.recv(99)"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(manager.sock.fileno())], pass_fds=[manager.sock.fileno()]
    ) as reader:
        assert notifier.ready() or notifier.ready(), "the reader may take a second to begin"
        assert reader.wait(20) == 0


def test_without_a_manager_nothing_happens() -> None:
    notifier = Notifier(Place())
    assert not notifier.listening
    assert not any([notifier.ready(), notifier.stopping(), notifier.alive(), notifier.extend(1), notifier.status("")])
    notifier.close()


def test_no_child_inherits_the_socket(manager: Manager, notifier: Notifier) -> None:
    assert notifier._socket is not None
    assert not notifier._socket.get_inheritable()


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({}, Place()),
        ({"NOTIFY_SOCKET": "/run/n"}, Place("/run/n")),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "2000000"}, Place("@n", 2.0)),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "7"}, Place("/n", 2.0)),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "8"}, Place("/n")),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "0"}, Place("/n")),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "-5"}, Place("/n")),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "9" * 5000}, Place("/n")),
        ({"NOTIFY_SOCKET": "vsock:2:1234"}, Place()),
        ({"NOTIFY_SOCKET": ""}, Place()),
    ],
)
def test_where_the_manager_is(environ: dict[str, str], place: Place) -> None:
    environ = environ | {"PATH": "/bin"}
    assert take_place(environ, 7) == place
    assert environ == {"PATH": "/bin"}, "what we start is not the service"


def test_the_watchdog_of_nobody() -> None:
    assert Notifier(Place("", 2.0)).watchdog == math.inf


def test_a_path_that_is_too_long_is_a_manager_that_is_away() -> None:
    notifier = Notifier(Place("/" + "x" * 300))
    assert not notifier.ready()
    notifier.close()


def test_a_stream_socket_is_a_manager_that_is_away(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "s"))
        other.listen()
        notifier = Notifier(Place(str(tmp_path / "s")))
        assert not notifier.ready()
        notifier.close()
