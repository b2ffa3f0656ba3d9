"""Set-up of stdlib logging, and the choice of the access log.

Three loggers: ``lastcall.error`` for everything the server has to say, ``lastcall.access`` for one record per response,
and their parent ``lastcall``. By default the first goes to standard error and the second to standard output, both in
uvicorn's format; neither reaches the root logger's handlers.

A custom configuration names these loggers where one for uvicorn names ``uvicorn``, ``uvicorn.error`` and
``uvicorn.access``; ``DefaultFormatter`` and ``AccessFormatter`` take the same format strings as uvicorn's, and
``LOGGING_CONFIG`` is a dictionary to start from.
"""

from __future__ import annotations

import copy
import io
import logging
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TextIO

from lastcall.base.errors import ConfigError
from lastcall.base.options import LogOptions
from lastcall.base.sinks import AccessSink
from lastcall.observe.access import AccessLog, ChosenAccess, LoggerAccess
from lastcall.observe.output import Output, expect_echo
from lastcall.observe.style import (
    BOLD,
    TRACE,
    is_terminal,
    level_prefix,
    mark_text,
    moves_cursor,
    paint,
    status_text,
    wants_colors,
)

if TYPE_CHECKING:
    from lastcall.base.progress import Progress
    from lastcall.observe.terminal import Terminal

    _StreamHandler = logging.StreamHandler[TextIO]
else:
    _StreamHandler = logging.StreamHandler

LEVELS = {
    "critical": logging.CRITICAL,
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": TRACE,
}
DEFAULT_FORMAT = "%(levelprefix)s %(message)s"
ACCESS_FORMAT = '%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s'

PATIENCE = 0.1
"""Seconds that one message waits for a reader of a full pipe. The messages after it do not wait until there is room."""

LOGGING_CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "default": {"()": "lastcall.observe.logs.DefaultFormatter", "fmt": DEFAULT_FORMAT, "use_colors": None},
        "access": {"()": "lastcall.observe.logs.AccessFormatter", "fmt": ACCESS_FORMAT, "use_colors": None},
    },
    "handlers": {
        "default": {"class": "lastcall.observe.logs.LogHandler", "formatter": "default", "stream": "ext://sys.stderr"},
        "access": {"class": "lastcall.observe.logs.LogHandler", "formatter": "access", "stream": "ext://sys.stdout"},
    },
    "loggers": {
        "lastcall": {"handlers": ["default"], "level": "INFO", "propagate": False},
        "lastcall.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
    },
}
"""The default set-up as a dictionary for ``logging.config``: copy it, change the copy, pass it as ``log_config``."""


class DefaultFormatter(logging.Formatter):
    """Knows ``%(levelprefix)s``: the level's name, a colon, and the spaces that align what follows.

    ``use_colors`` None: colours if standard error is a terminal and NO_COLOR is not set. The other parameters are those
    of ``logging.Formatter``.
    """

    default_format = DEFAULT_FORMAT

    def __init__(
        self,
        fmt: str | None = None,
        datefmt: str | None = None,
        style: Literal["%", "{", "$"] = "%",
        validate: bool = True,
        *,
        use_colors: bool | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        if fmt is None and style == "%":
            fmt = self.default_format
        super().__init__(fmt, datefmt, style, validate, defaults=defaults)
        self.use_colors = wants_colors(self.stream(), use_colors)

    @staticmethod
    def stream() -> TextIO | None:
        """Return the stream whose terminal decides about colours where ``use_colors`` does not."""
        return sys.stderr

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Add the fields to a copy, so that other handlers get the record as it was, and format that."""
        record = copy.copy(record)
        record.levelprefix = level_prefix(record.levelname, record.levelno, self.use_colors)
        self.add_fields(record)
        return super().formatMessage(record)

    def add_fields(self, record: logging.LogRecord) -> None:
        """Set further attributes on ``record``, which is a copy. For subclasses."""


class AccessFormatter(DefaultFormatter):
    """Knows ``%(client_addr)s``, ``%(request_line)s`` and ``%(status_code)s``.

    The last includes the reason phrase, and the mark of a response that was cut. They come from the record's ``args``,
    which are ``(client_addr, method, full_path, http_version, status_code)``; the three in the middle are fields too.
    For a record with other arguments the client is ``-``, the request line is the message, and the rest is empty.
    ``use_colors`` None looks at standard output.
    """

    default_format = ACCESS_FORMAT

    @staticmethod
    def stream() -> TextIO | None:
        """Access lines go to standard output."""
        return sys.stdout

    def add_fields(self, record: logging.LogRecord) -> None:
        """Split the arguments into the fields."""
        client_addr, method, full_path, http_version, status_code = "-", "", "", "", ""
        request_line = record.message
        if isinstance(record.args, tuple) and len(record.args) == 5 and isinstance(record.args[4], int):
            client_addr, method, full_path, http_version = map(str, record.args[:4])
            status_code = status_text(record.args[4], self.use_colors)
            status_code += mark_text(getattr(record, "mark", None), getattr(record, "bytes_sent", 0))
            request_line = f"{method} {full_path} HTTP/{http_version}"
        record.client_addr = client_addr
        record.method = method
        record.full_path = full_path
        record.http_version = http_version
        record.status_code = status_code
        record.request_line = paint(request_line, BOLD, self.use_colors)


class LogHandler(_StreamHandler):
    """A stream handler for which a stream that fails, or that nobody reads, is not an error.

    A line that cannot be written is lost: without a traceback on standard error, and with at most ``PATIENCE`` seconds
    of waiting. The next line that can be written says how many are missing. Lines for a real file, pipe, socket or
    terminal bypass the stream's buffer: what stays in there after a failure would fail again when the interpreter
    flushes it at its end, and turn the exit code into 120. A mistake in a format or its arguments is reported as ever.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._output: Output | None = None
        self._output_stream: TextIO | None = None
        self._dropped = 0
        self._stalled = False

    def emit(self, record: logging.LogRecord) -> None:
        """Format the record and write its line, if possible."""
        try:
            line = self.format(record) + self.terminator
        except Exception:
            self.handleError(record)
            return
        try:
            written = self._write(line)
        except (OSError, ValueError):
            written = False
        self._dropped = 0 if written else self._dropped + 1

    def _write(self, line: str) -> bool:
        """Whether the line, after a note about those before it, was written. Raises what the stream raises."""
        stream: TextIO | None = self.stream
        if stream is None:  # the descriptor was closed when the interpreter started
            return True
        if self._output_stream is not stream:
            self._output, self._output_stream = output_of(stream), stream
        if self._dropped:
            prefix = level_prefix("WARNING", logging.WARNING, getattr(self.formatter, "use_colors", False))
            line = f"{prefix} lastcall could not write {self._dropped} log message(s) before this one\n{line}"
        if self._output is None:
            stream.write(line)
            stream.flush()
            return True
        data = line.encode(stream.encoding, "backslashreplace")
        if self._output.torn:
            data = b"\n" + data
        written = self._output.write(data, 0.0 if self._stalled else PATIENCE)
        self._stalled = written < len(data)
        return not self._stalled

    def flush(self) -> None:
        """Do nothing: each line was written when it was logged, and the stream's own data is not ours to wait for."""


class _ServerHandler(LogHandler):
    """A handler that ``configure_logging`` has installed, and may replace. ``plain`` is the formatter it came with."""

    def __init__(self, stream: TextIO | None, formatter: DefaultFormatter) -> None:
        super().__init__(stream)
        if stream is None:  # without standard output, its lines do not go to standard error instead
            self.setStream(stream)  # type: ignore[arg-type]
        self.plain = formatter
        self.setFormatter(formatter)


def output_of(stream: TextIO) -> Output | None:
    """Return a way around the stream's buffer, or None where lines have to go through its ``write``.

    That is any stream that does more than to encode text for a descriptor (a notebook's, a wrapper that colours or
    copies, StringIO), and one whose encoding is no superset of ASCII.
    """
    if type(stream) is not io.TextIOWrapper:
        return None
    try:
        binary = stream.buffer
        raw = binary.raw if type(binary) is io.BufferedWriter else binary
        if type(raw) is not io.FileIO or "\n".encode(stream.encoding) != b"\n":
            return None
        return Output(raw.fileno(), stream)
    except (OSError, ValueError):  # closed
        return None


def parse_level(level: str | int | None) -> int | None:
    """Return the number of a level: one of ``LEVELS`` in any case, or a number. None stays None.

    0 gives 1, which means everything too: for a logger, 0 (NOTSET) would mean "as the root logger", which says warning.
    Raises ConfigError, naming ``--log-level``.
    """
    if level is None:
        return None
    number: int | None = None
    if isinstance(level, str):
        name = level.strip().lower()
        number = int(name) if name.isdecimal() else LEVELS.get(name)
    elif not isinstance(level, bool):
        number = level
    if number is None or number < 0:
        raise ConfigError("--log-level", level, f"{', '.join(LEVELS)}, or a number")
    return max(number, 1)


def configure_logging(options: LogOptions, *, stream: TextIO | None = None) -> None:
    """Set up the loggers ``lastcall``, ``lastcall.error`` and ``lastcall.access``.

    Without ``options.config``, messages go to standard error and access lines to standard output, or both go to
    ``stream``; the root logger's handlers get nothing. A logger that has somebody else's handlers keeps them and gets
    none of ours. Calling this again replaces only what it had set up itself. ``options.level`` None means info.

    ``options.config`` False leaves every logger as it is, but for the level, if one is given.

    Any other ``options.config`` is applied instead: a dictionary, the path of a ``.json``, ``.yaml`` or ``.yml`` file
    (all three for ``logging.config.dictConfig``), or of any other file (for ``fileConfig``, which takes an open file or
    a RawConfigParser as well). A level in ``options.level`` then overrides the configuration's.

    Raises ConfigError for a level or a configuration that cannot be used.
    """
    level = parse_level(options.level)
    if logging.getLevelName(TRACE) == f"Level {TRACE}":
        logging.addLevelName(TRACE, "TRACE")
    if options.config is None:
        _install("lastcall", DefaultFormatter, sys.stderr if stream is None else stream, options.use_colors)
        _install("lastcall.access", AccessFormatter, sys.stdout if stream is None else stream, options.use_colors)
        logging.getLogger("lastcall").setLevel(logging.INFO if level is None else level)
        return
    if options.config is not False:
        from lastcall.observe.custom import apply  # noqa: PLC0415 - it needs logging.config, most servers do not

        apply(options.config, options.use_colors)
    if level is not None:
        for name in ("lastcall", "lastcall.error", "lastcall.access"):
            logging.getLogger(name).setLevel(level)


def reconfigure_logging(options: LogOptions) -> None:
    """Set them up again: what ``options`` names may say something else by now.

    Where that cannot be used, raises ConfigError, and all is as before. Handlers that have a true ``stays`` stay.
    """
    if options.config is None or options.config is False:
        configure_logging(options)
        return
    names = [name for name in logging.root.manager.loggerDict if not name.startswith("concurrent.")]
    loggers = [logging.getLogger(), *map(logging.getLogger, names)]
    before = [(one, one.level, one.propagate, one.disabled, list(one.handlers)) for one in loggers]
    try:
        configure_logging(options)
    except ConfigError:
        for one, level, propagate, disabled, handlers in before:
            one.setLevel(level)
            one.propagate, one.disabled, one.handlers = propagate, disabled, handlers
        raise
    for one, _, _, _, handlers in before:
        for handler in handlers:
            if getattr(handler, "stays", False):
                one.addHandler(handler)


def _install(name: str, formatter: type[DefaultFormatter], stream: TextIO | None, use_colors: bool | None) -> None:
    """Give the logger one handler of ours, unless it has others."""
    logger = logging.getLogger(name)
    ours = [handler for handler in logger.handlers if isinstance(handler, _ServerHandler)]
    if len(ours) < len(logger.handlers):
        return
    for handler in ours:
        logger.removeHandler(handler)
    logger.addHandler(_ServerHandler(stream, formatter(use_colors=wants_colors(stream, use_colors))))
    logger.propagate = False
    if name == "lastcall":  # messages of ours go there; access lines, whoever handles them, do not
        logging.getLogger("lastcall.access").propagate = False


class StopView:
    """Shows how far a stop has come: as a list at the terminal's end if that is ours alone, else as log lines.

    From the order on the terminal has one owner (``lastcall.observe.terminal``), so that neither the list nor a
    Ctrl-C's ``^C`` is glued to what others write. ``close()`` gives the terminal back. ``guest``: the list is the
    parent's, and what this process writes is kept out of it.
    """

    interrupted = staticmethod(expect_echo)
    """SIGINT has come. Called in its handler."""

    def __init__(self, *, guest: bool = False) -> None:
        self._guest = guest
        self.also: Callable[[Progress | None], None] | None = None  # who else is told
        self._terminal: Terminal | None = None
        self._lists = False  # whether messages, and so the list, belong there
        self._ordered = False

    def ordered(self) -> None:
        """The stop was ordered; nothing has been said about that yet. May be called again."""
        if not self._ordered:
            self._ordered = True
            self._terminal, self._lists = _take_terminal(guest=self._guest)

    def settle(self) -> None:
        """A stop signal has come, and others write to the terminal too: they begin below its ``^C``."""
        self.ordered()
        if self._terminal is not None:
            self._terminal.settle()

    def progress(self, progress: Progress | None) -> None:
        """What is left now; None: nothing any more."""
        self.ordered()
        if self._terminal is not None and self._lists:
            self._terminal.show(progress)
        elif progress is not None:
            logging.getLogger("lastcall.error").info("%s", progress)
        if self.also is not None:
            self.also(progress)

    def close(self) -> None:
        """The stop is over. May be called again, and in a signal handler."""
        terminal, self._terminal = self._terminal, None
        if terminal is not None:
            terminal.release()


def _take_terminal(*, guest: bool) -> tuple[Terminal | None, bool]:
    """Own the terminal that messages go to, else the one of access lines; whether messages go there, and nowhere else.

    None where there is none, or one that is dumb, or that somebody else owns.
    """
    handlers = [_only_handler("lastcall"), _only_handler("lastcall.access")]
    lists = logging.getLogger("lastcall.error").isEnabledFor(logging.INFO)
    for handler in handlers:
        if handler is not None and is_terminal(handler.stream) and moves_cursor():
            from lastcall.observe.terminal import Terminal  # noqa: PLC0415 - only for a stop, and only at a terminal

            terminal = Terminal.take(handler.stream, colors=handler.plain.use_colors, guest=guest)
            return terminal, lists and handler is handlers[0]
    return None, False


def _only_handler(name: str) -> _ServerHandler | None:
    """The handler of a logger that has just one, which is ours."""
    handlers = logging.getLogger(name).handlers
    handler = handlers[0] if len(handlers) == 1 else None
    return handler if isinstance(handler, _ServerHandler) else None


def make_access_sink(options: LogOptions) -> AccessSink:
    """Return the sink for finished responses. Call it after ``configure_logging``.

    While ``lastcall.access`` is as ``configure_logging`` made it, lines are formatted by compiled code and go straight
    to the descriptor; otherwise (``options.config``, other handlers or filters, a formatter, a class of loggers or
    records of the application's) each response is a record of that logger. Which of these is decided anew when
    something about the logger or its handlers has changed. ``enabled`` is false with ``--no-access-log``, for good.
    """
    if not options.access_log:
        return AccessSink()
    logger = logging.getLogger("lastcall.access")
    return ChosenAccess(lambda: _choose_sink(logger, plain=options.config is None), lambda: _watched(logger))


def _choose_sink(logger: logging.Logger, *, plain: bool) -> AccessSink:
    """The sink that fits how logging is set up now."""
    if not logger.isEnabledFor(logging.INFO):
        return AccessSink()
    handler = _plain_handler(logger) if plain else None
    if handler is None:
        return LoggerAccess(logger)
    stream: TextIO | None = handler.stream
    if stream is None:
        return AccessSink()
    output = output_of(stream)
    return LoggerAccess(logger) if output is None else AccessLog(output, colors=handler.plain.use_colors)


def _watched(logger: logging.Logger) -> list[tuple[dict[Any, Any], Any]]:
    """Where changes would show that ask for another choice: dictionaries, and keys in them."""
    # Each change of a level, of any logger or of logging.disable(), empties this cache, and isEnabledFor() fills it.
    logger.isEnabledFor(logging.INFO)
    found: list[tuple[dict[Any, Any], Any]] = [(logger._cache, logging.INFO)]  # type: ignore[attr-defined]
    found += [(vars(logger), name) for name in ("handlers", "filters", "propagate", "disabled")]
    for handler in logger.handlers:
        found += [(vars(handler), name) for name in ("level", "filters", "formatter", "stream")]
    found.append((vars(logging), "_logRecordFactory"))
    return found


def _plain_handler(logger: logging.Logger) -> _ServerHandler | None:
    """Return the logger's one handler if nothing about it, or on the way to it, differs from the default."""
    if len(logger.handlers) != 1 or not isinstance(logger.handlers[0], _ServerHandler):
        return None
    handler = logger.handlers[0]
    plain = (
        type(logger) is logging.Logger
        and logging.getLogRecordFactory() is logging.LogRecord
        and not (logger.propagate or logger.filters or handler.filters)
        and handler.level <= logging.INFO
        and handler.formatter is handler.plain
    )
    return handler if plain else None
