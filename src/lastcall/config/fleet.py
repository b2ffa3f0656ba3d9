"""The options of a service of several processes: workers, reload, canary, control, and the process itself.

They are rows of the one table in :mod:`lastcall.config.options`.
"""

from __future__ import annotations

import math
from typing import Final

from lastcall.config.kinds import Count, FilePath, Fraction, Mode, Seconds, Size, SocketPath, Switch, Text, Workers
from lastcall.config.lists import Smokes, Strings
from lastcall.config.option import Option

FLEET: Final = (
    # -- Workers -------------------------------------------------------------------------------------------------
    Option(
        name="workers",
        kind=Workers(optional=True),
        default=None,
        group="Workers",
        help=(
            "Worker processes under a parent; `auto`: as many as there is CPU time for (affinity, cgroups). "
            "Without it, WEB_CONCURRENCY says, else 1: one process without a parent."
        ),
    ),
    Option(
        name="supervise",
        kind=Switch(form="single"),
        default=False,
        group="Workers",
        help="Run under a parent also with one worker, so that it can be reloaded, scaled and replaced.",
    ),
    Option(
        name="timeout_worker_boot",
        kind=Seconds(optional=True, positive=True),
        default=math.inf,
        group="Workers",
        help="Time for a worker to become ready, import and `lifespan.startup` included.",
    ),
    Option(
        name="timeout_worker_stall",
        kind=Seconds(optional=True, positive=True),
        default=60.0,
        group="Workers",
        help=(
            "A worker whose event loop gives no sign of life for so long is replaced: its stacks are written, then "
            "comes SIGTERM, and SIGKILL 5 s later."
        ),
    ),
    Option(
        name="limit_worker_age",
        kind=Seconds(optional=True, positive=True),
        default=math.inf,
        group="Workers",
        help="A worker older than this, and up to a tenth more, is replaced. Its successor is ready first.",
    ),
    Option(
        name="limit_worker_rss",
        kind=Size(optional=True, least=1),
        default=None,
        group="Workers",
        help="A worker that holds more memory than this is replaced. Its successor is ready first.",
    ),
    Option(
        name="control_socket",
        kind=SocketPath(optional=True),
        default=None,
        group="Workers",
        help=("Unix socket for `lastcall ctl`; by default in the runtime directory of the user. The start says where."),
    ),
    # -- Canary --------------------------------------------------------------------------------------------------
    Option(
        name="smoke",
        kind=Smokes(optional=True),
        default=(),
        group="Canary",
        help=(
            "PATH[=STATUS] that a new worker must answer (status 200) before it gets clients. May be given several "
            "times. By default the readiness path, and /openapi.json and /docs where the old workers have them."
        ),
    ),
    Option(
        name="canary",
        kind=Switch(form="single"),
        default=False,
        group="Canary",
        help="A reload first gives one new worker a share of the clients, and compares it with the old ones.",
    ),
    Option(
        name="canary_share",
        kind=Fraction(optional=True),
        default=None,
        group="Canary",
        help="Share of new connections that the canary gets, from 0 to 1; by default 1/(workers + 1).",
    ),
    Option(
        name="canary_hold",
        kind=Seconds(positive=True),
        default=30.0,
        group="Canary",
        help="Time for which the canary is compared; up to ten times as long while it has too few requests.",
    ),
    Option(
        name="canary_min_requests",
        kind=Count(least=1),
        default=100,
        group="Canary",
        help="Requests that the canary must have answered before it may be called worse.",
    ),
    Option(
        name="canary_approve",
        kind=Switch(form="single"),
        default=False,
        group="Canary",
        help="After a good verdict wait for `lastcall ctl promote` or `lastcall ctl rollback`.",
    ),
    # -- Development ---------------------------------------------------------------------------------------------
    Option(
        name="reload",
        kind=Switch(form="single"),
        default=False,
        group="Development",
        help="Replace the worker when a source file changes (needs `lastcall[reload]`). The port stays open.",
    ),
    Option(
        name="reload_dirs",
        flag="--reload-dir",
        kind=Strings(optional=True, placeholder="PATH"),
        default=None,
        group="Development",
        help="Directory to watch, instead of the current one. May be given several times.",
    ),
    Option(
        name="reload_includes",
        flag="--reload-include",
        kind=Strings(optional=True, placeholder="GLOB"),
        default=None,
        group="Development",
        help="Files to watch beside `*.py`. May be given several times.",
    ),
    Option(
        name="reload_excludes",
        flag="--reload-exclude",
        kind=Strings(optional=True, placeholder="GLOB"),
        default=None,
        group="Development",
        help="Files and directories not to watch. May be given several times.",
    ),
    Option(
        name="reload_delay",
        kind=Seconds(),
        default=0.05,
        group="Development",
        help="Time for which files must have been quiet before a change counts.",
    ),
    # -- Process -------------------------------------------------------------------------------------------------
    Option(
        name="user",
        kind=Text(optional=True, placeholder="USER"),
        default=None,
        group="Process",
        help="User, by name or number, that the process becomes when its addresses are bound.",
    ),
    Option(
        name="group",
        kind=Text(optional=True, placeholder="GROUP"),
        default=None,
        group="Process",
        help="Group, by name or number; by default that of `user`.",
    ),
    Option(
        name="umask",
        kind=Mode(optional=True),
        default=None,
        group="Process",
        help="Permissions that new files do not get, in octal.",
    ),
    Option(
        name="pidfile",
        kind=FilePath(optional=True),
        default=None,
        group="Process",
        help="File with the process number of the server (the parent's, where there is one).",
    ),
    Option(
        name="proc_title",
        kind=Text(optional=True, placeholder="TITLE"),
        default=None,
        group="Process",
        help="Title of the processes in `ps` (needs `lastcall[proctitle]`).",
    ),
    Option(
        name="chdir",
        kind=Text(optional=True, placeholder="DIRECTORY"),
        default=None,
        group="Process",
        help="Directory to change to before anything else is looked for.",
    ),
    Option(
        name="timeout_worker_healthcheck",
        kind=Seconds(),
        default=5.0,
        group="Later",
        help="uvicorn's time for a worker's sign of life. Any value: `timeout_worker_stall` is lastcall's.",
    ),
)
