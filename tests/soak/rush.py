"""Clients that connect as fast as they can: ``python -m tests.soak.rush ADDRESS SLOTS SECONDS KEEP``.

Each of SLOTS clients connects, asks, reads the answer to its end, and comes again, until it is refused or SECONDS are
over. With KEEP = 1 it asks on the same connection as long as the answers let it. ADDRESS is what a ready line says.
On stdout come a line "answered" at the first answer, and at the end the `Tally` as JSON.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import sys
import time
from dataclasses import dataclass, field

REQUEST = b"GET /now?token HTTP/1.1\r\nHost: rush\r\n\r\n"
LAST_REQUEST = b"GET /now?token HTTP/1.1\r\nHost: rush\r\nConnection: close\r\n\r\n"
EXAMPLES = 10


@dataclass
class Tally:
    """What the clients saw. ``lost`` requests were sent on a connection that was there, and got no whole answer."""

    answered: int = 0
    refused: int = 0
    closed_before: int = 0  # kept alive, and a FIN came before anything was sent
    lost: int = 0
    unclean: int = 0  # a RST behind a whole answer
    examples: list[str] = field(default_factory=list)


class Client:
    """One connection at a time."""

    def __init__(self, rush: Rush) -> None:
        self.rush = rush
        self.connect()

    def connect(self) -> None:
        """Begin a new connection."""
        rush = self.rush
        self.sock = socket.socket(rush.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.asked = self.got_last = False
        self.got = b""
        self.came = 0
        code = self.sock.connect_ex(rush.address)
        while code == errno.EAGAIN:  # a unix socket's backlog is full
            time.sleep(0.0005)
            code = self.sock.connect_ex(rush.address)
        if code in (0, errno.EINPROGRESS):
            rush.clients[self.sock.fileno()] = self
            rush.epoll.register(self.sock, select.EPOLLOUT)
        else:
            self.refused(code)

    def refused(self, code: int) -> None:
        """Nobody listens any more."""
        self.sock.close()
        if code not in (errno.ECONNREFUSED, errno.ENOENT):
            self.rush.wrong(f"connect: {os.strerror(code)}")
        else:
            self.rush.tally.refused += 1

    def ready(self, events: int) -> None:
        """Serve one event of epoll."""
        if not self.asked and not self.came:
            code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                self.leave()
                self.refused(code)
                return
            self.rush.epoll.modify(self.sock, select.EPOLLIN)
            self.ask()
            return
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self.end(error.strerror or "")
            return
        if not data:
            self.end("")
            return
        self.got += data
        if self.asked and self.got.endswith(b"\r\n\r\ntoken"):
            self.rush.tally.answered += 1
            if self.rush.tally.answered == 1:
                print("answered", flush=True)
            self.came += 1
            self.got_last = b"connection: close\r\n" in self.got
            self.asked = False
            self.got = b""
            if not self.got_last:
                if self.rush.over:
                    self.leave()
                else:
                    self.ask()

    def ask(self) -> None:
        """Send the next request, unless the connection has ended by now."""
        try:
            if self.came and not self.sock.recv(1, socket.MSG_PEEK):
                self.end("")
                return
        except BlockingIOError:
            pass
        except OSError as error:
            self.end(error.strerror or "")
            return
        self.asked = True
        try:
            self.sock.send(REQUEST if self.rush.keep else LAST_REQUEST)
        except OSError as error:
            self.end(error.strerror or "")

    def end(self, error: str) -> None:
        """The connection is over: what became of its last request?"""
        rush = self.rush
        if self.asked:
            rush.tally.lost += 1
            rush.wrong(f"lost request {self.came + 1} of a connection: {error or 'FIN'} after {self.got!r}")
        elif error:
            rush.tally.unclean += 1
            rush.wrong(f"{error} behind {self.came} answers")
        elif not self.got_last:
            rush.tally.closed_before += 1
        self.leave()
        if not rush.over:
            self.connect()

    def leave(self) -> None:
        """Close our end."""
        self.rush.epoll.unregister(self.sock)
        del self.rush.clients[self.sock.fileno()]
        self.sock.close()


class Rush:
    """All clients."""

    def __init__(self, address: str, seconds: float, *, keep: bool) -> None:
        self.address: tuple[str, int] | str
        if address.startswith("unix:"):
            self.family, self.address = socket.AF_UNIX, address.removeprefix("unix:")
        else:
            host, _, port = address.removeprefix("http://").partition(":")
            self.family, self.address = socket.AF_INET, (host, int(port))
        self.keep = keep
        self.until = time.monotonic() + seconds
        self.epoll = select.epoll()
        self.clients: dict[int, Client] = {}
        self.tally = Tally()

    @property
    def over(self) -> bool:
        """Whether no new request is to be sent."""
        return time.monotonic() > self.until

    def wrong(self, what: str) -> None:
        """Keep the first faults in full."""
        if len(self.tally.examples) < EXAMPLES:
            self.tally.examples.append(what)

    def run(self, slots: int) -> Tally:
        """Until every client was refused, or the time is over and the last answers have come."""
        for _ in range(slots):
            Client(self)
        while self.clients and time.monotonic() < self.until + 5:
            for fd, events in self.epoll.poll(1):
                if fd in self.clients:
                    self.clients[fd].ready(events)
        if self.clients:
            self.wrong(f"{len(self.clients)} clients still wait")
        return self.tally


if __name__ == "__main__":
    given = sys.argv[1:]
    rush = Rush(given[0], float(given[2]), keep=given[3] == "1")
    print(json.dumps(rush.run(int(given[1])).__dict__))
