"""``lastcall migrate -- granian …``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import click

from lastcall.cli.migrate_table import TLS, Act, Row, application, flags_of, read_table, several, switch, take
from lastcall.cli.translation import Translation, has_variable

_THREADS: Final = "a worker is one event loop in one thread"
_HTTP2: Final = "HTTP/2 comes with a later release"
_STATIC: Final = "--static /PREFIX=DIRECTORY serves files (docs/how-to/serve-static-files.md)"
_METRICS: Final = "metrics come with a later release"
_PARENT: Final = "a worker that dies is always replaced, and the pauses are set"
_DURATION: Final = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def _milliseconds(name: str) -> Act:
    def act(made: Translation, value: str) -> None:
        made.keep(name, f"{int(value) / 1000:g}" if value.isascii() and value.isdigit() else value)

    return act


def _duration(name: str) -> Act:
    """Seconds, or a duration as in 1h30m, which ours are not."""

    def act(made: Translation, value: str) -> None:
        match = _DURATION.fullmatch(value)
        if match and value and not value.isdigit():
            days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
            value = str(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
        made.keep(name, value)

    return act


def _megabytes(made: Translation, value: str) -> None:
    made.keep("limit_worker_rss", value if has_variable(value) else f"{value}M")


def _loop(made: Translation, value: str) -> None:
    if value in ("auto", "asyncio", "uvloop"):
        made.keep("loop", value)
    else:
        made.leave(f"--loop {value}", "--loop takes auto, asyncio, uvloop or module:factory")


def _http(made: Translation, value: str) -> None:
    if value == "2":
        made.leave("--http 2", _HTTP2)


def _level(made: Translation, value: str) -> None:
    made.keep("log_level", {"warn": "warning", "notset": "trace"}.get(value, value))


def _pair(name: str, on: Act | str | None, off: Act | str | None) -> tuple[Row, Row]:
    return ((f"--{name}",), False, on), ((f"--no-{name}",), False, off)


_OWN: Final = ("--host", "--port", "--uds", "--uds-permissions", "--interface", "--workers", "--env-files")
_TABLE: Final[tuple[Row, ...]] = (
    *(((name,), True, None) for name in _OWN),
    (("--http",), True, _http),
    *_pair("ws", None, lambda made, _: made.keep("ws", "none")),
    (("--blocking-threads",), True, _THREADS),
    (("--blocking-threads-idle-timeout",), True, _THREADS),
    (("--runtime-threads",), True, _THREADS),
    (("--runtime-blocking-threads",), True, _THREADS),
    (("--runtime-mode",), True, _THREADS),
    (("--task-impl",), True, "tasks are asyncio's"),
    (("--loop",), True, _loop),
    (("--backlog",), True, take("backlog")),
    (("--backpressure",), True, "--limit-connections bounds connections, --limit-concurrency what runs"),
    (("--http1-buffer-size",), True, "--limit-header-bytes bounds a head"),
    (("--http1-header-read-timeout",), True, _milliseconds("timeout_header")),
    *_pair("http1-keep-alive", None, lambda made, _: made.keep("timeout_keep_alive", "0")),
    *_pair("http1-pipeline-flush", "answers are always gathered", None),
    *_pair("http2-adaptive-window", _HTTP2, _HTTP2),
    *(
        ((f"--http2-{name}",), True, _HTTP2)
        for name in (
            "initial-connection-window-size", "initial-stream-window-size", "keep-alive-interval", "keep-alive-timeout",
            "max-concurrent-streams", "max-frame-size", "max-headers-size", "max-send-buffer-size",
        )
    ),
    *_pair("log", None, "--log-level critical says next to nothing"),
    (("--log-level",), True, _level),
    (("--log-config",), True, take("log_config")),
    *_pair("access-log", switch("access_log"), switch("access_log", False)),
    (("--access-log-fmt",), True, "--log-config has a format of the access line"),
    *(((f"--ssl-{name}",), True, TLS) for name in ("certificate", "keyfile", "protocol-min", "ca", "crl")),
    (("--ssl-keyfile-password",), True, None),
    *_pair("ssl-client-verify", TLS, None),
    (("--url-path-prefix",), True, take("root_path")),
    *_pair("respawn-failed-workers", _PARENT, _PARENT),
    (("--respawn-interval",), True, _PARENT),
    (("--rss-sample-interval",), True, "memory is looked at all the time"),
    (("--rss-samples",), True, "memory is looked at all the time"),
    (("--workers-lifetime",), True, _duration("limit_worker_age")),
    (("--workers-max-rss",), True, _megabytes),
    (("--workers-kill-timeout",), True, _duration("timeout_graceful_shutdown")),
    *_pair("factory", switch("factory"), None),
    (("--working-dir",), True, take("chdir")),
    *(((f"--static-path-{name}",), True, _STATIC) for name in ("route", "mount", "dir-to-file", "expires")),
    *_pair("metrics", _METRICS, None),
    *(((f"--metrics-{name}",), True, _METRICS) for name in ("scrape-interval", "address", "port")),
    *_pair("reload", switch("reload"), None),
    (("--reload-paths",), True, take("reload_dirs")),
    (("--reload-ignore-dirs",), True, take("reload_excludes")),
    (("--reload-ignore-patterns",), True, "--reload-exclude takes globs, not regular expressions"),
    (("--reload-ignore-paths",), True, take("reload_excludes")),
    (("--reload-tick",), True, _milliseconds("reload_delay")),
    *_pair("reload-ignore-worker-failure", "the old worker serves until the new one is ready", None),
    (("--process-name",), True, take("proc_title")),
    (("--pid-file",), True, take("pidfile")),
)  # fmt: skip
FLAGS: Final = flags_of(_TABLE)


def from_granian(words: Sequence[str]) -> Translation:
    """Translate the words behind ``granian``. Raises UsageError for what is not understood."""
    made = Translation()
    app, own = read_table(made, words, _TABLE, "granian")
    last = {name: values[-1] for name, values in own.items()}
    interface = last.get("--interface", "rsgi")
    if interface not in ("asgi", "asginl", "wsgi"):
        raise click.UsageError(
            "granian's own interface (RSGI) is not understood: lastcall serves --interface asgi or wsgi"
        )
    application(made, app, "granian", "app")
    if interface == "asginl":
        made.keep("lifespan", "off")
    elif interface == "wsgi":
        made.keep("interface", "wsgi")
    several(made, own, "--workers", "granian")
    if "--uds" in last:
        mode = last.get("--uds-permissions", "")
        made.keep("bind", f"unix:{last['--uds']},mode={mode.removeprefix('0o').zfill(3)}") if mode else made.keep(
            "uds", last["--uds"]
        )
    else:
        for name in ("host", "port"):
            if f"--{name}" in last:
                made.keep(name, last[f"--{name}"])
    for n, file in enumerate(own.get("--env-files", ())):
        if n:
            made.leave(f"--env-files {file}", "--env-file is one file")
        else:
            made.keep("env_file", file)
    if "--ssl-keyfile-password" in own:
        made.leave("--ssl-keyfile-password …", TLS)
    if "access_log" not in made.settled:
        made.keep("access_log", False)
        made.notes.append("Without --access-log granian writes no access lines: hence --no-access-log.")
    return made
