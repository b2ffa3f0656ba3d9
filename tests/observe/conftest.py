"""Pipes whose reader is slow or gone, and loggers that are put back."""

from __future__ import annotations

import fcntl
import io
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import pytest

NAMES = ("lastcall", "lastcall.error", "lastcall.access")


@dataclass
class Pipe:
    """A pipe as a shell makes it: both ends block."""

    reader: int
    writer: int

    def read(self) -> bytes:
        """Everything that is in the pipe now; never waits."""
        flags = fcntl.fcntl(self.reader, fcntl.F_GETFL)
        fcntl.fcntl(self.reader, fcntl.F_SETFL, flags | os.O_NONBLOCK)
        data = b""
        try:
            while part := os.read(self.reader, 1 << 20):
                data += part
        except BlockingIOError:
            pass
        finally:
            fcntl.fcntl(self.reader, fcntl.F_SETFL, flags)
        return data

    def fill(self) -> int:
        """Fill it to the last byte, and return how many that took."""
        flags = fcntl.fcntl(self.writer, fcntl.F_GETFL)
        fcntl.fcntl(self.writer, fcntl.F_SETFL, flags | os.O_NONBLOCK)
        size = 0
        try:
            while True:
                size += os.write(self.writer, b"." * 4096)
        except BlockingIOError:
            return size
        finally:
            fcntl.fcntl(self.writer, fcntl.F_SETFL, flags)

    def text(self) -> io.TextIOWrapper:
        """The writer as Python makes ``sys.stdout`` for a pipe; closing it leaves the descriptor open."""
        return io.TextIOWrapper(io.BufferedWriter(io.FileIO(self.writer, "w", closefd=False)), encoding="utf-8")


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reader, writer = os.pipe()
    yield Pipe(reader, writer)
    for fd in (reader, writer):
        with suppress(OSError):  # closed by the test
            os.close(fd)


@pytest.fixture
def loggers() -> Iterator[None]:
    """``lastcall``'s loggers as a new process has them; afterwards every logger as it was."""
    manager = logging.Logger.manager
    everything = [logging.getLogger(name) for name in NAMES]
    everything += [logger for logger in manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    everything.append(logging.root)
    saved: list[tuple[logging.Logger, dict[str, Any]]] = []
    for logger in everything:
        state = {key: getattr(logger, key) for key in ("level", "propagate", "disabled")}
        saved.append((logger, {**state, "handlers": logger.handlers[:], "filters": logger.filters[:]}))
    for name in NAMES:
        logger = logging.getLogger(name)
        logger.handlers, logger.filters, logger.propagate, logger.disabled = [], [], True, False
        logger.setLevel(logging.NOTSET)
    yield
    for logger, state in saved:
        for handler in logger.handlers:
            if handler not in state["handlers"]:
                handler.close()
        logger.setLevel(state.pop("level"))
        vars(logger).update(state)


@pytest.fixture
def terminal() -> Iterator[Callable[[], tuple[int, io.TextIOWrapper]]]:
    """Make a pseudo-terminal: the descriptor of the side that a person looks at, and a text stream for the other."""
    with ExitStack() as stack:

        def make() -> tuple[int, io.TextIOWrapper]:
            master, slave = os.openpty()
            stack.callback(os.close, master)
            return master, stack.enter_context(open(slave, "w", encoding="utf-8"))

        yield make
