"""What a worker does when its parent says so."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from lastcall.channel.messages import (
    Added,
    AddListeners,
    Adopt,
    CloseSlot,
    Drain,
    Emptied,
    Force,
    Goodbye,
    Progress,
    Retire,
    RetireMe,
    SlotClosed,
    StoppedAccepting,
)
from lastcall.net.moving import moving_pair
from testing.worker import SECONDS, WorkerProcess, reuseport

pytestmark = pytest.mark.slow

Make = Callable[..., WorkerProcess]


def request(sock: socket.socket, path: str = "/") -> None:
    sock.settimeout(SECONDS)
    sock.sendall(b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % path.encode())


def answer(sock: socket.socket) -> bytes:
    """One answer of the application, whose body is short and has a length."""
    data = b""
    while b"\r\n\r\n" not in data or not data.partition(b"\r\n\r\n")[2]:
        piece = sock.recv(65536)
        assert piece, f"the connection ended after {data!r}"
        data += piece
    return data


def rest(sock: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionError):
        while piece := sock.recv(65536):
            data += piece
    return data


@contextlib.contextmanager
def connected(port: int, times: int) -> Iterator[list[socket.socket]]:
    """Clients that have sent a request."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(times)]
        for sock in socks:
            request(sock)
        yield socks


def silent(sock: socket.socket, seconds: float = 0.3) -> bool:
    """Whether nothing comes."""
    sock.settimeout(seconds)
    try:
        sock.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    return False


# -- slots ------------------------------------------------------------------------------------------------------------


def test_it_accepts_on_exactly_the_slots_that_it_is_told(make: Make) -> None:
    with contextlib.ExitStack() as stack:
        # Two groups, so that the test knows where each client waits.
        listeners = [stack.enter_context(reuseport()) for _ in range(3)]
        worker = make(listeners=listeners).ready()
        assert worker.accept(1, 7) == (1, 7), "a slot without listeners of its own, as where all are shared"
        ports = [listener.getsockname()[1] for listener in listeners]
        clients = [stack.enter_context(connected(port, 1))[0] for port in ports]
        assert answer(clients[1]).startswith(b"HTTP/1.1 200")
        assert silent(clients[0])
        assert silent(clients[2])
        assert worker.accept(0, 1) == (0, 1)
        clients[0].settimeout(SECONDS)
        assert answer(clients[0]).startswith(b"HTTP/1.1 200")
        assert silent(clients[2])


def test_a_slot_comes_to_a_worker_that_runs_and_goes(make: Make) -> None:
    worker = make().serving()
    with reuseport() as listener:
        worker.send(AddListeners((4,), (0,)), [listener.fileno()])
        assert worker.expect(Added).slots == (4,)
        assert worker.accept(0, 4) == (0, 4)
        port = listener.getsockname()[1]
        with connected(port, 1) as (client,):
            assert answer(client).startswith(b"HTTP/1.1 200")
            worker.accept(0)
            with connected(port, 5) as waiting:
                assert silent(waiting[0])
                worker.send(CloseSlot(4))
                assert worker.expect(SlotClosed).slot == 4
                for one in waiting:
                    one.settimeout(SECONDS)
                    assert answer(one).startswith(b"HTTP/1.1 200"), "its queue was emptied first"
            request(client)
            assert answer(client).startswith(b"HTTP/1.1 200"), "who has come stays"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    assert worker.get("/").startswith(b"HTTP/1.1 200"), "the other slot is served"


def test_in_the_drain_delay_it_stands_in_for_a_neighbour(make: Make) -> None:
    worker = make(slots=1, drain_delay=30.0, health_path="/health").serving()
    with reuseport() as listener, contextlib.ExitStack() as stack:
        worker.send(AddListeners((4,), (0,)), [listener.fileno()])
        worker.expect(Added)
        (client,) = stack.enter_context(connected(listener.getsockname()[1], 1))
        worker.send(Drain("SIGTERM"))
        while b" 503 " not in worker.get("/health/ready"):
            pass  # the order is under way
        assert silent(client)
        assert worker.accept(0, 4) == (0, 4)
        client.settimeout(SECONDS)
        assert answer(client).startswith(b"HTTP/1.1 200")
        (last,) = stack.enter_context(connected(listener.getsockname()[1], 1))
        worker.send(Drain("SIGINT", interactive=True))
        last.settimeout(SECONDS)
        assert answer(last).startswith(b"HTTP/1.1 200")
        worker.expect(Emptied)
    assert worker.wait() == 0


def test_a_slot_that_is_not_there_is_closed(make: Make) -> None:
    worker = make().serving()
    worker.send(CloseSlot(9))
    assert worker.expect(SlotClosed).slot == 9


# -- retirement -------------------------------------------------------------------------------------------------------


def test_retiring_with_a_successor_leaves_the_queue_and_finishes_the_stream(make: Make) -> None:
    worker = make().serving()
    with worker.connect() as client:
        request(client, "/stream")
        head = client.recv(1)
        ours, theirs = moving_pair()
        with ours, theirs:
            worker.send(Retire("reload", successor=True), [theirs.fileno()])
            worker.expect(StoppedAccepting)
            with connected(worker.port, 3) as waiting:
                body = head + rest_of_stream(client)
                assert b"connection: close" not in body
                assert body.endswith(b"end\n\r\n0\r\n\r\n")
                # The client's connection falls idle, and nobody takes it: here is no successor.
                theirs.close()
                ours.close()
                report = worker.expect(Goodbye).report
                assert report["cause"] == "reload"
                assert report["finished"] == 1
                assert worker.wait() == 0
                assert silent(waiting[0]), "they wait for the successor, which has the same socket"
                worker.listeners[0].setblocking(True)
                for _ in waiting:
                    worker.listeners[0].accept()[0].close()
    assert "lifespan.shutdown" in worker.output


def rest_of_stream(sock: socket.socket) -> bytes:
    """Until the last chunk."""
    data = b""
    while not data.endswith(b"0\r\n\r\n"):
        piece = sock.recv(65536)
        assert piece, f"cut after {data!r}"
        data += piece
    return data


def test_an_idle_connection_moves_to_the_successor(make: Make) -> None:
    old = make().serving()
    new = make(number=2, listeners=[old.listeners[0].dup()]).serving()
    old.accept(0)
    new.accept()
    with old.connect() as client:
        request(client)
        assert b"%d 1" % old.pid in answer(client)
        new.accept(0)
        ours, theirs = moving_pair()
        new.send(Adopt(), [theirs.fileno()])
        old.send(Retire("reload", successor=True), [ours.fileno()])
        ours.close()
        theirs.close()
        goodbye = old.expect(Goodbye)
        assert old.wait() == 0
        assert goodbye.moved == 1
        request(client)
        assert b"%d 2" % new.pid in answer(client)
        census = new.census()
        assert (census.adopted, census.connections) == (1, 1)


@pytest.mark.parametrize("driver", ["native", "asyncio"])
def test_retiring_without_a_successor_answers_the_queue(make: Make, driver: str) -> None:
    worker = make(driver=driver).serving()
    worker.signal(signal.SIGSTOP)
    with connected(worker.port, 10) as waiting:
        worker.send(Retire("scale", successor=False))
        worker.signal(signal.SIGCONT)
        worker.expect(Emptied)
        worker.expect(StoppedAccepting)
        for one in waiting:
            assert rest(one).startswith(b"HTTP/1.1 200")
    assert worker.expect(Goodbye).report["lifespan"] == "complete"
    assert worker.wait() == 0


def test_the_short_ladder_cuts_a_stream_soon(make: Make) -> None:
    worker = make(timeout_interrupt=0.3, timeout_cancel=0.5).serving()
    with worker.connect() as client:
        request(client, "/stream")
        client.recv(1)
        worker.send(Retire("files", successor=False, short=True))
        began = time.monotonic()
        report = worker.expect(Goodbye).report
        assert worker.wait() == 0
        assert report["disconnected"] + report["cancelled"] == 1
        assert time.monotonic() - began < 10
        assert not rest(client).endswith(b"0\r\n\r\n")


def test_a_retiring_worker_is_ready_still(make: Make) -> None:
    """A load balancer that asks over a connection that it has must not take the whole host out of service."""
    worker = make(health_path="/-").serving()
    with worker.connect() as health, worker.connect() as client:
        request(client, "/stream")
        client.recv(1)
        request(health, "/-/ready")
        assert answer(health).startswith(b"HTTP/1.1 200")
        worker.send(Retire("reload", successor=False))
        request(health, "/-/ready")
        assert answer(health).startswith(b"HTTP/1.1 200")


def test_the_delay_is_the_services(make: Make) -> None:
    worker = make(drain_delay=30).serving()
    worker.send(Retire("reload", successor=False))
    assert worker.wait() == 0


# -- the final stop ---------------------------------------------------------------------------------------------------


def test_a_drain_waits_for_what_runs_and_says_how_far_it_is(make: Make) -> None:
    worker = make().serving()
    with worker.connect() as client:
        request(client, "/stream")
        client.recv(1)
        worker.send(Drain("SIGTERM"))
        progress = worker.expect(Progress)
        assert (progress.phase, progress.in_flight) == ("DRAINING", 1)
        assert progress.left is not None
        assert 10 < progress.left < 20
        assert progress.tasks[0]["name"] == "GET /stream"
        assert rest(client).endswith(b"end\n\r\n0\r\n\r\n")
    worker.expect(Goodbye)
    assert worker.heard(Emptied)
    assert worker.wait() == 0


def test_a_drain_during_a_retirement_is_answered(make: Make) -> None:
    worker = make().serving()
    with worker.connect() as client:
        request(client, "/stream")
        client.recv(1)
        ours, theirs = moving_pair()
        with ours, theirs:
            worker.send(Retire("reload", successor=True), [theirs.fileno()])
            worker.expect(StoppedAccepting)
            worker.send(Drain("SIGTERM"))
            worker.expect(Emptied)
            assert rest(client).endswith(b"end\n\r\n0\r\n\r\n")
            assert worker.expect(Goodbye).report["cause"] == "reload"
    assert worker.wait() == 0


def test_force_cancels_what_runs(make: Make) -> None:
    worker = make().serving()
    with worker.connect() as client:
        request(client, "/wait")
        while worker.census().in_flight != {"request": 1}:
            time.sleep(0.02)
        worker.send(Drain("SIGTERM"))
        worker.send(Force("SIGTERM"))
        report = worker.expect(Goodbye).report
        assert report["cancelled"] == 1
        assert report["lifespan"] == "complete"
        assert rest(client).startswith(b"HTTP/1.1 503")
    assert worker.wait() == 0


def test_what_does_not_end_is_abandoned_with_its_exit_code(make: Make) -> None:
    worker = make(timeout_cancel=0.2).serving()
    with worker.connect() as client:
        request(client, "/stubborn")
        while worker.census().in_flight != {"request": 1}:
            time.sleep(0.02)
        worker.send(Force("SIGQUIT"))
        assert worker.expect(Goodbye).report["exit_code"] == 5
        assert worker.wait() == 5


@pytest.mark.parametrize("order", [Drain("SIGTERM"), Retire("reload", successor=True)])
def test_an_order_bounds_a_loop_that_blocks_in_the_stop(make: Make, order: Drain | Retire) -> None:
    """By the watchdog, which needs neither the loop nor a signal."""
    worker = make(timeout_graceful_shutdown=1, timeout_cancel=0.2, timeout_lifespan_shutdown=0.2).serving()
    with worker.connect() as client:
        request(client, "/block-in-stop")
        while worker.census().in_flight != {"request": 1}:
            time.sleep(0.02)
        worker.send(order)
        assert worker.wait() == 1
    assert "the stop took longer than it can" in worker.output
    assert 'app.py", line' in worker.output, "the stacks"


def test_no_report_file_is_written(make: Make, tmp_path: object) -> None:
    path = f"{tmp_path}/report.json"
    worker = make(drain_report=path).serving()
    worker.send(Drain("SIGTERM"))
    worker.expect(Goodbye)
    assert worker.wait() == 0
    with pytest.raises(FileNotFoundError):
        open(path).close()


# -- limits of its own ------------------------------------------------------------------------------------------------


def test_max_requests_asks_for_a_successor_and_serves_on(make: Make) -> None:
    worker = make(limit_max_requests=3).serving()
    worker.get("/", private=True)
    for _ in range(2):
        worker.get("/")
    assert worker.heard(RetireMe) == [], "the parent's own requests do not count"
    worker.get("/")
    assert worker.expect(RetireMe).cause == "max-requests"
    for _ in range(5):
        assert worker.get("/").startswith(b"HTTP/1.1 200")
    assert len(worker.heard(RetireMe)) == 1


def test_a_lifespan_that_dies_asks_for_a_successor(make: Make) -> None:
    worker = make(env={"START": "die"}, lifespan_died="stop").serving()
    assert worker.expect(RetireMe).cause == "lifespan-died"
    assert worker.get("/").startswith(b"HTTP/1.1 200")
