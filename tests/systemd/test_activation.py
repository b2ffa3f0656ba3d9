"""Sockets that systemd has opened: which are taken, and what is left in the environment."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lastcall.base.errors import StartupError
from lastcall.systemd.activation import Activation, take_sockets

TAKE = """
import os, sys
high = [os.dup2(int(fd), 100 + n) for n, fd in enumerate(sys.argv[1:])]
[os.dup2(fd, 3 + n) for n, fd in enumerate(high)]
from lastcall.systemd.activation import take_sockets
os.environ["LISTEN_PID"] = str(os.getpid())
taken = take_sockets(os.environ, os.getpid())
print(taken.descriptors, taken.names, [os.get_inheritable(fd) for fd in taken.descriptors])
print([name for name in os.environ if name.startswith("LISTEN_")])
"""


def test_those_that_are_ours_are_taken_once() -> None:
    """In a process of its own, whose descriptors from 3 on are the test's."""
    first, second = os.pipe()
    environ = os.environ | {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "http"}
    made = subprocess.run(
        [sys.executable, "-c", TAKE, str(first), str(second)],
        env=environ,
        pass_fds=(first, second),
        capture_output=True,
        text=True,
        check=True,
    )
    os.close(first)
    os.close(second)
    assert made.stdout.splitlines() == ["(3, 4) ('http', '') [False, False]", "[]"]


@pytest.mark.parametrize(
    ("environ", "taken"),
    [
        ({}, Activation()),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "0"}, Activation()),
        ({"LISTEN_PID": "8", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a"}, Activation(meant_for=8)),
        ({"LISTEN_FDS": "1"}, Activation()),
        ({"LISTEN_PID": "7"}, Activation()),
        ({"LISTEN_PID": "x", "LISTEN_FDS": "1"}, Activation()),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "-1"}, Activation()),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "9" * 5000}, Activation()),
    ],
)
def test_those_that_are_not_ours(environ: dict[str, str], taken: Activation) -> None:
    environ = environ | {"PATH": "/bin"}
    assert take_sockets(environ, 7) == taken
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize("count", ["4000", "999999"])
def test_sockets_that_are_not_there(count: str) -> None:
    inheritable = {fd: os.get_inheritable(fd) for fd in map(int, os.listdir("/proc/self/fd")) if _is_open(fd)}
    with pytest.raises(StartupError, match=count):
        take_sockets({"LISTEN_PID": "7", "LISTEN_FDS": count}, 7)
    for fd, before in inheritable.items():
        if _is_open(fd):
            os.set_inheritable(fd, before)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
