"""Forked children carry nothing of the server with them, and whoever of them comes back to its loop is gone."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from testing.peer import Peer, eventually
from testing.process import ServerProcess
from tests.process.apps.forks import WAYS
from tests.process.conftest import APPS, Start
from tests.process.test_pools import ask, ended_after, is_alive, wait_for_code
from tests.process.witness import Client

CODES = {"exits": 3, "raises": 1, "exits_in_a_task": 3, "exits_in_a_group": 3, "exits_in_a_thread": 3}
CODES |= {"is_asked": -signal.SIGTERM, "runs_a_loop": 7, "collects": 7, "calls_the_loop_from_a_thread": 7}
LATER = 12

LOOPS = pytest.mark.parametrize("loop", ["auto", "asyncio", "uvloop"])


def inodes_of_sockets(pid: int) -> set[str]:
    """The TCP sockets that a process holds."""
    names = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            names.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    return {line.split()[9] for line in lines} & {name.removeprefix("socket:[").removesuffix("]") for name in names}


@LOOPS
@pytest.mark.parametrize("driver", ["native", "asyncio"])
def test_a_child_that_comes_back_to_the_loop_is_gone(start: Start, driver: str, loop: str) -> None:
    """Every way is taken in turn; whatever is asked later, the parent answers, and nobody else."""
    server = start("forks:app", "--loop", loop, "--driver", driver)
    for way in WAYS:
        stream = Client(server, "/stream")
        stream.wait_for(b":0\n")
        with Peer(server.addresses[0]) as kept:
            assert kept.get("/").body == str(server.pid).encode(), way
            assert ask(server, f"/{way}") == str(CODES.get(way, 0)), way
            assert [ask(server, "/") for _ in range(LATER)] == [str(server.pid)] * LATER, way
            assert kept.get("/").body == str(server.pid).encode(), way
        stream.wait_for(b"\r\n0\r\n\r\n")
        stream.close()
        assert stream.answer.body.split() == [b"%d:%d" % (server.pid, number) for number in range(50)], way
    assert server.stop() == 0
    assert "the child went on" not in server.stdout
    assert "Traceback" not in server.stderr
    assert server.stdout.count(" HTTP/1.1") == len(WAYS) * (LATER + 4)
    assert server.stderr.count("Stopping") == 1


@LOOPS
@pytest.mark.parametrize("way", ["exits", "returns", "waits"])
@pytest.mark.parametrize("place", ["import", "startup", "shutdown"])
def test_so_it_is_outside_of_requests(start: Start, place: str, way: str, loop: str) -> None:
    if place == "import" and (way == "waits" or loop == "asyncio"):
        way = "returns"
    server = start("forks:app", "--loop", loop, env={"AT": place, "WAY": way})
    assert ask(server, "/") == str(server.pid)
    assert server.stop() == 0
    assert f"the child's code: {CODES.get(way, 0)}\n" in server.stdout
    assert server.stderr.count("Stopped") == 1
    assert "Traceback" not in server.stderr


def test_a_callback_of_the_notice_that_forks_stops_one_server_once(start: Start) -> None:
    server = start("forks:app")
    ask(server, "/notice")
    assert server.stop() == 0
    assert server.stderr.count("Stopped") == server.stderr.count("Application shutdown complete") == 1


@LOOPS
@pytest.mark.parametrize("driver", ["native", "asyncio"])
def test_a_child_holds_no_socket_of_the_servers(start: Start, driver: str, loop: str) -> None:
    server = start("forks:app", "--loop", loop, "--driver", driver)
    with Peer(server.addresses[0]) as kept:
        kept.get("/")
        child = int(kept.get("/outlives").body)
        with ended_after(child):
            assert len(inodes_of_sockets(server.pid)) == 2
            eventually(lambda: not inodes_of_sockets(child))
            assert kept.get("/").body == str(server.pid).encode()


@LOOPS
def test_a_successor_binds_while_a_child_lives_on(start: Start, loop: str) -> None:
    server = start("forks:app", "--loop", loop)
    port = server.addresses[0].rpartition(":")[2]
    child = int(ask(server, "/outlives"))
    with ended_after(child):
        assert server.stop() == 0
        assert is_alive(child)
        successor = start("forks:app", "--port", port)
        assert ask(successor, "/") == str(successor.pid)
        assert successor.stop() == 0


def test_a_listener_that_somebody_else_holds_all_the_same_takes_nobody_after_the_stop(start: Start) -> None:
    """A child that no hook knows of: it has inherited the descriptor past an exec."""
    script = """
        import os, subprocess, sys

        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                return
            listeners = []
            for name in os.listdir("/proc/self/fd"):
                import socket
                try:
                    one = socket.socket(fileno=os.dup(int(name)))
                except OSError:
                    continue
                if one.family == socket.AF_INET and one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    listeners.append(one.fileno())
                one.detach()
            child = subprocess.Popen(
                [sys.executable, "-c", "import time; time.sleep(1000)"], pass_fds=listeners,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            body = str(child.pid).encode()
            await send({"type": "http.response.start", "status": 200,
                        "headers": [(b"content-length", str(len(body)).encode())]})
            await send({"type": "http.response.body", "body": body})

        import lastcall
        lastcall.run(app, port=int(sys.argv[1]))
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with ServerProcess(command=[sys.executable, "-c", dedent(script), port], cwd=APPS) as server:
        server.wait_ready()
        child = int(ask(server, "/"))
        with ended_after(child):
            assert inodes_of_sockets(child)
            server.signal(signal.SIGTERM)
            assert wait_for_code(server) == 0
            with pytest.raises(ConnectionRefusedError):
                Peer(server.addresses[0])
            successor = start("forks:app", "--port", port)
            assert ask(successor, "/") == str(successor.pid)


def test_signals_to_a_child_are_the_childs(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = start("forks:app", "--uds", str(path))
    child = int(ask(server, "/outlives"))
    with ended_after(child):
        os.kill(child, signal.SIGTERM)
        eventually(lambda: not is_alive(child))
        assert path.exists()
        assert ask(server, "/") == str(server.pid)
    assert server.stop() == 0
    assert not path.exists()


def test_three_signals_to_a_child_leave_the_parents_socket_alone(start: Start, tmp_path: Path) -> None:
    """To one that hears of the first and goes on, since it has a handler of its own."""
    path = tmp_path / "socket"
    server = start("forks:app", "--uds", str(path))
    child = int(ask(server, "/outlives"))
    with ended_after(child):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
            os.kill(child, number)
        assert path.exists()
        assert ask(server, "/") == str(server.pid)
    assert server.stop() == 0


def test_sockets_of_the_callers_stay_open_in_a_child() -> None:
    script = """
        import asyncio, os, socket, sys
        from lastcall import Config, Server

        given = socket.create_server(("127.0.0.1", 0))

        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                return
            child = os.fork()
            if child == 0:
                os._exit(0 if given.getsockname() else 1)
            print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})

        asyncio.run(Server(Config(app)).serve(sockets=[given]))
        print("done")
    """
    with ServerProcess(command=[sys.executable, "-c", dedent(script)], cwd=APPS) as server:
        server.wait_ready()
        assert ask(server, "/") == ""
        assert server.stop() == 0
    assert "child 0\n" in server.stdout
    assert server.stdout.endswith("done\n")


@LOOPS
def test_a_child_of_a_server_in_somebody_elses_loop_does_not_run_that_on(loop: str) -> None:
    script = """
        import asyncio, os, sys
        from lastcall import Config, Server
        from lastcall.server.loops import make_loop

        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                return
            await asyncio.create_task(fork())
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})

        async def fork():
            os.fork()

        async def others():
            pid = os.getpid()
            while True:
                await asyncio.sleep(0)
                if os.getpid() != pid:
                    os.write(1, b"the child went on\\n")

        async def main():
            beside = asyncio.create_task(others())
            await Server(Config(app, port=0)).serve()
            beside.cancel()

        make_loop(sys.argv[1]).run_until_complete(main())
        print("done")
    """
    with ServerProcess(command=[sys.executable, "-c", dedent(script), loop], cwd=APPS) as server:
        server.wait_ready()
        for _ in range(5):
            assert ask(server, "/") == ""
        assert server.stop() == 0
    assert server.stdout.count("done\n") == 1
    assert "the child went on" not in server.stdout


def test_a_child_may_run_a_server_of_its_own() -> None:
    script = """
        import multiprocessing, os, threading, time
        from lastcall import Config, Server

        async def app(scope, receive, send):
            body = str(os.getpid()).encode()
            await send({"type": "http.response.start", "status": 200,
                        "headers": [(b"content-length", str(len(body)).encode())]})
            await send({"type": "http.response.body", "body": body})

        first = Server(Config(app, port=0, lifespan="off"))
        threading.Thread(target=first.run).start()
        while not first.started:
            time.sleep(0.01)
        second = Server(Config(app, port=0, lifespan="off"))
        child = multiprocessing.get_context("fork").Process(target=second.run)
        child.start()
        child.join()
        print("child", child.exitcode)
        first.drain()
    """
    with ServerProcess(command=[sys.executable, "-W", "ignore", "-c", dedent(script)], cwd=APPS) as server:
        addresses = server.wait_ready(listeners=2)
        pids = []
        for address in addresses:
            with Peer(address) as peer:
                pids.append(int(peer.get("/").body))
        assert pids[0] == server.pid != pids[1]
        os.kill(pids[1], signal.SIGTERM)
        assert server.wait() == 0
    assert "child 0\n" in server.stdout
