"""Applications that misbehave under a parent: a clear line, the right exit code, and the old ones serve."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from testing.peer import Peer, eventually
from testing.service import Service, alive
from testing.storm import freeze, marked
from tests.process.test_fleet_limits import order

TWO = ("--workers", "2")
BOOT_SECONDS = "6"  # enough for a start on a machine that does ten other things
GRACE = ("--timeout-graceful-shutdown", "2", "--timeout-cancel", "1", "--timeout-lifespan-shutdown", "2")
HANGS = "print('boots', flush=True)\ntime.sleep(600)"
RAISES = "async def startup():\n    raise RuntimeError('no database')\n\nasync def shutdown():\n    pass"
STARTS = "async def startup():\n    pass\n\nasync def shutdown():\n    pass"
HANGS_IN_LIFESPAN = "async def startup():\n    await asyncio.sleep(600)\n\nasync def shutdown():\n    pass"
IGNORES_SIGTERM = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
IGNORES_ALL = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)


async def startup():
    pass


async def shutdown():
    time.sleep(600)
"""

# -- starts ------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    ("extra", "said"),
    [(RAISES, "no database"), (HANGS, "--timeout-worker-boot"), (HANGS_IN_LIFESPAN, "--timeout-worker-boot")],
    ids=["lifespan raises", "import hangs", "lifespan hangs"],
)
def test_a_start_that_fails_ends_with_3(tmp_path: Path, extra: str, said: str) -> None:
    # Long enough to reach what hangs; nothing here has to be ready in it.
    options = (*TWO, "--timeout-worker-boot", "3" if said.startswith("--") else BOOT_SECONDS, "--lifespan", "on")
    with Service(tmp_path, *options, extra=extra, ready=False) as service:
        assert service.process.wait(60) == 3
    assert said in service.process.stderr
    assert "running on" not in service.process.stderr
    if said.startswith("--"):
        assert "app.py" in service.process.stderr or extra is HANGS_IN_LIFESPAN, "its stacks"


@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    ("extra", "said"),
    [(RAISES, "no database"), (HANGS, "--timeout-worker-boot"), (HANGS_IN_LIFESPAN, "--timeout-worker-boot")],
    ids=["lifespan raises", "import hangs", "lifespan hangs"],
)
def test_a_deploy_that_fails_changes_nothing(tmp_path: Path, extra: str, said: str) -> None:
    options = (*TWO, "--timeout-worker-boot", BOOT_SECONDS, "--lifespan", "on")
    with Service(tmp_path, *options) as service, service.connect() as kept:
        assert kept.get("/generation").body == b"1"
        old = service.wait_workers(2)
        service.deploy(extra=extra, generation="2")
        status, answer = order(service, "reload")
        assert status == 409, answer
        assert service.pids() == old
        assert kept.get("/generation").body == b"1"
        assert said in service.process.stderr
        eventually(lambda: set(service.workers) == old)
        assert service.process.stop() == 0


def test_a_start_up_that_raises_fails_the_deploy_where_the_old_code_had_a_lifespan(tmp_path: Path) -> None:
    """An exception means that lifespan is not supported (ASGI), but here it was: nobody reads the log of a deploy that
    is called good."""
    with Service(tmp_path, *TWO, "--lifespan", "auto", extra=STARTS) as service:
        old = service.wait_workers(2)
        service.deploy(extra=RAISES, generation="2")
        status, answer = order(service, "reload")
        assert (status, "no database" in service.process.stderr) == (409, True), answer
        assert service.pids() == old
        service.deploy(extra=STARTS, generation="3")
        assert order(service, "reload")[0] == 200
        assert service.process.stop() == 0


def test_a_first_start_that_raises_serves_without_lifespan_as_asgi_says(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO, "--lifespan", "auto", extra=RAISES) as service:
        assert service.ask("/generation") == "1"
        service.deploy(extra=RAISES, generation="2")
        assert order(service, "reload")[0] == 200
        assert service.process.stop() == 0


# -- ends --------------------------------------------------------------------------------------------------------------


def test_a_worker_that_ignores_sigterm_drains_by_its_channel(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO, extra=IGNORES_SIGTERM) as service:
        old = service.wait_workers(2)
        assert order(service, "reload")[0] == 200
        eventually(lambda: not any(map(alive, old)))
        workers = service.wait_workers(2)
        service.signal(signal.SIGKILL)
        eventually(lambda: not any(map(alive, workers)))


def test_a_worker_that_ends_by_nothing_is_killed_in_time(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO, *GRACE, extra=IGNORES_ALL) as service:
        old = service.wait_workers(2)
        since = time.monotonic()
        service.signal(signal.SIGTERM)
        # Its own watchdog comes before the parent's kill timer, and shows where it hangs.
        assert service.process.wait(25) == 1
        # The longest that a stop can take, the watchdog's half second, and what the machine needs.
        assert time.monotonic() - since < 2 + 1 + 2 + 1 + 1 + 5
        assert not any(map(alive, old))
    assert "in shutdown" in service.process.stderr
    assert "lifespan ;" not in service.process.stderr


@pytest.mark.timeout(60)
def test_in_a_reload_one_that_ends_by_nothing_is_killed_and_the_service_goes_on(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO, *GRACE, extra=IGNORES_ALL) as service:
        old = service.wait_workers(2)
        service.deploy(generation="2")
        assert order(service, "reload")[0] == 200
        assert {service.ask("/generation") for _ in range(20)} == {"2"}
        eventually(lambda: not any(map(alive, old)), 20)
        assert {service.ask("/generation") for _ in range(20)} == {"2"}
        assert service.process.stop() == 0


@pytest.mark.parametrize("extra", ["", IGNORES_ALL], ids=["well", "ends by nothing"])
def test_no_worker_outlives_a_parent_that_is_killed_in_a_reload(tmp_path: Path, extra: str) -> None:
    with Service(tmp_path, *TWO, *GRACE, extra=extra, env={"MARK": str(tmp_path)}) as service:
        service.wait_workers(2)
        service.deploy(generation="2", extra=HANGS)
        service.signal(signal.SIGHUP)
        assert service.process._stdout.wait(lambda text: "boots" in text, 10)
        assert len(marked(f"MARK={tmp_path}")) > 3  # the parent, both workers, and one or two that start
        service.signal(signal.SIGKILL)
        eventually(lambda: not marked(f"MARK={tmp_path}"), 20)


# -- leaks, stalls, forks ----------------------------------------------------------------------------------------------

LEAKS = """
LEAK = []


async def answer_leak(query, send):
    LEAK.append(b"x" * 1_000_000 * int(query))
    return str(os.getpid())
"""


def test_a_worker_that_leaks_is_replaced_and_its_connections_move(tmp_path: Path) -> None:
    options = (*TWO, "--limit-worker-rss", "200M")
    with Service(tmp_path, *options, extra=LEAKS) as service, service.connect() as peer:
        service.wait_workers(2)
        leaking = int(peer.get("/leak/300").body)
        eventually(lambda: not alive(leaking), 20)
        answer = peer.get("/pid")
        assert int(answer.body) != leaking
        assert "connection" not in answer.headers
        service.wait_workers(2)
        service.wait_for(r"Replacing worker \d+ .*: rss")
        assert service.process.stop() == 0


def test_a_worker_that_is_frozen_is_covered_and_comes_back(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO) as service, service.connect() as peer:
        frozen = int(peer.get("/pid").body)
        old = service.wait_workers(2)
        freeze(frozen)
        peer.request("/pid")
        # Half of the newcomers would come to it.
        assert {int(service.ask("/pid")) for _ in range(20)} == old - {frozen}
        os.kill(frozen, signal.SIGCONT)
        assert int(peer.answer().body) == frozen
        assert service.wait_workers(2) == old
        assert service.process.stop() == 0


@pytest.mark.timeout(60)
def test_a_worker_that_stays_frozen_is_replaced(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO, "--timeout-worker-stall", "3") as service:
        old = service.wait_workers(2)
        frozen = min(old)
        freeze(frozen)
        service.wait_for("has stalled: no heartbeat")
        eventually(lambda: not alive(frozen), 20)
        eventually(lambda: len(service.workers) == 2)
        assert old - {frozen} < service.wait_workers(2)
        assert service.process.stop() == 0


FORKS = """
CHILD = os.fork()
if CHILD == 0:
    for fd in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), fd)
    time.sleep(600)
    os._exit(0)


async def answer_fork(query, send):
    child = os.fork()
    if child == 0:
        for fd in (0, 1, 2):
            os.dup2(os.open(os.devnull, os.O_RDWR), fd)
        time.sleep(600)
        os._exit(0)
    return str(child)


async def answer_child(query, send):
    return str(CHILD)
"""


def end_all(pids: set[int]) -> None:
    for pid in filter(alive, pids):
        os.kill(pid, signal.SIGKILL)


def test_children_of_workers_hold_neither_ports_nor_connections(tmp_path: Path) -> None:
    found: set[int] = set()
    with ExitStack() as stack:
        service = stack.enter_context(Service(tmp_path, *TWO, extra=FORKS))
        stack.callback(lambda: end_all(found))
        old = service.wait_workers(2)
        found |= {int(service.ask("/child")) for _ in range(20)}
        with service.connect() as peer:
            found.add(int(peer.get("/fork").body))
            # It moves, though a child of the worker was forked while it was open.
            service.deploy(generation="2")
            assert order(service, "reload")[0] == 200
            eventually(lambda: not any(map(alive, old)))
            assert peer.get("/generation").body == b"2"
            service.signal(signal.SIGTERM)
            assert peer.ended() == "FIN"
        assert service.process.wait() == 0
        assert all(map(alive, found))
        port = int(service.address.rpartition(":")[2])
        with pytest.raises(ConnectionRefusedError):
            Peer(service.address)
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", port))


# -- orders ------------------------------------------------------------------------------------------------------------


def test_reloads_at_once_are_all_settled_by_the_newest_code(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO) as service:
        service.wait_workers(2)
        service.deploy(generation="2", extra="time.sleep(0.5)")
        answers: list[tuple[int, dict[str, object]]] = []
        first = threading.Thread(target=lambda: answers.append(order(service, "reload")))
        first.start()
        service.wait_for("Reloading: generation 2")
        service.deploy(generation="3")
        others = [threading.Thread(target=lambda: answers.append(order(service, "reload"))) for _ in range(3)]
        for thread in others:
            thread.start()
        service.signal(signal.SIGHUP)
        for thread in (first, *others):
            thread.join(25)
        assert [status for status, _ in answers] == [200] * 4
        assert {service.ask("/generation") for _ in range(20)} == {"3"}
        # Those that came during the first one are one.
        with Peer(str(service.control)) as peer:
            eventually(lambda: json.loads(peer.get("/status").body)["state"] == "serving")
        assert service.process.stderr.count("Reloading: generation") <= 4
        assert service.process.stop() == 0


@pytest.mark.parametrize("broken", ["addresses", "options"])
def test_a_reload_that_reads_what_cannot_be_is_refused_in_a_line(tmp_path: Path, broken: str) -> None:
    file = tmp_path / "app.env"
    file.write_text("COLOUR=red\n")
    with Service(tmp_path, *TWO, "--env-file", str(file)) as service:
        old = service.wait_workers(2)
        file.write_text("LASTCALL_HOST=127.0.0.2\n" if broken == "addresses" else "LASTCALL_TIMEOUT_CANCEL=soon\n")
        before = service.process.stderr
        status, answer = order(service, "reload")
        said = service.process.stderr[len(before) :]
        assert "Traceback" not in said
        if status == 200:  # the file is not where such options come from: then it changes none
            assert {service.ask("/variable/COLOUR") for _ in range(10)} == {""}
        else:
            assert str(answer["text"])
            assert service.pids() == old
        assert service.process.stop() == 0
