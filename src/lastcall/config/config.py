"""``Config``: every option resolved, and handed to the packages as small records."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Unpack

from lastcall.base.errors import ConfigError
from lastcall.base.options import (
    AppOptions,
    BindSpec,
    CanaryOptions,
    HTTPOptions,
    LogOptions,
    NetOptions,
    ProcessOptions,
    ReloadOptions,
    ServerOptions,
    StopOptions,
    WebSocketOptions,
    WorkerOptions,
)
from lastcall.base.record import Record, replace
from lastcall.base.types import ASGIApp
from lastcall.config.cpus import available_cpus
from lastcall.config.environment import unread_variables
from lastcall.config.import_string import split_import_string
from lastcall.config.kinds import UnusableValueError
from lastcall.config.options import BUILT_IN, OPTIONS
from lastcall.config.resolve import Given, did_you_mean, from_environment, from_keywords, ignored_addresses, resolve

if TYPE_CHECKING:
    from lastcall.config.keywords import ConfigKeywords

_SUPERVISING: Final = ("workers", "reload", "canary", "supervise", "limit_worker_age", "limit_worker_rss")
"""Options that ask for a parent, and so for an application that another process can import."""

_OF_A_PARENT: Final = (
    "control_socket",
    "smoke",
    "canary_share",
    "canary_hold",
    "canary_min_requests",
    "canary_approve",
    "timeout_worker_boot",
    "timeout_worker_stall",
)
"""Options of a parent that do not ask for one. Who gives them to one process is told that they have no effect."""


class Origin(Record):
    """Where a Config comes from, so that another process can make the same: the application, what was given, and how.

    ``given`` are pairs of an option's name and its ``Given``; ``command``: by the command line and its variables.
    """

    app: object
    given: tuple[tuple[str, Given], ...]
    command: bool


class Config:
    """The configuration of one server.

    ``app`` is an ASGI application, a factory of one, or an import string ``"module:attribute"``. Keywords are uvicorn's
    where uvicorn has them (``docs/reference/options.md``); times are seconds and ``None`` is "none", sizes are bytes.
    ``LASTCALL_*`` variables are read by the command only, not here.

    Every option can be read as an attribute, in the form that is used inside: ``config.port``,
    ``config.timeout_keep_alive`` (``math.inf`` for "none"). A Config does not change once it is made.

    - ``options``: the same as the records that the packages receive.
    - ``warnings``: sentences to be logged at the start, about what was accepted but has no effect.

    Raises :class:`~lastcall.base.errors.ConfigError` for an unknown keyword or a value that cannot be used.
    """

    app: object
    options: ServerOptions
    warnings: list[str]

    def __init__(self, app: ASGIApp | Callable[..., Any] | str, **options: Unpack[ConfigKeywords]) -> None:
        wrong = _wrong_app(app, "app")
        given = from_keywords(options, wrong)
        self._settle(app, given, wrong, os.environ, command=False)

    @classmethod
    def from_command(cls, app: str, flags: Mapping[str, Given], environ: Mapping[str, str]) -> Config:
        """Return the Config of a command line: ``flags`` by option name, then ``environ``, then the defaults."""
        config = cls.__new__(cls)
        given = from_environment(environ) | dict(flags)
        config._settle(app, given, _wrong_app(app, "APP"), environ, command=True)
        config.warnings.extend(unread_variables(environ))
        return config

    @property
    def origin(self) -> Origin:
        """What ``from_origin`` makes an equal Config of, in another process say."""
        origin: Origin = self.__dict__["_origin"]
        return origin

    @classmethod
    def from_origin(cls, origin: Origin, environ: Mapping[str, str]) -> Config:
        """Return the Config of ``origin`` as it would be now: files that it names are read again.

        Raises ConfigError where what was usable no longer is.
        """
        config = cls.__new__(cls)
        app: Any = origin.app
        config._settle(app, dict(origin.given), _wrong_app(app, "APP"), environ, command=origin.command)
        return config

    @property
    def says_where(self) -> bool:
        """Whether somebody has said where to listen; else sockets that the service manager has opened are served."""
        return any(name in self._given for name in ("bind", "host", "port", "uds", "fd"))

    def listening_on(self, binds: tuple[BindSpec, ...]) -> Config:
        """The same with other listeners."""
        config = type(self).__new__(type(self))
        config.__dict__.update(self.__dict__)
        config.__dict__["options"] = replace(self.options, net=replace(self.options.net, binds=binds))
        return config

    def __getattr__(self, name: str) -> Any:
        # Reached for what is no ordinary attribute: the options, by name. During copying there are none yet.
        values = self.__dict__.get("_values", {})
        if name in values:
            return values[name]
        hint = "" if name.startswith("_") else did_you_mean(name, values)
        raise AttributeError(f"Config has no option {name!r}{hint}", name=name, obj=self)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Config does not change: pass {name}=… when it is made", name=name, obj=self)

    def __repr__(self) -> str:
        shown = "".join(
            f", {name}={'***' if OPTIONS[name].secret else repr(self._values[name])}" for name in self._given
        )
        return f"Config({self.app!r}{shown})"

    def _settle(
        self,
        app: object,
        given: Mapping[str, Given],
        wrong: list[ConfigError],
        environ: Mapping[str, str],
        *,
        command: bool,
    ) -> None:
        values = resolve(given, wrong, command=command)
        warnings = ignored_addresses(given)
        if values["proxy_headers"]:
            warnings.append(
                "proxy_headers=True has no effect yet: reading X-Forwarded-For and X-Forwarded-Proto "
                "comes with a later release"
            )
            values["proxy_headers"] = False
        elif "proxy_headers" not in given:
            warnings += _forwarded_allow_ips(given, environ)
        wrong = _settle_workers(app, given, values, warnings, environ)
        if wrong:
            raise ConfigError.together(wrong)
        self.__dict__.update(
            _origin=Origin(app, tuple(given.items()), command),
            app=app,
            options=_server_options(app, values),
            warnings=warnings,
            _values=values,
            _given=tuple(given),
        )


def _wrong_app(app: object, spelled: str) -> list[ConfigError]:
    """What is wrong with an import string; whether there is such a module is another question."""
    if isinstance(app, str):
        try:
            split_import_string(app)
        except UnusableValueError as error:
            return [ConfigError(spelled, app, error.expected)]
    return []


def _forwarded_allow_ips(given: Mapping[str, Given], environ: Mapping[str, str]) -> list[str]:
    """Who says which proxies to trust believes that they are listened to. ``environ`` is looked at as uvicorn does."""
    name = "forwarded_allow_ips"
    if name in given:
        spelled = given[name].spelled
    elif environ.get(name.upper()):
        spelled = name.upper()
    else:
        return []
    return [
        f"{spelled} has no effect yet: X-Forwarded-For and X-Forwarded-Proto are read from nobody, "
        "which comes with a later release"
    ]


def _settle_workers(
    app: object,
    given: Mapping[str, Given],
    values: dict[str, Any],
    warnings: list[str],
    environ: Mapping[str, str],
) -> list[ConfigError]:
    """Make a number of ``workers``; return what cannot be."""
    spelled, workers = "workers", values["workers"]
    if workers is not None:
        spelled = given["workers"].spelled
    elif text := environ.get("WEB_CONCURRENCY", "").strip():
        spelled = "WEB_CONCURRENCY"
        try:
            workers = OPTIONS["workers"].kind.read(text)
        except UnusableValueError as error:
            return [ConfigError(spelled, text, error.expected)]
        if workers != 1 and not isinstance(app, str):
            # Platforms set it for all that run there, and a server inside a program may be one of them.
            warnings.append(
                f"{spelled}={text} has no effect: only an application given as module:attribute has workers"
            )
            workers = 1
    if values["reload"] and workers not in (None, 1):
        warnings.append(f"{spelled}={workers} has no effect beside reload: one worker is started")
        workers = 1
    asks = [name for name in _SUPERVISING if values[name] is True or values[name] not in (None, False, 1, math.inf)]
    if asks and not isinstance(app, str):
        one = given[asks[0]]
        string = "the application as an import string (module:attribute) beside it: workers import it themselves"
        return [ConfigError(one.spelled, one.raw, string)]
    values["workers"] = available_cpus() if workers == "auto" else workers or 1
    values["supervise"] = values["workers"] > 1 or any(name != "workers" for name in asks)
    if values["supervise"]:
        return []
    # No errors: the number of workers often is a variable, and a service must start where it comes to one, too.
    warnings += [
        f"{given[name].spelled} has no effect in one process without a parent: add supervise, or workers"
        for name in _idle(_OF_A_PARENT, given, values)
        if given[name].spelled != OPTIONS["control_socket"].env  # which is `lastcall ctl`'s too
    ]
    return []


def _idle(names: Iterable[str], given: Mapping[str, Given], values: Mapping[str, Any]) -> list[str]:
    """Those that were given, and have no effect without what they belong to."""
    return [name for name in names if name in given and values[name] != OPTIONS[name].default]


def _server_options(app: object, values: Mapping[str, Any]) -> ServerOptions:
    names = {name for name, _ in values["headers"]}
    return ServerOptions(
        app=AppOptions(
            app=app,
            **_pick(
                values,
                (
                    "factory",
                    "app_dir",
                    "env_file",
                    "interface",
                    "asgi_spec",
                    "lifespan",
                    "root_path",
                    "timeout_lifespan_startup",
                    "lifespan_died",
                    "wsgi_threads",
                    "static",
                    "compress",
                ),
            ),
        ),
        http=HTTPOptions(
            server_header=values["server_header"] and b"server" not in names,
            date_header=values["date_header"] and b"date" not in names,
            **_pick(
                values,
                (
                    "timeout_header",
                    "timeout_body",
                    "timeout_write",
                    "timeout_keep_alive",
                    "timeout_request",
                    "max_connection_age",
                    "limit_requests_per_connection",
                    "limit_request_line",
                    "limit_headers",
                    "limit_header_bytes",
                    "limit_body",
                    "limit_concurrency",
                    "limit_max_requests",
                    "refuse_event_streams",
                    "headers",
                    "root_path",
                    "health_path",
                ),
            ),
        ),
        websockets=_websockets(values),
        net=NetOptions(
            binds=_binds(values),
            exempt=_exempt(values["forwarded_allow_ips"]),
            **_pick(values, ("backlog", "driver", "limit_connections", "limit_connections_per_ip")),
        ),
        stop=StopOptions(
            graceful=values["timeout_graceful_shutdown"],
            cancel=values["timeout_cancel"],
            lifespan_shutdown=values["timeout_lifespan_shutdown"],
            interrupt=values["timeout_interrupt"],
            delay=values["drain_delay"],
            farewell=values["drain_farewell"],
            disconnect=values["timeout_disconnect"],
            close=values["drain_close"],
            finish=values["drain_finish"],
            report=values["drain_report"],
            nonzero_on_cut=values["exit_nonzero_on_cut"],
        ),
        log=LogOptions(
            level=values["log_level"],
            config=_log_config(values["log_config"]),
            access_log=values["access_log"],
            use_colors=values["use_colors"],
        ),
        workers=WorkerOptions(
            count=values["workers"],
            supervised=values["supervise"],
            timeout_boot=values["timeout_worker_boot"],
            timeout_stall=values["timeout_worker_stall"],
            limit_age=values["limit_worker_age"],
            limit_rss=values["limit_worker_rss"],
            control=values["control_socket"],
        ),
        canary=CanaryOptions(
            wanted=values["canary"],
            smoke=values["smoke"],
            share=values["canary_share"],
            hold=values["canary_hold"],
            min_requests=values["canary_min_requests"],
            approve=values["canary_approve"],
        ),
        reload=ReloadOptions(
            wanted=values["reload"],
            dirs=values["reload_dirs"] or (),
            includes=values["reload_includes"] or (),
            excludes=values["reload_excludes"] or (),
            delay=values["reload_delay"],
        ),
        process=ProcessOptions(
            title=values["proc_title"], **_pick(values, ("user", "group", "umask", "pidfile", "chdir"))
        ),
        **_pick(values, ("loop", "gc_freeze", "limit_max_requests_jitter")),
    )


def _websockets(values: Mapping[str, Any]) -> WebSocketOptions | None:
    """None: they are not spoken."""
    if values["ws"] == "none":
        return None
    names = (
        "max_size",
        "max_queue",
        "max_queue_size",
        "ping_interval",
        "ping_timeout",
        "handshake_timeout",
        "per_message_deflate",
    )
    return WebSocketOptions(**{name: values[f"ws_{name}"] for name in names})


def _exempt(trusted: Sequence[str] | None) -> tuple[str, ...]:
    """Whose connections are not counted by address: the trusted proxies', behind which many clients have one."""
    if trusted is None:
        return NetOptions().exempt
    return tuple(one.strip() for text in trusted for one in text.split(",") if one.strip())


def _log_config(value: object) -> object:
    """Return what ``LogOptions`` takes: None for lastcall's own logging, False to leave logging as it is."""
    if value is None:
        return False
    return None if isinstance(value, str) and value == BUILT_IN else value


def _pick(values: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the options that are called alike in the table and in a record of ``base.options``."""
    return {name: values[name] for name in names}


def _binds(values: Mapping[str, Any]) -> tuple[BindSpec, ...]:
    """Return the listeners: ``bind``, else ``fd``, else ``uds``, else ``host`` and ``port``."""
    if values["bind"] is not None:
        binds: tuple[BindSpec, ...] = values["bind"]
        return binds
    if values["fd"] is not None:
        return (BindSpec("fd", fd=values["fd"]),)
    if values["uds"] is not None:
        return (BindSpec("unix", path=values["uds"]),)
    return (BindSpec("tcp", host=values["host"], port=values["port"]),)
