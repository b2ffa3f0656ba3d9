"""Small records: what a package is told of the configuration. Times are seconds, sizes are bytes.

``config`` builds them; a package receives the one it needs, never the whole configuration.
``math.inf`` stands for "none" in every time.
"""

from __future__ import annotations

import math

from lastcall.base.record import Record


class AppOptions(Record):
    """How the application is found and spoken to (package ``asgi``)."""

    app: object = None
    factory: bool = False
    app_dir: str | None = ""
    env_file: str | None = None
    interface: str = "auto"
    asgi_spec: str = "2.5"
    lifespan: str = "auto"
    root_path: str = ""
    timeout_lifespan_startup: float = math.inf
    lifespan_died: str = "serve"
    wsgi_threads: int = 10
    static: tuple[tuple[str, str], ...] = ()  # (prefix without a slash at its end, absolute directory)
    compress: bool = False


class HTTPOptions(Record):
    """Timeouts, limits and response headers of HTTP connections (package ``connection``)."""

    timeout_header: float = 10.0
    timeout_body: float = 60.0
    timeout_write: float = 60.0
    timeout_keep_alive: float = 75.0
    timeout_request: float = math.inf
    max_connection_age: float = math.inf
    limit_requests_per_connection: int | None = None
    limit_request_line: int = 16 * 1024
    limit_headers: int = 128
    limit_header_bytes: int = 64 * 1024
    limit_body: int | None = None
    limit_concurrency: int | None = None
    limit_max_requests: int | None = None
    server_header: bool = True
    date_header: bool = True
    headers: tuple[tuple[bytes, bytes], ...] = ()
    root_path: str = ""
    refuse_event_streams: str = "retry"  # or "503"
    health_path: str = ""  # "": off; else it begins with "/" and does not end with one


class WebSocketOptions(Record):
    """WebSockets (package ``connection``). Sizes are bytes, times seconds; ``inf`` means never."""

    max_size: int = 16 * 1024 * 1024
    max_queue: int = 32
    max_queue_size: int = 16 * 1024 * 1024
    ping_interval: float = 20.0
    ping_timeout: float = 20.0
    handshake_timeout: float = 10.0
    per_message_deflate: bool = True


class BindSpec(Record):
    """One listener. ``kind`` is ``tcp`` (host, port), ``unix`` (path, mode) or ``fd`` (fd).

    ``mode`` None: that of the socket file in whose place the new one comes, else 0666.
    """

    kind: str
    host: str = ""
    port: int = 0
    path: str = ""
    mode: int | None = None
    fd: int = -1

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix:{self.path}"
        if self.kind == "fd":
            return f"fd://{self.fd}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class NetOptions(Record):
    """Listeners and the driver behind them (package ``net``). ``limit_connections`` None: RLIMIT_NOFILE - 64.

    ``exempt`` are addresses and networks that ``limit_connections_per_ip`` does not count, "*" everybody.
    """

    binds: tuple[BindSpec, ...] = (BindSpec("tcp", host="127.0.0.1", port=8000),)
    backlog: int = 2048
    driver: str = "auto"
    limit_connections: int | None = None
    limit_connections_per_ip: int | None = None
    exempt: tuple[str, ...] = ("127.0.0.1", "::1")


class StopOptions(Record):
    """How the server stops (package ``drain``): the budgets of the ladder, in seconds, and what goes with them.

    ``math.inf`` is "none"; ``delay`` and ``farewell`` are always finite. ``disconnect`` is how long the task of a
    response may go on after its client has left. ``close`` and ``finish`` are globs on the decoded path of a request.
    ``report`` is the absolute path of a file, or None. Where it exists, nothing but writing to it has been checked: it
    may be a device, or stand in a directory that cannot be written to, so it has to be written in place.
    ``nonzero_on_cut``: exit code 6 where a response was cut.
    """

    graceful: float = 20.0
    cancel: float = 2.0
    lifespan_shutdown: float = 5.0
    interrupt: float = 3.0
    delay: float = 0.0
    farewell: float = 1.0
    disconnect: float = 3.0
    close: tuple[str, ...] = ()
    finish: tuple[str, ...] = ()
    report: str | None = None
    nonzero_on_cut: bool = False


class LogOptions(Record):
    """Where log lines go and how they look (package ``observe``)."""

    level: str | int | None = "info"
    config: object = None
    access_log: bool = True
    use_colors: bool | None = None


class WorkerOptions(Record):
    """How many workers there are, and how long each may live (package ``supervisor``). Sizes are bytes.

    ``count`` is settled: ``auto`` has become a number. ``supervised``: there is a parent. ``control``: the path of the
    control socket, None: the default place.
    """

    count: int = 1
    supervised: bool = False
    timeout_boot: float = math.inf
    timeout_stall: float = 60.0
    limit_age: float = math.inf
    limit_rss: int | None = None
    control: str | None = None


class CanaryOptions(Record):
    """What a new generation must show (package ``supervisor``). ``smoke``: (path with query, status).

    ``share`` None: 1/(workers + 1). ``wanted``: each reload goes through the canary.
    """

    wanted: bool = False
    smoke: tuple[tuple[str, int], ...] = ()
    share: float | None = None
    hold: float = 30.0
    min_requests: int = 100
    approve: bool = False


class ReloadOptions(Record):
    """Reload while files change (package ``supervisor``). The tuples are as given; ``delay`` is seconds of quiet."""

    wanted: bool = False
    dirs: tuple[str, ...] = ()
    includes: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    delay: float = 0.05


class ProcessOptions(Record):
    """What the process is to the system: whose it is, where it stands, what it is called. None: as it is."""

    user: str | None = None
    group: str | None = None
    umask: int | None = None
    pidfile: str | None = None
    title: str | None = None
    chdir: str | None = None


class ServerOptions(Record):
    """Everything that one worker process needs (package ``server``), put together from the small ones."""

    app: AppOptions = AppOptions()
    http: HTTPOptions = HTTPOptions()
    websockets: WebSocketOptions | None = WebSocketOptions()  # None: they are not spoken
    net: NetOptions = NetOptions()
    stop: StopOptions = StopOptions()
    log: LogOptions = LogOptions()
    loop: str | object = "auto"
    gc_freeze: bool = True
    limit_max_requests_jitter: int = 0
    workers: WorkerOptions = WorkerOptions()
    canary: CanaryOptions = CanaryOptions()
    reload: ReloadOptions = ReloadOptions()
    process: ProcessOptions = ProcessOptions()
