"""Nothing is lost at the stop: the accept backlog, fresh connections, half-read heads, idle and kept-alive ones."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from testing.peer import Peer, filter_instructions, request
from testing.process import ServerProcess
from tests.process.conftest import APPS, Start, Stopwatch, wait_for_output
from tests.process.witness import Client, report

EITHER_DRIVER = pytest.mark.parametrize("driver", ["native", "asyncio"])
LATE = 0.3  # what a busy machine may add
MOMENT = 0.1  # from the line that says that the server stops to the first thing that it does


# The accept backlog.


@pytest.mark.parametrize(("driver", "kind"), [("native", "tcp"), ("native", "unix"), ("asyncio", "tcp")])
def test_fifty_clients_in_the_backlog_of_a_loop_that_was_blocked_are_all_answered(
    start: Start, tmp_path: Path, driver: str, kind: str
) -> None:
    path = tmp_path / "socket"
    file = tmp_path / "report.json"
    options = ["--driver", driver, "--drain-report", str(file), "--limit-connections", "10"]
    options += ["--timeout-graceful-shutdown", "5", *(("--uds", str(path)) if kind == "unix" else ())]
    server = start("probe:app", *options)
    blocked = Client(server, "/block?s=0.7")
    wait_for_output(server, "block began")
    clients = [Client(server, "/ok") for _ in range(50)]
    server.signal(signal.SIGTERM)
    for client in (blocked, *clients):
        assert client.wait_ended() == "FIN"
        assert client.answer.status == 200
    assert server.wait() == 0
    assert not path.exists()
    # Up to the limit of ten, clients may have been let in, and answered, in the moment before the order was heard.
    late = [client for client in clients if client.answer.headers.get("connection") == "close"]
    assert len(late) >= 40, "beyond the limit"
    found = report(file)
    assert found["finished"] == found["arrived"] + sum(found["in_flight"].values()) >= 40
    assert 40 <= found["backlog_answered"] <= len(late)


def test_also_a_jump_answers_the_backlog(start: Start) -> None:
    server = start("probe:app")
    blocked = Client(server, "/block?s=0.5")
    wait_for_output(server, "block began")
    clients = [Client(server, "/ok") for _ in range(10)]
    server.signal(signal.SIGQUIT)
    for client in clients:
        assert client.wait_ended() == "FIN"
        assert client.answer.status in (200, 503)
    blocked.wait_ended()
    assert server.wait() == 0


def test_while_the_backlog_is_drained_new_clients_are_put_off_and_then_refused(start: Start) -> None:
    """Their SYN is dropped, not answered: a second later they ask again, and hear that nobody listens."""
    server = start()
    host, _, port = server.addresses[0].removeprefix("http://").partition(":")
    with Peer(server.addresses[0]) as quiet, socket.socket() as late:
        assert quiet.get().status == 200
        server.signal(signal.SIGTERM)
        server.wait_for("Stopping")
        time.sleep(MOMENT)
        watch = Stopwatch()
        late.settimeout(10)
        with pytest.raises(ConnectionRefusedError):
            late.connect((host, int(port)))
        assert 0.9 < watch.seconds < 3
    assert server.wait() == 0


def test_a_listener_that_somebody_else_holds_is_left_alone() -> None:
    """No filter, no shutdown: who connects meanwhile waits for the others, and is not reset when we are gone."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        number = listener.fileno()
        options = ["--fd", str(number), "--timeout-graceful-shutdown", "5"]
        server = stack.enter_context(ServerProcess(options, "probe:app", cwd=APPS, pass_fds=[number]))
        server.wait_ready()
        held = Client(server, "/slow?s=0.6")
        wait_for_output(server, "slow began")
        server.signal(signal.SIGTERM)
        server.wait_for("Stopping")
        time.sleep(MOMENT)
        watch = Stopwatch()
        late = stack.enter_context(Peer(listener.getsockname()))
        late.request()
        assert watch.seconds < 0.9, "its SYN was not dropped"
        assert filter_instructions(listener) == 0
        held.wait_ended()
        assert held.answer.body == b"slow"
        assert server.wait() == 0
        listener.settimeout(5)
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(100).startswith(b"GET / HTTP/1.1\r\n")
            accepted.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother")
        assert late.answer().body == b"other"


def test_an_inherited_listener_is_not_accepted_from_until_the_start_is_complete() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        command = ["--fd", str(number)]
        with ServerProcess(command, "behaviours:app_hung_startup", cwd=APPS, pass_fds=[number]) as server:
            wait_for_output(server, "startup began")
            with Peer(listener.getsockname()) as peer:
                peer.request()
                assert server.stop() == 0
                listener.settimeout(5)
                accepted, _ = listener.accept()
                with accepted:
                    assert accepted.recv(100).startswith(b"GET / HTTP/1.1\r\n")


def test_the_file_of_a_unix_socket_that_is_another_servers_by_now_stays(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = start("probe:app", "--uds", str(path))
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind(str(path))
        successor.listen()
        assert server.stop() == 0
        assert path.exists()
        Peer(str(path)).close()


def test_the_file_of_a_unix_socket_is_gone_as_soon_as_the_drain_begins(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = start("probe:app", "--uds", str(path), "--timeout-graceful-shutdown", "5")
    held = Client(server, "/slow?s=0.6")
    wait_for_output(server, "slow began")
    server.signal(signal.SIGTERM)
    server.wait_for("Stopping")
    time.sleep(MOMENT)
    with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
        Peer(str(path))
    assert not path.exists()
    held.wait_ended()
    assert held.answer.body == b"slow"
    assert server.wait() == 0


# Quiet connections.


@EITHER_DRIVER
def test_what_arrives_within_the_linger_is_served_and_what_does_not_is_closed_with_a_fin(
    start: Start, driver: str
) -> None:
    linger = 0.8
    server = start("probe:app", "--driver", driver, "--timeout-graceful-shutdown", f"{linger * 10:g}")
    address = server.addresses[0]
    with ExitStack() as stack:
        idle, kept, fresh, half, never, silent, begun, halfway = (stack.enter_context(Peer(address)) for _ in range(8))
        for peer in (idle, kept, begun):
            assert peer.get().status == 200
        half.send(b"GET /ok HTTP/1.1\r\nHos")
        never.send(b"GET /ok HTTP/1.1\r\nHos")
        halfway.send(request("/echo", method="POST", body=b"0123456789")[:-5])
        wait_for_output(server, "echo began")
        with Peer(address) as last:  # whose bytes came behind all of these
            assert last.get().status == 200
        server.signal(signal.SIGTERM)
        ordered = time.monotonic()
        time.sleep(linger / 3)
        fresh.request()
        kept.request()
        half.send(b"t: test\r\n\r\n")
        begun.send(b"GET /ok HTTP/1.1\r\nHos")
        for peer in (fresh, kept, half):
            answer = peer.answer()
            assert (answer.status, answer.body, answer.headers["connection"]) == (200, b"ok", "close")
            assert peer.ended() == "FIN"
        for peer in (silent, idle, never):
            assert peer.ended() == "FIN"
            assert linger - 0.05 < time.monotonic() - ordered < linger + LATE
        begun.send(b"t: test\r\n\r\n")  # a head that was begun within the linger may be finished after it
        halfway.send(b"56789")  # and an upload anyway
        assert begun.answer().headers["connection"] == "close"
        assert halfway.answer().body == b"10"
    assert server.wait() == 0


def test_the_linger_does_not_extend_what_is_left_of_a_keep_alive_or_a_header_timeout(start: Start) -> None:
    server = start("probe:app", "--timeout-keep-alive", "0.6", "--timeout-header", "0.6")
    with Peer(server.addresses[0]) as idle, Peer(server.addresses[0]) as fresh, Peer(server.addresses[0]) as other:
        assert idle.get().status == 200
        since = time.monotonic()
        assert other.silent(0.3)
        server.signal(signal.SIGTERM)
        for peer in (idle, fresh):
            assert peer.ended() == "FIN"
            assert 0.55 < time.monotonic() - since < 0.6 + LATE, "the linger would end at 1.3 s"
            peer.close()
        other.close()
    assert server.wait() == 0


def test_requests_that_were_complete_when_the_drain_began_are_all_answered_and_the_last_says_close(
    start: Start,
) -> None:
    server = start("probe:app")
    with Peer(server.addresses[0]) as peer:
        peer.send(request("/slow?s=0.3") + request("/ok") * 3)
        wait_for_output(server, "slow began")
        server.signal(signal.SIGTERM)
        server.wait_for("Stopping")
        peer.send(request("/late?id=late") * 5)  # these were not
        answers = [peer.answer() for _ in range(4)]
        assert [answer.body for answer in answers] == [b"slow", b"ok", b"ok", b"ok"]
        assert ["connection" in answer.headers for answer in answers] == [False, False, False, True]
        assert peer.rest() == b""
    assert server.wait() == 0
    assert "4 of 4 finished" in server.stderr


def test_what_comes_behind_the_last_answer_is_not_started_and_costs_no_byte_of_it(start: Start) -> None:
    server = start("probe:app")
    size = 4_000_000
    with Peer(server.addresses[0], receive_buffer=65536) as peer:
        assert peer.get().status == 200
        other = Client(server, "/slow?s=0.5")
        wait_for_output(server, "slow began")
        server.signal(signal.SIGTERM)
        server.wait_for("Stopping")
        peer.request(f"/big?n={size}")
        status, headers = peer.head()
        assert (status, headers["connection"]) == (200, "close")
        peer.send(request("/mute") * 200)
        assert len(peer.rest()) == size
        other.wait_ended()
        assert other.answer.body == b"slow"
    assert server.wait() == 0
    assert "mute began" not in server.stdout


@EITHER_DRIVER
def test_twenty_idle_connections_cost_the_linger_and_end_with_a_fin(start: Start, driver: str) -> None:
    server = start("probe:app", "--driver", driver, "--timeout-graceful-shutdown", "2")
    clients = [Client(server, "/ok") for _ in range(20)]
    for client in clients:
        client.wait_for(b"\r\n\r\nok")
    watch = Stopwatch()
    assert server.stop() == 0
    assert watch.seconds < 1, "the linger is a tenth of the grace, and not a second"
    assert {client.wait_ended() for client in clients} == {"FIN"}
