"""Stops with much going on: thousands of connections, hundreds of streams, clients that come as fast as they can."""

from __future__ import annotations

import json
import os
import random
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from testing.clock import Moment
from testing.peer import Peer, eventually, request
from testing.process import ServerProcess
from tests.process.conftest import Start, wait_for_output
from tests.soak.rush import Tally

ROOT = Path(__file__).parents[2]
APP = "tests.soak.stop_app:app"

DRIVERS = pytest.mark.parametrize("driver", ["native", pytest.param("asyncio", marks=pytest.mark.soak)])

# -- thousands of connections -----------------------------------------------------------------------------------------

IDLE = 5_000  # half of them have had an answer, half have never sent a byte
LEAVING, ENDLESS, QUIET, FINITE = 250, 200, 50, 50
CUT = ENDLESS + QUIET
STREAMS = LEAVING + CUT + FINITE
DESCRIPTORS = IDLE + STREAMS + 200  # that a process needs, on either side
GRACE, CANCEL, LIFESPAN, TEARDOWN = 7.0, 1.0, 1.0, 1.0  # the streams that finish take 3 s, and a busy machine
MARGIN = GRACE / 10
LINGER = GRACE / 10
LAST_CHUNK = b"0\r\n\r\n"


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Room for all connections, here and in the server, which inherits the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
        pytest.skip(f"needs {DESCRIPTORS} descriptors; `ulimit -Hn` is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, DESCRIPTORS), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@dataclass
class Connection:
    """What one client has got, how its connection ended, and when."""

    peer: Peer
    name: str
    data: bytearray = field(default_factory=bytearray)
    end: str = ""
    ended_at: float = 0.0


class Crowd:
    """All clients on one epoll set: opened one by one, then read together."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._epoll = select.epoll()
        self._open: dict[int, Connection] = {}
        self.all: list[Connection] = []

    def add(self, name: str, path: str = "") -> Connection:
        """Connect, and send a request if there is a ``path``."""
        connection = Connection(Peer(self._address), name)
        if path:
            connection.peer.request(path)
        self._open[connection.peer.sock.fileno()] = connection
        self._epoll.register(connection.peer.sock, select.EPOLLIN)
        self.all.append(connection)
        return connection

    def read(self, until: float) -> None:
        """Read what comes until the time on the monotonic clock, or until every connection has ended."""
        while self._open and (left := until - time.monotonic()) > 0:
            for fd, _ in self._epoll.poll(left):
                self._ready(self._open[fd])

    def read_answers(self, count: int) -> None:
        """Read until the first piece of ``count`` answers has come."""
        deadline = time.monotonic() + 10
        while sum(b"\r\n\r\n" in one.data for one in self.all) < count:
            assert time.monotonic() < deadline
            self.read(time.monotonic() + 0.02)

    def named(self, name: str) -> list[Connection]:
        """The clients of one kind."""
        return [one for one in self.all if one.name == name]

    def close(self) -> None:
        """Leave."""
        for one in self.all:
            one.peer.close()
        self._epoll.close()

    def _ready(self, one: Connection) -> None:
        try:
            data = one.peer.sock.recv(65536)
            one.end = "" if data else "FIN"
        except ConnectionResetError:
            data, one.end = b"", "RST"
        one.data += data
        if one.end:
            one.ended_at = time.monotonic()
            del self._open[one.peer.sock.fileno()]
            one.peer.close()


@contextmanager
def crowd(address: str) -> Iterator[Crowd]:
    """The idle connections and the streams; the finite ones, opened last, have 0.5 to 3 s to go."""
    rng = random.Random(3)
    found = Crowd(address)
    try:
        for _ in range(IDLE // 2):
            found.add("fresh")
            found.add("kept", "/now?kept")
        for name, count in (("leaving", LEAVING), ("endless", ENDLESS), ("quiet", QUIET)):
            for _ in range(count):
                found.add(name, f"/{name}")
        for _ in range(FINITE):
            found.add("finite", f"/finite?{rng.randint(5, 30)}")
        found.read_answers(IDLE // 2 + STREAMS)
        yield found
    finally:
        found.close()


class Exit:
    """Watches for the end of the process."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self.code: int | None = None
        self.at = 0.0
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        pidfd = os.pidfd_open(self._server.pid)
        try:
            watch = select.poll()
            watch.register(pidfd, select.POLLIN)
            watch.poll(30_000)  # exact to the millisecond, which Popen.wait() is not
            self.at = time.monotonic()
        finally:
            os.close(pidfd)
        self.code = self._server.wait()

    def join(self) -> None:
        """Wait for it."""
        self._thread.join()


@pytest.mark.timeout(90)
@pytest.mark.usefixtures("descriptors")
@DRIVERS
def test_a_stop_with_5000_idle_connections_500_sse_streams_and_50_finite_ones(tmp_path: Path, driver: str) -> None:
    report_path = tmp_path / "report.json"
    options = (
        *("--driver", driver, "--no-access-log", "--drain-report", str(report_path)),
        *("--timeout-header", "60"),  # so that no fresh connection leaves before the stop
        *("--timeout-graceful-shutdown", f"{GRACE}", "--timeout-cancel", f"{CANCEL}"),
        *("--timeout-lifespan-shutdown", f"{LIFESPAN}"),
    )
    with ServerProcess(options, APP, cwd=ROOT) as server, crowd(server.wait_ready()[0]) as clients:
        ordered = Moment.now()
        server.signal(signal.SIGTERM)
        ending = Exit(server)
        clients.read(ordered + GRACE + CANCEL + LIFESPAN + TEARDOWN)
        ending.join()

    seconds = ending.at - ordered
    told = json.loads(server.stdout.splitlines()[-1])
    report: dict[str, Any] = json.loads(report_path.read_text())
    idle_after = max(one.ended_at for one in clients.named("fresh") + clients.named("kept")) - ordered
    print(
        f"\n--driver {driver}: {IDLE} idle connections closed {idle_after:.2f} s after SIGTERM, the last finite stream "
        f"complete after {max(one.ended_at for one in clients.named('finite')) - ordered:.2f} s, exit after "
        f"{seconds:.2f} s, {ending.at - told['last_end']:.3f} s after the last entry. {report['phases']}"
    )

    # What finishes by itself is complete, and so is what leaves when it is told.
    for one in clients.named("finite"):
        assert one.data.endswith(b"end\n\r\n" + LAST_CHUNK), one
    for one in clients.named("leaving"):
        assert one.data.endswith(b"farewell\n\n\r\n" + LAST_CHUNK), one
        assert one.ended_at - ordered < GRACE / 2
    # What does not is cut, visibly, and not before its time.
    for one in clients.named("endless") + clients.named("quiet"):
        assert not one.data.endswith(LAST_CHUNK), one
        assert GRACE - MARGIN - 0.05 < one.ended_at - ordered < GRACE, one
    # Idle connections get a FIN, none a RST, once the linger is over.
    assert [one for one in clients.all if one.end != "FIN"] == []
    assert {bytes(one.data) for one in clients.named("fresh")} == {b""}
    assert all(one.data.endswith(b"\r\n\r\nkept") for one in clients.named("kept"))
    assert LINGER - 0.05 < idle_after < GRACE / 2

    assert ending.code == 0
    assert seconds < GRACE + CANCEL + LIFESPAN + TEARDOWN
    assert ending.at - told["last_end"] < CANCEL + LIFESPAN + TEARDOWN
    assert told["ended"] == IDLE // 2 + STREAMS

    assert report["in_flight"] == {"stream": STREAMS}
    assert report["arrived"] == 0
    outcomes = {name: report[name] for name in ("finished", "closed_by_policy", "disconnected", "cancelled")}
    assert outcomes == {
        "finished": FINITE + LEAVING,
        "closed_by_policy": 0,
        "disconnected": CUT,
        "cancelled": 0,
    }
    assert report["abandoned"] == 0
    assert sorted(cut["path"] for cut in report["cut"]) == ["/endless"] * ENDLESS + ["/quiet"] * QUIET
    assert f"{FINITE + LEAVING} of {STREAMS} finished, {CUT} disconnected; lifespan complete" in server.stderr
    assert "Traceback" not in server.stderr


# -- the backlog under load --------------------------------------------------------------------------------------------

SLOTS = 200  # clients; each asks again as soon as it has its answer
RUSH_SECONDS = 0.3  # before the SIGTERM
LINGERING = 1.0  # at most so long the close of a connection waits for the client's FIN


def rush(server: ServerProcess, *, keep: bool) -> tuple[Tally, float]:
    """SIGTERM under a rush of clients: what they saw, and the seconds from the signal to the exit."""
    arguments = [server.addresses[0], str(SLOTS), "10", f"{keep:d}"]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.soak.rush", *arguments], cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8"
    ) as clients:
        try:
            assert clients.stdout is not None
            assert clients.stdout.readline() == "answered\n"
            time.sleep(RUSH_SECONDS)
            ordered = time.monotonic()
            server.signal(signal.SIGTERM)
            ending = Exit(server)
            ending.join()
            assert ending.code == 0
            return Tally(**json.loads(clients.communicate(timeout=20)[0])), ending.at - ordered
        finally:
            clients.kill()


@pytest.mark.parametrize(
    ("driver", "address", "keep"),
    [
        ("native", "tcp", False),
        ("native", "tcp", True),
        ("native", "unix", False),
        ("asyncio", "tcp", False),
        pytest.param("asyncio", "tcp", True, marks=pytest.mark.soak),
        pytest.param("asyncio", "unix", False, marks=pytest.mark.soak),
    ],
    ids=lambda value: {True: "kept alive", False: "a connection each"}.get(value, value),
)
def test_a_rush_of_clients_neither_holds_the_stop_up_nor_loses_a_request(
    tmp_path: Path, driver: str, address: str, keep: bool
) -> None:
    report_path = tmp_path / "report.json"
    options = ("--driver", driver, "--no-access-log", "--drain-report", str(report_path))
    listening = ("--uds", str(tmp_path / "socket")) if address == "unix" else ("--port", "0")
    with ServerProcess((*options, *listening), APP, cwd=ROOT) as server:
        server.wait_ready()
        seen, seconds = rush(server, keep=keep)
    report = json.loads(report_path.read_text())
    print(f"\n--driver {driver}, {address}: exit {seconds:.2f} s after SIGTERM, {seen}, {report['phases']}")
    assert seen.examples == []
    assert (seen.lost, seen.unclean) == (0, 0)
    assert seen.refused == SLOTS
    assert json.loads(server.stdout.splitlines()[-1])["ended"] == seen.answered
    assert report["finished"] == sum(report["in_flight"].values()) + report["arrived"]
    # The linger, one lingering close, and what this machine needs for the rest.
    assert seconds < 1.0 + LINGERING + 1.0


def test_the_accept_queue_is_answered_to_the_last_client(tmp_path: Path) -> None:
    """The loop is blocked while clients queue up; they have sent their requests when the stop begins."""
    report_path = tmp_path / "report.json"
    with ServerProcess(("--drain-report", str(report_path), "--no-access-log"), APP, cwd=ROOT) as server:
        address = server.wait_ready()[0]
        blocking = Peer(address)
        blocking.request("/block?0.5")
        wait_for_output(server, "blocking")
        peers = [Peer(address) for _ in range(1_000)]
        for number, peer in enumerate(peers):
            peer.request(f"/now?{number}")
        server.signal(signal.SIGTERM)
        for number, peer in enumerate(peers):
            assert peer.answer().body == b"%d" % number
            assert peer.ended() == "FIN"
            peer.close()
        blocking.close()
        assert server.wait() == 0
    report = json.loads(report_path.read_text())
    assert report["backlog_answered"] == len(peers)


def test_a_unix_socket_with_a_second_name_refuses_new_clients_at_once(start: Start, tmp_path: Path) -> None:
    """Removing the file is not enough: a link, a rename or a look-up just before leads to the listener all the same."""
    path, second = tmp_path / "socket", tmp_path / "second"
    server = start("app", "--uds", str(path))
    os.link(path, second)
    with Peer(str(second)) as peer:
        assert peer.get().status == 200
        server.signal(signal.SIGTERM)
        server.wait_for("Stopping")
        eventually(lambda: not path.exists())
        with pytest.raises(ConnectionRefusedError):
            Peer(str(second))
        peer.send(request())
        assert peer.answer().status == 200
    assert server.wait() == 0
