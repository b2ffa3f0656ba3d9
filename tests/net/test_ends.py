"""How connections end: FIN and RST from either side, half-close, the lingering close, and what applications hear."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable

import pytest

from lastcall.base.errors import ClientDisconnected
from lastcall.base.types import Receive, Scope, Send
from lastcall.drain.ladder import Phase
from lastcall.server import Server
from testing.peer import Peer, eventually, request
from testing.running import Gate, Lines, Running, respond, routes
from tests.net.conftest import WAITING, Serve

MEBI = 1024 * 1024


class Listener:
    """An application whose response has started; it waits in receive() and keeps what it hears."""

    def __init__(self, *, start: bool = True) -> None:
        self.start = start
        self.started = False
        self.heard: list[object] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if self.start:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
        self.started = True
        self.heard.append((await receive())["type"])
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"late", "more_body": True})
        except ClientDisconnected as error:
            self.heard.append(type(error).__name__)


LEFT = ["http.disconnect", "ClientDisconnected"]


def test_a_client_that_resets_the_connection_is_heard_of(serve: Serve) -> None:
    app = Listener(start=False)
    peer = serve(app).peer()
    peer.request()
    eventually(lambda: app.started)
    peer.reset()
    eventually(lambda: len(app.heard) == 2)
    assert app.heard == LEFT


@pytest.mark.parametrize("way", ["reset", "finish", "close"])
def test_a_client_that_leaves_a_started_response_is_heard_of(serve: Serve, way: str) -> None:
    app = Listener()
    with serve(app).peer() as peer:
        peer.request()
        peer.head()
        assert peer.chunk() == b"first"
        getattr(peer, way)()
        eventually(lambda: bool(app.heard))
        assert app.heard[0] == "http.disconnect"


def test_a_client_that_leaves_while_the_application_waits_to_send(serve: Serve) -> None:
    outcome: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
        except ClientDisconnected as error:
            outcome.append(error)

    peer = serve(app).peer(receive_buffer=16384)
    peer.request()
    peer.head()
    peer.reset()
    eventually(lambda: bool(outcome))


def test_a_body_that_is_cut_short_is_heard_of(serve: Serve) -> None:
    heard: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            heard.append(message["type"])
            if message["type"] == "http.disconnect":
                return

    with serve(app).peer() as peer:
        peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nonly this")
        eventually(lambda: bool(heard))
        peer.finish()
        eventually(lambda: heard[-1] == "http.disconnect")
        assert peer.rest() == b""


def test_a_request_with_a_fin_right_behind_it_is_answered(serve: Serve) -> None:
    with serve(routes()).peer() as peer:
        peer.request()
        peer.finish()
        answer = peer.answer()
        assert (answer.status, answer.body) == (200, b"ok")
        assert peer.ended() == "FIN"


def test_a_response_under_way_reaches_a_client_that_has_sent_its_fin(serve: Serve) -> None:
    """``nc -N``, and whoever says early that it has nothing more to ask: 20 MB with their length, all of them."""
    size, piece = 20_000_000, 200_000

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        for _ in range(size // piece):
            await send({"type": "http.response.body", "body": bytes(piece), "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    with serve(app).peer(receive_buffer=65536) as peer:
        peer.request()
        assert peer.head()[0] == 200
        peer.finish()
        assert len(peer.rest()) == size
        assert peer.ended() == "FIN"


def test_a_client_that_leaves_before_the_response_is_heard_of(serve: Serve) -> None:
    app = Listener(start=False)
    with serve(app).peer() as peer:
        peer.request()
        eventually(lambda: app.started)
        peer.finish()
        eventually(lambda: bool(app.heard))
        assert app.heard == ["http.disconnect"]
        assert peer.head()[0] == 200, "and what it sends all the same arrives"
        assert peer.chunk() == b"late"


def test_a_reset_behind_a_fin_is_heard_of_by_the_next_send(serve: Serve) -> None:
    gate = Gate()
    heard: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": bytes(1000), "more_body": True})
                await asyncio.sleep(0.01)
        except ClientDisconnected as error:
            heard.append(error)

    peer = serve(app).peer()
    peer.request()
    assert gate.reached.wait(5)
    peer.finish()
    peer.reset()
    gate.open()
    eventually(lambda: bool(heard))


def test_a_client_that_resets_before_our_fin_leaves_no_error(serve: Serve, log: Lines) -> None:
    """shutdown() has nobody to send its FIN to then: ENOTCONN."""
    gate = Gate()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        await gate.wait()

    server = serve(app)
    peer = server.peer()
    peer.request()
    peer.finish()
    assert gate.reached.wait(5)
    peer.reset()
    with server.peer() as other:
        other.send(b"?\r\n")
        assert other.head()[0] == 400, "by now the RST has come"
    gate.open()
    eventually(lambda: server.connections == 0)
    assert log.messages(logging.ERROR) == []


def test_a_half_closed_connection_costs_nothing_while_its_application_works(serve: Serve) -> None:
    """A FIN is readable for ever: a loop that is told of it again and again would spin."""
    gate = Gate()
    times: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        before = time.thread_time()
        await asyncio.sleep(0.5)
        times.append(time.thread_time() - before)
        await gate.wait()

    with serve(app).peer() as peer:
        peer.request()
        peer.finish()
        eventually(lambda: bool(times))
        gate.open()
    assert times[0] < 0.03


def test_a_fin_that_comes_before_the_response_has_started_does_not_stop_it(serve: Serve) -> None:
    gate = Gate()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await respond(send, b"all the same")

    server = serve(routes(slow=app))
    with server.peer() as peer:
        peer.request("/slow")
        assert gate.reached.wait(5)
        peer.finish()
        with server.peer() as other:  # two round trips later the FIN has been seen
            assert other.get().status == other.get().status == 200
        gate.open()
        answer = peer.answer()
        assert (answer.status, answer.body) == (200, b"all the same")
        assert answer.headers["connection"] == "close"
        assert peer.ended() == "FIN"


def test_all_pipelined_requests_before_a_fin_are_answered(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.01)
        await respond(send, scope["path"].encode())

    with serve(app).peer() as peer:
        peer.send(b"".join(request(f"/{number}") for number in range(5)))
        peer.finish()
        assert [peer.answer().body for _ in range(5)] == [b"/0", b"/1", b"/2", b"/3", b"/4"]
        assert peer.ended() == "FIN"


def test_a_client_that_leaves_an_idle_connection_frees_it(serve: Serve) -> None:
    server = serve(routes(), limit_connections=1)
    for _ in range(5):
        with server.peer() as peer:
            assert peer.get().status == 200
    peer = server.peer()
    peer.get()
    peer.reset()
    with server.peer() as peer:
        assert peer.get().status == 200


def test_what_comes_behind_the_last_request_costs_the_client_no_byte_of_its_answer(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, bytes(MEBI))

    with serve(app).peer(receive_buffer=65536) as peer:
        peer.request("/", "Connection: close")
        peer.send(request("/more") * 1000)
        peer.sock.settimeout(10)
        answer = peer.answer()
        assert len(answer.body) == MEBI
        assert answer.headers["connection"] == "close"
        assert peer.ended() == "FIN"


@pytest.mark.slow
def test_a_slow_reader_gets_the_whole_of_a_last_answer(serve: Serve) -> None:
    size = 8 * MEBI

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, bytes(size))

    with serve(app).peer(receive_buffer=16384) as peer:
        peer.request("/", "Connection: close")
        peer.head()
        assert not peer.silent(1.5)  # longer than the lingering close may take
        assert peer.rest() == bytes(size)


def test_an_upload_that_nobody_reads_costs_the_client_no_byte_of_its_answer(serve: Serve) -> None:
    with serve(routes()).peer() as peer:
        peer.send(f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {4 * MEBI}\r\n\r\n".encode())
        peer.send(bytes(MEBI))
        answer = peer.answer()
        assert (answer.status, answer.body) == (200, b"ok")
        assert peer.ended() == "FIN"


@pytest.mark.slow
@WAITING
@pytest.mark.parametrize("limit", [{"limit_body": 100_000}, {"limit_concurrency": 1}], ids=["413", "503"])
def test_an_answer_of_ours_reaches_a_client_that_writes_until_it_has_written_all(
    serve: Serve, limit: dict[str, int]
) -> None:
    """Which takes longer than a lingering close of a second."""
    gate = Gate()
    seconds, pieces = 2.0, 20

    async def busy(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await respond(send)

    server = serve(routes(busy=busy), **limit)
    with server.peer() as other, server.peer() as peer:
        other.request("/busy")
        assert gate.reached.wait(5)
        peer.send(f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {pieces * 65536}\r\n\r\n".encode())
        for _ in range(pieces):
            time.sleep(seconds / pieces)
            peer.send(bytes(65536))
        answer = peer.answer()
        assert answer.status == (503 if "limit_concurrency" in limit else 413)
        assert answer.headers["connection"] == "close"
        assert peer.ended() == "FIN"
        gate.open()


def test_the_503_at_the_end_of_the_grace_reaches_a_client_that_still_uploads(serve: Serve) -> None:
    gate = Gate()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await gate.wait()

    server = serve(app, timeout_graceful_shutdown=0, timeout_cancel=10)
    with server.peer() as peer:
        peer.send(f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {20 * 65536}\r\n\r\n".encode() + b"x")
        assert gate.reached.wait(5)
        server.server.drain()
        eventually(lambda: server.server._controller.state.phase is Phase.CANCELLING)
        for _ in range(10):
            peer.send(bytes(65536))
            time.sleep(0.02)
        answer = peer.answer()
        assert answer.status == 503
        assert peer.ended() == "FIN"
        peer.close()
        assert server.join().seconds < 10


def test_a_response_that_breaks_off_arrives_as_far_as_it_was_sent(serve: Serve, log: Lines) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"sent", "more_body": True})
        raise RuntimeError("in the middle")

    with serve(app).peer() as peer:
        peer.request()
        assert peer.head()[0] == 200
        assert peer.chunk() == b"sent"
        with pytest.raises(EOFError):
            peer.chunk()
    assert any("Exception in ASGI application: GET /" in line for line in log.messages())


def test_a_response_that_ends_with_the_connection_breaks_off_by_a_reset(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"sent", "more_body": True})
        await asyncio.sleep(0.05)
        raise RuntimeError("in the middle")

    with serve(app).peer() as peer:
        peer.send(b"GET / HTTP/1.0\r\n\r\n")
        assert peer.ended() == "RST"


@pytest.mark.slow
@WAITING
def test_a_client_that_does_not_answer_the_fin_is_left_after_a_second(serve: Serve) -> None:
    server = serve(routes(), limit_connections=1)
    with server.peer() as peer:
        assert peer.get("/", "Connection: close").status == 200
        assert peer.rest() == b""
        with Peer(server.address) as other:  # accepted when the one before it is gone
            assert other.get().status == 200


def connected(running: Running, turns: int, then: Callable[[Server], None]) -> Peer:
    """A peer that connects in the server's own loop, which then makes so many turns before ``then(server)``."""

    async def connect() -> Peer:
        peer = running.peer()
        for _ in range(turns):
            await asyncio.sleep(0)
        then(running.server)
        return peer

    return asyncio.run_coroutine_threadsafe(connect(), running.loop).result(5)


def test_a_connection_that_is_closed_in_the_moment_of_its_birth_leaves_nothing(serve: Serve, log: Lines) -> None:
    for turns in range(6):
        running = serve(routes(), timeout_graceful_shutdown=1)  # a quiet connection lingers a tenth of that
        with connected(running, turns, lambda server: server.drain()) as peer:
            assert peer.ended() == "FIN"
        assert running.join().seconds < 0.9, "and not a second, as with a longer grace"


def test_a_connection_that_is_aborted_in_the_moment_of_its_birth_leaves_nothing(serve: Serve, log: Lines) -> None:
    for turns in range(6):
        running = serve(routes())
        with connected(running, turns, lambda server: setattr(server, "force_exit", True)) as peer:
            assert running.join(3).exit_code == 0
            assert peer.ended() in {"FIN", "RST"}


def use_around_the_timeout(server: Running, idle: float, outcomes: Counter[str]) -> None:
    """Use 250 connections again, each at another moment: from 2 ms before its timeout to behind the last at which the
    timer may fire."""
    peers = [server.peer() for _ in range(250)]
    used = []
    for peer in peers:
        assert peer.get().status == 200
        used.append(time.monotonic())
    for number, (peer, since) in enumerate(zip(peers, used, strict=True)):
        time.sleep(max(0.0, since + idle - 0.002 + 0.08 * number / len(peers) - time.monotonic()))
        with peer:
            try:
                peer.request()
                outcomes[str(peer.answer().status)] += 1
            except EOFError:
                outcomes["FIN"] += 1
            except ConnectionResetError:
                outcomes["RST"] += 1


@pytest.mark.slow
def test_a_connection_that_is_used_again_around_its_idle_timeout_is_never_reset(serve: Serve) -> None:
    """A request that comes before the FIN is answered; one that crosses it is not started, and sees a clean end."""
    outcomes = Counter[str]()
    for idle in (0.2, 0.4, 0.8, 1.6, 3.2, 6.4):  # a busy machine asks too late where it is short
        use_around_the_timeout(serve(routes(), timeout_keep_alive=idle), idle, outcomes)
        if outcomes.keys() != {"FIN"}:
            break
    assert outcomes.keys() == {"200", "FIN"}, outcomes
