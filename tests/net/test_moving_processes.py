"""Connections that move to another process: one that is killed, one without descriptors, and thousands of them."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from lastcall.net.moving import Mover, moving_pair
from testing import adopting
from testing.moving import Connect, Start, ask, driver_of, mover, settled, who
from testing.peer import Peer, eventually

pytestmark = pytest.mark.slow

MANY = 5000
TURN = 0.02
"""CPU seconds that one message may cost at most. A few milliseconds are usual, and machines differ."""


class Process:
    """A ``testing.adopting`` that has said that it is ready."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin: IO[str] = process.stdin
        self._stdout: IO[str] = process.stdout
        assert self._stdout.readline() == "ready\n"

    def account(self) -> Any:
        """What it has to say at its end."""
        self._stdin.close()
        return json.loads(self._stdout.readline())


@contextmanager
def successor(start: Start, fault: str = "none") -> Iterator[tuple[Any, Any, Process]]:
    """A server, its Mover, and the process that is its successor."""
    old = start("old")
    ours, theirs = moving_pair()
    command = [sys.executable, "-m", "testing.adopting", str(theirs.fileno()), fault]
    with subprocess.Popen(
        command,
        pass_fds=[theirs.fileno()],
        encoding="utf-8",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        theirs.close()
        try:
            yield old, mover(old, ours), Process(process)
        finally:
            process.kill()


def test_a_process_takes_all_connections_over_while_its_clients_ask(connect: Connect, start: Start) -> None:
    with successor(start) as (old, sending, process):
        peers = [connect(old) for _ in range(8)]
        ready = threading.Barrier(9)
        answers: list[list[str]] = [[] for _ in peers]

        def asking(number: int) -> None:
            ready.wait()
            for count in range(200):
                answers[number].append(who(peers[number], f"/{number}/{count}"))

        clients = [threading.Thread(target=asking, args=(number,)) for number in range(8)]
        for client in clients:
            client.start()
        ready.wait()
        ask(old, sending.move_all)
        report = old.stop()
        for client in clients:
            client.join(20)
        assert [len(one) for one in answers] == [200] * 8
        assert {one[-1] for one in answers} == {"process"}
        assert report.moved == process.account()["adopted"] == 8


def test_one_that_is_killed_between_receiving_and_acknowledging_loses_no_request(
    connect: Connect, start: Start
) -> None:
    with successor(start, "dies") as (old, sending, process):
        peers = [connect(old) for _ in range(20)]
        for peer in peers:
            who(peer)
        settled(old, 20)
        for peer in peers[:10]:
            peer.request("/meanwhile")
        ask(old, sending.move_all)
        assert {json.loads(peer.answer().body)[0] for peer in peers[:10]} == {"old"}
        assert process.process.wait(10) == -signal.SIGKILL
        assert {who(peer) for peer in peers} == {"old"}
        eventually(lambda: sending.ended)
        assert (sending.moved, driver_of(old).moved, old.connections) == (0, 0, 20)


@pytest.mark.parametrize("fault", ["few", "liar"])
def test_one_with_few_descriptors_takes_as_many_as_it_can(connect: Connect, start: Start, fault: str) -> None:
    with successor(start, fault) as (old, sending, process):
        peers = [connect(old) for _ in range(20)]
        for peer in peers:
            who(peer)
        settled(old, 20)
        ask(old, sending.move_all)
        eventually(lambda: sending.moved > 0)
        found = [who(peer) for peer in peers]
        assert 0 < found.count("process") < 20
        assert found.count("old") == 20 - found.count("process")
        assert {peer.get().headers.get("connection") for peer in peers} == {None}
        assert process.account()["adopted"] == found.count("process")


def test_thousands_of_idle_connections_move_without_holding_up_either_loop(start: Start) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    many = min(MANY, (hard - 500) // 2)
    with ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for name in ("_pump", "_readable"):
            stack.callback(setattr, Mover, name, getattr(Mover, name))
            adopting.timed(Mover, name)
        old, sending, process = stack.enter_context(successor(start))
        peers = [stack.enter_context(Peer(old.address)) for _ in range(many)]
        for peer in peers:
            peer.request()
        for peer in peers:
            assert peer.answer().status == 200
        adopting.longest = 0.0
        ask(old, sending.move_all)
        report = old.stop()
        ours = adopting.longest
        for peer in peers:
            peer.request()
        assert {json.loads(peer.answer().body)[0] for peer in peers} == {"process"}
        account = process.account()
        assert report.moved == account["adopted"] == many
        assert ours < TURN
        assert account["longest"] < TURN
        print(f"{many} moved; the longest turns: {ours * 1e3:.1f} and {account['longest'] * 1e3:.1f} ms")


def test_the_successor_has_no_copy_that_a_program_of_it_could_inherit(connect: Connect, start: Start) -> None:
    with successor(start) as (old, sending, process):
        peer = connect(old)
        who(peer)
        ask(old, sending.move_all)
        old.stop()
        assert who(peer) == "process"
        folder = f"/proc/{process.process.pid}/fd"
        for fd in os.listdir(folder):
            if os.readlink(f"{folder}/{fd}").startswith("socket:"):
                flags = Path(f"/proc/{process.process.pid}/fdinfo/{fd}").read_text().split("flags:\t")[1].split()[0]
                assert int(flags, 8) & os.O_CLOEXEC
