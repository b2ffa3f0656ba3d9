"""Clients that ask and ask while a service is reloaded, recycled, killed and upgraded, and that count what fails.

::

    with Service(tmp_path, "--workers", "2") as service, Storm(service.address) as storm:
        service.signal(signal.SIGHUP)
        ...
        storm.calm()
    assert storm.faults() == []

Half of the clients keep their connection, half open a new one for each request. Each request has a name of its own,
which its answer must repeat; some have a body, and send it later than its head. ``APP`` is what they ask.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from testing.peer import Peer, eventually, request

APP = '''\
"""What a storm asks: the name of the request, the process, the length of the body, the generation."""

import asyncio
import os
import signal
import sys
import time

GENERATION = "{generation}"
{extra}


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({{"type": kind + ".complete"}})
            if kind == "lifespan.shutdown":
                return
    length, more = 0, True
    while more:
        message = await receive()
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    _, name, kind = ("/" + scope["path"]).rsplit("/", 2)
    if kind == "slow":
        await asyncio.sleep(0.02)
    body = b"%s %d %d %s" % (name.encode(), os.getpid(), length, GENERATION.encode())
    headers = [(b"content-length", b"%d" % len(body))]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    await send({{"type": "http.response.body", "body": body}})
'''

PAUSE = 0.02
"""Seconds that a client waits between two requests at most: connections are idle now and then."""

KINDS = ("plain", "plain", "plain", "slow", "body")
BODY = b"b" * 100
BEFORE, AFTER = 5.0, 30.0
"""Seconds before, and after, the end of a process in which a failure of a connection that it held is its."""

PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
ESTABLISHED = "01"


@dataclass(frozen=True)
class Fault:
    """A request that failed. ``asked``: how many its connection had before; ``pid``: who answered the last of them."""

    client: str
    port: int
    when: float
    step: str
    cause: str
    asked: int
    pid: int

    def __str__(self) -> str:
        last = f"after {self.asked} requests, the last of them to {self.pid}" if self.asked else "its first request"
        return f"{self.client}, port {self.port}, {self.step}: {self.cause} ({last}; {self.when:.3f})"


class Client(threading.Thread):
    """One client. ``connections`` counts those that it opened, ``told`` the answers with ``Connection: close``."""

    def __init__(self, address: str, number: int, *, keep: bool) -> None:
        self.label = f"{'kept' if keep else 'fresh'} {number}"
        super().__init__(name=self.label, daemon=True)
        self.keep = keep
        self.connections = 0
        self.told = 0
        self.answers = 0
        self.pids: Counter[int] = Counter()
        self.generations: Counter[str] = Counter()
        self.faults: list[Fault] = []
        self.longest = 0.0
        self.over = threading.Event()
        self._address = address
        self._chance = random.Random(number)
        self._step = ""

    def run(self) -> None:
        """Connect again and again."""
        while not self.over.is_set():
            self._one_connection()

    def _one_connection(self) -> None:
        asked, port, pid = 0, 0, 0
        self._step = "connecting"
        try:
            with Peer(self._address) as peer:
                peer.sock.settimeout(20)
                peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections += 1
                port = peer.name[1]
                while not self.over.is_set():
                    pid, stays = self._ask(peer)
                    asked += 1
                    self.over.wait(self._chance.uniform(0, PAUSE))
                    if not self.keep or not stays:
                        return
        except Exception as exc:
            fault = Fault(self.label, port, time.monotonic(), self._step, repr(exc), asked, pid)
            self.faults.append(fault)
            self.over.wait(0.05)

    def _ask(self, peer: Peer) -> tuple[int, bool]:
        kind, name = self._chance.choice(KINDS), f"{self.name.replace(' ', '-')}-{self.answers}"
        body = BODY if kind == "body" else b""
        # A client with one request for a connection may say so, or just leave.
        more = () if self.keep or self._chance.random() < 0.5 else ("Connection: close",)
        data = request(f"/{name}/{kind}", *more, method="POST" if body else "GET", body=body)
        self._step, since = "sending", time.monotonic()
        if body:
            peer.send(data[:-50])
            time.sleep(0.002)
            peer.send(data[-50:])
        else:
            peer.send(data)
        self._step = "waiting for the answer"
        answer = peer.answer()
        self.longest = max(self.longest, time.monotonic() - since)
        told, pid, length, generation = answer.body.decode().split(" ")
        assert (answer.status, told, int(length)) == (200, name, len(body)), answer
        self.answers += 1
        self.pids[int(pid)] += 1
        self.generations[generation] += 1
        stays = answer.headers.get("connection") != "close"
        self.told += not stays
        return int(pid), stays


class Storm:
    """``clients`` of them, half with a kept-alive connection. They begin on entry, and end with ``calm()``."""

    def __init__(self, address: str, clients: int = 16) -> None:
        self.clients = [Client(address, number, keep=number % 2 == 0) for number in range(clients)]
        self._excused: list[tuple[int, float]] = []

    def __enter__(self) -> Self:
        for client in self.clients:
            client.start()
        eventually(lambda: all(client.answers for client in self.clients), 20)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.calm()
        if kind is not None:
            print(*self.all_faults(), sep="\n")

    def calm(self) -> None:
        """End all clients, each after the answer that it waits for."""
        for client in self.clients:
            client.over.set()
        for client in self.clients:
            client.join(30)
            assert not client.is_alive(), f"{client.label} still waits"

    def more(self, requests: int = 5) -> None:
        """Wait until each client has so many more answers."""
        wanted = {client: client.answers + requests for client in self.clients}
        eventually(lambda: all(client.answers >= count for client, count in wanted.items()), 30)

    @property
    def answers(self) -> int:
        """How many requests were answered."""
        return sum(client.answers for client in self.clients)

    @property
    def reconnections(self) -> int:
        """How often a client that keeps its connection had to open another."""
        return sum(client.connections - 1 for client in self.clients if client.keep)

    @property
    def told(self) -> int:
        """How often one of these was told to."""
        return sum(client.told for client in self.clients if client.keep)

    def pids(self) -> Counter[int]:
        """The processes that answered."""
        return sum((client.pids for client in self.clients), Counter())

    def excuse(self, ports: set[int]) -> None:
        """These connections are held by a process that is about to be killed."""
        now = time.monotonic()
        self._excused += [(port, now) for port in ports]

    def all_faults(self) -> list[Fault]:
        """Every request that failed, in order."""
        return sorted((fault for client in self.clients for fault in client.faults), key=lambda one: one.when)

    def faults(self) -> list[str]:
        """The requests that failed, but for those on connections that a killed process held."""
        return [str(fault) for fault in self.all_faults() if not self._is_excused(fault)]

    def _is_excused(self, fault: Fault) -> bool:
        return any(fault.port == port and -BEFORE < fault.when - at < AFTER for port, at in self._excused)

    def __str__(self) -> str:
        longest = max(client.longest for client in self.clients)
        failed = len(self.all_faults())
        return (
            f"{self.answers} requests, {failed} failed, {len(self.faults())} of them without an excuse; "
            f"{self.reconnections} reconnections, {self.told} of them as told; "
            f"{len(self.pids())} processes; the longest answer took {longest:.2f} s"
        )


# -- processes ---------------------------------------------------------------------------------------------------------


def state(pid: int) -> str:
    """The state of a process (proc(5)); "" where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0].decode()
    except OSError:
        return ""


def freeze(pid: int) -> None:
    """Stop a process, and wait until it is."""
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: state(pid) in ("T", "Z", ""))


def clients_of(pid: int, port: int) -> set[int]:
    """The ports of the clients whose connections to ``port`` a process holds; it is best frozen."""
    sockets: set[str] = set()
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                sockets.add(os.readlink(f"/proc/{pid}/fd/{fd}").removeprefix("socket:[").removesuffix("]"))
    except OSError:
        return set()
    found: set[int] = set()
    for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, _, _, _, _, _, inode, *_ = line.split()
        if int(local.partition(":")[2], 16) == port and inode in sockets:
            found.add(int(remote.partition(":")[2], 16))
    return found - {0}


def kill(storm: Storm, pid: int, port: int, *, but: set[int] | None = None) -> None:
    """SIGKILL for a worker; the connections that it holds are excused, except those of ``but``."""
    with suppress(ProcessLookupError):
        freeze(pid)
        storm.excuse(clients_of(pid, port) - (but or set()))
        os.kill(pid, signal.SIGKILL)


@contextmanager
def reaping() -> Iterator[None]:
    """Processes whose parents end become children of this one, so that their exit codes can be had (prctl(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def exit_code(pid: int, seconds: float = 20.0) -> int:
    """The exit code of an adopted child, once it has ended; negative for a signal."""
    found: list[int] = []

    def ended() -> bool:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            found.append(os.waitstatus_to_exitcode(status))
        return bool(done)

    eventually(ended, seconds)
    return found[0]


def marked(mark: str) -> dict[int, str]:
    """All processes that run with ``mark`` in their environment: their command lines."""
    found: dict[int, str] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                if mark.encode() in Path(f"/proc/{name}/environ").read_bytes() and state(int(name)) not in ("Z", "X"):
                    line = Path(f"/proc/{name}/cmdline").read_bytes()
                    found[int(name)] = line.replace(b"\0", b" ").decode(errors="replace")
    return found
