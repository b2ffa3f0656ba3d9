"""A ``Server`` in a thread of the test's own process, and the little that applications in tests need."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from lastcall.base.types import ASGIApp, Receive, Scope, Send
from lastcall.config import Config
from lastcall.server import Server, StopReport
from testing.patience import Patience
from testing.peer import Peer, eventually

STOP_SECONDS = 10.0


class Running:
    """What ``running()`` gives: the server, its thread, and, when that has ended, ``report`` or ``error``."""

    def __init__(self, config: Config, sockets: Sequence[socket.socket] | None) -> None:
        self.server = Server(config)
        self.report: StopReport | None = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(sockets,), name="server", daemon=True)

    def _run(self, sockets: Sequence[socket.socket] | None) -> None:
        try:
            self.report = self.server.run(sockets)
        except BaseException as error:
            self.error = error

    @property
    def address(self) -> tuple[str, int]:
        """Where the first listener is."""
        return cast("tuple[str, int]", self.server.addresses[0])

    def peer(self, *, receive_buffer: int | None = None) -> Peer:
        """A new connection to the first listener."""
        return Peer(self.address, receive_buffer=receive_buffer)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The server's event loop, while it serves."""
        found = self.server._controller._loop
        assert found is not None
        return found

    @property
    def connections(self) -> int:
        """How many connections the server has open."""
        return len(self.server._controller._serving().driver)

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Call in the server's loop; do not wait for it."""
        self.loop.call_soon_threadsafe(function, *args)

    def join(self, timeout: float = STOP_SECONDS) -> StopReport:
        """Wait for the end and return the report; raise what ``run()`` raised."""
        patience = Patience(timeout)
        self.thread.join(timeout)
        while self.thread.is_alive():
            assert not patience.over, f"the server still runs after {timeout:g} s"
            self.thread.join(0.02)
        if self.error is not None:
            raise self.error
        assert self.report is not None
        return self.report

    def stop(self, timeout: float = STOP_SECONDS) -> StopReport:
        """Order a drain, and ``join``."""
        self.server.drain()
        return self.join(timeout)


def config(app: object, **options: Any) -> Config:
    """A Config for tests: a free port, no lifespan, no access log."""
    if not {"bind", "uds", "fd", "host", "port"} & options.keys():
        options["port"] = 0
    chosen: dict[str, Any] = {"lifespan": "off", "access_log": False} | options
    return Config(cast("ASGIApp", app), **chosen)


@contextmanager
def running(
    app: object, *, sockets: Sequence[socket.socket] | None = None, wait: bool = True, **options: Any
) -> Iterator[Running]:
    """Serve in a thread until the block is left; ``wait`` until it has started. Stops it, if nobody has, at once."""
    found = Running(config(app, **options), sockets)
    found.thread.start()
    try:
        if wait:
            eventually(lambda: found.server.started or not found.thread.is_alive())
            if found.error is not None:
                raise found.error
        yield found
    finally:
        found.server.force_exit = True
        found.thread.join(STOP_SECONDS)
        assert not found.thread.is_alive()


class Lines(logging.Handler):
    """Collects what a logger is told."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """logging.Handler."""
        self.records.append(record)

    def messages(self, level: int = logging.DEBUG) -> list[str]:
        """The messages of at least this level."""
        return [record.getMessage() for record in self.records if record.levelno >= level]


@contextmanager
def server_log() -> Iterator[Lines]:
    """What the server says on ``lastcall.error`` while the block runs."""
    logger = logging.getLogger("lastcall.error")
    lines = Lines()
    level = logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        logger.removeHandler(lines)
        logger.setLevel(level)


async def respond(
    send: Send, body: bytes = b"ok", *, status: int = 200, headers: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """Send a whole response with its length."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def whole_body(receive: Receive) -> bytes:
    """The request's body."""
    pieces = []
    while True:
        message = await receive()
        assert message["type"] == "http.request", message
        pieces.append(message["body"])
        if not message["more_body"]:
            return b"".join(pieces)


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers ``ok`` to everything."""
    await respond(send)


Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


def routes(**handlers: Handler) -> ASGIApp:
    """An application of one handler per path: ``routes(slow=f)`` calls f for ``/slow``, and ``hello`` otherwise."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await handlers.get(scope["path"].strip("/"), hello)(scope, receive, send)

    return app


class Gate:
    """Something that tasks in the server's loop wait for and a test opens from its own thread."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._open = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def wait(self) -> None:
        """Say that somebody is here, and wait until the gate is open."""
        self._loop = asyncio.get_running_loop()
        self.reached.set()
        await self._open.wait()

    def open(self) -> None:
        """Let them pass."""
        assert self.reached.wait(STOP_SECONDS), "nobody came to the gate"
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._open.set)
