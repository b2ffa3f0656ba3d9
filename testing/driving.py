"""A driver alone: real sockets, and a loop that a test turns by hand."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from lastcall.base.options import HTTPOptions
from lastcall.base.sinks import AccessSink
from lastcall.connection.scheduler import Scheduler
from lastcall.connection.service import HTTPService
from lastcall.drain.ladder import Phase
from lastcall.net.driver import Driver
from lastcall.net.listener import Listener, Owner
from lastcall.notice.running import RunningTasks
from lastcall.server.parts import http1_protocol, make_driver, make_scheduler
from testing.running import hello


class Bench:
    """A driver without a server around it, in a loop that a test turns by hand."""

    def __init__(
        self,
        driver: str,
        loop: asyncio.AbstractEventLoop,
        *,
        limit: int = 1000,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.loop = loop
        self.scheduler = make_scheduler(loop, HTTPOptions(), AccessSink())
        if clock is not None:
            self.scheduler = Scheduler(loop, self.scheduler.deadlines, AccessSink(), clock=clock)
        self.service = HTTPService(hello, RunningTasks(), self.scheduler)
        self.drain = self.service.drain
        self.drain.phase = Phase.SERVING
        self.driver: Driver = make_driver(driver, self.scheduler, self.drain, limit=limit)

    def listen(self, sock: socket.socket, owner: Owner = Owner.OURS) -> Listener:
        """Have the driver accept from a listening socket, of which the test keeps its own copy."""
        listener = Listener(sock, owner)
        sock.setblocking(False)
        listener.protocol = http1_protocol(self.service, listener)
        self.driver.listen(listener)
        return listener

    def stop_new_connections(self) -> None:
        """What the controller does when the drain begins."""
        self.drain.phase = Phase.DRAINING
        self.drain.since = self.loop.time()
        self.driver.stop_new_connections()

    def turn(self) -> int:
        """Let the loop turn once; how many connections that brought."""
        before = len(self.driver)
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()
        return len(self.driver) - before

    def close(self) -> None:
        self.driver.stop_accepting()
        for connection in self.driver.connections:
            connection.close_now()
        for _ in range(4):
            self.turn()
        self.driver.close()
        self.scheduler.close()
        self.loop.close()
