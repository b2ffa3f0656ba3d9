"""Who owns the terminal during a stop: ``take``, the writes in between, ``release``."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pyte
import pytest

from lastcall.base.options import LogOptions
from lastcall.base.progress import Progress, Remaining
from lastcall.observe.logs import StopView, configure_logging
from lastcall.observe.output import Output
from lastcall.observe.terminal import Terminal

MakeTerminal = Callable[[], tuple[int, io.TextIOWrapper]]
LEFT = Progress("draining: 1 left", (Remaining("GET /a", "stream", 3.0),), 1)


def screen_of(master: int) -> list[str]:
    """What the person sees now who looks at a terminal of 80 by 24: its rows down to the last that is not blank."""
    os.set_blocking(master, False)
    data = b""
    try:
        while part := os.read(master, 65536):
            data += part
    except BlockingIOError:
        pass
    screen = SCREENS.setdefault(master, pyte.Screen(80, 24))
    pyte.ByteStream(screen).feed(data)
    rows = [row.rstrip() for row in screen.display]
    while rows and not rows[-1]:
        rows.pop()
    return rows


SCREENS: dict[int, pyte.Screen] = {}


@pytest.fixture
def taken(terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, io.TextIOWrapper, Terminal]]:
    """The screen's descriptor, standard output, and the owner. Standard error is the same terminal."""
    SCREENS.clear()
    master, stream = terminal()
    with open(os.dup(stream.fileno()), "w", encoding="utf-8") as other:
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", other)
        owner = Terminal.take(other, colors=False)
        assert owner is not None
        yield master, stream, owner
        owner.release()


def test_the_cursor_stays_where_others_left_it(taken: tuple[int, io.TextIOWrapper, Terminal]) -> None:
    master, stream, owner = taken
    owner.show(LEFT)
    print("one,", end=" ", file=stream, flush=True)
    owner.show(LEFT)
    os.write(stream.fileno(), b"two,")  # past all that the owner sees
    owner.show(LEFT)
    print(" three", file=stream, flush=True)
    assert screen_of(master) == ["one, two, three", "", "draining: 1 left", "     3 s  stream      GET /a"]
    owner.show(None)
    assert screen_of(master) == ["one, two, three"]


def test_a_line_of_ours_begins_in_a_line_of_its_own(taken: tuple[int, io.TextIOWrapper, Terminal]) -> None:
    master, stream, owner = taken
    output = Output(stream.fileno(), stream)
    owner.show(LEFT)
    print("begun", end="", file=stream, flush=True)
    output.write(b"INFO: ours\n")
    print("unfinished", end="", file=stream)  # in the stream's buffer
    output.write(b"INFO: again\n")
    owner.release()
    assert screen_of(master) == ["begun", "INFO: ours", "unfinished", "INFO: again"]


def test_at_the_bottom_of_the_screen(taken: tuple[int, io.TextIOWrapper, Terminal]) -> None:
    master, stream, owner = taken
    owner.show(LEFT)
    for number in range(60):
        print(number, file=stream, flush=True)
    rows = screen_of(master)
    assert rows[-4:] == ["59", "", "draining: 1 left", "     3 s  stream      GET /a"]
    assert rows[:-3] == [str(number) for number in range(60 - len(rows[:-3]), 60)]


def test_names_cannot_move_the_cursor(taken: tuple[int, io.TextIOWrapper, Terminal]) -> None:
    master, _, owner = taken
    owner.show(Progress("draining: 1 left", (Remaining("task \x1b[2J\n漢", "app task", 3.0),), 1))
    assert screen_of(master)[2] == r"     3 s  app task    task \x1b[2J\x0a\xe6\xbc\xa2"


def test_streams_are_as_before_afterwards(taken: tuple[int, io.TextIOWrapper, Terminal]) -> None:
    _, stream, owner = taken
    raw = stream.buffer.raw  # type: ignore[attr-defined]
    assert "write" in vars(raw)
    owner.release()
    assert "write" not in vars(raw)
    again = Terminal.take(stream, colors=False)
    assert again is not None
    again.release()


def test_what_has_been_replaced_since_stays(taken: tuple[int, io.TextIOWrapper, Terminal]) -> None:
    master, stream, owner = taken
    raw = stream.buffer.raw  # type: ignore[attr-defined]
    ours, seen = raw.write, []

    def theirs(data: Any) -> Any:
        seen.append(bytes(data))
        return ours(data)

    raw.write = theirs
    owner.show(LEFT)
    owner.release()
    print("later", file=stream, flush=True)
    assert (raw.write, seen) == (theirs, [b"later\n"])
    assert screen_of(master) == ["later"]


def test_one_owner_at_a_time(taken: tuple[int, io.TextIOWrapper, Terminal]) -> None:
    _, stream, _ = taken
    assert Terminal.take(stream, colors=False) is None


def test_a_thread_that_waits_for_a_stopped_terminal_holds_nobody(
    taken: tuple[int, io.TextIOWrapper, Terminal],
) -> None:
    """It holds the lock of the stream and of the owner, while the terminal takes nothing."""
    _, stream, owner = taken
    owner.show(LEFT)
    printing = threading.Thread(target=lambda: print("x" * 200_000, file=stream, flush=True), daemon=True)
    printing.start()  # more than a terminal holds that nobody reads
    output = Output(stream.fileno(), stream)
    while owner.begin(line=False):  # until that thread is in its write
        owner.end()
    assert output.write(b"INFO: a line\n", 0.1) < len(b"INFO: a line\n")
    owner.show(None)
    while printing.is_alive():
        screen_of(taken[0])
        printing.join(0.001)


class Wrapped(io.StringIO):
    """Something else in the place of standard output, which may write to the terminal by ways of its own."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        super().__init__()
        self._stream = stream

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()


@pytest.mark.usefixtures("loggers")
def test_lines_where_others_write_past_us(terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch) -> None:
    SCREENS.clear()
    master, stream = terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", Wrapped(stream))
    configure_logging(LogOptions(use_colors=False), stream=stream)
    view = StopView()
    view.ordered()
    view.progress(LEFT)
    view.progress(None)
    view.close()
    assert screen_of(master) == ["INFO:     draining: 1 left: GET /a 3 s"]


@pytest.mark.usefixtures("loggers")
@pytest.mark.parametrize("level", ["info", "warning"])
def test_who_wants_no_messages_gets_no_list(
    terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    SCREENS.clear()
    master, stream = terminal()
    monkeypatch.setenv("TERM", "xterm")
    configure_logging(LogOptions(use_colors=False, level=level), stream=stream)
    view = StopView()
    view.ordered()
    view.progress(LEFT)
    assert ("draining: 1 left" in screen_of(master)) is (level == "info")
    logging.getLogger("lastcall.error").error("a message")
    view.close()
    assert screen_of(master) == ["ERROR:    a message"]
    view.close()
