"""``lastcall migrate -- gunicorn …`` with a worker class for ASGI."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from lastcall.cli.migrate_table import (
    FRESH,
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
from lastcall.cli.translation import Translation, has_variable

WORKERS: Final = ("uvicorn.workers.", "uvicorn_worker.", "lastcall.gunicorn.", "asgi", "gunicorn.workers.gasgi.")
IGNORED: Final = "UvicornWorker does not look at it either"


def _environment(made: Translation, value: str) -> None:
    if value.startswith("WEB_CONCURRENCY="):
        made.leave(value, "gunicorn sets it for its workers alone, and lastcall would read it")
    else:
        made.variables.append(value)


def _mask(made: Translation, value: str) -> None:
    """Gunicorn reads a number in any base: 18, 0x12, 0o22 and 022 are the same mask."""
    if has_variable(value):
        made.keep("umask", value)
        return
    try:
        mask = int(value, 8) if value[:1] == "0" and value.isdigit() else int(value, 0)
    except ValueError:
        raise click.UsageError(f"--umask: {value!r} is not usable: expected a number, as in 022") from None
    made.keep("umask", f"{mask:03o}" if mask >= 0 else value)


def _timeout(made: Translation, value: str) -> None:
    made.keep("timeout_worker_stall", "none" if value == "0" else value)


_TABLE: Final[tuple[Row, ...]] = (
    (("--worker-class", "-k"), True, None),
    (("--bind", "-b"), True, None),
    (("--config", "-c"), True, file_of_settings),
    (("--workers", "-w"), True, None),
    (("--access-logfile",), True, access_log),
    (("--error-logfile", "--log-file"), True, error_log),
    (("--log-level",), True, take("log_level")),
    (("--log-config",), True, take("log_config")),
    (("--backlog",), True, take("backlog")),
    (("--keep-alive",), True, take("timeout_keep_alive")),
    (("--graceful-timeout",), True, take("timeout_graceful_shutdown")),
    (("--max-requests",), True, zero_is_none("limit_max_requests")),
    (("--max-requests-jitter",), True, take("limit_max_requests_jitter")),
    (("--limit-request-line",), True, zero_is_none("limit_request_line")),
    (("--limit-request-fields",), True, take("limit_headers")),
    (("--env", "-e"), True, _environment),
    (("--chdir",), True, take("chdir")),
    (("--pythonpath",), True, None),
    (("--timeout", "-t"), True, _timeout),
    (("--threads",), True, IGNORED),
    (("--worker-connections",), True, IGNORED),
    (("--root-path",), True, IGNORED),
    (("--limit-request-field_size",), True, "--limit-header-bytes bounds the whole head instead"),
    (("--forwarded-allow-ips",), True, take("forwarded_allow_ips")),
    (("--proxy-allow-from",), True, IGNORED),
    (("--access-logformat",), True, "--log-config has a format of the access line"),
    (("--log-config-json",), True, "--log-config takes a .json file"),
    (("--logger-class",), True, "--log-config sets up logging"),
    (("--worker-tmp-dir",), True, "signs of life need no file"),
    (("--control-socket",), True, "gunicorn's own protocol; lastcall's is --control-socket too, for lastcall ctl"),
    (("--name", "-n"), True, take("proc_title")),
    (("--pid", "-p"), True, take("pidfile")),
    (("--user", "-u"), True, take("user")),
    (("--group", "-g"), True, take("group")),
    (("--umask", "-m"), True, _mask),
    (("--certfile",), True, TLS),
    (("--keyfile",), True, TLS),
    (("--ca-certs",), True, TLS),
    (("--ciphers",), True, TLS),
    (("--cert-reqs",), True, TLS),
    (("--ssl-version",), True, TLS),
    (("--statsd-host",), True, STATSD),
    (("--statsd-prefix",), True, STATSD),
    (("--reload-engine",), True, "there is one: watchfiles"),
    (("--reload-extra-file",), True, "--reload-include takes a glob, and --reload-dir a directory"),
    (("--preload",), False, FRESH),
    (("--reload",), False, switch("reload")),
    (("--daemon", "-D"), False, daemon),
    (("--capture-output",), False, "lastcall leaves the application's output where it is"),
    (("--enable-stdio-inheritance", "-R"), False, None),
    (("--initgroups",), False, "the groups of --user are always taken"),
    (("--proxy-protocol",), False, IGNORED),
    (("--reuse-port",), False, "each worker has a listener of its own anyway"),
    (("--no-sendfile",), False, None),
    (("--no-control-socket",), False, None),
)
FLAGS: Final = flags_of(_TABLE)


def from_gunicorn(words: Sequence[str]) -> Translation:
    """Translate the words behind ``gunicorn``. Raises UsageError for what is not understood."""
    made = Translation()
    app, own = read_table(made, words, _TABLE, "gunicorn")
    worker = own.get("--worker-class", [""])[-1]
    if not worker.startswith(WORKERS):
        raise click.UsageError(
            f"gunicorn with the worker class {worker or 'sync'!r} is not understood, only with UvicornWorker "
            "(-k uvicorn.workers.UvicornWorker); a WSGI application is served by: lastcall module:app --interface wsgi"
        )
    application(made, app, "gunicorn", "application")
    several(made, own, "--workers", "gunicorn")
    _python_path(made, own.get("--pythonpath", [""])[-1])
    addresses(made, [bind for each in own.get("--bind", ()) for bind in each.split(",")], "gunicorn")
    if "--bind" not in own:
        made.notes.append("gunicorn listens on 0.0.0.0:$PORT where that is set; lastcall with --host and --port $PORT.")
    no_access_log_unless_asked(made, "gunicorn", "--access-logfile")
    if "timeout_graceful_shutdown" not in made.settled:
        made.notes.append("gunicorn gives requests 30 s at a stop (--graceful-timeout), lastcall 20 s.")
        made.settled.add("timeout_graceful_shutdown")
    if Path("gunicorn.conf.py").is_file():
        made.leave("gunicorn.conf.py", "gunicorn reads it here; its settings are not in the command above")
    return made


def _python_path(made: Translation, python_path: str) -> None:
    """``--app-dir`` is one directory to import from; a list belongs into PYTHONPATH."""
    directories = [each.strip() for each in python_path.split(",") if each.strip()]
    chdir = made.words[made.words.index("--chdir") + 1] if "--chdir" in made.words else ""
    if not chdir and len(directories) == 1:
        made.keep("app_dir", directories.pop())
    if directories:
        places = ":".join(os.path.join(chdir, each) for each in directories)
        made.leave(f"--pythonpath {python_path}", f"--app-dir is one directory: set PYTHONPATH={places}")
