"""The end of a forked child: its code, and that only a child ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from lastcall.base.errors import StartupError
from lastcall.base.lineage import exit_code, leave, leave_if_child


def caused(error: Exception, by: BaseException) -> Exception:
    error.__cause__ = by
    return error


@pytest.mark.parametrize(
    ("exc", "code"),
    [
        (None, 0),
        (SystemExit(), 0),
        (SystemExit(3), 3),
        (SystemExit(-1), 255),
        (SystemExit("words"), 1),
        (KeyboardInterrupt(), 128 + signal.SIGINT),
        (ValueError(), 1),
        (BaseExceptionGroup("", [SystemExit(3), ExceptionGroup("", [ValueError()])]), 3),
        (caused(StartupError("put into words"), SystemExit(4)), 4),
    ],
    ids=repr,
)
def test_the_code_is_the_one_that_the_interpreter_would_give(exc: BaseException | None, code: int) -> None:
    assert exit_code(exc) == code


def in_child(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_child_leaves_and_its_parent_does_not() -> None:
    parent = os.getpid()
    leave_if_child(parent, SystemExit(3))
    assert in_child(lambda: leave_if_child(parent)) == 0
    assert in_child(lambda: leave_if_child(parent, SystemExit(3))) == 3


def test_without_an_exception_the_one_that_is_handled_counts() -> None:
    def handling() -> None:
        try:
            raise SystemExit(5)
        except SystemExit:
            leave()

    assert in_child(handling) == 5
    assert in_child(leave) == 0
