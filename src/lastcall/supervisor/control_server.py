"""The control socket: who may ask, and the little server behind it in the parent's own event loop.

It is lastcall's own HTTP, put together from the pieces of ``lastcall.server``: no lifespan, no access log, no signals,
and no stop ladder, which is the parent's. Whoever connects has seconds for a request, and few connections at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from lastcall.base.errors import StartupError
from lastcall.base.options import BindSpec, HTTPOptions
from lastcall.base.sinks import AccessSink
from lastcall.connection.service import HTTPService
from lastcall.net.binding import bind
from lastcall.notice.running import RunningTasks
from lastcall.notice.signal import DrainSignal
from lastcall.server.parts import http1_protocol, make_driver, make_scheduler
from lastcall.supervisor.control import BODY_AT_MOST, ControlApp, Service, refusing
from lastcall.supervisor.runtime_dir import default_paths

if TYPE_CHECKING:
    from lastcall.base.types import ASGIApp
    from lastcall.connection.scheduler import Scheduler
    from lastcall.connection.stream import Connection, Stream
    from lastcall.net.driver import Driver
    from lastcall.net.listener import Listener

logger = logging.getLogger("lastcall.error")

CONNECTIONS_AT_MOST: Final = 32
BACKLOG: Final = 128
MODE: Final = 0o600

SETTLE_SECONDS: Final = 0.1
"""At the end, for orders that are just being settled: that to stop, above all."""

HTTP: Final = HTTPOptions(
    timeout_header=5.0,
    timeout_body=5.0,
    timeout_write=10.0,
    timeout_keep_alive=5.0,
    limit_request_line=2048,
    limit_headers=32,
    limit_header_bytes=8192,
    limit_body=BODY_AT_MOST,
    server_header=False,
    date_header=False,
)

_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid


class ControlServer:
    """Serves ``service`` on a unix socket. ``start()`` and ``close()`` are called in the parent's loop.

    ``path`` is the configured one (``--control-socket``), where a socket that answers is never replaced, or None for
    the default places, of which the first that can be had is taken; ``name`` is what the socket is called there
    (``runtime_dir.name_of``). ``replace``: the path is a predecessor's, who is about to leave (an upgrade).
    """

    def __init__(self, service: Service, path: str | None = None, *, name: str = "", replace: bool = False) -> None:
        self.path = ""
        self._wanted = path
        self._name = name or str(os.getpid())
        self._replace = replace
        self._app = ControlApp(service)
        self._uids = {0, os.geteuid()}
        self._listener: Listener | None = None
        self._driver: Driver | None = None
        self._scheduler: Scheduler | None = None
        self._tasks = RunningTasks()

    def start(self) -> bool:
        """Bind, and serve. Raises StartupError where the configured path cannot be had.

        False, after a warning, where none of the default places can: the service works without.
        """
        self._listener = self._bind()
        if self._listener is None:
            logger.warning("No place was found for the control socket of `lastcall ctl`: --control-socket says where")
            return False
        self.path = self._listener.path
        self._serve(self._listener)
        return True

    async def close(self, grace: float = 1.0) -> None:
        """Remove the socket, let answers that are nearly there go out (``grace`` seconds), and close."""
        if self._driver is None or self._listener is None or self._scheduler is None:
            return
        driver, self._driver = self._driver, None
        self._listener.unlink()
        driver.stop_accepting()
        await _until(lambda: not self._app.under_way, SETTLE_SECONDS)
        self._app.end("the service has ended")
        await _until(lambda: not self._tasks.count, grace)
        for task in self._tasks.snapshot():
            task.cancel()
        for connection in driver.connections:
            connection.flush_and_close()
        # The last bytes have left with the flush; cancelled tasks still have to hear of it.
        await _until(lambda: not self._tasks.count and not len(driver), 0.2)
        for connection in driver.connections:
            connection.abort()
        driver.close()
        self._scheduler.close()
        self._listener.close()

    def _bind(self) -> Listener | None:
        if self._wanted is not None:
            return self._take_over(self._wanted) if self._replace else _bind(self._wanted)
        for path in default_paths(self._name, os.environ, os.geteuid(), os.getpid()):
            with suppress(StartupError):
                return _bind(path)
        return None

    def _take_over(self, path: str) -> Listener:
        """In a predecessor's place: bound beside it and moved there, so that somebody answers all the time."""
        listener = _bind(f"{path}.{os.getpid()}")
        try:
            os.rename(listener.path, path)
        except OSError as exc:
            listener.close()
            raise StartupError(f"cannot listen on unix:{path}: {exc.strerror}") from exc
        listener.path = os.path.abspath(path)
        return listener

    def _serve(self, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        self._scheduler = make_scheduler(loop, HTTP, AccessSink())
        signal = DrainSignal()

        def service(app: ASGIApp) -> HTTPService:
            assert self._scheduler is not None
            return HTTPService(app, self._tasks, self._scheduler, HTTP, signal=signal)

        allowed = http1_protocol(service(self._app), listener)
        who = " and ".join(f"the user {uid}" for uid in sorted(self._uids))
        refused = http1_protocol(service(refusing(f"only {who} may ask this service")), listener)

        def protocol(stream: Stream) -> Connection:
            return allowed(stream) if self._may_ask(stream) else refused(stream)

        listener.protocol = protocol
        listener.listen(BACKLOG)
        self._driver = make_driver("auto", self._scheduler, signal.state, limit=CONNECTIONS_AT_MOST)
        self._driver.listen(listener)

    def _may_ask(self, stream: Any) -> bool:
        """The file's mode keeps others out; this does so too for one that was made readable by mistake."""
        uid = peer_uid(stream.fd)
        return uid is None or uid in self._uids


def peer_uid(fd: int) -> int | None:
    """Whose process is at the other end of a unix socket: SO_PEERCRED, unix(7); None where that cannot be asked."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    with socket.socket(fileno=os.dup(fd)) as sock:
        uid: int = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))[1]
        return uid


def _bind(path: str) -> Listener:
    """A socket whose file has MODE from its first moment: bind() makes it, with what the umask leaves."""
    before = os.umask(0o777 & ~MODE)
    try:
        return bind((BindSpec("unix", path=path, mode=MODE),))[0]
    finally:
        os.umask(before)


async def _until(true: Any, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not true() and loop.time() < end:
        await asyncio.sleep(0.01)
