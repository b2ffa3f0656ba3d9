"""The keywords of ``Config`` and ``run()`` as a type, for editors and type checkers.

A test compares names and types with the table in :mod:`lastcall.config.options`, so the two cannot drift apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    import asyncio
    import os
    from collections.abc import Callable, Sequence
    from configparser import RawConfigParser
    from typing import IO, Any


class ConfigKeywords(TypedDict, total=False):
    """Every keyword; none is required. Meanings, units and defaults: ``docs/reference/options.md``."""

    # Application
    app_dir: str | None
    factory: bool
    interface: str
    asgi_spec: str
    lifespan: str
    root_path: str
    env_file: str | os.PathLike[str] | None
    wsgi_threads: int
    # Listening
    bind: str | Sequence[str] | None
    host: str
    port: int
    uds: str | os.PathLike[str] | None
    fd: int | None
    backlog: int
    # Timeouts
    timeout_header: float | None
    timeout_body: float | None
    timeout_write: float | None
    timeout_keep_alive: float | None
    timeout_disconnect: float | None
    timeout_request: float | None
    max_connection_age: float | None
    # Limits
    limit_connections: int | None
    limit_connections_per_ip: int | None
    limit_requests_per_connection: int | None
    limit_concurrency: int | None
    limit_max_requests: int | None
    limit_max_requests_jitter: int
    limit_body: int | None
    limit_request_line: int
    limit_headers: int
    limit_header_bytes: int
    refuse_event_streams: str
    # Starting and stopping
    drain_delay: float
    timeout_graceful_shutdown: float | None
    timeout_interrupt: float | None
    timeout_cancel: float | None
    timeout_lifespan_shutdown: float | None
    timeout_lifespan_startup: float | None
    lifespan_died: str
    drain_close: str | Sequence[str] | None
    drain_finish: str | Sequence[str] | None
    drain_farewell: float
    drain_report: str | os.PathLike[str] | None
    exit_nonzero_on_cut: bool
    health_path: str | None
    # WebSocket
    ws: str | type[object]
    ws_max_size: int
    ws_max_queue: int
    ws_max_queue_size: int
    ws_ping_interval: float | None
    ws_ping_timeout: float | None
    ws_handshake_timeout: float | None
    ws_per_message_deflate: bool
    # Responses
    headers: Sequence[str | tuple[str, str] | tuple[bytes, bytes]] | None
    server_header: bool
    date_header: bool
    static: str | Sequence[str]
    compress: bool
    # Logging
    log_level: str | int | None
    log_config: dict[str, Any] | str | os.PathLike[str] | RawConfigParser | IO[Any] | None
    access_log: bool
    use_colors: bool | None
    # Process
    driver: str
    loop: str | Callable[[], asyncio.AbstractEventLoop]
    gc_freeze: bool
    # Workers
    workers: int | str | None
    supervise: bool
    timeout_worker_boot: float | None
    timeout_worker_stall: float | None
    limit_worker_age: float | None
    limit_worker_rss: int | None
    control_socket: str | os.PathLike[str] | None
    # Canary
    smoke: str | Sequence[str] | None
    canary: bool
    canary_share: float | None
    canary_hold: float
    canary_min_requests: int
    canary_approve: bool
    # Development
    reload: bool
    reload_dirs: str | Sequence[str] | None
    reload_includes: str | Sequence[str] | None
    reload_excludes: str | Sequence[str] | None
    reload_delay: float
    # Process
    user: str | None
    group: str | None
    umask: int | str | None
    pidfile: str | os.PathLike[str] | None
    proc_title: str | None
    chdir: str | None
    # Later
    timeout_worker_healthcheck: float
    http: str | type[object]
    http2: bool
    proxy_headers: bool
    forwarded_allow_ips: str | Sequence[str] | None
    ssl_keyfile: str | os.PathLike[str] | None
    ssl_certfile: str | os.PathLike[str] | None
    ssl_keyfile_password: str | None
    ssl_version: int
    ssl_cert_reqs: int
    ssl_ca_certs: str | os.PathLike[str] | None
    ssl_ciphers: str | None
    ssl_context_factory: Callable[..., Any] | None
    h11_max_incomplete_event_size: int | None
    reset_contextvars: bool
    daemon: bool
    timeout_notify: float
    callback_notify: Callable[..., Any] | None
