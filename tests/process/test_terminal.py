"""A stop at a terminal: what stands on the screen, whoever writes to it meanwhile."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from testing.peer import Peer, eventually
from testing.process import READY_LINE
from testing.terminal import AtTerminal
from tests.process.conftest import APPS

COMMAND = [sys.executable, "-m", "lastcall", "talker:app", "--port", "0", "--lifespan", "off"]
LONG = ("--timeout-graceful-shutdown", "60", "--timeout-interrupt", "60", "--timeout-cancel", "1")
LIST = re.compile(r"draining: \d+ left, \d+ s until disconnect$", re.MULTILINE)
ACCESS = r"INFO:     127\.0\.0\.1:\d+ - \"GET /\w+ HTTP/1\.1\" 200 OK( \(cut after \d+ bytes\))?"


class Show:
    """The talkative application at a terminal, with one stream that waits for its last word."""

    def __init__(self, stack: ExitStack, words: Path, *options: str, env: dict[str, str], **window: Any) -> None:
        self._stack = stack
        self._words = words
        self.shows_access = "stdout" not in (window.get("files") or {})
        variables = {**os.environ, "TERM": "xterm-256color", "NO_COLOR": "1", "WORDS": str(words), **env}
        self.terminal = stack.enter_context(AtTerminal([*COMMAND, *LONG, *options], cwd=APPS, env=variables, **window))

    def serve(self, where: Path | None = None) -> None:
        """Wait until it is ready, in ``where`` or on the screen, and open the stream."""

        def said() -> str:
            return where.read_text() if where is not None else "".join(self.terminal.rows)

        eventually(lambda: READY_LINE.search(said()) is not None, 15)
        found = re.search(r"running on (http://127\.0\.0\.1:\d+)", said())
        assert found is not None
        self.address = found[1]
        self.kept = self._stack.enter_context(Peer(self.address))
        assert self.kept.get("/before").status == 200
        self.open("/wait")
        if where is None and self.shows_access:  # its line comes at the end of a turn: not in between what follows
            eventually(lambda: "/before" in said(), 15)

    def open(self, path: str) -> Peer:
        """A client that holds a stream."""
        peer = self._stack.enter_context(Peer(self.address))
        peer.request(path)
        assert peer.head()[0] == 200
        assert peer.chunk()
        return peer

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Order the stop."""
        self.terminal.process.send_signal(number)

    def say(self, word: str) -> None:
        """Have the application do something, and wait until it is done."""
        done = self._words / f"{word}.done"
        done.unlink(missing_ok=True)
        (self._words / word).touch()
        if word != "end":
            eventually(done.exists, 15)

    def end(self) -> list[str]:
        """The last word; the rows of the screen at the end."""
        self.say("end")
        assert self.terminal.wait() == 0, self.terminal.text
        return self.terminal.rows


@pytest.fixture
def show(tmp_path: Path) -> Iterator[Any]:
    with ExitStack() as stack:

        def begin(*options: str, env: dict[str, str] | None = None, **window: Any) -> Show:
            words = tmp_path / "words"
            words.mkdir()
            return Show(stack, words, *options, env=env or {}, **window)

        yield begin


def after_order(rows: list[str]) -> list[str]:
    """The rows behind the one that says that the stop begins."""
    at = next(n for n, row in enumerate(rows) if row.startswith("INFO:     Stopping ("))
    return rows[at + 1 :]


TALK = ["print", "print-error", "begin", "error", "go-on", "log", "bytes", "thread", "child", "fail"]
SAID = [
    "printed to stdout",
    "printed to stderr",
    "begun,",
    "ERROR:    logged by the server",
    "and done",
    "logged by the application",
    "below the text",
    "from a thread",
    "from a child",
    "Traceback (most recent call last):",
    "ValueError: told on stderr",
]


@pytest.mark.parametrize("buffered", [True, False], ids=["buffered", "unbuffered"])
def test_whoever_writes_while_the_list_stands_there_has_lines_of_their_own(show: Any, buffered: bool) -> None:
    one = show(env={"PYTHONUNBUFFERED": "" if buffered else "1"})
    one.serve()
    one.stop()
    for word in TALK:
        one.terminal.wait_until(lambda rows: LIST.search("\n".join(rows)) is not None, "the list")
        one.say(word)
    one.terminal.wait_for("GET /wait")
    rows = [row for row in after_order(one.end()) if row]
    assert [row for row in rows if not row.startswith("  ")][: len(SAID)] == SAID
    assert re.fullmatch(ACCESS, rows[-2])
    assert rows[-1].startswith("INFO:     Stopped (SIGTERM)")
    assert len(rows) == len(SAID) + 2 + sum(row.startswith("  ") for row in rows)


def test_access_lines_stand_above_the_list(show: Any) -> None:
    """They are written by compiled code to standard output, which is the same terminal."""
    one = show("--drain-delay", "60")
    one.serve()
    one.stop()
    one.terminal.wait_for("announced: still accepting")
    for _ in range(3):
        assert one.kept.get("/ok").status == 200
        one.kept = one._stack.enter_context(Peer(one.address))
    one.terminal.wait_until(lambda rows: "\n".join(rows).count("GET /ok") == 3, "three access lines")
    one.stop()  # the second signal: cancel what is left
    assert one.terminal.wait() == 0
    rows = after_order(one.terminal.rows)
    assert all(re.fullmatch(ACCESS, row) for row in rows[:-1]), rows
    assert rows[-1].startswith("WARNING:  Stopped (SIGTERM)")


def test_the_list_says_who_is_left_and_counts_down(show: Any) -> None:
    one = show(columns=1000)
    one.serve()
    for _ in range(12):
        one.open("/endless")
    one.stop()

    def seconds() -> int:
        found = re.search(r"^draining: 13 left, (\d+) s until disconnect$", one.terminal.text, re.MULTILINE)
        return int(found[1]) if found else 1000

    eventually(lambda: seconds() < 1000, 15)
    first = seconds()
    eventually(lambda: seconds() < first, 15)
    rows = one.terminal.rows
    at = next(n for n, row in enumerate(rows) if row.startswith("draining: "))
    assert rows[at - 1] == "", "the cursor's line"
    assert re.fullmatch(r" +\d+ s  stream +GET /wait", rows[at + 1]), "the oldest comes first"
    assert all(re.fullmatch(r" +\d+ s  stream +GET /endless", row) for row in rows[at + 2 : at + 9])
    assert rows[at + 9 :] == ["  and 5 more"]
    one.stop()
    assert one.terminal.wait() == 0
    left = [row for row in after_order(one.terminal.rows) if not re.fullmatch(ACCESS, row)]
    assert len(left) == 1, left
    assert left[0].startswith("WARNING:  Stopped (SIGTERM)")


@pytest.mark.parametrize(("columns", "lines"), [(20, 6), (80, 3), (12, 40), (200, 8)])
def test_narrow_and_low_windows(show: Any, columns: int, lines: int) -> None:
    """Nothing is wrapped, and what others have written stands above, also what was scrolled away."""
    one = show(columns=columns, lines=lines)
    one.serve()
    for _ in range(12):
        one.open("/endless")
    one.stop()
    one.terminal.wait_until(lambda rows: shown(rows) != [], "the list")
    assert len(shown(one.terminal.rows)) <= lines - 2
    one.say("much")
    one.stop()
    assert one.terminal.wait() == 0
    text = one.terminal.text
    said = [row for row in one.terminal.rows if row.startswith("line ")]
    assert said == [f"line {number}" for number in range(30)]
    assert "draining" not in text
    assert "  and " not in text


def shown(rows: list[str]) -> list[str]:
    """The rows of the list, which is at the end."""
    at = next((n for n, row in enumerate(rows) if row.startswith("draining:"[:8])), len(rows))
    return rows[at:]


def test_a_window_that_is_resized(show: Any) -> None:
    one = show(columns=100, lines=40)
    one.serve()
    for _ in range(4):
        one.open("/endless")
    one.stop()
    for columns, lines in ((40, 40), (40, 9), (120, 30)):
        one.terminal.wait_until(lambda rows: shown(rows) != [], "the list")
        one.terminal.resize(columns, lines)
        one.say("print")
        one.say("print-error")
    one.stop()
    assert one.terminal.wait() == 0
    rows = [row for row in after_order(one.terminal.rows) if row.startswith("printed to")]
    assert rows == ["printed to stdout", "printed to stderr"] * 3
    assert "draining" not in one.terminal.text


def test_a_ctrl_c_has_its_own_line(show: Any) -> None:
    one = show()
    one.serve()
    one.terminal.type("\x03")
    one.terminal.wait_until(lambda rows: shown(rows) != [], "the list")
    one.say("print")
    one.terminal.type("\x03")
    assert one.terminal.wait() == 0
    rows = one.terminal.rows
    at = rows.index("^C")
    assert "^C" not in "".join(rows[:at]), rows
    assert rows[at + 1].startswith("INFO:     Stopping (SIGINT): 1 request in flight")
    assert rows[at + 2 : at + 4] == ["printed to stdout", "^C"]
    assert re.fullmatch(ACCESS, rows[at + 4])
    assert rows[at + 5].startswith("WARNING:  Stopped (SIGINT)")
    assert len(rows) == at + 6


def test_a_ctrl_c_in_the_middle_of_a_line(show: Any) -> None:
    one = show()
    one.serve()
    one.stop()
    one.terminal.wait_until(lambda rows: shown(rows) != [], "the list")
    one.say("begin")
    one.terminal.type("\x03")  # the second signal
    assert one.terminal.wait() == 0
    rows = after_order(one.terminal.rows)
    assert rows[0] == "begun, ^C"
    assert re.fullmatch(ACCESS, rows[1])


def test_the_third_ctrl_c_leaves_no_list_behind(show: Any) -> None:
    one = show("--timeout-cancel", "60")
    one.serve()
    one.open("/deaf")
    one.terminal.type("\x03")
    one.terminal.wait_until(lambda rows: shown(rows) != [], "the list")
    one.terminal.type("\x03")
    one.terminal.wait_for("cancelling: 1 left")
    one.terminal.type("\x03")
    assert one.terminal.wait() == 5
    assert "cancelling" not in one.terminal.text


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_terminal_that_only_prints_gets_lines(show: Any, term: str) -> None:
    one = show(env={"TERM": term})
    one.serve()
    one.stop()
    one.terminal.wait_for("INFO:     draining: 1 left")
    one.end()
    assert b"\x1b" not in one.terminal.raw
    assert re.search(rb"draining: 1 left, \d+ s until disconnect: GET /wait \d+ s\r\n", one.terminal.raw)


def test_colours(show: Any) -> None:
    one = show(env={"NO_COLOR": "", "TERM": "xterm"})
    one.serve()
    one.stop()
    one.terminal.wait_until(lambda rows: shown(rows) != [], "the list")
    one.end()
    assert b"\x1b[1mdraining: 1 left" in one.terminal.raw


def test_no_color_is_about_colours_only(show: Any) -> None:
    one = show(env={"NO_COLOR": "1", "TERM": "xterm"})
    one.serve()
    one.stop()
    one.terminal.wait_until(lambda rows: shown(rows) != [], "the list")
    one.end()
    assert not re.search(rb"\x1b\[[\d;]*m", one.terminal.raw)


def test_a_terminal_that_is_not_utf_8(show: Any) -> None:
    one = show(env={"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}, encoding="ascii")
    one.serve()
    one.open("/endless?name=%C3%BC")
    one.stop()
    one.terminal.wait_until(lambda rows: shown(rows) != [], "the list")
    one.stop()
    assert one.terminal.wait() == 0
    assert one.terminal.raw.isascii()


def test_standard_output_is_a_file(show: Any, tmp_path: Path) -> None:
    """The list is on the terminal; what goes to the file stays there, without control characters."""
    log = tmp_path / "stdout"
    with log.open("wb") as file:
        one = show(files={"stdout": file})
        one.serve()
        one.stop()
        one.terminal.wait_until(lambda rows: shown(rows) != [], "the list")
        one.say("print")
        one.say("print-error")
        rows = after_order(one.end())
    assert rows[0] == "printed to stderr"
    assert rows[1].startswith("INFO:     Stopped (SIGTERM)")
    assert len(rows) == 2
    written = log.read_text().splitlines()
    assert written[1] == "printed to stdout"
    assert all(re.fullmatch(ACCESS, line) for line in (written[0], written[2]))


def test_standard_error_is_a_file(show: Any, tmp_path: Path) -> None:
    """Lines are in the file, and the terminal has what is written to standard output, and nothing of a list."""
    log = tmp_path / "stderr"
    with log.open("wb") as file:
        one = show(files={"stderr": file})
        one.serve(log)
        one.terminal.type("\x03")
        eventually(lambda: "draining: 1 left" in log.read_text(), 15)
        one.say("print")
        rows = one.end()
    assert rows[1:3] == ["^C", "printed to stdout"]
    assert re.fullmatch(ACCESS, rows[3])
    assert len(rows) == 4
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", log.read_text())
    assert re.search(r"^INFO:     draining: 1 left, \d+ s until disconnect: GET /wait \d+ s$", log.read_text(), re.M)


def test_a_stopped_terminal_does_not_hold_the_stop(show: Any) -> None:
    """Ctrl-S, which some press by mistake: no line of ours is waited for, nor the list."""
    one = show("--timeout-graceful-shutdown", "3")
    one.serve()
    one.open("/endless")
    one.terminal.type("\x13")
    one.stop()
    assert one.terminal.wait() == 0
