from __future__ import annotations

import fcntl
import io
import logging
import logging.handlers
import os
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.base.sinks import AccessSink
from lastcall.observe.access import AccessLog, LoggerAccess, escape, report
from lastcall.observe.logs import AccessFormatter
from lastcall.observe.output import Output
from tests.observe.conftest import Pipe

CLIENT = ("127.0.0.1", 54321)
LIMIT = 64 * 1024
MISSING = re.compile(rb"^WARNING:  lastcall could not write (\d+) lines? of the access log$")


def numbered(sink: AccessSink, number: int) -> None:
    report(sink, CLIENT, "GET", b"/%d" % number, "1.1", 200)


def line_of(number: int) -> bytes:
    return b'INFO:     127.0.0.1:54321 - "GET /%d HTTP/1.1" 200 OK' % number


def lines_written(*requests: tuple[object, ...], colors: bool = False) -> str:
    reader, writer = os.pipe()
    sink = AccessLog(Output(writer), colors=colors)
    for request in requests:
        report(sink, *request)  # type: ignore[arg-type]
    sink.flush()
    os.close(writer)
    with open(reader, encoding="ascii", newline="") as file:
        return file.read()


def unescaped(text: str) -> bytes:
    """What ``escape`` was given. The round trip proves that no two requests look alike in the log."""
    pattern = re.compile(r"\\x([0-9a-f]{2})|\\([\"\\])|([^\"\\])")
    out = bytearray()
    position = 0
    while position < len(text):
        match = pattern.match(text, position)
        assert match is not None, text[position:]
        out += bytes.fromhex(match[1]) if match[1] else (match[2] or match[3]).encode("ascii")
        position = match.end()
    return bytes(out)


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        ((CLIENT, "GET", b"/path?x=1", "1.1", 200), '127.0.0.1:54321 - "GET /path?x=1 HTTP/1.1" 200 OK'),
        ((None, "POST", b"/", "1.0", 404), '- - "POST / HTTP/1.0" 404 Not Found'),
        ((("::1", 0), "HEAD", b"*", "1.1", 301), '::1:0 - "HEAD * HTTP/1.1" 301 Moved Permanently'),
        ((CLIENT, "GET", b"/", "1.1", 299), '127.0.0.1:54321 - "GET / HTTP/1.1" 299'),
        ((CLIENT, "GET", b"/", "1.1", 999), '127.0.0.1:54321 - "GET / HTTP/1.1" 999'),
        ((CLIENT, "GET", b"", "1.1", 500), '127.0.0.1:54321 - "GET  HTTP/1.1" 500 Internal Server Error'),
        (
            (CLIENT, "GET", b'/"\\\r\n\x7f\xff', "1.1", 200),
            r'127.0.0.1:54321 - "GET /\"\\\x0d\x0a\x7f\xff HTTP/1.1" 200 OK',
        ),
        ((("p\xfcr\nvil", 1), "G\x1bT", b"/", "1.1", 200), r'p\xc3\xbcr\x0avil:1 - "G\x1bT / HTTP/1.1" 200 OK'),
        ((("::1%eth\udc80", -1), "GET", b"/", "1.1", 200), r'::1%eth\xed\xb2\x80:-1 - "GET / HTTP/1.1" 200 OK'),
        ((("10.0.0.1", None), "GET", b"/", "1.1", 200), '10.0.0.1:None - "GET / HTTP/1.1" 200 OK'),
        (("pipe", "GET", b"/", "1.1", 200), 'pipe - "GET / HTTP/1.1" 200 OK'),
    ],
)
def test_exact_line(request_: tuple[object, ...], line: str) -> None:
    assert lines_written(request_) == f"INFO:     {line}\n"


def test_exact_line_in_colours() -> None:
    line = lines_written((CLIENT, "GET", b"/", "1.1", 404), colors=True)
    bold = "\x1b[1mGET / HTTP/1.1\x1b[0m"
    assert line == f'\x1b[32mINFO\x1b[0m:     127.0.0.1:54321 - "{bold}" \x1b[31m404 Not Found\x1b[0m\n'


def formatted(*request: Any, fmt: str | None = None, colors: bool = False) -> str:
    """The line of a request by a logger and our formatter."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(AccessFormatter(fmt, use_colors=colors))
    logger = logging.Logger("lastcall.access")
    logger.addHandler(handler)
    report(LoggerAccess(logger), *request)
    return stream.getvalue()


@given(
    client=st.one_of(st.none(), st.tuples(st.text(), st.integers(0, 65535))),
    method=st.text(),
    target=st.binary(),
    status=st.integers(-1, 1100),
)
def test_a_request_is_one_printable_line(
    client: tuple[str, int] | None, method: str, target: bytes, status: int
) -> None:
    line = lines_written((client, method, target, "1.1", status))
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    assert line.isascii()
    shown = f"{escape(client[0])}:{client[1]}" if client else "-"
    assert line.startswith(f'INFO:     {shown} - "{escape(method)} {escape(target)} HTTP/1.1" {status}')


@given(st.binary())
def test_escaping_loses_nothing(data: bytes) -> None:
    assert unescaped(escape(data)) == data


@given(st.text())
def test_escaping_text_is_escaping_its_utf8(text: str) -> None:
    assert unescaped(escape(text)) == text.encode("utf-8", "surrogatepass")


@given(
    client=st.one_of(st.none(), st.tuples(st.text(), st.integers(0, 65535))),
    method=st.text(min_size=1),
    target=st.binary(),
    status=st.integers(100, 599),
    colors=st.booleans(),
)
def test_the_formatter_writes_the_same_line(
    client: tuple[str, int] | None, method: str, target: bytes, status: int, colors: bool
) -> None:
    request = (client, method, target, "1.1", status)
    assert formatted(*request, colors=colors) == lines_written(request, colors=colors)


# -- Responses that did not end as they should ------------------------------------------------------------------------


@pytest.mark.parametrize("colors", [False, True])
def test_a_cut_response_does_not_look_like_a_whole_one(colors: bool) -> None:
    whole = (CLIENT, "GET", b"/", "1.1", 200, 0.5, 40318)
    lines = lines_written(whole, (*whole, "cut"), colors=colors).splitlines()
    assert lines[1] == f"{lines[0]} (cut after 40318 bytes)"


@pytest.mark.parametrize(
    ("fmt", "shown"),
    [
        (None, '127.0.0.1:54321 - "GET /%s HTTP/1.1" 200 OK (cut after 91 bytes)'),
        ("%(status_code)s", "200 OK (cut after 91 bytes)"),
        ("%(message)s", '127.0.0.1:54321 - "GET /%s HTTP/1.1" 200 (cut after 91 bytes)'),
        ("%(mark)s %(bytes_sent)d", "cut 91"),
    ],
)
def test_the_mark_is_in_every_format(fmt: str | None, shown: str) -> None:
    line = formatted(CLIENT, "GET", b"/%s", "1.1", 200, 0.0, 91, "cut", fmt=fmt)
    assert line.removeprefix("INFO:     ") == f"{shown}\n"


def test_another_mark_says_what_it_is() -> None:
    """For what a server answers in the application's place with a status that says nothing of it."""
    line = lines_written((CLIENT, "GET", b"/", "1.1", 200, 0.5, 12, "refused"))
    assert line.endswith('" 200 OK (refused)\n')


def test_a_formatter_of_uvicorns_can_read_the_record() -> None:
    """Its arguments are five, whatever became of the response."""
    kept = logging.handlers.BufferingHandler(10)
    logger = logging.Logger("lastcall.access")
    logger.addHandler(kept)
    report(LoggerAccess(logger), CLIENT, "GET", b"/", "1.1", 200, bytes_sent=91, mark="cut")
    assert kept.buffer[0].args == ("127.0.0.1:54321", "GET", "/", "1.1", 200)


@given(
    client=st.one_of(st.none(), st.tuples(st.text(), st.integers(0, 65535))),
    target=st.binary(),
    status=st.integers(100, 599),
    size=st.integers(0, 2**63 - 1),
    colors=st.booleans(),
)
def test_the_formatter_writes_the_same_line_for_a_cut_response(
    client: tuple[str, int] | None, target: bytes, status: int, size: int, colors: bool
) -> None:
    request = (client, "GET", target, "1.1", status, 0.0, size, "cut")
    assert formatted(*request, colors=colors) == lines_written(request, colors=colors)


def test_base_sink_drops_everything() -> None:
    sink = AccessSink()
    numbered(sink, 1)
    sink.flush()
    assert not sink.enabled


def test_lines_are_written_by_flush(pipe: Pipe) -> None:
    sink = AccessLog(Output(pipe.writer))
    assert sink.enabled
    numbered(sink, 1)
    numbered(sink, 2)
    assert pipe.read() == b""
    sink.flush()
    assert pipe.read().splitlines() == [line_of(1), line_of(2)]
    sink.flush()
    assert pipe.read() == b""


def test_many_lines_are_written_before_the_flush(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        sink = AccessLog(Output(file.fileno()))
        for number in range(3000):
            numbered(sink, number)
        assert 2 * LIMIT < path.stat().st_size < sum(len(line_of(number)) + 1 for number in range(3000))
        sink.flush()
    assert path.read_bytes().splitlines() == [line_of(number) for number in range(3000)]


def test_a_line_may_be_longer_than_the_buffer(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        sink = AccessLog(Output(file.fileno()))
        report(sink, CLIENT, "GET", b"\n" * LIMIT, "1.1", 200)
        numbered(sink, 1)
        sink.flush()
    first, second = path.read_bytes().splitlines()
    assert first == b'INFO:     127.0.0.1:54321 - "GET ' + b"\\x0a" * LIMIT + b' HTTP/1.1" 200 OK'
    assert second == line_of(1)


@pytest.mark.parametrize("nowait", [True, False])
def test_a_pipe_that_nobody_reads_drops_lines_and_says_so(pipe: Pipe, nowait: bool) -> None:
    before = fcntl.fcntl(pipe.writer, fcntl.F_GETFL)
    sink = AccessLog(Output(pipe.writer, nowait=nowait))
    count = 0
    while sink.dropped < 100:
        numbered(sink, count)
        sink.flush()
        count += 1
    data = b""
    while part := pipe.read():
        data += part
        sink.flush()
    numbered(sink, count)
    sink.flush()
    *lines, last = (data + pipe.read()).splitlines()
    kept = count - 100
    assert kept * len(line_of(1000)) > LIMIT, "what fits into memory was not kept"
    assert lines[:kept] == [line_of(number) for number in range(kept)]
    assert lines[kept:] == [b"WARNING:  lastcall could not write 100 lines of the access log"]
    assert last == line_of(count)
    assert sink.dropped == 0
    assert fcntl.fcntl(pipe.writer, fcntl.F_GETFL) == before, "the pipe is shared: its flags are not ours"


def test_memory_is_bounded_while_nobody_reads(pipe: Pipe) -> None:
    pipe.fill()
    sink = AccessLog(Output(pipe.writer))
    report(sink, CLIENT, "GET", b"x" * LIMIT, "1.1", 200)
    for number in range(10):
        numbered(sink, number)
    assert sink.dropped == 10


def test_a_pipe_without_a_reader(pipe: Pipe) -> None:
    sink = AccessLog(Output(pipe.writer))
    os.close(pipe.reader)
    for number in range(3):
        numbered(sink, number)
        sink.flush()
    assert sink.dropped == 3
    reader, writer = os.pipe()  # standard output is pointed elsewhere
    os.dup2(writer, pipe.writer)
    os.close(writer)
    numbered(sink, 3)
    sink.flush()
    again = Pipe(reader, pipe.writer)
    assert again.read().splitlines() == [b"WARNING:  lastcall could not write 3 lines of the access log", line_of(3)]
    numbered(sink, 4)
    sink.flush()
    assert again.read().splitlines() == [line_of(4)]
    os.close(reader)


def test_a_full_device() -> None:
    with open("/dev/full", "wb", buffering=0) as device:
        sink = AccessLog(Output(device.fileno()))
        numbered(sink, 1)
        sink.flush()
        numbered(sink, 2)
        sink.flush()
        assert sink.dropped == 2


def test_a_descriptor_that_was_closed(pipe: Pipe) -> None:
    sink = AccessLog(Output(pipe.writer))
    os.close(pipe.writer)
    numbered(sink, 1)
    sink.flush()
    assert sink.dropped == 1


def test_a_disk_that_fills_up_in_mid_line(tmp_path: Path) -> None:
    """The line that was torn ends before the next one begins, and counts as missing."""
    path = tmp_path / "log"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with path.open("wb") as file:
        sink = AccessLog(Output(file.fileno()))
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
            for number in range(1, 4):
                numbered(sink, number)
            sink.flush()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        numbered(sink, 4)
        sink.flush()
    torn = line_of(2)[: 100 - len(line_of(1)) - 1]
    missing = b"WARNING:  lastcall could not write 2 lines of the access log"
    assert path.read_bytes().splitlines() == [line_of(1), torn, missing, line_of(4)]


def test_what_was_printed_before_comes_first(pipe: Pipe) -> None:
    with pipe.text() as stream:
        sink = AccessLog(Output(pipe.writer, stream))
        stream.write("printed\n")
        numbered(sink, 1)
        sink.flush()
        assert pipe.read().splitlines() == [b"printed", line_of(1)]


def test_a_print_into_a_full_pipe_does_not_stop_the_flush(pipe: Pipe) -> None:
    stream = pipe.text()
    sink = AccessLog(Output(pipe.writer, stream))
    pipe.fill()
    stream.write("printed\n")
    numbered(sink, 1)
    sink.flush()
    pipe.read()
    sink.flush()
    assert pipe.read().splitlines() == [b"printed", line_of(1)]
    stream.close()


def test_nothing_goes_to_the_next_owner_of_a_closed_streams_number(tmp_path: Path) -> None:
    stream = (tmp_path / "log").open("w")
    number = stream.fileno()
    sink = AccessLog(Output(number, stream))
    stream.close()
    with (tmp_path / "somebody else's").open("wb") as other:
        assert other.fileno() == number, "the lowest free number, which is the one that was just given back"
        numbered(sink, 1)
        sink.flush()
    assert (tmp_path / "somebody else's").read_bytes() == b""
    assert sink.dropped == 1


def test_a_socket_that_nobody_reads() -> None:
    """Standard output of a systemd service is a socket."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sink = AccessLog(Output(ours.fileno()))
        count = 0
        while sink.dropped < 5:
            numbered(sink, count)
            sink.flush()
            count += 1
        theirs.setblocking(False)
        data = b""
        while True:
            try:
                data += theirs.recv(1 << 20)
            except BlockingIOError:
                sink.flush()
                if sink.dropped == 0:
                    break
        data += theirs.recv(1 << 20)
    kept = count - 5
    assert data.splitlines()[:kept] == [line_of(number) for number in range(kept)]
    assert data.splitlines()[kept:] == [b"WARNING:  lastcall could not write 5 lines of the access log"]


def test_a_terminal_that_nobody_reads(terminal: Callable[[], tuple[int, io.TextIOWrapper]]) -> None:
    master, slave = terminal()
    sink = AccessLog(Output(slave.fileno(), slave))
    count = 0
    while sink.dropped < 5:
        numbered(sink, count)
        sink.flush()
        count += 1
    os.set_blocking(master, False)
    data = b""
    while sink.dropped:
        try:
            data += os.read(master, 1 << 20)
        except BlockingIOError:
            sink.flush()
    assert data.splitlines()[:10] == [line_of(number) for number in range(10)]


def test_nonsense_is_dropped_and_counted(pipe: Pipe) -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise RuntimeError

    sink = AccessLog(Output(pipe.writer))
    report(sink, Unprintable(), "GET", b"/", "1.1", 200)  # type: ignore[arg-type]
    assert sink.dropped == 1
    numbered(sink, 1)
    sink.flush()
    assert pipe.read().splitlines() == [b"WARNING:  lastcall could not write 1 line of the access log", line_of(1)]


WRITER = """
import sys
from lastcall.observe.access import AccessLog, report
from lastcall.observe.output import Output
sink = AccessLog(Output(1))
sys.stdin.read()
for number in range(4000):
    report(sink, (sys.argv[1], 1), "GET", b"/%d" % number, "1.1", 200)
    if number % 7 == 0:
        sink.flush()
    while sink.dropped:
        sink.flush()
sink.flush()
"""


@pytest.mark.slow
def test_lines_of_several_processes_stay_whole(pipe: Pipe) -> None:
    def start(name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", WRITER, name], stdin=subprocess.PIPE, stdout=pipe.writer)

    with start("a") as first, start("b") as second:
        os.close(pipe.writer)
        for process in (first, second):
            assert process.stdin is not None
            process.stdin.close()
        with open(pipe.reader, "rb", closefd=False) as file:
            lines = file.read().splitlines()
    assert (first.returncode, second.returncode) == (0, 0)
    shape = re.compile(rb'INFO:     [ab]:1 - "GET /\d+ HTTP/1\.1" 200 OK')
    assert [line for line in lines if not shape.fullmatch(line) and not MISSING.fullmatch(line)] == []
    assert len(lines) > 4000


class Keeper(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def test_the_record_has_uvicorns_arguments() -> None:
    keeper = Keeper()
    logger = logging.Logger("lastcall.access")
    logger.addHandler(keeper)
    report(LoggerAccess(logger), CLIENT, "GET", b'/a"b', "1.1", 200, 0.25, 1234)
    report(LoggerAccess(logger), None, "PUT", b"/", "1.0", 404)
    first, second = keeper.records
    assert first.args == ("127.0.0.1:54321", "GET", '/a\\"b', "1.1", 200)
    assert first.getMessage() == '127.0.0.1:54321 - "GET /a\\"b HTTP/1.1" 200'
    assert (vars(first)["duration"], vars(first)["bytes_sent"]) == (0.25, 1234)
    assert second.args == ("-", "PUT", "/", "1.0", 404)
    assert {record.levelno for record in keeper.records} == {logging.INFO}


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
@pytest.mark.usefixtures("loggers")
def test_a_logger_that_raises_is_reported_once(error: type[BaseException]) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise error("as a handler should not")

    keeper = Keeper()
    logging.getLogger("lastcall.error").addHandler(keeper)
    logger = logging.Logger("lastcall.access")
    logger.addHandler(Broken())
    sink = LoggerAccess(logger)
    numbered(sink, 1)
    numbered(sink, 2)
    assert [record.getMessage() for record in keeper.records] == ["The access log's logger failed"]
    assert keeper.records[0].exc_info is not None
    assert keeper.records[0].exc_info[0] is error


def test_an_interrupt_in_a_handler_is_not_lost() -> None:
    class Interrupted(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise KeyboardInterrupt

    logger = logging.Logger("lastcall.access")
    logger.addHandler(Interrupted())
    sink = LoggerAccess(logger)

    def interrupted() -> None:
        numbered(sink, 1)
        time.sleep(10)  # not one second of it: the interrupt comes back at one of the next bytecodes

    with pytest.raises(KeyboardInterrupt):
        interrupted()
