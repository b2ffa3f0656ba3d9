"""What a forked child is made to let go of, and when; the whole of it is in tests/process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

from lastcall.server.forks import STOP_SIGNALS, let_go_in_children


def said_in_child(fork: Callable[[], int] = os.fork) -> bytes:
    """What a child has written that does nothing else."""
    reader, writer = os.pipe()
    SAYS[0] = writer
    try:
        pid = fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    finally:
        os.close(writer)
    with open(reader, "rb") as file:
        return file.read()


SAYS = [-1]


def say(text: bytes) -> Callable[[], object]:
    return lambda: os.write(SAYS[0], text)


def fails() -> None:
    raise OSError("in the child")


def test_only_while_the_block_runs_and_whatever_fails() -> None:
    assert said_in_child() == b""
    with let_go_in_children(say(b"1")), let_go_in_children(fails):
        with let_go_in_children(say(b"2")):
            assert said_in_child() == b"12"
        assert said_in_child() == b"1"
    assert said_in_child() == b""


def test_stop_signals_wait_until_it_is_done_and_then_come() -> None:
    found: list[set[int]] = []

    def look() -> None:
        os.write(SAYS[0], b"%d" % (signal.pthread_sigmask(signal.SIG_BLOCK, []) >= STOP_SIGNALS))

    with let_go_in_children(look):
        assert said_in_child() == b"1"
        found.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        pid = os.fork()
        if pid == 0:
            os._exit(len(STOP_SIGNALS & signal.pthread_sigmask(signal.SIG_BLOCK, [])))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not found[0] & STOP_SIGNALS, "the parent's own mask is as it was"


def test_in_the_child_of_a_thread_too() -> None:
    found: list[bytes] = []
    with let_go_in_children(say(b"1")):
        thread = threading.Thread(target=lambda: found.append(said_in_child()))
        thread.start()
        thread.join()
    assert found == [b"1"]
