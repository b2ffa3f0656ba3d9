"""Workers and parents that die, or hang."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from testing.peer import Peer, eventually
from testing.process import ServerProcess
from testing.service import Service, alive

TWO = ("--workers", "2")


def test_a_killed_worker_is_replaced_and_who_waited_is_answered(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO) as service, ExitStack() as stack:
        one, other = service.wait_workers(2)
        for pid in (one, other):
            os.kill(pid, signal.SIGSTOP)
        # They wait in the queues of both slots, of which nobody accepts.
        peers = [stack.enter_context(service.connect()) for _ in range(20)]
        for peer in peers:
            peer.request("/pid")
        os.kill(one, signal.SIGKILL)
        os.kill(other, signal.SIGCONT)
        found = {int(peer.answer().body) for peer in peers}
        assert one not in found
        pids = service.wait_workers(2)
        assert one not in pids
        assert other in pids
        assert service.process.stop() == 0


def test_a_worker_that_dies_in_the_drain_delay_has_those_who_come_answered_by_its_neighbour(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO, "--drain-delay", "2", "--health-path", "/health") as service:
        one, other = service.wait_workers(2)
        service.signal(signal.SIGTERM)
        eventually(lambda: service.get("/health/ready").status == 503)
        os.kill(one, signal.SIGKILL)
        eventually(lambda: not alive(one))
        with ExitStack() as stack:
            peers = [stack.enter_context(service.connect()) for _ in range(20)]
            for peer in peers:
                peer.request("/pid")
            assert {int(peer.answer().body) for peer in peers} == {other}
        assert service.process.wait() == 1, "a worker was killed"


def test_killing_again_and_again_fails_no_fresh_connection(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO) as service:
        service.wait_workers(2)
        for _ in range(5):
            os.kill(service.workers[0], signal.SIGKILL)
            for _ in range(20):
                with service.connect() as peer:
                    peer.sock.settimeout(10)
                    try:
                        assert peer.get("/generation").body == b"1"
                    except (ConnectionResetError, EOFError):
                        # accepted by the one that was being killed: its connections go with it
                        continue
            service.wait_workers(2)
        assert service.process.stop() == 0


def test_no_worker_outlives_a_killed_parent(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO) as service:
        workers = service.wait_workers(2)
        with service.connect() as peer:
            peer.request("/slow/1")
            assert service.process._stdout.wait(lambda text: "slow began" in text, 10)
            service.signal(signal.SIGKILL)
            # They drain: who is being served is served.
            assert peer.answer().body == b"1"
        eventually(lambda: not any(map(alive, workers)))


def test_no_booting_worker_outlives_a_killed_parent(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO, extra="print('boots', flush=True)\ntime.sleep(60)", ready=False) as service:
        assert service.process._stdout.wait(lambda text: text.count("boots") == 2, 10)
        workers = service.workers
        assert len(workers) == 2
        service.signal(signal.SIGKILL)
        eventually(lambda: not any(map(alive, workers)))


def test_a_worker_that_is_told_to_go_is_replaced_first(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO) as service, service.connect() as peer:
        pid = int(peer.get("/pid").body)
        service.wait_workers(2)
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: not alive(pid))
        answer = peer.get("/pid")  # it has moved
        assert int(answer.body) != pid
        service.wait_workers(2)
        assert service.process.stop() == 0


def test_a_worker_whose_loop_hangs_is_covered_and_then_replaced(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO, "--timeout-worker-stall", "3") as service, service.connect() as peer:
        pid = int(peer.get("/pid").body)
        service.wait_workers(2)
        peer.request("/block/60")
        assert service.process._stdout.wait(lambda text: "block began" in text, 10)
        # The other one accepts from its slot, too.
        for _ in range(20):
            assert int(service.ask("/pid")) != pid
        service.wait_for("answer_block")  # its stacks
        eventually(lambda: not alive(pid), 20)
        service.wait_workers(2)
        assert service.process.stop() == 0


def test_recycling_by_requests_loses_nobody(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO, "--limit-max-requests", "50") as service, service.connect() as peer:
        first = set(service.workers)

        def replaced() -> bool:
            for _ in range(20):
                assert peer.get("/pid").status == 200
                assert service.get("/pid").status == 200
            return not first & set(service.workers)

        eventually(replaced, 20)
        assert service.process.stop() == 0


@pytest.mark.parametrize(("options", "slots"), [(("--supervise",), 1), (TWO, 2)])
def test_recycling_is_successor_first_and_one_slot_at_a_time(
    tmp_path: Path, options: tuple[str, ...], slots: int
) -> None:
    limits = ("--limit-max-requests", "15", "--limit-max-requests-jitter", "5")
    with Service(tmp_path, *options, *limits) as service, service.connect() as kept, ExitStack() as stack:
        control = stack.enter_context(Peer(str(service.control)))
        seen: set[int] = set()

        def rows_of_slots() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = json.loads(control.get("/status").body)["slots"]
            return found

        eventually(lambda: all(row["worker"] is not None for row in rows_of_slots()))  # the first was enough to begin
        while len(seen) < slots + 3:
            for _ in range(5):
                seen |= {int(kept.get("/pid").body), int(service.ask("/pid"))}
            rows = rows_of_slots()
            assert len(rows) == slots
            assert all(row["worker"] is not None for row in rows), "a slot is never without its worker"
            assert sum(row["successor"] is not None for row in rows) <= 1, "never two slots at once"
        assert service.process.stop() == 0


def test_a_worker_that_never_becomes_ready_is_given_up(tmp_path: Path) -> None:
    with Service(tmp_path, *TWO) as service:
        old = service.wait_workers(2)
        service.deploy(extra="import time\ntime.sleep(60)")
        with Peer(str(service.control)) as peer:
            peer.request("/reload", "Accept: application/json", method="POST")
            service.process.wait_for("(?i)reloading")
            time.sleep(0.5)
            with Peer(str(service.control)) as other:
                assert json.loads(other.get("/status").body)["state"] == "reloading"
                other.request("/rollback", "Accept: application/json", method="POST")
                assert other.answer().status == 200
            answer = peer.answer()
            assert answer.status == 409, answer
        assert service.pids() == old
        assert service.process.stop() == 0


def test_a_worker_is_replaced_after_the_temporary_directory_was_swept(tmp_path: Path) -> None:
    temporary = tmp_path / "t"
    temporary.mkdir()
    with Service(tmp_path, *TWO, env={"TMPDIR": str(temporary)}) as service:
        old = service.wait_workers(2)
        for one in temporary.glob("lastcall-*/"):
            shutil.rmtree(one)
        os.kill(min(old), signal.SIGKILL)
        eventually(lambda: min(old) not in service.pids() and len(service.pids()) == 2)
        assert service.process.stop() == 0
    assert list(temporary.iterdir()) == []


IGNORING = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, "-m", "lastcall", "app:app", "--workers", "2", "--port", "0"])
"""


def test_exit_codes_count_also_where_the_parent_was_started_with_sigchld_ignored(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import no_such_module")
    with ServerProcess([], None, cwd=tmp_path, command=[sys.executable, "-c", IGNORING]) as server:
        assert server.wait() == 3
