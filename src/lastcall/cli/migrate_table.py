"""A command line that a table translates, for servers whose options are not ours: gunicorn, hypercorn, granian.

And what they have in common: how an application and an address are written, and where log lines go.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import click

from lastcall.cli.translation import Flag, Translation, has_variable, read_words
from lastcall.config.options import OPTIONS

TLS: Final = "TLS comes with a later release"
STATSD: Final = "there is no statsd"
FRESH: Final = "each worker is a fresh interpreter, which imports the application itself"
_ONE_VARIABLE: Final = re.compile(r"\$(\w+|\{[^{}]*\})")
_ADDRESS: Final = re.compile(r"(\[[^\]]*\]|\$\{[^{}]*\}|[^:\[\]]*)(?::(\$\{[^{}]*\}|[^:\[\]]*))?")

Act = Callable[[Translation, str], None]
Row = tuple[tuple[str, ...], bool, Act | str | None]
"""The names of a flag, long ones first; whether a value follows; what becomes of it: a text says why it is left out,
and None needs no word."""


def flags_of(rows: Sequence[Row]) -> dict[str, Flag]:
    """What ``read_words`` needs to know."""
    return {name: Flag(names[0], takes_value) for names, takes_value, _ in rows for name in names}


def read_table(
    made: Translation, words: Sequence[str], rows: Sequence[Row], program: str
) -> tuple[str, dict[str, list[str]]]:
    """Translate ``words`` by the table; return the application, and the values of the flags whose act is None.

    Raises UsageError for what is not understood.
    """
    acts = {names[0]: act for names, _, act in rows}
    app, own = "", dict[str, list[str]]()
    for written, flag, value in read_words(words, flags_of(rows), program):
        if flag is None:
            if app:
                raise click.UsageError(f"{program} serves one application: {app!r}, and then {written!r}")
            app = written
            continue
        act = acts[flag.name]
        if act is None:
            own.setdefault(flag.name, []).append(value)
        elif isinstance(act, str):
            made.leave(f"{written} {value}".rstrip(), act)
        else:
            act(made, value)
    return app, own


def take(name: str) -> Act:
    """The same as an option of ours."""
    return lambda made, value: made.keep(name, value)


def switch(name: str, value: bool = True) -> Act:
    """A switch of ours."""
    return lambda made, _: made.keep(name, value)


def zero_is_none(name: str) -> Act:
    """An option of ours, for which 0 would be no limit there."""
    return lambda made, value: None if value == "0" else made.keep(name, value)


def daemon(made: Translation, _value: str) -> None:
    """Left out: why is in the table of options."""
    only = OPTIONS["daemon"].only
    made.leave("--daemon", only.reason if only is not None else "")


def file_of_settings(_made: Translation, value: str) -> None:
    """A file that has to be read by the other server: refused."""
    raise click.UsageError(f"{value}: lastcall migrate reads no configuration files: write its settings as options")


def log_file(made: Translation, value: str, stream: str) -> None:
    """A file for log lines, where ``-`` is a standard stream."""
    if value not in ("-", ""):
        made.leave(f"the file {value}", f"lastcall writes to standard {stream}: redirect that, or use --log-config")


def access_log(made: Translation, value: str) -> None:
    """``--access-logfile``: there are access lines."""
    made.settled.add("access_log")
    log_file(made, value, "output")


def error_log(made: Translation, value: str) -> None:
    """``--error-logfile``."""
    log_file(made, value, "error")


def no_access_log_unless_asked(made: Translation, program: str, flag: str) -> None:
    """Those servers write no access lines by default."""
    if "access_log" not in made.settled:
        made.keep("access_log", False)
        made.notes.append(f"Without {flag} {program} writes no access lines: hence --no-access-log.")


def several(made: Translation, given: Mapping[str, Sequence[str]], flag: str, program: str) -> None:
    """Say what becomes of the parent where there is one worker."""
    workers = given.get(flag, ["1"])[-1]
    if flag in given:
        made.keep("workers", workers)
    if workers == "1" and not any(word.startswith("--reload") for word in made.words):
        made.notes.append(
            f"With one worker there is no parent, as {program} has one: what starts the process has to start it again, "
            "or --supervise runs one."
        )


def application(made: Translation, app: str, program: str, default: str) -> None:
    """``module`` means ``module:default``, and ``module:make()`` is a factory."""
    if not app:
        raise click.UsageError(f"{program} names no application: expected module:attribute")
    if has_variable(app):
        made.app = app
        made.notes.append(f"{app} has to be module:attribute ({program} takes module for module:{default}).")
        return
    module, _, name = app.partition(":")
    try:
        call = ast.parse(name or default, mode="eval").body
    except SyntaxError:
        raise click.UsageError(f"{app!r} is no application: expected module:attribute") from None
    if isinstance(call, ast.Call):
        if call.args or call.keywords or not isinstance(call.func, ast.Name):
            raise click.UsageError(f"{app!r} calls a factory with arguments: make one without, for --factory")
        made.keep("factory")
        name = call.func.id
    made.app = f"{module}:{name or default}"


def addresses(made: Translation, binds: Sequence[str], program: str) -> None:
    """Addresses in one form: ``HOST``, ``HOST:PORT``, ``:PORT``, ``unix:PATH``, ``fd://N``."""
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
            raise click.UsageError(f"{program} --bind {bind}: expected HOST, HOST:PORT, unix:PATH or fd://N")
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
