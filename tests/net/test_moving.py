"""Connections that move from one server to another: each request is answered once, and no client notices."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import time

import pytest

from lastcall.base.types import ASGIApp, Receive, Scope, Send
from lastcall.net import moving
from lastcall.net.moving import moving_pair
from testing.moving import (
    Connect,
    Start,
    Successor,
    adopter,
    ask,
    driver_of,
    joined,
    listeners_of,
    mover,
    named,
    settled,
    who,
)
from testing.peer import Peer, eventually, request
from testing.running import Gate, Lines, respond, routes, running

# -- what moves --------------------------------------------------------------------------------------------------------


def test_a_worker_that_retires_passes_its_connections_on_and_no_client_notices(
    connect: Connect, start: Start, loop: str
) -> None:
    old, new = start("old", loop=loop), start("new", loop=loop)
    peers = [connect(old) for _ in range(20)]
    assert {who(peer) for peer in peers} == {"old"}
    settled(old, 20)
    with joined(old, new) as (sending, receiving):
        ask(old, sending.move_all)
        report = old.stop()
        assert {who(peer) for peer in peers} == {"new"}
        assert (report.moved, sending.moved, receiving.adopted) == (20, 20, 20)
        assert driver_of(new).adopted == 20
        assert sending.failed == ""
    assert new.connections == 20
    for peer in peers:
        peer.close()
    eventually(lambda: new.connections == 0)


def test_one_that_has_not_asked_yet_moves_too(connect: Connect, start: Start, loop: str) -> None:
    old, new = start("old", loop=loop), start("new", loop=loop)
    peer = connect(old)
    eventually(lambda: old.connections == 1)
    with joined(old, new) as (sending, _):
        ask(old, sending.move_all)
        old.stop()
        assert who(peer) == "new"


def test_one_with_a_request_moves_when_it_is_answered(connect: Connect, start: Start) -> None:
    gate = Gate()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await respond(send, b"slow")

    old, new = start("old", routes(slow=slow)), start("new")
    peer = connect(old)
    peer.request("/slow")
    assert gate.reached.wait(10)
    with joined(old, new) as (sending, _):
        ask(old, sending.move_all)
        old.server.drain()
        eventually(lambda: driver_of(old).drain.listeners_closed)
        assert sending.moved == 0
        gate.open()
        answer = peer.answer()
        assert (answer.body, answer.headers.get("connection")) == (b"slow", None)
        assert old.join().moved == 1
        assert who(peer) == "new"


def test_pipelined_requests_are_answered_by_one_and_what_comes_later_by_the_other(
    connect: Connect, start: Start
) -> None:
    gate = Gate()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await respond(send, b"slow")

    old, new = start("old", routes(slow=slow)), start("new")
    peer = connect(old)
    peer.send(request("/slow") + request("/1") + request("/2"))
    assert gate.reached.wait(10)
    with joined(old, new) as (sending, _):
        ask(old, sending.move_all)
        old.server.drain()
        gate.open()
        answers = [peer.answer() for _ in range(3)]
        assert [one.body for one in answers] == [b"slow", b"ok", b"ok"]
        assert {one.headers.get("connection") for one in answers} == {None}
        old.join()
        assert who(peer) == "new"


def test_a_half_read_head_stays_until_it_is_answered(connect: Connect, start: Start) -> None:
    old, new = start("old"), start("new")
    peer, other = connect(old), connect(old)
    who(peer)
    who(other)
    text = request("/half")
    peer.send(text[:20])
    eventually(lambda: ask(old, lambda: sum(not one.movable for one in driver_of(old).connections)) == 1)
    with joined(old, new) as (sending, _):
        ask(old, sending.move_all)
        old.server.drain()
        assert who(other) == "new"
        eventually(lambda: driver_of(old).drain.listeners_closed)
        peer.send(text[20:])
        answer = peer.answer()
        assert json.loads(answer.body)[0] == "old"
        assert "connection" not in answer.headers
        assert old.join().moved == 2
        assert who(peer) == "new"


def test_the_rest_of_a_body_that_nobody_reads_is_no_request_of_the_successor(connect: Connect, start: Start) -> None:
    async def unread(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"early")

    old, new = start("old", routes(unread=unread)), start("new")
    peer = connect(old)
    text = request("/unread", method="POST", body=b"x" * 2000)
    peer.send(text[:-1000])
    assert peer.answer().body == b"early"
    with joined(old, new) as (sending, _):
        ask(old, sending.move_all)
        old.server.drain()
        peer.send(text[-1000:])
        assert old.join().moved == 1
        assert who(peer) == "new"


def test_a_client_that_is_gone_is_noticed_by_the_successor(connect: Connect, start: Start) -> None:
    old, new = start("old"), start("new")
    closing, resetting, staying = connect(old), connect(old), connect(old)
    for peer in (closing, resetting, staying):
        who(peer)
    settled(old, 3)
    ours, theirs = moving_pair()
    sending = mover(old, ours)
    ask(old, sending.move_all)
    peers_said = Successor(theirs)
    peers_said.room(100)
    descriptors, records = peers_said.take()
    closing.close()
    resetting.reset()
    ours, theirs = moving_pair()
    adopter(new, theirs)
    ours.recv(1000)
    socket.send_fds(ours, [json.dumps(records).encode()], descriptors)
    for fd in descriptors:
        os.close(fd)
    assert json.loads(ours.recv(1000))["received"] == 3
    peers_said.received(3)
    eventually(lambda: new.connections == 1)
    assert who(staying) == "new"
    ours.close()
    peers_said.close()


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_a_share_moves_once_while_both_serve_on_and_back_again(connect: Connect, start: Start, share: float) -> None:
    old, new = start("old"), start("new")
    peers = [connect(old) for _ in range(20)]
    assert {who(peer) for peer in peers} == {"old"}
    settled(old, 20)
    with joined(old, new) as (sending, receiving):
        done = threading.Event()
        sending.on_done = done.set
        assert ask(old, lambda: sending.move_share(share)) == 20 * share
        assert done.wait(10)
        eventually(lambda: receiving.ended)
    assert sum(who(peer) == "new" for peer in peers) == 20 * share
    settled(new, int(20 * share))
    with joined(new, old) as (back, _):
        ask(new, lambda: back.move_share(1.0))
        eventually(lambda: back.ended)
    assert {who(peer) for peer in peers} == {"old"}
    assert {peer.get("/x").headers.get("connection") for peer in peers} == {None}
    fresh = connect(new)
    assert who(fresh) == "new"
    assert old.stop().moved == 0, "what was handed over before the stop is no part of it"


def test_nothing_moves_of_a_listener_that_the_successor_does_not_have(connect: Connect, start: Start) -> None:
    old, new = start("old"), start("new")
    peer = connect(old)
    who(peer)
    settled(old, 1)
    ours, theirs = moving_pair()
    sending = mover(old, ours)
    for listener in old.server._listeners:
        listener.key = 7
    receiving = adopter(new, theirs)
    ask(old, lambda: sending.move_share(1.0))
    eventually(lambda: sending.ended and receiving.ended)
    assert (sending.moved, who(peer)) == (0, "old")


def test_the_portable_driver_drains_as_ever(connect: Connect, log: Lines) -> None:
    with running(named("old"), driver="asyncio") as old, running(named("new"), driver="native") as new:
        peer = connect(old)
        who(peer)
        with joined(old, new) as (sending, _):
            ask(old, sending.move_all)
            report = old.stop()
        assert (peer.ended(), report.moved) == ("FIN", 0)


def test_nothing_goes_to_a_portable_driver_nor_to_one_that_stops(connect: Connect, log: Lines) -> None:
    with running(named("old"), driver="native") as old, running(named("new"), driver="asyncio") as new:
        peer = connect(old)
        who(peer)
        listeners_of(old)
        settled(old, 1)
        with joined(old, new) as (sending, receiving):
            assert receiving.room() == 0
            assert ask(old, lambda: sending.move_share(1.0)) == 1
            eventually(lambda: sending.ended)
            assert sending.failed == "the successor has no descriptors left"
        assert who(peer) == "old"


def test_the_bind_decides_on_scheme_and_root_path(connect: Connect, start: Start) -> None:
    old, new = start("old", root_path="/old"), start("new", root_path="/new")
    peer = connect(old)
    assert json.loads(peer.get().body)[3] == "/old"
    settled(old, 1)
    with joined(old, new) as (sending, _):
        ask(old, sending.move_all)
        old.stop()
        assert json.loads(peer.get().body)[3] == "/new"


# -- the race ----------------------------------------------------------------------------------------------------------


class Asking(threading.Thread):
    """A client that sends request after request on one connection, and never opens another."""

    def __init__(self, peer: Peer, number: int, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.peer = peer
        self.number = number
        self.asked = 0
        self.servers: set[str] = set()
        self.error: Exception | None = None
        self._over = over

    def run(self) -> None:
        try:
            while not self._over.is_set():
                self.asked += 1
                path = f"/{self.number}/{self.asked}"
                answer = self.peer.get(path)
                name, client, asked, _ = json.loads(answer.body)
                assert (asked, tuple(client)) == (path, self.peer.name)
                assert "connection" not in answer.headers
                self.servers.add(name)
                if self.asked % 3 == self.number % 3:
                    time.sleep(0.001)  # idle for a moment, or it would seldom be found so
        except Exception as error:
            self.error = error


def counting(name: str, seen: list[str]) -> ASGIApp:
    """As ``named``; the paths are kept."""
    app = named(name)

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["path"])
        if len(seen) % 5 == 0:
            await asyncio.sleep(0)
        await app(scope, receive, send)

    return counted


@pytest.mark.slow
@pytest.mark.parametrize("small", [False, True], ids=["batches of 250", "one by one"])
def test_requests_that_race_with_the_move_are_answered_exactly_once(
    connect: Connect, start: Start, loop: str, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if small:
        monkeypatch.setattr(moving, "BATCH", 1)
    seen: list[str] = []
    servers = [start(name, counting(name, seen), loop=loop) for name in ("a", "b")]
    over = threading.Event()
    clients = [Asking(connect(servers[0]), number, over) for number in range(16)]
    for client in clients:
        client.start()
    moved = 0
    began = time.monotonic()

    def enough() -> bool:
        everywhere = all(client.servers == {"a", "b"} for client in clients)
        return (moved > 100 and everywhere) or any(client.error for client in clients)

    while (spent := time.monotonic() - began) < 2 or (not enough() and spent < 20):  # a busy machine takes longer
        for here, there in (servers, servers[::-1]):
            with joined(here, there) as (sending, _):
                ask(here, lambda: sending.move_share(1.0))
                eventually(lambda: sending.ended)
                moved += sending.moved
    over.set()
    for client in clients:
        client.join(10)
    assert [client.error for client in clients] == [None] * 16
    assert len(seen) == len(set(seen)) == sum(client.asked for client in clients)
    assert moved > 100
    assert {frozenset(client.servers) for client in clients} == {frozenset("ab")}


@pytest.mark.slow
def test_clients_that_go_on_asking_never_reconnect_over_many_retirements(
    connect: Connect, start: Start, loop: str
) -> None:
    seen: list[str] = []
    server = start("0", counting("0", seen), loop=loop)
    over = threading.Event()
    clients = [Asking(connect(server), number, over) for number in range(16)]
    for client in clients:
        client.start()
    for generation in range(1, 9):
        successor = start(str(generation), counting(str(generation), seen), loop=loop)
        with joined(server, successor) as (sending, _):
            ask(server, sending.move_all)
            report = server.stop()
            assert (report.moved, report.cut) == (16, ())
        server = successor
    over.set()
    for client in clients:
        client.join(10)
    assert [client.error for client in clients] == [None] * 16
    assert len(seen) == len(set(seen)) == sum(client.asked for client in clients)
