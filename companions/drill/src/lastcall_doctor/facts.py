"""What the doctor has seen, as plain records. All times are seconds; ``math.inf`` is "no limit"."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lastcall_doctor.errors import DoctorError
from lastcall_drill.record import Record

LOOPBACK = ("127.", "::1", "localhost")
"""What the addresses begin with that only the same machine, or container, can reach."""


class UnreadableError(DoctorError):
    """A file that the doctor was given cannot be read. The message begins with the file, and the line if known."""

    def __init__(self, file: str, line: int | None, what: str) -> None:
        self.file = file
        self.line = line
        super().__init__(f"{file}: {what}" if line is None else f"{file}:{line}: {what}")


class Shell(Record):
    """A shell that stands before the server. ``execs``: its script hands the process over with ``exec``."""

    name: str
    script: str
    execs: bool


class Launch(Record):
    """How a deployment starts a server: ``server`` is its name, such as ``lastcall``.

    ``words`` is what follows the command's name, ``env`` the variables that the deployment sets. ``unresolved``: words
    with a variable in them that the deployment does not set. ``debug``: what sets Python's debug mode, or nothing.
    """

    words: tuple[str, ...]
    server: str = "lastcall"
    env: Mapping[str, str] = {}
    shell: Shell | None = None
    unresolved: tuple[str, ...] = ()
    debug: str = ""


class Server(Record):
    """What the options of one server amount to.

    ``where`` names the deployment or is ``the command line``, ``name`` is the server's, lastcall or another.
    ``worst_case`` is the longest that a stop takes, ``unlimited`` the flags that are ``none`` and make it endless.
    ``grace_flag`` and ``keep_alive_flag`` are the server's flags for these two. ``missing_extras`` pairs a flag with
    the extra that it needs and that is not installed here. ``refused`` is why lastcall would not start with the
    options at all; the rest holds defaults then.
    """

    where: str
    app: str = ""
    name: str = "lastcall"
    worst_case: float = 28.0
    unlimited: tuple[str, ...] = ()
    grace_flag: str = "--timeout-graceful-shutdown"
    keep_alive_flag: str = "--timeout-keep-alive"
    delay: float = 0.0
    graceful: float = 20.0
    disconnect: float = 3.0
    lifespan_shutdown: float = 5.0
    keep_alive: float = 75.0
    backlog: int = 2048
    limit_concurrency: int | None = None
    limit_connections: int | None = None
    limit_max_requests: int | None = None
    lifespan: str = "auto"
    health_path: str = ""
    loopback: bool = True
    port: int = 8000
    driver: str = "auto"
    missing_extras: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    refused: str = ""
    unresolved: tuple[str, ...] = ()


class Readiness(Record):
    """What Kubernetes asks to learn whether a container is ready. ``path`` is empty if it is no HTTP request."""

    path: str = ""


class Service(Record):
    """What only a systemd unit says. ``nofile`` is its soft limit of descriptors."""

    kill_mode: str = "control-group"
    restart: str = "no"
    type: str = "simple"
    watchdog: float = 0.0
    nofile: float = 1024


class Deployment(Record):
    """What starts, stops and kills the server: one systemd unit, container or Compose service.

    ``kind`` is ``systemd``, ``kubernetes``, ``compose``, ``docker`` (an image, whose timer is not known: inf), ``ecs``,
    ``fly`` or ``supervisor``; ``where`` names file and service or container. ``timer`` is
    when the kill comes, set by ``timer_name`` (``timer_given``: by this file, else it is the default); ``pre_stop`` is
    what passes of it before the signal. ``lines`` has where things stand in the file, by their names.
    ``public``: connections come from outside of it, and it takes part in rollouts. ``server`` is what its
    command comes to; ``unknown`` says why that is not known, if it is not.
    """

    kind: str
    where: str
    launch: Launch | None
    timer: float
    timer_name: str
    timer_given: bool
    signal: str = "SIGTERM"
    signal_name: str = "KillSignal"
    pre_stop: float = 0.0
    public: bool = True
    readiness: Readiness | None = None
    service: Service | None = None
    server: Server | None = None
    unknown: str = ""


class Machine(Record):
    """Where the doctor itself runs. ``nofile`` is the soft limit of descriptors; ``somaxconn`` None: not known."""

    nofile: float = math.inf
    somaxconn: int | None = None
    debug: str = ""
    missing_modules: tuple[str, ...] = ()
    native: bool = True


class Start(Record):
    """How the application started and stopped under lastcall, with nothing to do.

    ``error`` is why it did not become ready, or the last line that it wrote. ``exit_code`` None: it had to be killed.
    ``lifespan`` is the report's word, empty without a report. ``raised``: it took part in the lifespan protocol before
    it raised. ``left`` names what it left behind, ``replaced`` the signals whose handlers it has replaced.
    """

    app: str
    ready: bool
    error: str = ""
    exit_code: int | None = 0
    lifespan: str = ""
    raised: bool = False
    left: tuple[str, ...] = ()
    replaced: str = ""


class Probe(Record):
    """What became of a path whose clients left.

    ``began``: an answer came, with ``status`` and ``headers`` (lower-case names). ``complete``: it was over before the
    clients left. Two clients leave, one ``early`` seconds before the look and one ``late`` seconds before; ``running``
    is how many of their two tasks still ran then.
    """

    path: str
    began: bool
    status: int = 0
    headers: Mapping[str, str] = {}
    complete: bool = False
    early: float = 0.0
    late: float = 0.0
    running: int = 0

    @property
    def events(self) -> bool:
        """Whether the answer is an event stream."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower() == "text/event-stream"

    @property
    def streams(self) -> bool:
        """Whether the answer was good and went on."""
        return self.began and self.status == 200 and not self.complete


class Route(Record):
    """One way through a proxy. ``server`` numbers the virtual server, ``modifier`` and ``match`` are the location's.

    ``ignores_accel``: the response's ``X-Accel-Buffering`` is not heard. ``keep_alive`` is how long the proxy keeps an
    idle connection, None if it keeps none; ``reuses``: what it sends lets a connection be used again.
    ``framed``: it asks by HTTP/1.1 or later, so that a response's end is told by more than the connection's;
    ``tls``: it speaks TLS to the server.
    """

    where: str
    server: int = 0
    modifier: str = ""
    match: str = "/"
    buffering: bool = True
    ignores_accel: bool = False
    read_timeout: float = 60.0
    keep_alive: float | None = None
    reuses: bool = True
    framed: bool = True
    tls: bool = False


class HiddenCut(Record):
    """A place in a proxy's configuration that makes a response which was cut look complete to its client.

    ``how``: ``http2`` (HAProxy with HTTP/2 in front) or ``tls`` (nginx over TLS to the server, by HTTP/1.0).
    """

    where: str
    how: str


class Proxy(Record):
    """A reverse proxy's configuration. ``kind`` is ``nginx`` or ``haproxy``."""

    kind: str
    file: str
    routes: tuple[Route, ...]
    hidden_cuts: tuple[HiddenCut, ...] = ()


class Facts(Record):
    """All that was looked at. ``unrecognized`` are files in which no server was found.

    ``own`` is lastcall as the doctor's command line has it: judged if no deployment is given. None: not installed.
    """

    own: Server | None = None
    deployments: tuple[Deployment, ...] = ()
    unrecognized: tuple[str, ...] = ()
    machine: Machine = Machine()
    lb_idle: float | None = None
    proxies: tuple[Proxy, ...] = ()
    start: Start | None = None
    probe: Probe | None = None

    @property
    def servers(self) -> tuple[Server, ...]:
        """The servers to judge."""
        found = tuple(deployment.server for deployment in self.deployments if deployment.server is not None)
        return found or ((self.own,) if self.own is not None and not self.deployments else ())
