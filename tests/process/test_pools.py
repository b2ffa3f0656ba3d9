"""Pools and child processes at the end: what is idle is no hindrance, what is not is named, and nothing hangs."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import dedent

import pytest

from testing.peer import Peer
from testing.process import ServerProcess
from tests.process.conftest import APPS, Start, wait_for_output
from tests.process.witness import Journal

TEARDOWN = 1.0
LOOPS = ("auto", "uvloop")


def ask(server: ServerProcess, path: str) -> str:
    with Peer(server.addresses[0]) as peer:
        answer = peer.get(path)
        assert answer.status == 200
        return answer.body.decode()


def is_alive(pid: int) -> bool:
    """Whether a process is there, and is more than the exit code that its parent has to fetch."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for_code(server: ServerProcess) -> int:
    """The exit code of a server whose children may hold its output open."""
    deadline = time.monotonic() + 10
    while server.returncode is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return server.returncode


@contextmanager
def ended_after(pid: int) -> Iterator[None]:
    """A process of ours that may outlive its parent."""
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("path", ["/thread", "/asgiref"])
def test_an_idle_pool_of_threads_delays_nothing(start: Start, path: str, loop: str) -> None:
    server = start("pools:app", "--loop", loop)
    ask(server, path)
    assert server.stop() == 0
    said = Journal(server)
    assert said.at("atexit") - said.at("shutdown") < TEARDOWN
    assert "Abandoned" not in server.stderr


def test_an_idle_pool_of_processes_is_ended_in_order(start: Start) -> None:
    server = start("pools:app")
    worker = int(ask(server, "/process"))
    assert server.stop() == 0
    assert not is_alive(worker)
    assert "Abandoned" not in server.stderr


@pytest.mark.parametrize("path", ["/busy_thread", "/both"])
def test_a_pool_that_is_in_a_call_is_named_and_left(start: Start, path: str) -> None:
    server = start("pools:app")
    ask(server, path)
    assert server.stop() == 5
    assert re.search(r"Abandoned, threads that do not end: ThreadPoolExecutor-\d+_0;", server.stderr)
    assert "child processes" not in server.stderr
    assert len(Journal(server).all("atexit")) == 1


def test_run_leaves_idle_pools_to_the_program_that_goes_on() -> None:
    script = """
        import os, signal, threading
        from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
        from multiprocessing import get_context
        import lastcall

        pools = [ThreadPoolExecutor(1), ProcessPoolExecutor(1, mp_context=get_context("spawn"))]

        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                await receive()
                for pool in pools:
                    pool.submit(os.getpid).result()
                await send({"type": "lifespan.startup.complete"})
                threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
                await receive()

        if __name__ == "__main__":
            lastcall.run(app, port=0)
            print("run() returned", pools[0].submit(os.getpid).result() == os.getpid())
            print("and so", pools[1].submit(os.getpid).result() != os.getpid())
    """
    with ServerProcess(command=[sys.executable, "-c", dedent(script)], cwd=APPS) as server:
        assert server.wait() == 0
    assert server.stdout == "run() returned True\nand so True\n"
    assert "Abandoned" not in server.stderr


def test_a_child_of_multiprocessing_that_does_not_end_is_named(start: Start) -> None:
    server = start("pools:app")
    child = int(ask(server, "/spawned"))
    with ended_after(child):
        server.signal(signal.SIGTERM)
        assert wait_for_code(server) == 5
        assert is_alive(child), "only daemon children are ended"
    server.wait()
    assert f"Abandoned, child processes that do not end: a-child (pid {child});" in server.stderr


@pytest.mark.parametrize("path", ["/short", "/ended_by_atexit"])
def test_a_child_that_ends_in_time_is_waited_for(start: Start, path: str) -> None:
    server = start("pools:app")
    child = int(ask(server, path))
    with ended_after(child):
        assert server.stop() == 0
        assert not is_alive(child)
    assert "Abandoned" not in server.stderr


@pytest.mark.parametrize("path", ["/daemon", "/pool"])
def test_daemon_children_are_ended_and_delay_nothing(start: Start, path: str) -> None:
    server = start("pools:app")
    child = int(ask(server, path))
    with ended_after(child):
        assert server.stop() == 0
        assert not is_alive(child)
    assert "Abandoned" not in server.stderr


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("path", ["/forked", "/daemon", "/pool"])
def test_lifespan_shutdown_can_end_its_children(start: Start, path: str, loop: str) -> None:
    server = start("pools:app", "--loop", loop, env={"STARTUP": path})
    wait_for_output(server, "child ")
    child = int(re.findall(r"child (\d+)\n", server.stdout)[0])
    with ended_after(child):
        assert server.stop() == 0
        assert not is_alive(child)
    assert len(Journal(server).all("joined")) == 1
    assert "lifespan complete" in server.stderr


def test_a_child_that_is_ended_right_after_its_start_ends(start: Start) -> None:
    """Quicker than it can put its handlers back: the signal waits for that."""
    server = start("pools:app")
    for _ in range(20):
        assert ask(server, "/at_once") == str(-signal.SIGTERM)
    assert server.stop() == 0


def test_a_pool_of_processes_that_is_in_a_call_is_named_and_ended(start: Start) -> None:
    server = start("pools:app")
    child = int(ask(server, "/busy_process"))
    with ended_after(child):
        assert server.stop() == 5
    assert re.search(r"Abandoned, child processes that do not end: ForkProcess-\d \(pid ", server.stderr)


def test_a_queue_that_nobody_reads_is_named_and_left(start: Start) -> None:
    server = start("pools:app")
    ask(server, "/unread_queue")
    assert server.stop() == 5
    assert "multiprocessing's own finalizers" in server.stderr
