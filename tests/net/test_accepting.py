"""Accepting: limits, descriptors that run out, what accepted sockets are like, and what waiting costs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from lastcall.base.types import Receive, Scope, Send
from lastcall.connection.stream import Stream
from lastcall.drain.ladder import Phase
from lastcall.net.listener import Listener, Owner
from lastcall.server.loops import loop_factory
from lastcall.server.parts import http1_protocol
from testing.driving import Bench
from testing.peer import Peer, eventually, filter_instructions
from testing.process import ServerProcess
from testing.running import hello, respond, routes
from tests.net.conftest import WAITING, Serve


def descriptors() -> dict[str, int]:
    """The open descriptors of this process by what they are."""
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            found[os.readlink(f"/proc/self/fd/{entry}")] = int(entry)
        except OSError:  # the descriptor of the listing itself
            continue
    return found


def test_at_the_limit_clients_wait_until_a_connection_is_closed(serve: Serve) -> None:
    server = serve(hello, limit_connections=2)
    with server.peer() as one, server.peer() as two, server.peer() as three, server.peer() as four:
        assert one.get().status == two.get().status == 200
        three.request()
        four.request()
        assert three.silent(0.2)
        assert four.silent(0.05)
        assert one.get().status == 200
        one.close()
        assert three.answer().status == 200
        assert four.silent(0.1)
        two.reset()
        assert four.answer().status == 200


def test_the_limit_holds_for_all_listeners_together(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        addresses = one.getsockname(), two.getsockname()
        with ExitStack() as stack:
            peers = [stack.enter_context(Peer(address)) for address in addresses * 4]
            for peer in peers:
                peer.request()
            serve(hello, sockets=[one.dup(), two.dup()], limit_connections=1)
            # One after the other, in whatever order; the listeners become ready in the same turn.
            waiting = set(peers)
            while waiting:
                eventually(lambda: any(not peer.silent(0.001) for peer in waiting))
                ready = [peer for peer in waiting if peer._buffer]
                assert len(ready) == 1
                assert ready[0].answer().status == 200
                ready[0].close()
                waiting.remove(ready[0])


def test_accepted_sockets_send_without_delay(serve: Serve) -> None:
    server = serve(hello)
    with server.peer() as peer:
        peer.get()
        for number in descriptors().values():
            try:
                sock = socket.socket(fileno=os.dup(number))
            except OSError:
                continue
            with sock:
                try:
                    if sock.getpeername() != peer.sock.getsockname():
                        continue
                except (OSError, ValueError):
                    continue
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
                return
    pytest.fail("the server's side of the connection was not found")


def test_no_descriptor_of_the_server_reaches_a_child(serve: Serve) -> None:
    before = set(descriptors())
    seen: list[str] = []
    code = "import os\nfor fd in os.listdir('/proc/self/fd'):\n try: print(os.readlink(f'/proc/self/fd/{fd}'))\n "
    code += "except OSError: pass"

    async def spawn(scope: Scope, receive: Receive, send: Send) -> None:
        command = [sys.executable, "-S", "-c", code]
        seen.extend(
            subprocess.run(command, close_fds=False, capture_output=True, text=True, check=True).stdout.splitlines()
        )
        await respond(send)

    server = serve(routes(spawn=spawn))
    with server.peer() as idle, server.peer() as peer:
        idle.get()
        assert peer.get("/spawn").status == 200
        own = set(descriptors()) - before
        assert len([name for name in own if name.startswith("socket:")]) >= 5  # the listener, and both ends twice
        assert seen
        assert own & set(seen) == set()


def test_a_listener_without_a_protocol_is_refused(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock, pytest.raises(ValueError, match="without a protocol"):
        bench.driver.listen(Listener(sock))


@pytest.mark.parametrize("owner", Owner)
def test_a_listener_that_others_hold_too_gives_one_connection_per_wake_up(bench: Bench, owner: Owner) -> None:
    inherited = owner in (Owner.INHERITED, Owner.SHARED)
    with socket.create_server(("127.0.0.1", 0)) as sock, ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(Peer(sock.getsockname()))
        bench.listen(sock, owner)
        brought = [number for number in (bench.turn() for _ in range(12)) if number]
        assert sum(brought) == 5
        assert max(brought) <= (2 if inherited else 5)  # one turn of ours may be two of uvloop's
        assert len(brought) >= 3 or not inherited
        assert len(brought) == 1 or inherited


def test_each_listener_makes_its_own_protocols_connections(bench: Bench) -> None:
    """Two listeners of one driver: which of them a client came in by decides what is spoken."""
    made: list[str] = []

    def listen(name: str, sock: socket.socket) -> None:
        listener = Listener(sock)
        sock.setblocking(False)
        make = http1_protocol(bench.service, listener)

        def connection(stream: Stream) -> object:
            made.append(name)
            return make(stream)

        listener.protocol = connection
        bench.driver.listen(listener)

    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        listen("one", one)
        listen("two", two)
        with Peer(two.getsockname()), Peer(one.getsockname()), Peer(two.getsockname()):
            assert sum(bench.turn() for _ in range(4)) == 3
    assert sorted(made) == ["one", "two", "two"]


def test_a_protocol_that_fails_costs_its_client_alone(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is registered before there is a connection: no descriptor leaks, and no event finds a stream alone."""
    clients: list[int] = []

    with socket.create_server(("127.0.0.1", 0)) as sock:
        listener = bench.listen(sock)
        works = listener.protocol
        assert works is not None

        def fails_once(stream: Stream) -> object:
            clients.append(1)
            if len(clients) == 1:
                raise MemoryError
            return works(stream)

        listener.protocol = fails_once
        before = descriptors()
        with Peer(sock.getsockname()) as first:
            for _ in range(4):
                bench.turn()
            assert first.ended() in {"FIN", "RST"}
        assert descriptors() == before
        with Peer(sock.getsockname()) as second:
            second.request()
            for _ in range(12):
                bench.turn()
            assert second.answer().status == 200
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [MemoryError]


def test_after_stop_accepting_nobody_is_accepted(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock, ExitStack() as stack:
        bench.listen(sock)
        stack.enter_context(Peer(sock.getsockname()))
        assert sum(bench.turn() for _ in range(3)) == 1
        bench.driver.stop_accepting()
        for _ in range(3):
            stack.enter_context(Peer(sock.getsockname()))
        assert sum(bench.turn() for _ in range(3)) == 0
        assert bench.driver.accept_waiting() == 3


# -- the stop ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="a filter of Linux")
@pytest.mark.parametrize("owner", Owner)
def test_only_a_listener_of_our_own_drops_newcomers(bench: Bench, owner: Owner) -> None:
    """An inherited one is others' too, and of slots and shared ones the parent stops the newcomers."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        bench.listen(sock, owner)
        bench.stop_new_connections()
        assert filter_instructions(sock) == (4 if owner is Owner.OURS else 0)


@pytest.mark.skipif(sys.platform != "linux", reason="a filter of Linux")
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_where_nobody_new_gets_in_the_queue_is_emptied_however_long_it_takes(
    driver: str, loop: str, family: int, tmp_path: Path
) -> None:
    """On a busy machine the time that is enough elsewhere is over after the first few; the rest would be reset."""
    bench = Bench(driver, loop_factory(loop)(), clock=count(1000.0).__next__)
    with socket.socket(family) as sock, ExitStack() as stack:
        sock.bind(("127.0.0.1", 0) if family == socket.AF_INET else str(tmp_path / "socket"))
        sock.listen(200)
        listener = bench.listen(sock)
        for _ in range(150):  # more than are taken at a time
            stack.enter_context(Peer(sock.getsockname()))
        bench.stop_new_connections()
        assert len(bench.driver) == 150
        bench.driver.accept_backlog()
        listener.close()
        bench.close()


def test_a_slot_is_answered_until_its_queue_is_empty_and_stays_open_for_the_parent(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock, ExitStack() as stack:
        parents = stack.enter_context(sock.dup())
        listener = bench.listen(sock, Owner.SLOT)
        waiting = [stack.enter_context(Peer(sock.getsockname())) for _ in range(3)]
        bench.stop_new_connections()
        assert len(bench.driver) == 3, "who is in its queue at the stop waits for this worker, and for nobody else"
        for peer in waiting:
            peer.request()
        late = stack.enter_context(Peer(sock.getsockname()))  # not dropped: the parent decides when that ends
        late.request()
        assert sum(bench.turn() for _ in range(3)) == 1
        last = stack.enter_context(Peer(sock.getsockname()))
        last.request()
        bench.driver.accept_backlog()
        assert len(bench.driver) == 5
        for _ in range(12):  # a connection, its task and its answer each take one or two, by driver and Python version
            bench.turn()
        assert [peer.answer().status for peer in (*waiting, late, last)] == [200] * 5
        behind = stack.enter_context(Peer(sock.getsockname()))
        assert sum(bench.turn() for _ in range(3)) == 0, "the worker accepts no more"
        listener.close()
        with parents.accept()[0] as accepted:
            assert accepted.getpeername() == behind.sock.getsockname(), "the parent, or the next worker, still can"


def test_a_unix_slot_is_not_shut(bench: Bench, tmp_path: Path) -> None:
    """After SHUT_RD nobody could queue there any more, for the next worker either."""
    path = str(tmp_path / "slot")
    with socket.socket(socket.AF_UNIX) as sock, ExitStack() as stack:
        sock.bind(path)
        sock.listen(5)
        bench.listen(sock, Owner.SLOT)
        stack.enter_context(Peer(path))
        bench.stop_new_connections()
        stack.enter_context(Peer(path))
        assert sum(bench.turn() for _ in range(3)) == 1
        bench.driver.accept_backlog()
        stack.enter_context(Peer(path))
        assert sum(bench.turn() for _ in range(3)) == 0
        assert len(bench.driver) == 2


def test_an_inherited_listener_is_left_to_the_others_at_the_stop(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock, ExitStack() as stack:
        bench.listen(sock, Owner.INHERITED)
        stack.enter_context(Peer(sock.getsockname()))
        bench.stop_new_connections()
        bench.driver.accept_backlog()
        assert sum(bench.turn() for _ in range(3)) == len(bench.driver) == 0
        sock.accept()[0].close()


@pytest.mark.parametrize("owner", [Owner.OURS, Owner.SLOT])
def test_in_a_drain_the_limit_keeps_nobody_out_who_waits_already(driver: str, loop: str, owner: Owner) -> None:
    bench = Bench(driver, loop_factory(loop)(), limit=2)
    with socket.create_server(("127.0.0.1", 0)) as sock, ExitStack() as stack:
        bench.listen(sock, owner)
        for _ in range(5):
            stack.enter_context(Peer(sock.getsockname()))
        assert sum(bench.turn() for _ in range(4)) == 2
        bench.drain.phase = Phase.ANNOUNCED
        assert sum(bench.turn() for _ in range(4)) == 0, "a stop that is only announced serves as before"
        bench.stop_new_connections()
        assert len(bench.driver) == 5
        bench.close()


def test_below_the_limit_again_after_the_drain_has_begun_accepting_goes_on(driver: str, loop: str) -> None:
    bench = Bench(driver, loop_factory(loop)(), limit=1)
    with socket.create_server(("127.0.0.1", 0)) as sock, ExitStack() as stack:
        bench.listen(sock, Owner.SLOT)
        first = stack.enter_context(Peer(sock.getsockname()))
        assert sum(bench.turn() for _ in range(3)) == 1
        bench.stop_new_connections()
        first.close()
        for _ in range(3):
            bench.turn()
        for _ in range(3):
            stack.enter_context(Peer(sock.getsockname()))
        assert sum(bench.turn() for _ in range(3)) == 3
        bench.close()


# -- what waiting costs ------------------------------------------------------------------------------------------------


def switches(thread_id: int) -> int:
    """How often a thread of ours has gone to sleep so far."""
    for line in Path(f"/proc/self/task/{thread_id}/status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches"):
            return int(line.split()[1])
    raise AssertionError("no count")


@pytest.mark.slow
@WAITING
def test_idle_connections_cost_no_wake_ups(serve: Serve) -> None:
    server = serve(hello)
    with ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(server.peer()).get()
        thread_id = server.thread.native_id
        assert thread_id is not None
        stack.enter_context(server.peer()).silent(0.2)
        before = switches(thread_id)
        stack.enter_context(Peer(server.address)).silent(1.0)
        assert switches(thread_id) - before < 10


@pytest.mark.slow
@WAITING
def test_without_free_descriptors_accepting_pauses_with_one_line(driver: str, loop: str, tmp_path: Path) -> None:
    (tmp_path / "scarce.py").write_text(
        "import os, resource\n"
        "async def app(scope, receive, send):\n"
        "    if scope['type'] == 'lifespan':\n"
        "        await receive()\n"
        "        limit = len(os.listdir('/proc/self/fd')) + 10\n"
        "        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))\n"
        "        await send({'type': 'lifespan.startup.complete'})\n"
        "        await receive()\n"
        "        return\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-length', b'0')]})\n"
        "    await send({'type': 'http.response.body'})\n"
    )
    options = ["--driver", driver, "--loop", loop, "--limit-connections", "1000"]
    with ServerProcess(options, "scarce:app", cwd=tmp_path) as server, ExitStack() as stack:
        address = server.wait_ready()[0]
        peers = [stack.enter_context(Peer(address)) for _ in range(20)]
        for peer in peers:
            peer.request()
        server.wait_for("accept failed")
        before = _cpu_seconds(server.pid)
        assert peers[-1].silent(1.0)
        assert _cpu_seconds(server.pid) - before < 0.3
        assert server.stderr.count("accept failed: Too many open files") == 1
        for peer in peers:
            assert peer.answer().status == 200
            peer.close()
        with Peer(address) as late:
            assert late.get().status == 200
        assert server.stop() == 0
    assert "Traceback" not in server.stderr


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
