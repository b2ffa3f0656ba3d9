"""``lastcall drill match``: logs of any size, line numbers that are right, and a bounded amount of memory."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from lastcall_drill.cards import match
from lastcall_drill.cards.loader import catalogue
from lastcall_drill.cards.match import BLOCK, KEPT, LONGEST_LINE, Match, scan
from lastcall_drill.cli.cards import match_command

CARDS = catalogue()
CANCEL = "ERROR:    Cancel 3 running task(s), timeout graceful shutdown exceeded"
KILLED = "[WARNING] Killing worker-1 after it refused to gracefully stop"
STARTED = "INFO:     Started server process [7]"
FINISHED = "INFO:     Finished server process [7]"
WAITING = "INFO:     Waiting for connections to close. (CTRL+C to force quit)"
NOISE = 'INFO:     127.0.0.1:52496 - "GET /events HTTP/1.1" 200 OK'


class Log(io.RawIOBase):
    """A log that is made while it is read, in pieces that end anywhere."""

    def __init__(self, lines: Iterator[bytes], piece: int = 50_000) -> None:
        self._lines = lines
        self._rest = b""
        self._piece = piece

    def read(self, _size: int | None = -1) -> bytes:
        while len(self._rest) < self._piece:
            line = next(self._lines, None)
            if line is None:
                data, self._rest = self._rest, b""
                return data
            self._rest += line
        data, self._rest = self._rest[: self._piece], self._rest[self._piece :]
        return data


def found(text: str) -> dict[str, list[int]]:
    """Line numbers by card."""
    summary = scan(io.BytesIO(text.encode()), CARDS)
    numbers: dict[str, list[int]] = {}
    for one in summary.found:
        numbers.setdefault(one.card.id, []).extend(match.line for match in one.matches)
    return numbers


def test_lines_are_numbered_from_one() -> None:
    text = "\n".join([KILLED, NOISE, "", KILLED, "\rnot a new line\x0c", KILLED])
    assert found(text)["granian-open-stream"] == [1, 4, 6]
    assert found(text + "\n") == found(text)
    assert found(text.replace("\n", "\r\n"))["granian-open-stream"] == [1, 4, 6]


def test_what_is_no_failure_is_none() -> None:
    assert found(f"{NOISE}\n[WARNING] Killing worker-x after it refused to gracefully stop\n") == {}
    assert found("") == {}


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_pieces_may_end_anywhere(piece: int) -> None:
    text = f"{NOISE}\n{KILLED}\n{NOISE}\n{WAITING}"
    summary = scan(Log(iter([text.encode()]), piece), CARDS)
    assert summary.lines == 4
    assert {(one.card.id, one.first) for one in summary.found} >= {
        ("granian-open-stream", 2),
        ("uvicorn-451", 4),
    }


@pytest.mark.slow
def test_a_large_log_needs_little_memory() -> None:
    lines = 600_000
    at = {1: KILLED, 299_999: WAITING, lines: KILLED}
    noise = f"{NOISE}\n".encode()

    def log() -> Iterator[bytes]:
        for number in range(1, lines + 1):
            yield f"{at[number]}\n".encode() if number in at else noise

    tracemalloc.start()
    try:
        summary = scan(Log(log()), CARDS)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert summary.lines == lines
    spots = {one.card.id: (one.count, one.first, one.last) for one in summary.found}
    assert spots["granian-open-stream"] == (2, 1, lines)
    assert spots["uvicorn-451"] == (1, 299_999, 299_999)
    assert peak < 8 * BLOCK, f"{lines * len(noise)} bytes of log took {peak} bytes"


def test_of_a_long_line_the_beginning_is_looked_at() -> None:
    def log() -> Iterator[bytes]:
        yield KILLED.encode() + b" "
        for _ in range(100):
            yield b"x" * 50_000
        yield KILLED.encode() + b"\n"  # the end of a line of 5 MB: not looked at
        yield b"y" * 3 * LONGEST_LINE + b" " + KILLED.encode() + b"\n"
        yield KILLED.encode() + b"\n"

    tracemalloc.start()
    try:
        summary = scan(Log(log()), CARDS)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    (one,) = [one for one in summary.found if one.card.id == "granian-open-stream"]
    assert [match.line for match in one.matches] == [1, 3]
    assert summary.lines == 3
    assert peak < 8 * BLOCK


def test_many_matches_are_counted_and_few_are_kept() -> None:
    told: list[Match] = []
    summary = scan(io.BytesIO(f"{KILLED}\n".encode() * 5000), CARDS, tell=told.append)
    (one,) = summary.found
    assert (one.count, one.first, one.last) == (5000, 1, 5000)
    assert [match.line for match in one.matches] == [match.line for match in told] == list(range(1, KEPT + 1))


def test_a_log_that_still_grows_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there of a pipe is looked at, before a whole block is."""
    told: list[Match] = []
    seen_before_end: list[int] = []

    def pieces() -> Iterator[bytes]:
        yield f"{KILLED}\n".encode()
        seen_before_end.append(len(told))
        yield f"{NOISE}\n".encode()

    monkeypatch.setattr(match, "BLOCK", 1 << 20)
    scan(Log(pieces(), piece=1), CARDS, tell=told.append)
    assert seen_before_end == [1]


def test_the_command(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text(f"{NOISE}\n\x1b[31m{KILLED}\x1b[0m\u202e\n{WAITING}\n{WAITING}\n")
    done = CliRunner().invoke(match_command, [str(log)])
    assert done.exit_code == 0, done.output
    assert "\x1b" not in done.output
    assert "\u202e" not in done.output
    lines = done.output.splitlines()
    assert f"line 2: granian-open-stream (high): \\x1b[31m{KILLED}\\x1b[0m\\u202e" in lines
    assert f"line 3: uvicorn-451 (medium): {WAITING}" in lines
    assert "  medium confidence, in line 3, 2 times, the last in line 4" in lines
    assert any(line.startswith("  fix: Upgrade to ") for line in lines)
    assert "  fix: none known" in lines
    assert lines[-1] == "4 lines read."


def test_the_command_as_a_filter() -> None:
    done = CliRunner().invoke(match_command, ["-", "--json"], input=f"{NOISE}\n{WAITING}\n")
    assert done.exit_code == 0
    report = json.loads(done.output)
    assert (report["format"], report["lines"]) == (1, 2)
    (one,) = [one for one in report["found"] if one["card"] == "uvicorn-451"]
    assert one["matches"] == [{"line": 2, "text": WAITING}]
    assert (one["confidence"], one["count"]) == ("medium", 1)
    assert {"title", "changes", "how", "not_when"} == set(one["fixes"][0])

    nothing = CliRunner().invoke(match_command, ["-"], input=NOISE)
    assert (nothing.exit_code, nothing.output) == (1, "1 line, and no known failure in them.\n")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = CliRunner().invoke(match_command, [str(tmp_path / "none.log")])
    assert done.exit_code == 2
    assert "none.log: No such file or directory" in done.output
