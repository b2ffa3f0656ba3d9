"""From the options of lastcall to the few numbers that the doctor judges.

The one module that imports lastcall, whose options and budgets these are: it can be imported where that is installed.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

import click

from lastcall.base.errors import ConfigError
from lastcall.base.options import BindSpec, ServerOptions
from lastcall.cli.flags import HIDDEN_GROUP, TableFlag, given_flags, table_flags
from lastcall.config import Config
from lastcall.config.kinds import FilePath, OutputFile
from lastcall.config.options import OPTIONS
from lastcall.config.resolve import Given
from lastcall.drain.ladder import Budgets
from lastcall_doctor.errors import DoctorError
from lastcall_doctor.facts import LOOPBACK, Server
from lastcall_drill.record import replace

FILES: Final = frozenset(
    option.name
    for option in OPTIONS.values()
    if isinstance(option.kind, OutputFile) or (isinstance(option.kind, FilePath) and option.kind.existing)
)
"""Options that name a file which has to be there when they are read."""
_BUDGETS: Final = {
    "--timeout-graceful-shutdown": "graceful",
    "--timeout-cancel": "cancel",
    "--timeout-lifespan-shutdown": "lifespan_shutdown",
}


def flags() -> list[click.Parameter]:
    """An option of the doctor's for every option of the server."""
    return table_flags()


def is_flag(param: click.Parameter) -> bool:
    """Whether ``param`` is one of :func:`flags`."""
    return isinstance(param, TableFlag)


def shown() -> int:
    """How many options ``lastcall --help`` lists."""
    return sum(isinstance(flag, TableFlag) and flag.row.group != HIDDEN_GROUP for flag in table_flags())


def given_to(ctx: click.Context, params: Mapping[str, Any]) -> dict[str, Given]:
    """The options of the server on the doctor's command line."""
    return given_flags(ctx, params)


def words_read(words: tuple[str, ...]) -> tuple[str | None, dict[str, Given]]:
    """The application and the options in the words of a command. Raises ``click.UsageError``, as lastcall would."""
    command = click.Command("lastcall", params=[click.Argument(["app"], required=False), *table_flags()])
    context = command.make_context("lastcall", list(words))
    return context.params.pop("app"), given_flags(context, context.params)


def words_of(given: Mapping[str, Given]) -> tuple[str, ...]:
    """The same options as words again."""
    words: list[str] = []
    for one in given.values():
        if isinstance(one.raw, bool):
            words.append(one.spelled)
        else:
            values = one.raw if isinstance(one.raw, list | tuple) else (one.raw,)
            words += [f"{one.spelled}={value}" for value in values]
    return tuple(words)


def variables(names: Iterable[str]) -> set[str | None]:
    """The environment variables of these options."""
    return {OPTIONS[name].env for name in names}


def server_here(app: str, given: Mapping[str, Given], environ: Mapping[str, str]) -> Server:
    """The server of the doctor's own command line. Raises :class:`DoctorError` where it would not start with that."""
    try:
        return server_of(Config.from_command(app, given, environ), "the command line", app)
    except ConfigError as error:
        raise DoctorError(str(error)) from None


def server_elsewhere(
    where: str, app: str, given: Mapping[str, Given], environ: Mapping[str, str], unresolved: tuple[str, ...] = ()
) -> Server:
    """The server of a command that runs at ``where``; one that lastcall would refuse says why.

    Whether a file exists there cannot be seen from here, so options that name one are not looked at.
    """
    given = {name: value for name, value in given.items() if name not in FILES}
    known = {name: value for name, value in environ.items() if name not in {OPTIONS[file].env for file in FILES}}
    try:
        return replace(server_of(Config.from_command(app, given, known), where, app), unresolved=unresolved)
    except ConfigError as error:
        return Server(where=where, app=app, refused=str(error), unresolved=unresolved)


def server_of(config: Config, where: str, app: str) -> Server:
    """What a configuration amounts to."""
    options = config.options
    stop = options.stop
    budgets = Budgets(
        graceful=stop.graceful,
        cancel=stop.cancel,
        lifespan_shutdown=stop.lifespan_shutdown,
        interrupt=stop.interrupt,
        delay=stop.delay,
        farewell=stop.farewell,
    )
    tcp = [bind for bind in options.net.binds if bind.kind == "tcp"]
    return Server(
        where=where,
        app=app,
        worst_case=budgets.worst_case(),
        unlimited=tuple(flag for flag, name in _BUDGETS.items() if getattr(stop, name) == math.inf),
        delay=stop.delay,
        graceful=stop.graceful,
        disconnect=stop.disconnect,
        lifespan_shutdown=stop.lifespan_shutdown,
        keep_alive=options.http.timeout_keep_alive,
        backlog=options.net.backlog,
        limit_concurrency=options.http.limit_concurrency,
        limit_connections=options.net.limit_connections,
        # Under a parent the limit is a worker's, whose successor comes first: the service goes on.
        limit_max_requests=None if options.workers.supervised else options.http.limit_max_requests,
        lifespan=options.app.lifespan,
        health_path=options.http.health_path,
        loopback=bool(tcp) and len(tcp) == len(options.net.binds) and all(map(_is_loopback, tcp)),
        port=tcp[0].port if tcp else 8000,
        driver=options.net.driver,
        missing_extras=_missing_extras(options),
        warnings=tuple(config.warnings),
    )


def _is_loopback(bind: BindSpec) -> bool:
    return bind.host.lower().startswith(LOOPBACK)


def _missing_extras(options: ServerOptions) -> tuple[tuple[str, str], ...]:
    """Options that need a package which this Python does not have."""
    wanted = []
    if options.loop == "uvloop":
        wanted.append(("--loop uvloop", "uvloop", "uvloop"))
    if options.app.env_file is not None:
        wanted.append(("--env-file", "dotenv", "dotenv"))
    if isinstance(options.log.config, str) and options.log.config.endswith((".yaml", ".yml")):
        wanted.append((f"--log-config {options.log.config}", "yaml", "yaml"))
    if options.reload.wanted:
        wanted.append(("--reload", "watchfiles", "reload"))
    if options.process.title is not None:
        wanted.append(("--proc-title", "setproctitle", "proctitle"))
    return tuple((flag, extra) for flag, module, extra in wanted if importlib.util.find_spec(module) is None)
