"""``lastcall migrate -- gunicorn …`` with uvicorn's worker class."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import click

from lastcall.cli.translation import Flag, Translation, has_variable, read_words

WORKERS: Final = ("uvicorn.workers.", "uvicorn_worker.")
ONE_PROCESS: Final = "more than one worker comes with a later release"
TLS: Final = "TLS comes with a later release"
SUPERVISOR: Final = "what starts the process does that: systemd, a container"
IGNORED: Final = "UvicornWorker does not look at it either"
_ONE_VARIABLE: Final = re.compile(r"\$(\w+|\{[^{}]*\})")
_ADDRESS: Final = re.compile(r"(\[[^\]]*\]|\$\{[^{}]*\}|[^:\[\]]*)(?::(\$\{[^{}]*\}|[^:\[\]]*))?")

Act = Callable[[Translation, str], None]


def _zero_is_none(name: str) -> Act:
    return lambda made, value: None if value == "0" else made.keep(name, value)


def _take(name: str) -> Act:
    return lambda made, value: made.keep(name, value)


def _log_file(made: Translation, value: str, stream: str) -> None:
    if value not in ("-", ""):
        made.leave(f"the file {value}", f"lastcall writes to standard {stream}: redirect that, or use --log-config")


def _access_log(made: Translation, value: str) -> None:
    made.settled.add("access_log")
    _log_file(made, value, "output")


def _error_log(made: Translation, value: str) -> None:
    _log_file(made, value, "error")


def _environment(made: Translation, value: str) -> None:
    made.variables.append(value)


def _config(_made: Translation, value: str) -> None:
    raise click.UsageError(
        f"{value} is a program in Python, which lastcall migrate does not run: write its settings as gunicorn's options"
    )


def _many(made: Translation, value: str) -> None:
    made.settled.add("workers")
    if value != "1":
        made.leave(f"--workers {value}", ONE_PROCESS)


# Long names first. What is a text says why an option is left out; None: it needs no word.
_WITH_VALUE: Final[dict[tuple[str, ...], Act | str | None]] = {
    ("--worker-class", "-k"): None,
    ("--bind", "-b"): None,
    ("--config", "-c"): _config,
    ("--workers", "-w"): _many,
    ("--access-logfile",): _access_log,
    ("--error-logfile", "--log-file"): _error_log,
    ("--log-level",): _take("log_level"),
    ("--log-config",): _take("log_config"),
    ("--backlog",): _take("backlog"),
    ("--keep-alive",): _take("timeout_keep_alive"),
    ("--graceful-timeout",): _take("timeout_graceful_shutdown"),
    ("--max-requests",): _zero_is_none("limit_max_requests"),
    ("--max-requests-jitter",): _take("limit_max_requests_jitter"),
    ("--limit-request-line",): _zero_is_none("limit_request_line"),
    ("--limit-request-fields",): _take("limit_headers"),
    ("--env", "-e"): _environment,
    ("--chdir",): None,
    ("--pythonpath",): None,
    ("--timeout", "-t"): "nothing kills a worker that is blocked: `lastcall drill --app` finds what blocks",
    ("--threads",): IGNORED,
    ("--worker-connections",): IGNORED,
    ("--root-path",): IGNORED,
    ("--limit-request-field_size",): "--limit-header-bytes bounds the whole head instead",
    ("--forwarded-allow-ips",): _take("forwarded_allow_ips"),
    ("--proxy-allow-from",): IGNORED,
    ("--access-logformat",): "--log-config has a format of the access line",
    ("--log-config-json",): "--log-config takes a .json file",
    ("--logger-class",): "--log-config sets up logging",
    ("--worker-tmp-dir",): ONE_PROCESS,
    ("--name", "-n"): SUPERVISOR,
    ("--pid", "-p"): SUPERVISOR,
    ("--user", "-u"): SUPERVISOR,
    ("--group", "-g"): SUPERVISOR,
    ("--umask", "-m"): SUPERVISOR,
    ("--certfile",): TLS,
    ("--keyfile",): TLS,
    ("--ca-certs",): TLS,
    ("--ciphers",): TLS,
    ("--cert-reqs",): TLS,
    ("--ssl-version",): TLS,
    ("--statsd-host",): "there is no statsd",
    ("--statsd-prefix",): "there is no statsd",
}
_WITHOUT: Final[dict[tuple[str, ...], str | None]] = {
    ("--preload",): ONE_PROCESS,
    ("--reload",): "reloading comes with a later release",
    ("--daemon", "-D"): SUPERVISOR,
    ("--capture-output",): "lastcall leaves the application's output where it is",
    ("--enable-stdio-inheritance", "-R"): None,
    ("--proxy-protocol",): IGNORED,
    ("--reuse-port",): ONE_PROCESS,
    ("--no-sendfile",): None,
}
_OWN: Final = ("--worker-class", "--chdir", "--pythonpath")
FLAGS: Final = {
    name: Flag(names[0], takes_value)
    for table, takes_value in ((_WITH_VALUE, True), (_WITHOUT, False))
    for names in table
    for name in names
}
_ACTS: Final[dict[str, Act | str | None]] = {
    names[0]: act for table in (_WITH_VALUE, _WITHOUT) for names, act in table.items()
}


def from_gunicorn(words: Sequence[str]) -> Translation:
    """Translate the words behind ``gunicorn``. Raises UsageError for what is not understood."""
    made = Translation()
    app, binds = "", list[str]()
    own = dict.fromkeys(_OWN, "")
    for written, flag, value in read_words(words, FLAGS, "gunicorn"):
        if flag is None:
            if app:
                raise click.UsageError(f"gunicorn serves one application: {app!r}, and then {written!r}")
            app = written
        elif flag.name in own:
            own[flag.name] = value
        elif flag.name == "--bind":
            binds += value.split(",")
        else:
            act = _ACTS[flag.name]
            if isinstance(act, str):
                made.leave(f"{written} {value}".rstrip(), act)
            elif act is not None:
                act(made, value)
    worker = own["--worker-class"]
    if not worker.startswith(WORKERS):
        raise click.UsageError(
            f"gunicorn with the worker class {worker or 'sync'!r} is not understood, only with UvicornWorker "
            "(-k uvicorn.workers.UvicornWorker); a WSGI application is served by: lastcall module:app --interface wsgi"
        )
    _application(made, app)
    _directories(made, own["--chdir"], own["--pythonpath"])
    _addresses(made, binds)
    if "access_log" not in made.settled:
        made.keep("access_log", False)
        made.notes.append("Without --access-logfile gunicorn writes no access lines: hence --no-access-log.")
    if "timeout_graceful_shutdown" not in made.settled:
        made.notes.append("gunicorn gives requests 30 s at a stop (--graceful-timeout), lastcall 20 s.")
        made.settled.add("timeout_graceful_shutdown")
    if Path("gunicorn.conf.py").is_file():
        made.leave("gunicorn.conf.py", "gunicorn reads it here; its settings are not in the command above")
    made.notes.append("There is no arbiter: what starts the process has to start it again if it ends.")
    return made


def _directories(made: Translation, chdir: str, python_path: str) -> None:
    """``--app-dir`` is one directory to import from. It is not gone to, and a list belongs into PYTHONPATH."""
    directories = [each.strip() for each in python_path.split(",") if each.strip()]
    if chdir:
        made.keep("app_dir", chdir)
        made.notes.append(
            f"gunicorn goes to {chdir}, lastcall only imports from there: for one that opens files by relative "
            f"paths, cd {chdir} first, and leave --app-dir out."
        )
    elif len(directories) == 1:
        made.keep("app_dir", directories.pop())
    if directories:
        places = ":".join(os.path.join(chdir, each) for each in directories)
        made.leave(f"--pythonpath {python_path}", f"--app-dir is one directory: set PYTHONPATH={places}")


def _application(made: Translation, app: str) -> None:
    """``module`` means ``module:application``, and ``module:make()`` is a factory."""
    if not app:
        raise click.UsageError("gunicorn names no application: expected module:attribute")
    if has_variable(app):
        made.app = app
        made.notes.append(f"{app} has to be module:attribute (gunicorn takes module for module:application).")
        return
    module, _, name = app.partition(":")
    try:
        call = ast.parse(name or "application", mode="eval").body
    except SyntaxError:
        raise click.UsageError(f"{app!r} is no application: expected module:attribute") from None
    if isinstance(call, ast.Call):
        if call.args or call.keywords or not isinstance(call.func, ast.Name):
            raise click.UsageError(f"{app!r} calls a factory with arguments: make one without, for --factory")
        made.keep("factory")
        name = call.func.id
    made.app = f"{module}:{name or 'application'}"


def _addresses(made: Translation, binds: Sequence[str]) -> None:
    """Gunicorn's addresses: ``HOST``, ``HOST:PORT``, ``:PORT``, ``unix:PATH``, ``fd://N``."""
    found = []
    for bind in binds:
        address = bind.strip().removeprefix("tcp://")
        if address.startswith("unix:"):
            found.append(("uds", "unix:" + address.removeprefix("unix:").removeprefix("//")))
        elif address.startswith("fd://"):
            found.append(("fd", "fd:" + address.removeprefix("fd://")))
        elif _ONE_VARIABLE.fullmatch(address):
            found.append(("bind", address))
            made.notes.append(f"{address} has to be HOST:PORT, unix:PATH or fd:N.")
        elif (match := _ADDRESS.fullmatch(address)) is not None:
            found.append(("tcp", f"{match[1] or '0.0.0.0'}:{match[2] or '8000'}"))
        else:
            raise click.UsageError(f"gunicorn --bind {bind}: expected HOST, HOST:PORT, unix:PATH or fd://N")
    if not found:
        made.notes.append("gunicorn listens on 0.0.0.0:$PORT where that is set; lastcall with --host and --port $PORT.")
    if len(found) > 1:
        for _, address in found:
            made.keep("bind", address)
    for kind, address in found if len(found) == 1 else ():
        if kind == "tcp":
            host, port = _ADDRESS.fullmatch(address).groups()  # type: ignore[union-attr]
            made.keep("host", host.strip("[]"))
            made.keep("port", port)
        elif kind == "bind":
            made.keep("bind", address)
        else:
            made.keep(kind, address.partition(":")[2])
