"""The parts of a server, each made from the options that it needs."""

from __future__ import annotations

import math
import resource
from collections.abc import Callable
from typing import TYPE_CHECKING

from lastcall.asgi.scope import HTTPScopes
from lastcall.base.errors import StartupError
from lastcall.base.record import replace
from lastcall.connection.deadlines import Deadlines
from lastcall.connection.http1 import HTTP1Connection
from lastcall.connection.scheduler import Scheduler
from lastcall.drain.ladder import Budgets

if TYPE_CHECKING:
    import asyncio

    from lastcall.base.options import HTTPOptions, NetOptions, ServerOptions, StopOptions, WebSocketOptions
    from lastcall.base.sinks import AccessSink
    from lastcall.connection.service import HTTPService
    from lastcall.connection.stream import Stream
    from lastcall.connection.websocket import WebSocketUpgrades
    from lastcall.drain.state import DrainState
    from lastcall.net.driver import Driver
    from lastcall.net.listener import Listener

RESERVED_DESCRIPTORS = 64
"""Descriptors kept free of client connections: listeners, logs, the application's own files and pools."""

AGE_LOOKS = 16
"""How often in its allowed life a connection is looked at. Each has an end of its own (the jitter), and one that has
moved has its past: looking now and then, all of them with one period, is cheaper than a list in order."""

LISTENERS_RESERVED = 8
"""How many of them are for listeners."""


def budgets_of(stop: StopOptions) -> Budgets:
    """The budgets of the ladder, as the options have them."""
    return Budgets(
        graceful=stop.graceful,
        cancel=stop.cancel,
        lifespan_shutdown=stop.lifespan_shutdown,
        interrupt=stop.interrupt,
        delay=stop.delay,
        farewell=stop.farewell,
    )


def http1_protocol(service: HTTPService, listener: Listener) -> Callable[[Stream], HTTP1Connection]:
    """What makes the connections of a listener that speaks HTTP/1.1."""
    scopes = HTTPScopes(
        scheme=listener.scheme, root_path=listener.root_path, state=service.state, spec_version=service.asgi_spec
    )
    return lambda stream: HTTP1Connection(service, scopes, stream)


def websocket_upgrades(options: WebSocketOptions | None) -> WebSocketUpgrades | None:
    """What answers the handshakes of WebSockets; None where they are not spoken."""
    if options is None:
        return None
    from lastcall.connection.websocket import WebSocketUpgrades  # noqa: PLC0415 - not with --ws none

    return WebSocketUpgrades(options)


def make_scheduler(
    loop: asyncio.AbstractEventLoop, http: HTTPOptions, access: AccessSink, websockets: WebSocketOptions | None = None
) -> Scheduler:
    """The scheduler of one worker's connections."""
    deadlines = Deadlines(
        header=http.timeout_header,
        body=http.timeout_body,
        keep_alive=http.timeout_keep_alive,
        write=http.timeout_write,
        ws_ping=math.inf if websockets is None else websockets.ping_interval,
        ws_pong=math.inf if websockets is None else websockets.ping_timeout,
        age=http.max_connection_age / AGE_LOOKS,
        request=http.timeout_request,
    )
    return Scheduler(loop, deadlines, access, date_header=http.date_header, server_header=http.server_header)


def make_driver(
    name: str, scheduler: Scheduler, drain: DrainState, *, limit: int, net: NetOptions | None = None
) -> Driver:
    """The driver of ``--driver``: ``auto`` is native where there is epoll and the loop can watch descriptors.

    ``net``: its limit per address is kept too.
    """
    driver = _make_driver(name, scheduler, drain, limit)
    if net is not None and net.limit_connections_per_ip is not None:
        from lastcall.net.peers import PeerLimit  # noqa: PLC0415 - for few servers

        driver.peers = PeerLimit(net.limit_connections_per_ip, net.exempt)
    return driver


def _make_driver(name: str, scheduler: Scheduler, drain: DrainState, limit: int) -> Driver:
    if name in ("auto", "native"):
        try:
            from lastcall.net.reactor import Reactor  # noqa: PLC0415 - does not exist without epoll

            return Reactor(scheduler, drain, limit=limit)
        except (ImportError, NotImplementedError) as exc:
            if name == "native":
                raise StartupError(f"the native driver does not work here ({exc}): use --driver asyncio") from exc
    from lastcall.net.portable import PortableDriver  # noqa: PLC0415

    return PortableDriver(scheduler, drain, limit=limit)


def max_requests(limit: int | None, jitter: int, randint: Callable[[int, int], int] | None = None) -> int | None:
    """``--limit-max-requests`` of this worker: up to ``jitter`` more, so that workers do not all stop together."""
    if limit is None or jitter == 0:
        return limit
    if randint is None:
        import random  # noqa: PLC0415 - for few servers, and slow to import

        randint = random.randint
    return limit + randint(0, jitter)


def http_options(options: ServerOptions, *, private: bool) -> HTTPOptions:
    """Those of the service that clients meet; ``private``: of the one that the parent meets, which nothing limits."""
    if private:
        return replace(
            options.http,
            limit_max_requests=None,
            limit_requests_per_connection=None,
            max_connection_age=math.inf,
            timeout_request=math.inf,
        )
    limit = max_requests(options.http.limit_max_requests, options.limit_max_requests_jitter)
    return replace(options.http, limit_max_requests=limit)


def connection_limit(limit: int | None, listeners: int = 0) -> int:
    """``--limit-connections``, by default what the descriptor limit leaves; workers have the listeners of all slots."""
    if limit is not None:
        return limit
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1 << 30
    return max(1, soft - RESERVED_DESCRIPTORS - max(0, listeners - LISTENERS_RESERVED))
