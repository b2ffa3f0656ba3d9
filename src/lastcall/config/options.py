"""The table of options: every option of lastcall is declared here and in :mod:`lastcall.config.unsupported`, once.

Flags of the command, ``LASTCALL_*`` variables, keywords of ``Config`` and ``run()`` and the reference page all come
from ``OPTIONS``. Names are uvicorn's where uvicorn has the option.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from lastcall.config.extras import EXTRAS
from lastcall.config.fleet import FLEET
from lastcall.config.kinds import (
    LARGEST_SIZE,
    Anything,
    Choice,
    Count,
    FilePath,
    Host,
    LogLevel,
    LoopFactory,
    OutputFile,
    PathPrefix,
    Seconds,
    Size,
    SocketPath,
    Switch,
    Text,
)
from lastcall.config.limits import LIMITS
from lastcall.config.lists import Binds, Globs, Headers
from lastcall.config.option import Option
from lastcall.config.unsupported import UNSUPPORTED
from lastcall.config.websocket import WEBSOCKET

__all__ = ["BUILT_IN", "GROUPS", "OPTIONS", "Option"]

BUILT_IN: Final = "built-in"
"""Default of ``log_config``: lastcall's own logging. ``None`` is something else: logging is left as it is."""

GROUPS: Final = {
    "Application": "What is served.",
    "Listening": (
        "`bind` excludes `host`, `port`, `uds` and `fd`. Of those, `fd` wins over `uds`, `uds` over `host` and `port`."
    ),
    "Timeouts": "Of connections, in seconds.",
    "Limits": "Sizes are bytes; `K`, `M` and `G` are powers of 1024.",
    "Starting and stopping": (
        "The budgets of a start and a stop, in seconds, and what is told to whom. "
        "[The drain](../explanation/drain.md) has the order."
    ),
    "WebSocket": "Sizes are bytes, times seconds. [WebSockets](websocket.md) has what they do.",
    "Responses": "What the server adds to responses.",
    "Logging": "Loggers are `lastcall.error` and `lastcall.access`.",
    "Process": (
        "Event loop and process. What the process is to the system (user, group, umask, pidfile, title, directory) is "
        "the command's and `run()`'s to change; a `Server` in a program leaves it alone."
    ),
    "Workers": "Several processes under a parent; [the fleet](../explanation/fleet.md) has the picture.",
    "Canary": "What a new generation must show before it gets all clients.",
    "Development": "Reload while files change.",
    "Later": (
        "For programs and scripts written for uvicorn: these are accepted as long as they ask for nothing that "
        "this release lacks, and refused with an explanation otherwise. `--help` does not list them."
    ),
}


_none: Final = Seconds(optional=True)
_none_positive: Final = Seconds(optional=True, positive=True)

_TABLE = (
    # -- Application ---------------------------------------------------------------------------------------------
    Option(
        name="app_dir",
        kind=Text(optional=True, placeholder="DIRECTORY"),
        default=None,
        command_default="",
        group="Application",
        help=(
            "Directory put first on `sys.path` before APP is imported; the empty one is the current directory. "
            "In Python the default is None, which leaves `sys.path` as it is."
        ),
    ),
    Option(
        name="factory",
        kind=Switch(form="single"),
        default=False,
        group="Application",
        help="APP is a callable that takes no argument and returns the application.",
    ),
    Option(
        name="interface",
        kind=Choice(words=("auto", "asgi3", "asgi2", "wsgi")),
        default="auto",
        group="Application",
        help="How APP is called. `auto` tells ASGI 3, ASGI 2 and WSGI apart by what APP takes.",
    ),
    Option(
        name="asgi_spec",
        kind=Choice(words=("2.3", "2.5")),
        default="2.5",
        group="Application",
        help=(
            "Version of ASGI's HTTP specification. At 2.5 `send()` raises when the client has left; at 2.3 it does "
            "nothing, and frameworks that ask for the version run streams as they do under uvicorn."
        ),
    ),
    Option(
        name="lifespan",
        kind=Choice(words=("auto", "on", "off")),
        default="auto",
        group="Application",
        help="The lifespan protocol. `on`: an application without it is an error. `auto`: it is served without.",
    ),
    Option(
        name="root_path",
        kind=Text(placeholder="PATH"),
        default="",
        group="Application",
        help="Path prefix under which a proxy mounts the application (ASGI root_path).",
    ),
    Option(
        name="env_file",
        kind=FilePath(optional=True, existing=True),
        default=None,
        group="Application",
        help="File of environment variables, loaded before APP is imported (needs `lastcall[dotenv]`).",
    ),
    # -- Listening -----------------------------------------------------------------------------------------------
    Option(
        name="bind",
        kind=Binds(optional=True),
        default=None,
        group="Listening",
        help=(
            "Listen on HOST:PORT, [IPV6]:PORT, unix:PATH, unix:PATH,mode=0660 or fd://N. May be given several times; "
            "in LASTCALL_BIND, separated by spaces. Port 0 is any free port; the mode of a socket file is 0666, or "
            "that of the one that it replaces."
        ),
    ),
    Option(
        name="host",
        kind=Host(),
        default="127.0.0.1",
        group="Listening",
        help="Host name or address to listen on.",
    ),
    Option(
        name="port",
        kind=Count(most=65535, placeholder="PORT"),
        default=8000,
        group="Listening",
        help="Port to listen on; 0 is any free port.",
    ),
    Option(
        name="uds",
        kind=SocketPath(optional=True),
        default=None,
        group="Listening",
        help="Listen on a unix socket with this path instead of host and port; its mode is as with `bind`.",
    ),
    Option(
        name="fd",
        kind=Count(optional=True),
        default=None,
        group="Listening",
        help="Listen on this inherited file descriptor instead of host and port.",
    ),
    Option(
        name="backlog",
        kind=Count(),
        default=2048,
        group="Listening",
        help="Connections that the kernel keeps waiting for each listener.",
    ),
    # -- Timeouts ------------------------------------------------------------------------------------------------
    Option(
        name="timeout_header",
        kind=_none_positive,
        default=10.0,
        group="Timeouts",
        help="Time for a complete request head: from accept, then from the first byte of each later one.",
    ),
    Option(
        name="timeout_body",
        kind=_none_positive,
        default=60.0,
        group="Timeouts",
        help="Time between two pieces of a request body.",
    ),
    Option(
        name="timeout_write",
        kind=_none_positive,
        default=60.0,
        group="Timeouts",
        help="Time in which the client takes no byte of the response; then the connection is aborted.",
    ),
    Option(
        name="timeout_keep_alive",
        kind=_none,
        default=75.0,
        group="Timeouts",
        help="Time that a connection may be idle between two requests; 0 turns keep-alive off.",
    ),
    Option(
        name="timeout_disconnect",
        kind=_none,
        default=3.0,
        group="Timeouts",
        help=(
            "Time for the handler of a response that has started to end after its client has left; then it is "
            "cancelled. 0 cancels at once, `none` never."
        ),
    ),
    # -- Limits --------------------------------------------------------------------------------------------------
    Option(
        name="limit_connections",
        kind=Count(optional=True, least=1),
        default=None,
        group="Limits",
        help="Open connections; at the limit no more are accepted. `none`: the limit on descriptors, less 64.",
    ),
    Option(
        name="limit_concurrency",
        kind=Count(optional=True, least=1),
        default=None,
        group="Limits",
        help="Requests that the application works on at a time; others get 503 with `Retry-After`.",
    ),
    Option(
        name="limit_max_requests",
        kind=Count(optional=True, least=1, most=LARGEST_SIZE),
        default=None,
        group="Limits",
        help="Requests after which the server stops, with exit code 0.",
    ),
    Option(
        name="limit_max_requests_jitter",
        kind=Count(),
        default=0,
        group="Limits",
        help="A random number up to this one is added to `limit_max_requests`.",
    ),
    Option(
        name="limit_body",
        kind=Size(optional=True, most=LARGEST_SIZE),
        default=None,
        group="Limits",
        help="Size of a request body; larger ones get 413.",
    ),
    Option(
        name="limit_request_line",
        kind=Size(least=1),
        default=16 * 1024,
        group="Limits",
        help="Size of a request line; longer ones get 414.",
    ),
    Option(
        name="limit_headers",
        kind=Count(least=1),
        default=128,
        group="Limits",
        help="Header fields of a request; more get 431.",
    ),
    Option(
        name="limit_header_bytes",
        kind=Size(least=1),
        default=64 * 1024,
        group="Limits",
        help="Size of all header fields of a request together; more get 431.",
    ),
    Option(
        name="refuse_event_streams",
        kind=Choice(words=("retry", "503")),
        default="retry",
        group="Limits",
        help=(
            "What a GET that accepts `text/event-stream` gets where others get 503, in a stop or at a limit. `retry`: "
            "an event stream of one line that says when to come again, since browsers give up for good at a 503. "
            "`503`: for a proxy that sends it to another server then."
        ),
    ),
    # -- Starting and stopping -----------------------------------------------------------------------------------
    Option(
        name="drain_delay",
        kind=Seconds(),
        default=0.0,
        group="Starting and stopping",
        help=(
            "Time after a stop order in which requests are still accepted, while readiness (`health_path`) answers "
            "503. 0 begins the stop at once, and so does Ctrl-C."
        ),
    ),
    Option(
        name="timeout_graceful_shutdown",
        kind=_none,
        default=20.0,
        group="Starting and stopping",
        help=(
            "Time for requests in flight to finish; then their tasks are cancelled. Responses that have started are "
            "disconnected 2 s before that, or a tenth of it if that is less. 0 cancels at once, `none` never."
        ),
    ),
    Option(
        name="timeout_interrupt",
        kind=_none,
        default=3.0,
        group="Starting and stopping",
        help="The same after Ctrl-C, unless `timeout_graceful_shutdown` is smaller. With `none`, that one holds.",
    ),
    Option(
        name="timeout_cancel",
        kind=_none,
        default=2.0,
        group="Starting and stopping",
        help=(
            "Time for cancelled tasks to clean up; then they are abandoned, and named in the log. "
            "0 is one turn of the event loop, `none` no limit."
        ),
    ),
    Option(
        name="timeout_lifespan_shutdown",
        kind=_none_positive,
        default=5.0,
        group="Starting and stopping",
        help="Time for the application's `lifespan.shutdown`, which is always run: 0 is refused. `none`: no limit.",
    ),
    Option(
        name="timeout_lifespan_startup",
        kind=_none_positive,
        default=math.inf,
        group="Starting and stopping",
        help="Time for the application's `lifespan.startup`; then the start has failed.",
    ),
    Option(
        name="lifespan_died",
        kind=Choice(words=("serve", "stop")),
        default="serve",
        group="Starting and stopping",
        help=(
            "What follows if the application's lifespan task ends with an exception while the server serves: it goes "
            "on, and readiness (`health_path`) answers 503, or it stops. The exit code is 4 either way."
        ),
    ),
    Option(
        name="drain_close",
        kind=Globs(optional=True),
        default=(),
        group="Starting and stopping",
        help=(
            "Responses to paths that match are disconnected `drain_farewell` after a stop has begun, to end streams "
            "that never would; GET and HEAD requests that still wait for theirs get 503. `*` matches `/` too. The "
            "longest glob that matches decides, `drain_close` if equal. "
            "May be given several times; in LASTCALL_DRAIN_CLOSE, separated by spaces."
        ),
    ),
    Option(
        name="drain_finish",
        kind=Globs(optional=True),
        default=(),
        group="Starting and stopping",
        help=(
            "Responses to paths that match may finish, as those may that match nothing: exceptions to `drain_close`. "
            "May be given several times; in LASTCALL_DRAIN_FINISH, separated by spaces."
        ),
    ),
    Option(
        name="drain_farewell",
        kind=Seconds(),
        default=1.0,
        group="Starting and stopping",
        help="Time for responses that `drain_close` or the application ends to say farewell; 0 ends them at once.",
    ),
    Option(
        name="drain_report",
        kind=OutputFile(optional=True),
        default=None,
        group="Starting and stopping",
        help="File that the report of the stop is written to, as JSON.",
    ),
    Option(
        name="exit_nonzero_on_cut",
        kind=Switch(form="single"),
        default=False,
        group="Starting and stopping",
        help="Exit code 6 instead of 0 if the stop has cut a response short. What `drain_close` ended does not count.",
    ),
    Option(
        name="health_path",
        kind=PathPrefix(optional=True),
        default="",
        group="Starting and stopping",
        help=(
            "Answer `PREFIX/ready` (503 from the stop order on) and `PREFIX/live` before the application does. "
            "The empty one is off."
        ),
    ),
    # -- Responses -----------------------------------------------------------------------------------------------
    Option(
        name="headers",
        flag="--header",
        kind=Headers(optional=True),
        default=(),
        group="Responses",
        help=(
            "Header added to every response. May be given several times; in LASTCALL_HEADERS, one per line. "
            "A `server` or `date` header replaces lastcall's own."
        ),
    ),
    Option(
        name="server_header",
        kind=Switch(),
        default=True,
        group="Responses",
        help="The `server` response header.",
    ),
    Option(
        name="date_header",
        kind=Switch(),
        default=True,
        group="Responses",
        help="The `date` response header.",
    ),
    # -- Logging -------------------------------------------------------------------------------------------------
    Option(
        name="log_level",
        kind=LogLevel(optional=True),
        default=None,
        group="Logging",
        help=(
            "Least level that is logged: critical, error, warning, info, debug, trace or a number. "
            "With a `log_config`, the default is what that says."
        ),
    ),
    Option(
        name="log_config",
        kind=Anything(
            optional=True,
            python_type="dict[str, Any] | str | os.PathLike[str] | RawConfigParser | IO[Any]",
        ),
        default=BUILT_IN,
        group="Logging",
        help=(
            "Configuration of logging: a .json, .yaml (needs `lastcall[yaml]`) or .ini file. In Python also a dict, or "
            "None, which leaves logging as it is."
        ),
    ),
    Option(
        name="access_log",
        kind=Switch(),
        default=True,
        group="Logging",
        help="One line per request.",
    ),
    Option(
        name="use_colors",
        kind=Switch(optional=True),
        default=None,
        group="Logging",
        help="Colours in log lines; `automatic` is on a terminal only.",
    ),
    # -- Process -------------------------------------------------------------------------------------------------
    Option(
        name="driver",
        kind=Choice(words=("auto", "native", "asyncio")),
        default="auto",
        group="Process",
        help="What moves the bytes: the compiled reactor or asyncio's transports. `auto`: the reactor if possible.",
    ),
    Option(
        name="loop",
        kind=LoopFactory(),
        default="auto",
        group="Process",
        help="Event loop. `auto` and `none` are asyncio; `uvloop` needs `lastcall[uvloop]`.",
    ),
    Option(
        name="gc_freeze",
        kind=Switch(),
        default=True,
        group="Process",
        help="After start-up, take what is there out of garbage collection (`gc.freeze`).",
    ),
)

OPTIONS: Final[Mapping[str, Option]] = {
    option.name: option for option in (*_TABLE, *LIMITS, *WEBSOCKET, *EXTRAS, *FLEET, *UNSUPPORTED)
}
