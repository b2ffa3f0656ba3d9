from __future__ import annotations

import errno
import fcntl
import io
import os
import threading
import time
from collections.abc import Callable

import pytest

from lastcall.observe.output import Output
from tests.observe.conftest import Pipe


def test_a_closed_descriptor_is_refused() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        Output(writer)


def test_write(pipe: Pipe) -> None:
    output = Output(pipe.writer)
    assert output.fd == pipe.writer
    assert output.write(b"") == 0
    assert output.write(b"line\n") == 5
    assert (output.error, output.torn) == (0, False)
    assert output.write(b"begun") == 5
    assert (output.error, output.torn) == (0, True)
    assert pipe.read() == b"line\nbegun"


@pytest.mark.parametrize("nowait", [True, False])
def test_only_whole_lines_go_into_a_pipe_that_fills_up(pipe: Pipe, nowait: bool) -> None:
    lines = b"".join(b"%04d %s\n" % (number, b"x" * 94) for number in range(2000))
    output = Output(pipe.writer, nowait=nowait)
    written = output.write(lines)
    assert 0 < written < len(lines)
    assert written % 100 == 0
    assert (output.error, output.torn) == (0, False)
    assert pipe.read() == lines[:written]


@pytest.mark.parametrize("nowait", [True, False])
def test_a_line_longer_than_what_a_pipe_takes_at_once(pipe: Pipe, nowait: bool) -> None:
    line = bytes(range(32, 127)) * 400 + b"\n"
    output = Output(pipe.writer, nowait=nowait)
    assert output.write(line) == len(line)
    assert pipe.read() == line


def test_waiting_is_bounded(pipe: Pipe) -> None:
    pipe.fill()
    output = Output(pipe.writer)
    start = time.monotonic()
    assert output.write(b"x", 0.05) == 0
    assert 0.04 < time.monotonic() - start < 5
    assert output.error == 0


def test_waiting_lets_other_threads_read(pipe: Pipe) -> None:
    size = pipe.fill()
    data = b"x" * 200_000
    received = bytearray()

    def read() -> None:
        while len(received) < size + len(data):
            received.extend(os.read(pipe.reader, 1 << 16))

    thread = threading.Thread(target=read)
    thread.start()
    assert Output(pipe.writer).write(data, 20.0) == len(data)
    thread.join()
    assert received.endswith(data)


def test_an_error_is_told_from_a_full_pipe(pipe: Pipe) -> None:
    os.close(pipe.reader)
    output = Output(pipe.writer)
    assert output.write(b"x", 20.0) == 0
    assert os.strerror(output.error) == "Broken pipe"


@pytest.mark.parametrize("nowait", [True, False])
def test_a_terminals_flags_stay_as_they_were(
    terminal: Callable[[], tuple[int, io.TextIOWrapper]], nowait: bool
) -> None:
    """The shell's own descriptor of the terminal has the same flags: O_NONBLOCK would break the shell."""
    master, slave = terminal()
    before = fcntl.fcntl(slave.fileno(), fcntl.F_GETFL)
    output = Output(slave.fileno(), slave, nowait=nowait)
    line = b"x" * 300 + b"\n"
    assert output.write(line) == len(line)
    assert fcntl.fcntl(slave.fileno(), fcntl.F_GETFL) == before
    shown = b""
    while not shown.endswith(b"\n"):
        shown += os.read(master, 1024)
    assert shown == b"x" * 300 + b"\r\n"


def test_a_terminal_is_closed_with_the_output(terminal: Callable[[], tuple[int, io.TextIOWrapper]]) -> None:
    _, slave = terminal()
    before = os.listdir("/proc/self/fd")
    output = Output(slave.fileno())
    assert len(os.listdir("/proc/self/fd")) == len(before) + 1
    del output
    assert os.listdir("/proc/self/fd") == before
