"""``lastcall migrate -- hypercorn …``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from lastcall.cli.migrate_table import (
    STATSD,
    TLS,
    Row,
    access_log,
    addresses,
    application,
    daemon,
    error_log,
    file_of_settings,
    flags_of,
    no_access_log_unless_asked,
    read_table,
    several,
    switch,
    take,
    zero_is_none,
)
from lastcall.cli.translation import Translation

_SOCKETS: Final = "it is about unix sockets there: --bind unix:PATH,mode=0660 says who may connect"


def _worker_class(made: Translation, value: str) -> None:
    if value not in ("asyncio", "uvloop"):
        raise click.UsageError(f"hypercorn with the worker class {value!r} is not understood: lastcall runs asyncio")
    made.keep("loop", value)


def _log_config(made: Translation, value: str) -> None:
    kind, colon, path = value.partition(":")
    if colon and kind == "toml":
        made.leave(f"--log-config {value}", "--log-config takes JSON, YAML and ini files")
    else:
        made.keep("log_config", path if colon and kind == "json" else value)


_TABLE: Final[tuple[Row, ...]] = (
    (("--bind", "-b"), True, None),
    (("--workers", "-w"), True, None),
    (("--config", "-c"), True, file_of_settings),
    (("--access-logfile", "--access-log"), True, access_log),
    (("--error-logfile", "--log-file", "--error-log"), True, error_log),
    (("--access-logformat",), True, "--log-config has a format of the access line"),
    (("--log-config",), True, _log_config),
    (("--log-level",), True, take("log_level")),
    (("--backlog",), True, take("backlog")),
    (("--keep-alive",), True, take("timeout_keep_alive")),
    (("--graceful-timeout",), True, take("timeout_graceful_shutdown")),
    (("--read-timeout",), True, "--timeout-header, --timeout-body and --timeout-keep-alive bound what is read"),
    (("--max-requests",), True, zero_is_none("limit_max_requests")),
    (("--max-requests-jitter",), True, take("limit_max_requests_jitter")),
    (("--root-path",), True, take("root_path")),
    (("--pid", "-p"), True, take("pidfile")),
    (("--worker-class", "-k"), True, _worker_class),
    (("--websocket-ping-interval",), True, take("ws_ping_interval")),
    (("--user", "-u"), True, _SOCKETS),
    (("--group", "-g"), True, _SOCKETS),
    (("--umask", "-m"), True, _SOCKETS),
    (("--server-name",), True, "names of hosts are not checked: that is the proxy's work, or a middleware's"),
    (("--insecure-bind",), True, TLS),
    (("--quic-bind",), True, "HTTP/3 is not spoken"),
    (("--certfile",), True, TLS),
    (("--keyfile",), True, TLS),
    (("--ca-certs",), True, TLS),
    (("--ciphers",), True, TLS),
    (("--cert-reqs",), True, TLS),
    (("--verify-mode",), True, TLS),
    (("--statsd-host",), True, STATSD),
    (("--statsd-prefix",), True, STATSD),
    (("--reload",), False, switch("reload")),
    (("--debug",), False, "--log-level debug says more, and PYTHONASYNCIODEBUG=1 checks the loop"),
    (("--daemon", "-D"), False, daemon),
)
_SECRET: Final = "--keyfile-password"
FLAGS: Final = flags_of(_TABLE)


def from_hypercorn(words: Sequence[str]) -> Translation:
    """Translate the words behind ``hypercorn``. Raises UsageError for what is not understood."""
    made = Translation()
    app, own = read_table(made, words, (*_TABLE, ((_SECRET,), True, None)), "hypercorn")
    if _SECRET in own:
        made.leave(f"{_SECRET} …", TLS)
    kind, colon, name = app.partition(":")
    if colon and kind in ("asgi", "wsgi"):
        app = name
        if kind == "wsgi":
            made.keep("interface", "wsgi")
    application(made, app, "hypercorn", "app")
    several(made, own, "--workers", "hypercorn")
    addresses(made, own.get("--bind", ()), "hypercorn")
    no_access_log_unless_asked(made, "hypercorn", "--access-logfile")
    return made
