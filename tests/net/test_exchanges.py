"""Bytes in, bytes out: requests and answers, pipelining, large bodies, and backpressure both ways."""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import threading
import time
from contextlib import suppress

import pytest

from lastcall.base.errors import ClientDisconnected
from lastcall.base.types import Receive, Scope, Send
from testing.peer import Peer, eventually, request
from testing.running import Gate, Lines, respond, routes, whole_body
from tests.net.conftest import WAITING, Serve

MEBI = 1024 * 1024


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, await whole_body(receive))


def test_requests_on_one_connection_are_answered_in_turn(serve: Serve) -> None:
    server = serve(echo)
    with server.peer() as peer:
        for text in (b"one", b"two", b"three"):
            peer.request("/", method="POST", body=text)
            answer = peer.answer()
            assert (answer.status, answer.body) == (200, text)


def test_the_scope_has_both_addresses(serve: Serve) -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await respond(send)

    server = serve(app)
    with server.peer() as peer:
        peer.get()
        assert tuple(seen[0]["client"]) == peer.name
        assert tuple(seen[0]["server"]) == server.address


def test_a_wildcard_listener_names_the_address_that_was_connected_to(serve: Serve) -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await respond(send)

    server = serve(app, host="0.0.0.0", port=0)
    port = server.address[1]
    with Peer(("127.0.0.1", port)) as peer:
        peer.get()
    assert tuple(seen[0]["server"]) == ("127.0.0.1", port)


def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].endswith("5"):
            await asyncio.sleep(0.01)
        await respond(send, scope["path"].encode())

    with serve(app).peer() as peer:
        paths = [f"/{number}" for number in range(100)]
        peer.send(b"".join(request(path) for path in paths))
        assert [peer.answer().body.decode() for _ in paths] == paths


def test_bytes_that_come_one_by_one_make_the_same_request(serve: Serve) -> None:
    with serve(echo).peer() as peer:
        for byte in request("/", method="POST", body=b"slow"):
            peer.send(bytes([byte]))
        assert peer.answer().body == b"slow"


def test_many_clients_at_once(serve: Serve) -> None:
    server = serve(echo)
    failures: list[BaseException] = []

    def client(number: int) -> None:
        try:
            with server.peer() as peer:
                for turn in range(20):
                    body = f"{number}:{turn}".encode()
                    peer.request("/", method="POST", body=body)
                    assert peer.answer().body == body
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_large_upload_and_a_large_download_arrive_whole(serve: Serve) -> None:
    data = os.urandom(8 * MEBI)
    with serve(echo).peer() as peer:
        sender = threading.Thread(target=peer.request, args=("/",), kwargs={"method": "POST", "body": data})
        sender.start()
        answer = peer.answer()
        sender.join()
        assert hashlib.sha256(answer.body).digest() == hashlib.sha256(data).digest()
        assert peer.get().status == 200


def test_an_application_that_does_not_read_stops_the_client(serve: Serve) -> None:
    gate = Gate()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        size = 0
        more = True
        while more:
            message = await receive()
            size += len(message["body"])
            more = message["more_body"]
        await respond(send, str(size).encode())

    total = 64 * MEBI
    with serve(app).peer() as peer:
        peer.send(f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {total}\r\n\r\n".encode())
        assert gate.reached.wait(5)
        piece = bytes(MEBI)
        sent = 0
        peer.sock.settimeout(0.3)
        with suppress(TimeoutError):
            while sent < total:
                sent += peer.sock.send(piece[: total - sent])
        assert sent < 24 * MEBI  # the kernel's buffers, and very little of ours
        peer.sock.settimeout(10)
        gate.open()
        while sent < total:
            sent += peer.sock.send(piece[: total - sent])
        assert peer.answer().body == str(total).encode()


def test_a_client_that_does_not_read_stops_the_application(serve: Serve) -> None:
    total = 256
    sent = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(total):
            await send({"type": "http.response.body", "body": bytes([number]) * 65536, "more_body": True})
            sent += 1
        await send({"type": "http.response.body", "body": b""})

    with serve(app).peer(receive_buffer=16384) as peer:
        peer.request()
        eventually(lambda: sent > 0)
        before = -1
        while before != sent:
            before = sent
            time.sleep(0.1)
        assert 0 < sent < 128  # at most 8 MiB: the kernel's buffers, and very little of ours
        peer.head()
        for number in range(total):
            assert peer.chunk() == bytes([number]) * 65536
        assert peer.chunk() == b""
        assert sent == total


def test_pipelining_without_reading_the_answers_does_not_fill_the_memory(serve: Serve) -> None:
    answered = 0
    body = bytes(65536)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal answered
        await respond(send, body)
        answered += 1

    with serve(app).peer(receive_buffer=16384) as peer:
        total = 1000
        peer.send(request() * total)
        eventually(lambda: answered > 0)
        before = -1
        while before != answered:
            before = answered
            time.sleep(0.1)
        assert answered < 256  # at most 16 MiB of 64
        for _ in range(total):
            assert len(peer.answer().body) == len(body)


@WAITING
def test_a_client_that_takes_nothing_is_given_up(serve: Serve) -> None:
    outcome: list[BaseException | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
        except BaseException as error:
            outcome.append(error)
            raise

    with serve(app, timeout_write=0.3).peer(receive_buffer=16384) as peer:
        peer.request()
        eventually(lambda: bool(outcome), 5)
        assert isinstance(outcome[0], ClientDisconnected)
        assert peer.ended() == "RST"


@pytest.mark.slow
@WAITING
def test_a_client_that_leaves_the_end_of_a_complete_answer_untaken_is_given_up(serve: Serve) -> None:
    server = serve(routes(), timeout_write=0.3)
    big = 32 * MEBI

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, bytes(big))

    with serve(app, timeout_write=0.3).peer(receive_buffer=16384) as peer:
        begun = time.monotonic()
        peer.request()
        peer.head()
        # Half a second without a byte taken is too long, although the application has been done from the start.
        time.sleep(1.0)
        assert peer.ended() == "RST"
        assert time.monotonic() - begun < 8
    with server.peer() as peer:
        assert peer.get().status == 200


@pytest.mark.slow
@WAITING
def test_a_slow_reader_that_takes_something_now_and_then_is_kept(serve: Serve) -> None:
    big = 4 * MEBI

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, bytes(big))

    with serve(app, timeout_write=1.5).peer(receive_buffer=65536) as peer:
        peer.request()
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            assert peer._receive()
            time.sleep(0.05)
        assert len(peer.answer().body) == big


@WAITING
def test_a_busy_connection_starves_neither_timers_nor_others(serve: Serve) -> None:
    due = math.inf
    overtaken = [0]  # by how many requests, for each time that a timer was due

    async def timer(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal due
        for _ in range(50):
            due = asyncio.get_running_loop().time() + 0.01
            await asyncio.sleep(0.01)
            due = math.inf
            overtaken.append(0)
        await respond(send)

    async def instant(scope: Scope, receive: Receive, send: Send) -> None:
        if asyncio.get_running_loop().time() > due:
            overtaken[-1] += 1
        await respond(send)

    server = serve(routes(timer=timer, instant=instant))
    done = threading.Event()

    def flood() -> None:
        with server.peer() as peer:
            block = request("/instant") * 500
            while not done.is_set():
                peer.send(block)
                for _ in range(500):
                    peer.answer()

    busy = threading.Thread(target=flood)
    busy.start()
    try:
        with server.peer() as one, server.peer() as other:
            one.request("/timer")
            for _ in range(20):
                assert other.get().status == 200
            assert one.answer().status == 200
    finally:
        done.set()
        busy.join()
    assert max(overtaken) < 5000, "those of a few turns, of 2 ms each"


def test_an_application_that_sends_without_pause_does_not_starve_others(serve: Serve, log: Lines) -> None:
    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 10, "more_body": True})

    server = serve(routes(endless=endless))
    with server.peer() as greedy, server.peer() as other:
        greedy.request("/endless")
        greedy.head()
        taken = threading.Thread(target=lambda: [greedy.sock.recv(65536) for _ in range(200)])
        taken.start()
        for _ in range(20):
            assert other.get().status == 200
        taken.join()
