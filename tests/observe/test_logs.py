from __future__ import annotations

import copy
import errno
import io
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from lastcall.base.errors import ConfigError
from lastcall.base.options import LogOptions
from lastcall.base.sinks import AccessSink
from lastcall.observe.access import AccessLog, ChosenAccess, LoggerAccess, report, wants
from lastcall.observe.logs import (
    LOGGING_CONFIG,
    PATIENCE,
    AccessFormatter,
    DefaultFormatter,
    LogHandler,
    configure_logging,
    make_access_sink,
    output_of,
    parse_level,
)
from lastcall.observe.output import Output
from tests.observe.conftest import Pipe

pytestmark = pytest.mark.usefixtures("loggers")
CLIENT = ("127.0.0.1", 54321)
ACCESS_LINE = 'INFO:     127.0.0.1:54321 - "GET / HTTP/1.1" 200 OK\n'

Terminal = Callable[[], tuple[int, io.TextIOWrapper]]

# A configuration that changes every line, so that a test sees whether it was applied.
CUSTOM: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "default": {"()": "lastcall.observe.logs.DefaultFormatter", "fmt": "custom %(levelprefix)s %(message)s"},
        "access": {
            "()": "lastcall.observe.logs.AccessFormatter",
            "fmt": "custom %(client_addr)s %(method)s %(full_path)s %(http_version)s %(status_code)s",
        },
    },
    "handlers": {
        "default": {"class": "logging.StreamHandler", "formatter": "default", "stream": "ext://sys.stderr"},
        "access": {"class": "logging.StreamHandler", "formatter": "access", "stream": "ext://sys.stdout"},
    },
    "loggers": {
        "lastcall": {"handlers": ["default"], "level": "INFO", "propagate": False},
        "lastcall.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
    },
}
CUSTOM_INI = """
[loggers]
keys=root,lastcall,access
[handlers]
keys=default,access
[formatters]
keys=default,access
[logger_root]
handlers=
[logger_lastcall]
qualname=lastcall
level=INFO
handlers=default
propagate=0
[logger_access]
qualname=lastcall.access
level=INFO
handlers=access
propagate=0
[handler_default]
class=StreamHandler
formatter=default
args=(sys.stderr,)
[handler_access]
class=StreamHandler
formatter=access
args=(sys.stdout,)
[formatter_default]
class=lastcall.observe.logs.DefaultFormatter
format=custom %(levelprefix)s %(message)s
[formatter_access]
class=lastcall.observe.logs.AccessFormatter
format=custom %(client_addr)s %(method)s %(full_path)s %(http_version)s %(status_code)s
"""


def error(message: str, *args: object) -> None:
    logging.getLogger("lastcall.error").error(message, *args)


def chosen(options: LogOptions) -> AccessSink:
    """The sink that fits at this moment."""
    sink = make_access_sink(options)
    return sink.sink if isinstance(sink, ChosenAccess) else sink


def ask(sink: AccessSink) -> None:
    """One response, in a turn of its own."""
    report(sink, CLIENT, "GET", b"/", "1.1", 200)
    sink.flush()


def access(options: LogOptions) -> AccessSink:
    sink = chosen(options)
    ask(sink)
    return sink


def ini_parser() -> RawConfigParser:
    parser = RawConfigParser()
    parser.read_string(CUSTOM_INI)
    return parser


# -- The default ------------------------------------------------------------------------------------------------------


def test_messages_go_to_stderr_and_access_lines_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogOptions())
    logging.getLogger("lastcall.error").info("ready")
    logging.getLogger("lastcall.error").warning("%s", "careful")
    logging.getLogger("lastcall.error").critical("gone")
    logging.getLogger("lastcall.error").debug("not shown")
    access(LogOptions())
    assert capsys.readouterr() == (ACCESS_LINE, "INFO:     ready\nWARNING:  careful\nCRITICAL: gone\n")


def test_both_go_to_a_given_stream() -> None:
    stream = io.StringIO()
    configure_logging(LogOptions(), stream=stream)
    error("message")
    access(LogOptions())
    assert stream.getvalue() == "ERROR:    message\n" + ACCESS_LINE


def test_the_root_logger_gets_nothing(caplog: pytest.LogCaptureFixture) -> None:
    configure_logging(LogOptions(), stream=io.StringIO())
    error("message")
    access(LogOptions())
    assert caplog.records == []


def test_tracebacks_follow_the_message() -> None:
    stream = io.StringIO()
    configure_logging(LogOptions(), stream=stream)
    try:
        raise LookupError("cause")
    except LookupError:
        logging.getLogger("lastcall.error").exception("failed")
    lines = stream.getvalue().splitlines()
    assert (lines[0], lines[1], lines[-1]) == (
        "ERROR:    failed",
        "Traceback (most recent call last):",
        "LookupError: cause",
    )


def test_configuring_again_replaces_only_what_is_ours() -> None:
    first, second, foreign = io.StringIO(), io.StringIO(), logging.StreamHandler(io.StringIO())
    configure_logging(LogOptions(), stream=first)
    logging.getLogger("lastcall").addHandler(foreign)
    configure_logging(LogOptions(), stream=second)
    error("message")
    access(LogOptions())
    assert first.getvalue() == "ERROR:    message\n"
    assert second.getvalue() == ACCESS_LINE
    assert foreign.stream.getvalue() == "message\n"


def test_a_logger_with_handlers_of_its_own_gets_no_second_one() -> None:
    stream, own = io.StringIO(), logging.StreamHandler(io.StringIO())
    logging.getLogger("lastcall.access").addHandler(own)
    configure_logging(LogOptions(), stream=stream)
    access(LogOptions())
    assert own.stream.getvalue() == '127.0.0.1:54321 - "GET / HTTP/1.1" 200\n'
    assert stream.getvalue() == ""


def test_without_descriptors_there_is_nowhere_to_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    configure_logging(LogOptions())
    error("message")
    assert not chosen(LogOptions()).enabled


def test_without_stdout_access_lines_do_not_go_to_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    configure_logging(LogOptions())
    logging.getLogger("lastcall.access").info('%s - "%s %s HTTP/%s" %d', "-", "GET", "/", "1.1", 200)
    assert capsys.readouterr().err == ""


# -- Levels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "number"),
    [
        ("critical", 50),
        ("error", 40),
        ("Warning", 30),
        (" INFO ", 20),
        ("debug", 10),
        ("trace", 5),
        (15, 15),
        ("15", 15),
        (0, 1),
        (None, None),
    ],
)
def test_levels(given: str | int | None, number: int | None) -> None:
    assert parse_level(given) == number


@pytest.mark.parametrize("given", ["loud", "", "-1", -1, True, "1.5"])
def test_a_level_that_does_not_exist(given: str | int) -> None:
    with pytest.raises(ConfigError) as caught:
        configure_logging(LogOptions(level=given))
    assert (caught.value.option, caught.value.value) == ("--log-level", given)
    assert all(name in caught.value.expected for name in ("critical", "trace"))


def test_the_level_decides_what_is_logged() -> None:
    stream = io.StringIO()
    configure_logging(LogOptions(level="trace"), stream=stream)
    logging.getLogger("lastcall.error").log(5, "detail")
    configure_logging(LogOptions(level="error"), stream=stream)
    logging.getLogger("lastcall.error").warning("not shown")
    assert stream.getvalue() == "TRACE:    detail\n"


def test_no_level_means_info() -> None:
    configure_logging(LogOptions(level=None), stream=io.StringIO())
    assert logging.getLogger("lastcall.error").getEffectiveLevel() == logging.INFO


# -- Colours ----------------------------------------------------------------------------------------------------------


def shown(master: int) -> str:
    return os.read(master, 4096).decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("use_colors", "environment", "expected"),
    [
        (None, {"TERM": "xterm"}, True),
        (None, {"TERM": "xterm", "NO_COLOR": ""}, True),
        (None, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (None, {"TERM": "dumb"}, False),
        (True, {"TERM": "dumb", "NO_COLOR": "1"}, True),
        (False, {"TERM": "xterm"}, False),
    ],
)
def test_colours_on_a_terminal(
    terminal: Terminal,
    monkeypatch: pytest.MonkeyPatch,
    use_colors: bool | None,
    environment: dict[str, str],
    expected: bool,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    master, stream = terminal()
    options = LogOptions(use_colors=use_colors)
    configure_logging(options, stream=stream)
    error("message")
    message = "\x1b[31mERROR\x1b[0m:    message\n" if expected else "ERROR:    message\n"
    assert shown(master) == message
    assert isinstance(access(options), AccessLog)
    bold = "\x1b[1mGET / HTTP/1.1\x1b[0m"
    coloured = f'\x1b[32mINFO\x1b[0m:     127.0.0.1:54321 - "{bold}" \x1b[32m200 OK\x1b[0m\n'
    assert shown(master) == (coloured if expected else ACCESS_LINE)


def test_no_colours_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    with (tmp_path / "log").open("w") as stream:
        configure_logging(LogOptions(), stream=stream)
        error("message")
        access(LogOptions())
    assert (tmp_path / "log").read_text() == "ERROR:    message\n" + ACCESS_LINE


# -- Formatters -------------------------------------------------------------------------------------------------------


def record(message: str, *args: object, level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("lastcall.access", level, "file.py", 1, message, args, None)


def test_the_record_itself_is_not_changed() -> None:
    given = record("%s", "message")
    before = dict(vars(given))
    assert DefaultFormatter(use_colors=True).format(given) == "\x1b[32mINFO\x1b[0m:     message"
    assert vars(given).keys() - before.keys() == {"message"}, "what logging.Formatter itself sets"


def test_every_field_of_an_access_record() -> None:
    fields = ("client_addr", "method", "full_path", "http_version", "status_code", "request_line", "levelprefix")
    formatter = AccessFormatter("|".join(f"%({name})s" for name in fields), use_colors=False)
    line = formatter.format(record('%s - "%s %s HTTP/%s" %d', "1.2.3.4:5", "GET", "/a", "1.1", 503))
    assert line == "1.2.3.4:5|GET|/a|1.1|503 Service Unavailable|GET /a HTTP/1.1|INFO:    "


@pytest.mark.parametrize("args", [(), ("a", "b", "c", "d", "e"), ("only",)])
def test_an_access_formatter_takes_any_record(args: tuple[object, ...]) -> None:
    message = " ".join(["%s"] * len(args)) or "plain"
    line = AccessFormatter(use_colors=False).format(record(message, *args))
    assert line == f'INFO:     - - "{message % args}" '


def test_other_styles_and_dates() -> None:
    formatter = DefaultFormatter("{levelprefix} {asctime} {message}", "%Y", "{", use_colors=False)
    assert re.fullmatch(r"INFO:     \d{4} message", formatter.format(record("message")))


def test_an_unknown_level_has_no_colour() -> None:
    given = record("message", level=logging.INFO + 1)
    assert DefaultFormatter(use_colors=True).format(given) == "Level 21: message"


# -- Custom configurations --------------------------------------------------------------------------------------------


def write(tmp_path: Path, name: str, text: str) -> str:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def from_file(name: str, text: str) -> Callable[[Path], object]:
    return lambda tmp_path: write(tmp_path, name, text)


@pytest.mark.parametrize(
    "make",
    [
        from_file("log.json", json.dumps(CUSTOM)),
        from_file("log.yaml", yaml.safe_dump(CUSTOM)),
        from_file("log.YML", yaml.safe_dump(CUSTOM)),
        from_file("log.ini", CUSTOM_INI),
        from_file("log.conf", CUSTOM_INI),
        lambda tmp_path: Path(write(tmp_path, "log.json", json.dumps(CUSTOM))),
        lambda _: CUSTOM,
        lambda _: ini_parser(),
        lambda _: io.StringIO(CUSTOM_INI),
    ],
    ids=["json", "yaml", "yml", "ini", "other", "path", "dict", "parser", "file"],
)
def test_a_custom_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], object]
) -> None:
    options = LogOptions(level=None, config=make(tmp_path))
    configure_logging(options)
    error("message")
    assert isinstance(access(options), LoggerAccess)
    assert capsys.readouterr() == ("custom 127.0.0.1:54321 GET / 1.1 200 OK\n", "custom ERROR:    message\n")


def test_the_published_dictionary_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    before = copy.deepcopy(LOGGING_CONFIG)
    options = LogOptions(level=None, config=LOGGING_CONFIG, use_colors=False)
    configure_logging(options)
    error("message")
    assert isinstance(access(options), LoggerAccess)
    assert capsys.readouterr() == (ACCESS_LINE, "ERROR:    message\n")
    assert before == LOGGING_CONFIG


def test_colours_are_handed_on_to_formatters_that_leave_them_open(capsys: pytest.CaptureFixture[str]) -> None:
    config = copy.deepcopy(LOGGING_CONFIG)
    config["formatters"]["access"]["use_colors"] = False
    configure_logging(LogOptions(level=None, config=config, use_colors=True))
    error("message")
    access(LogOptions(config=config))
    assert capsys.readouterr() == (ACCESS_LINE, "\x1b[31mERROR\x1b[0m:    message\n")


@pytest.mark.parametrize(("level", "lines"), [(None, 1), ("debug", 2), ("critical", 0)])
def test_a_given_level_overrides_the_configuration(
    capsys: pytest.CaptureFixture[str], level: str | None, lines: int
) -> None:
    configure_logging(LogOptions(level=level, config=CUSTOM))
    error("message")
    logging.getLogger("lastcall.error").debug("detail")
    assert len(capsys.readouterr().err.splitlines()) == lines
    assert chosen(LogOptions(config=CUSTOM)).enabled is (level != "critical")


def test_an_incremental_configuration_leaves_logging_alone(capsys: pytest.CaptureFixture[str]) -> None:
    own = logging.StreamHandler(io.StringIO())
    logging.getLogger("lastcall").addHandler(own)
    logging.getLogger("lastcall").setLevel(logging.INFO)
    options = LogOptions(level=None, config={"version": 1, "incremental": True})
    configure_logging(options)
    error("message")
    access(options)
    assert own.stream.getvalue() == 'message\n127.0.0.1:54321 - "GET / HTTP/1.1" 200\n'
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("disable", [True, False])
def test_disable_existing_loggers_is_respected(disable: bool) -> None:
    configure_logging(LogOptions(level=None, config={"version": 1, "disable_existing_loggers": disable}))
    assert logging.getLogger("lastcall.error").disabled is disable


def test_a_configuration_for_uvicorn_gets_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    config = copy.deepcopy(CUSTOM)
    config["loggers"] = {"uvicorn.access": {"handlers": ["access"], "level": "INFO"}}
    config["root"] = {"handlers": ["default"], "level": "INFO"}
    configure_logging(LogOptions(level=None, config=config))
    assert "lastcall.access" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("log.json", "{", "line 1 column 2"),
        ("log.json", "[]", ""),
        ("log.yaml", "a: [", "YAML"),
        ("log.yaml", "just text", ""),
        ("log.json", "{}", "version"),
        ("log.ini", "[loggers]\nkeys=root\n", "formatters"),
        ("log.ini", "text", ""),
        ("log.yaml", "\udcff", "UTF-8"),
        ("log.json", '{"version": 1, "handlers": {"h": {"class": "no.such.Handler"}}}', "'h'"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, name: str, text: str, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        configure_logging(LogOptions(config=str(path)))
    assert (caught.value.option, caught.value.value) == ("--log-config", str(path))
    assert reason in caught.value.expected
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.json", "missing.yaml", "missing.ini"])
def test_a_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configure_logging(LogOptions(config=tmp_path / name))
    assert (caught.value.option, caught.value.value) == ("--log-config", str(tmp_path / name))
    assert os.strerror(errno.ENOENT) in caught.value.expected


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        configure_logging(LogOptions(config=str(tmp_path)))
    assert os.strerror(errno.EISDIR) in caught.value.expected


@pytest.mark.parametrize(
    ("config", "shown"),
    [(42, 42), ({"version": 2}, "<dict>")],
)
def test_an_object_that_is_no_configuration(config: object, shown: object) -> None:
    with pytest.raises(ConfigError) as caught:
        configure_logging(LogOptions(config=config))
    assert (caught.value.option, caught.value.value) == ("--log-config", shown)


def test_yaml_without_pyyaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ConfigError, match=r"pip install 'lastcall\[yaml\]'$"):
        configure_logging(LogOptions(config=write(tmp_path, "log.yaml", yaml.safe_dump(CUSTOM))))


# -- Streams that fail ------------------------------------------------------------------------------------------------


def test_a_reader_that_is_gone(pipe: Pipe, capsys: pytest.CaptureFixture[str]) -> None:
    stream = pipe.text()
    configure_logging(LogOptions(), stream=stream)
    os.close(pipe.reader)
    error("one")
    error("two")
    reader, writer = os.pipe()
    os.dup2(writer, pipe.writer)
    os.close(writer)
    error("three")
    error("four")
    assert Pipe(reader, pipe.writer).read().decode().splitlines() == [
        "WARNING:  lastcall could not write 2 log message(s) before this one",
        "ERROR:    three",
        "ERROR:    four",
    ]
    os.close(reader)
    stream.close()
    assert capsys.readouterr() == ("", "")


def test_a_full_disk(capsys: pytest.CaptureFixture[str]) -> None:
    with open("/dev/full", "w") as stream:
        configure_logging(LogOptions(), stream=stream)
        error("message")
        assert isinstance(access(LogOptions()), AccessLog)
    assert capsys.readouterr() == ("", "")


def test_a_closed_stream(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stream = (tmp_path / "log").open("w")
    configure_logging(LogOptions(), stream=stream)
    error("before")
    stream.close()
    error("after")
    access(LogOptions())
    assert (tmp_path / "log").read_text() == "ERROR:    before\n"
    assert capsys.readouterr() == ("", "")


def test_a_stream_object_that_fails(capsys: pytest.CaptureFixture[str]) -> None:
    class Failing(io.StringIO):
        broken = True

        def write(self, text: str) -> int:
            if self.broken:
                raise OSError(28, "No space left on device")
            return super().write(text)

    stream = Failing()
    configure_logging(LogOptions(), stream=stream)
    error("one")
    stream.broken = False
    error("two")
    assert stream.getvalue().splitlines() == [
        "WARNING:  lastcall could not write 1 log message(s) before this one",
        "ERROR:    two",
    ]
    assert capsys.readouterr() == ("", "")


def test_a_pipe_that_nobody_reads_is_waited_for_once(pipe: Pipe) -> None:
    stream = pipe.text()
    configure_logging(LogOptions(), stream=stream)
    pipe.fill()
    start = time.monotonic()
    for number in range(100):
        error("%d", number)
    assert PATIENCE * 0.9 < time.monotonic() - start < PATIENCE * 50
    pipe.read()
    error("last")
    assert pipe.read().decode().splitlines() == [
        "WARNING:  lastcall could not write 100 log message(s) before this one",
        "ERROR:    last",
    ]
    stream.close()


def test_a_message_that_was_torn_is_ended(pipe: Pipe) -> None:
    stream = pipe.text()
    configure_logging(LogOptions(), stream=stream)
    message = "x" * 200_000
    error(message)
    torn = pipe.read().decode()
    assert not torn.endswith("\n")
    error("next")
    assert pipe.read().decode().splitlines() == [
        "",
        "WARNING:  lastcall could not write 1 log message(s) before this one",
        "ERROR:    next",
    ]
    stream.close()


def test_a_mistake_in_a_message_is_still_reported(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogOptions(), stream=io.StringIO())
    error("%d", "text")
    assert "--- Logging error ---" in capsys.readouterr().err


def test_a_message_that_the_stream_cannot_encode(pipe: Pipe) -> None:
    with io.TextIOWrapper(io.FileIO(pipe.writer, "w", closefd=False), encoding="ascii") as stream:
        configure_logging(LogOptions(), stream=stream)
        error("p\xfcr \udc80")
    assert pipe.read() == b"ERROR:    p\\xfcr \\udc80\n"


def test_what_was_printed_before_comes_first(pipe: Pipe) -> None:
    with pipe.text() as stream:
        configure_logging(LogOptions(), stream=stream)
        stream.write("printed\n")
        error("message")
        assert pipe.read() == b"printed\nERROR:    message\n"


def test_the_flush_at_the_end_does_not_wait_for_a_reader(pipe: Pipe) -> None:
    """``logging.shutdown`` flushes every handler; what the application printed may fill the pipe by then."""
    stream = pipe.text()
    configure_logging(LogOptions(), stream=stream)
    pipe.fill()
    stream.write("printed\n")
    for handler in logging.getLogger("lastcall").handlers:
        handler.flush()
    pipe.read()
    stream.close()
    assert pipe.read() == b"printed\n"


FAILING_STREAMS = """
import logging
from lastcall.base.options import LogOptions
from lastcall.observe.access import report
from lastcall.observe.logs import configure_logging, make_access_sink
configure_logging(LogOptions())
sink = make_access_sink(LogOptions())
assert type(sink.sink).__name__ == "AccessLog"
for _ in range(1000):
    report(sink, None, "GET", b"/", "1.1", 200)
    sink.flush()
    logging.getLogger("lastcall.error").error("message")
"""


@pytest.mark.slow
def test_streams_that_fail_do_not_change_the_exit_code(pipe: Pipe) -> None:
    os.close(pipe.reader)
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", FAILING_STREAMS], stdout=pipe.writer, stderr=full, timeout=20, check=False
        )
    assert done.returncode == 0


# -- Which way the access log takes -----------------------------------------------------------------------------------


# (configure_logging is called by the tests, not by a fixture: before a test pytest gives a handler of its own to every
# logger that does not propagate.)


@pytest.fixture
def stream(pipe: Pipe) -> Iterator[io.TextIOWrapper]:
    with pipe.text() as text:
        yield text


def test_the_default_is_compiled(pipe: Pipe, stream: io.TextIOWrapper) -> None:
    configure_logging(LogOptions(), stream=stream)
    assert isinstance(access(LogOptions()), AccessLog)
    assert pipe.read().decode() == ACCESS_LINE


def use_other_handler(logger: logging.Logger) -> None:
    logger.handlers = [logging.StreamHandler(io.StringIO())]


def use_formatter(logger: logging.Logger) -> None:
    logger.handlers[0].setFormatter(AccessFormatter("%(message)s"))


def use_record_factory(_: logging.Logger) -> None:
    class Record(logging.LogRecord):
        """With, say, the number of a trace."""

    logging.setLogRecordFactory(Record)


@pytest.mark.parametrize(
    "change",
    [
        lambda logger: logger.addHandler(logging.NullHandler()),
        lambda logger: logger.addFilter(logging.Filter()),
        lambda logger: logger.handlers[0].addFilter(logging.Filter()),
        lambda logger: logger.handlers[0].setLevel(logging.WARNING),
        lambda logger: setattr(logger, "propagate", True),
        use_other_handler,
        use_formatter,
        use_record_factory,
    ],
    ids=["handler", "filter", "handler filter", "handler level", "propagation", "replaced", "formatter", "factory"],
)
def test_what_the_application_changes_is_respected(
    stream: io.TextIOWrapper, change: Callable[[logging.Logger], None]
) -> None:
    configure_logging(LogOptions(), stream=stream)
    factory = logging.getLogRecordFactory()
    try:
        change(logging.getLogger("lastcall.access"))
        assert isinstance(chosen(LogOptions()), LoggerAccess)
    finally:
        logging.setLogRecordFactory(factory)


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (lambda logger: logger.setLevel(logging.WARNING), LogOptions()),
        (lambda logger: setattr(logger, "disabled", True), LogOptions()),
        (lambda logger: logger.handlers.clear(), LogOptions()),
        (lambda _: configure_logging(LogOptions(level="warning")), LogOptions(level="warning")),
        (lambda _: None, LogOptions(access_log=False)),
        (lambda _: None, LogOptions(access_log=False, config=CUSTOM)),
    ],
    ids=["level", "disabled", "no handler", "--log-level", "--no-access-log", "--no-access-log with a configuration"],
)
def test_nothing_is_recorded_where_nothing_would_be_written(
    pipe: Pipe, stream: io.TextIOWrapper, change: Callable[[logging.Logger], None], options: LogOptions
) -> None:
    configure_logging(LogOptions(), stream=stream)
    logger = logging.getLogger("lastcall.access")
    change(logger)
    assert not access(options).enabled or not logger.handlers
    assert pipe.read() == b""


def keep_nothing(logger: logging.Logger) -> None:
    logger.addFilter(lambda record: False)


def close_the_door(logger: logging.Logger) -> None:
    logger.handlers[0].addFilter(lambda record: False)


def replace_filters(logger: logging.Logger) -> None:
    logger.filters = [lambda record: False]  # as some programs do, past addFilter()


QUIET: list[Callable[[logging.Logger], None]] = [
    lambda logger: logger.setLevel(logging.WARNING),
    lambda logger: logging.getLogger("lastcall").setLevel(logging.WARNING),
    lambda logger: logging.disable(logging.INFO),
    lambda logger: setattr(logger, "disabled", True),
    lambda logger: logger.handlers[0].setLevel(logging.WARNING),
    lambda logger: logger.handlers.clear(),
    lambda logger: logger.removeHandler(logger.handlers[0]),
    keep_nothing,
    close_the_door,
    replace_filters,
]


@pytest.mark.parametrize("change", QUIET, ids=range(len(QUIET)))
def test_what_is_switched_off_while_serving_is_off(
    pipe: Pipe, stream: io.TextIOWrapper, change: Callable[[logging.Logger], None]
) -> None:
    configure_logging(LogOptions(), stream=stream)
    sink = make_access_sink(LogOptions())
    ask(sink)
    assert pipe.read().decode() == ACCESS_LINE
    try:
        change(logging.getLogger("lastcall.access"))
        ask(sink)
        assert pipe.read() == b""
    finally:
        logging.disable(logging.NOTSET)


def test_what_is_switched_on_while_serving_is_on_and_compiled_again(pipe: Pipe, stream: io.TextIOWrapper) -> None:
    configure_logging(LogOptions(level="warning"), stream=stream)
    sink = make_access_sink(LogOptions(level="warning"))
    ask(sink)
    logging.getLogger("lastcall").setLevel(logging.INFO)
    ask(sink)
    assert pipe.read().decode() == ACCESS_LINE
    assert isinstance(sink, ChosenAccess)
    assert isinstance(sink.sink, AccessLog)


def test_another_place_for_access_lines_while_serving(pipe: Pipe, stream: io.TextIOWrapper) -> None:
    """A handler beside ours, a formatter, another stream: each counts from the next response on."""
    configure_logging(LogOptions(), stream=stream)
    logger = logging.getLogger("lastcall.access")
    sink = make_access_sink(LogOptions())
    beside = logging.StreamHandler(io.StringIO())
    logger.addHandler(beside)
    ask(sink)
    assert pipe.read().decode() == ACCESS_LINE
    assert beside.stream.getvalue() == '127.0.0.1:54321 - "GET / HTTP/1.1" 200\n'
    logger.removeHandler(beside)
    logger.handlers[0].setFormatter(AccessFormatter("%(request_line)s"))
    ask(sink)
    assert pipe.read() == b"GET / HTTP/1.1\n"
    handler = logger.handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    elsewhere = io.StringIO()
    handler.setStream(elsewhere)
    ask(sink)
    assert (pipe.read(), elsewhere.getvalue()) == (b"", "GET / HTTP/1.1\n")


def test_lines_that_wait_are_not_lost_by_a_change(pipe: Pipe, stream: io.TextIOWrapper) -> None:
    """Within one turn of the loop the lines before a change are still to be written."""
    configure_logging(LogOptions(), stream=stream)
    sink = make_access_sink(LogOptions())
    report(sink, CLIENT, "GET", b"/", "1.1", 200)
    logging.getLogger("lastcall.access").setLevel(logging.WARNING)
    sink.flush()
    ask(sink)
    assert pipe.read().decode() == ACCESS_LINE


def test_what_is_not_shown_is_not_asked_for(pipe: Pipe, stream: io.TextIOWrapper) -> None:
    """Where no line would come of it, a response need not be described; a change of that shows at once."""
    configure_logging(LogOptions(level="warning"), stream=stream)
    sink = make_access_sink(LogOptions(level="warning"))
    access = logging.getLogger("lastcall.access")
    assert not wants(sink)
    access.setLevel(logging.INFO)
    sink.flush()
    assert wants(sink)
    access.setLevel(logging.WARNING)
    sink.flush()
    assert not wants(sink)
    assert wants(AccessLog(Output(pipe.writer)))
    assert not wants(make_access_sink(LogOptions(access_log=False)))


def test_lines_that_a_full_pipe_has_not_taken_come_after_a_change(pipe: Pipe, stream: io.TextIOWrapper) -> None:
    """None is lost, and those of the other sink do not wait for them."""
    configure_logging(LogOptions(), stream=stream)
    sink = make_access_sink(LogOptions())
    access = logging.getLogger("lastcall.access")
    handler = access.handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    pipe.fill()
    ask(sink)
    ask(sink)
    elsewhere = io.StringIO()
    handler.setStream(elsewhere)
    ask(sink)
    assert elsewhere.getvalue() == ACCESS_LINE
    while part := pipe.read():
        last = part
        sink.flush()
    assert last.decode().endswith(2 * ACCESS_LINE)


def test_lines_that_wait_come_once_and_in_order_where_the_same_stream_is_chosen_again(
    pipe: Pipe, stream: io.TextIOWrapper
) -> None:
    configure_logging(LogOptions(), stream=stream)
    sink = make_access_sink(LogOptions())
    access = logging.getLogger("lastcall.access")
    pipe.fill()
    for number in range(3):
        report(sink, CLIENT, "GET", b"/%d" % number, "1.1", 200)
        sink.flush()
        access.setLevel(logging.WARNING)
        report(sink, CLIENT, "GET", b"/not", "1.1", 200)
        sink.flush()
        access.setLevel(logging.INFO)
    data = b""
    while part := pipe.read():
        data += part
        sink.flush()
    targets = [line.split()[4] for line in data.splitlines() if b"HTTP/1.1" in line]
    assert targets == [b"/0", b"/1", b"/2"]


def test_lines_that_can_never_be_written_are_counted_by_the_next_log(pipe: Pipe, stream: io.TextIOWrapper) -> None:
    """Where the reader of the log before has gone, or more logs wait than are kept."""
    configure_logging(LogOptions(), stream=stream)
    sink = make_access_sink(LogOptions())
    handler = logging.getLogger("lastcall.access").handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    pipes = [Pipe(*os.pipe()) for _ in range(6)]
    texts = [one.text() for one in pipes]
    try:
        for one, text in zip(pipes, texts, strict=True):
            one.fill()
            handler.setStream(text)
            ask(sink)
        os.close(pipes[5].reader)
        handler.setStream(stream)
        ask(sink)
        lost = "WARNING:  lastcall could not write 2 lines of the access log\n"
        assert pipe.read().decode() == lost + ACCESS_LINE
        assert pipes[0].read().strip(b".") == b"", "more logs are kept than there is a bound for"
        for one in pipes[1:5]:
            one.read()
            sink.flush()
            assert one.read().decode() == ACCESS_LINE
    finally:
        handler.setStream(stream)
        for one, text in zip(pipes, texts, strict=True):
            text.close()
            os.close(one.writer)
            if one is not pipes[5]:
                os.close(one.reader)


def test_only_plain_text_files_are_bypassed(tmp_path: Path) -> None:
    class Wrapper(io.TextIOWrapper):
        """May do anything to what is written."""

    class Shouting(io.FileIO):
        """A raw file whose ``write`` does more than to write."""

    path = tmp_path / "log"
    with (
        path.open("w") as plain,
        io.TextIOWrapper(path.open("wb", buffering=0)) as unbuffered,
        Wrapper(path.open("wb")) as wrapper,
        io.TextIOWrapper(io.BufferedWriter(Shouting(path, "w"))) as shouting,
        path.open("w", encoding="utf-16-le") as wide,
    ):
        assert output_of(plain) is not None
        assert output_of(unbuffered) is not None
        assert output_of(wrapper) is None
        assert output_of(shouting) is None
        assert output_of(wide) is None
    assert output_of(plain) is None, "closed"
    assert output_of(io.StringIO()) is None
    assert output_of(io.TextIOWrapper(io.BytesIO())) is None


def test_a_handler_follows_its_stream(tmp_path: Path) -> None:
    handler = LogHandler(io.StringIO())
    with (tmp_path / "log").open("w") as file:
        handler.setStream(file)
        handler.emit(record("message"))
    assert (tmp_path / "log").read_text() == "message\n"
