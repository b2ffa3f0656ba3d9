"""Many clients that retry few keys, at two servers with one store, while the servers are restarted and killed.

Each client has one key and goes on retrying it until the end; it changes servers when its connection fails. A new key
begins every little while, some of them for each blow, so that there is work under way when a server is stopped or
killed. What the clients were told, and what the servers wrote down, has to agree with the promise: see :func:`faults`.
"""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from testing.process import ServerProcess

APPS = Path(__file__).with_name("apps")
RETRY = 0.15  # seconds until a client tries again that was not answered
AGAIN = 1.0  # seconds until one does that was
PATIENCE = 25.0  # seconds that one answer may take
GRANT = 0.5  # seconds by which a lease may be older than what its work has written down, on a busy machine

ANSWER = tuple[int, str, bytes]  # status, the work's name, body


@dataclass(frozen=True)
class Plan:
    """How large a storm is. Times are in seconds; for ``span`` of them new keys begin, for each blow and after it."""

    clients: int
    keys: int
    span: float
    lease: float
    blows: Sequence[str] = ("restart", "restart", "kill", "kill")


@dataclass(frozen=True)
class Work:
    """One execution, as its server wrote it down. ``end`` is None if it was cut short."""

    path: str
    pid: int
    name: str
    begin: float
    end: float | None


@dataclass
class Found:
    """What came of a storm."""

    plan: Plan
    works: list[Work] = field(default_factory=list)
    killed: dict[int, float] = field(default_factory=dict)  # by pid, when
    answers: dict[str, Counter[ANSWER]] = field(default_factory=lambda: defaultdict(Counter))  # by path
    told: Counter[str] = field(default_factory=Counter)
    codes: list[int] = field(default_factory=list)  # of the servers that were stopped
    extra: list[str] = field(default_factory=list)  # paths that were sent to a server about to be struck
    unanswered: int = 0
    seconds: float = 0.0

    @property
    def cut(self) -> list[Work]:
        """Executions that a kill ended."""
        return [work for work in self.works if work.end is None]

    def of(self, path: str) -> list[Work]:
        """The executions of one key, in their order."""
        return sorted((work for work in self.works if work.path == path), key=lambda work: work.begin)

    @property
    def waits(self) -> list[float]:
        """For each execution that was repeated: seconds from the kill of its server to the next one's begin."""
        pairs = [pair for path in self.answers for pair in pairwise(self.of(path))]
        return [after.begin - self.killed[before.pid] for before, after in pairs if before.pid in self.killed]

    def table(self) -> str:
        """The figures."""
        waits = self.waits
        return (
            f"{self.plan.clients} clients, {self.plan.keys} keys, {self.seconds:.1f} s, lease {self.plan.lease:g} s: "
            f"{len(self.works)} executions, {len(self.cut)} of them cut short, {len(waits)} repeated "
            f"{min(waits, default=0):.2f} to {max(waits, default=0):.2f} s after the kill; "
            + ", ".join(f"{count} {what}" for what, count in sorted(self.told.items()))
        )


def faults(found: Found, late: float) -> list[str]:
    """What broke the promise. ``late`` is how much a client and a busy machine may add to a lease, in seconds."""
    lease = found.plan.lease
    wrong = [f"{what}: {count} times" for what, count in found.told.items() if what not in EXPECTED]
    if found.unanswered:
        wrong.append(f"{found.unanswered} clients never had a whole answer")
    if any(found.codes):
        wrong.append(f"exit codes {found.codes}")
    for path, answers in found.answers.items():
        if len(answers) != 1:
            wrong.append(f"{path}: {len(answers)} different answers")
        works = found.of(path)
        name = next(iter(answers))[1]
        if name != works[-1].name:
            wrong.append(f"{path}: answered with {name}, but the last execution was {works[-1].name}")
        for before, after in pairwise(works):
            killed = found.killed.get(before.pid)
            if killed is None or after.begin < max(killed, before.begin + lease - GRANT):
                wrong.append(f"{path}: {after} within the lease of {before} (killed: {killed})")
            elif after.begin > killed + lease + late:
                wrong.append(f"{path}: stuck for {after.begin - killed:.2f} s: {before}, {after}")
    wrong += [f"cut short, but not by a kill: {work}" for work in found.cut if work.pid not in found.killed]
    return wrong


EXPECTED = {
    "executed",
    "replayed",
    "once_in_flight",
    "once_draining",
    "refused connections",
    "lost connections",
}


class Storm:
    """One run, with its own log and namespace."""

    def __init__(self, plan: Plan, store: str, directory: Path, seed: int) -> None:
        self.found = Found(plan)
        self._plan = plan
        self._random = random.Random(seed)
        self._log = directory / "log"
        self._log.touch()
        self._env = {
            "STORE": store,
            "LOG": str(self._log),
            "LEASE": str(plan.lease),
            "NAMESPACE": uuid.uuid4().hex,
            "PYTHONPATH": str(APPS),
        }
        self._ports = free_ports(2)
        self._servers: list[ServerProcess] = []
        self._clients: list[asyncio.Task[None]] = []
        self._paths = [self._path(number) for number in range(plan.keys)]
        self._phases = [asyncio.Event() for _ in range(len(plan.blows) + 1)]
        self._calm = asyncio.Event()

    def _path(self, number: int) -> str:
        longest = (1.5 if number % 10 == 7 else 0.5) * self._plan.lease
        seconds = self._random.uniform(0.5 * longest, longest)
        size = self._random.choice([0, 100, 3000, 40_000])
        return f"/key{number}/{size}{'/stream' if number % 2 else ''}?{seconds:.3f}"

    async def run(self) -> Found:
        """Raise the storm, and return what came of it."""
        began = time.monotonic()
        try:
            self._servers = [self._started(0), self._started(1)]
            for server in self._servers:
                await asyncio.to_thread(server.wait_ready)
            self._clients = [asyncio.create_task(self._client(number)) for number in range(self._plan.clients)]
            try:
                for number, blow in enumerate(self._plan.blows):
                    self._phases[number].set()
                    await self._strike(number % 2, blow)
                self._phases[-1].set()
                self._calm.set()
                await asyncio.gather(*self._clients)
            finally:
                for client in self._clients:
                    client.cancel()
                await asyncio.gather(*self._clients, return_exceptions=True)
            for server in self._servers:
                server.signal(signal.SIGTERM)
            self.found.codes += [await asyncio.to_thread(server.wait) for server in self._servers]
        finally:
            for server in self._servers:
                server.kill()
        self.found.works = self._works()
        self.found.seconds = time.monotonic() - began
        return self.found

    # -- the servers -------------------------------------------------------------------------------------------------

    def _started(self, which: int) -> ServerProcess:
        options = ["--no-access-log", "--port", str(self._ports[which])]
        return ServerProcess(options, "storm:app", self._env, APPS).start()

    async def _strike(self, which: int, blow: str) -> None:
        """Restart or kill a server that is at work, among the new keys' beginnings."""
        await asyncio.sleep(self._plan.span / 2)
        server = self._servers[which]
        deadline = time.monotonic() + PATIENCE
        due = 0.0
        while not any(work.pid == server.pid and work.end is None for work in self._works()):
            assert time.monotonic() < deadline, "a server has nothing to do"
            if time.monotonic() > due:  # who begins where is chance, and on a busy machine all may be done already
                due = time.monotonic() + self._plan.lease
                self._send_work_to(which)
            await asyncio.sleep(0.02)
        if blow == "kill":
            server.signal(signal.SIGKILL)
            await asyncio.to_thread(server.wait)
            self.found.killed[server.pid] = time.monotonic()
        else:
            server.signal(signal.SIGTERM)
            self.found.codes.append(await asyncio.to_thread(server.wait, PATIENCE))
        server.kill()  # its pipes
        self._servers[which] = self._started(which)
        await asyncio.to_thread(self._servers[which].wait_ready)

    def _send_work_to(self, which: int) -> None:
        path = f"/extra{len(self.found.extra)}/100"
        self.found.extra.append(path)
        target = f"{path}?{self._plan.lease:.3f}"
        self._clients.append(asyncio.create_task(self._ask(target, which, random.Random(self._random.random()))))

    def _works(self) -> list[Work]:
        begun: dict[str, Work] = {}
        for line in self._log.read_text().splitlines():
            what, path, pid, name, at = line.split()
            if what == "begin":
                begun[name] = Work(path, int(pid), name, float(at), None)
            else:
                begun[name] = Work(path, int(pid), name, begun[name].begin, float(at))
        return list(begun.values())

    # -- a client ----------------------------------------------------------------------------------------------------

    async def _client(self, number: int) -> None:
        phase, behind = divmod(number % self._plan.keys * len(self._phases) / self._plan.keys, 1.0)
        chance = random.Random(self._random.random())
        await self._phases[int(phase)].wait()
        await asyncio.sleep(self._plan.span * behind)
        await self._ask(self._paths[number % self._plan.keys], number // self._plan.keys % 2, chance)

    async def _ask(self, target: str, which: int, chance: random.Random) -> None:
        """Ask until there is an answer, and again, at this server first, until the storm is over."""
        path = target.partition("?")[0]
        head = f"POST {target} HTTP/1.1\r\nHost: storm\r\nIdempotency-Key: {path}\r\nContent-Length: 2\r\n\r\n"
        asking = head.encode() + b"{}"
        deadline = time.monotonic() + len(self._phases) * self._plan.span + 2 * PATIENCE
        connection: Connection | None = None
        answered = False
        try:
            while not (answered and self._calm.is_set()):
                if time.monotonic() > deadline:
                    self.found.unanswered += 1
                    return
                try:
                    if connection is None:
                        connection = await Connection.to(self._ports[which])
                except OSError:
                    self.found.told["refused connections"] += 1
                    which = 1 - which
                    await asyncio.sleep(chance.uniform(0.5, 1.5) * RETRY)
                    continue
                try:
                    async with asyncio.timeout(PATIENCE):
                        status, headers, body = await connection.ask(asking)
                except (OSError, EOFError):
                    self.found.told["lost connections"] += 1
                    connection.close()
                    connection, which = None, 1 - which
                    continue
                answered = self._note(path, status, headers, body) or answered
                if headers.get("connection") == "close":
                    connection.close()
                    connection, which = None, 1 - which
                await asyncio.sleep(chance.uniform(0.5, 1.5) * (AGAIN if status == 201 else RETRY))
        finally:
            if connection is not None:
                connection.close()

    def _note(self, path: str, status: int, headers: dict[str, str], body: bytes) -> bool:
        """Write an answer down; True if it was that of an execution."""
        if status == 201:
            self.found.told["replayed" if "idempotent-replayed" in headers else "executed"] += 1
            self.found.answers[path][status, headers["x-work"], body] += 1
            return True
        self.found.told[body.decode().partition('"code": "')[2].partition('"')[0] or f"status {status}"] += 1
        return False


class Connection:
    """A kept-alive connection of a client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def to(cls, port: int) -> Connection:
        """Connect. Raises OSError."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and the whole body of an answer. Raises OSError or EOFError if that does not come."""
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        if "content-length" in headers:
            return int(head[0][9:12]), headers, await self._reader.readexactly(int(headers["content-length"]))
        pieces = []
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            pieces.append((await self._reader.readexactly(size + 2))[:-2])
        await self._reader.readexactly(2)
        return int(head[0][9:12]), headers, b"".join(pieces)

    def close(self) -> None:
        """Leave."""
        self._writer.transport.abort()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
