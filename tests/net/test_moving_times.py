"""The time that an idle connection has left moves with it. Two reactors, each on a clock that the test moves."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.connection.stream import Connection
from lastcall.net.driver import Driver
from lastcall.net.listener import Listener
from lastcall.net.reactor import Reactor
from lastcall.server.parts import http1_protocol
from testing.memory import GET, Bench, answering

GRAIN = 0.06  # no timeout is more exact than the timer of all of them


class Worker:
    """A worker with a real reactor and a clock of its own."""

    def __init__(self, **options: Any) -> None:
        self.bench = Bench(answering(), **options)
        self.driver: Driver = Reactor(self.bench.scheduler, self.bench.service.drain, limit=10_000)
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.listener = Listener(self.sock)
        self.listener.key = 0
        self.listener.protocol = http1_protocol(self.bench.service, self.listener)
        self.driver.listen(self.listener)

    def connect(self) -> tuple[socket.socket, Connection]:
        """A client, and its connection."""
        before = set(self.driver.connections)
        client = socket.create_connection(self.sock.getsockname())
        client.setblocking(False)
        while len(self.driver) == len(before):
            self.bench.settle()
        return client, (set(self.driver.connections) - before).pop()

    def ask(self, client: socket.socket) -> None:
        """One request, and its answer."""
        client.sendall(GET)
        found = b""
        while not found.endswith(b"ok"):
            self.bench.settle()
            try:
                found += client.recv(1000)
            except BlockingIOError:
                continue

    def close(self) -> None:
        """Close everything; fail if anything went wrong."""
        for connection in self.driver.connections:
            connection.abort()
        self.driver.close()
        self.sock.close()
        self.bench.close()


def move(connection: Connection, old: Worker, new: Worker, behind: Connection | None = None) -> Connection:
    """As a Mover and an Adopter do, without the socket between them."""
    lifted = old.driver.lift(connection, {0})
    assert lifted is not None
    fd, _, (_, client, fresh, left, past) = lifted
    found = new.driver.take_over(os.dup(fd), new.listener, client, fresh, left, behind, past)
    old.driver.drop(connection)
    return found


def closes_at(worker: Worker, connection: Connection, seconds: float) -> bool:
    """Whether it is given up when ``seconds`` have passed, and not long before."""
    worker.bench.advance(seconds - GRAIN)
    before = connection.finishing
    worker.bench.advance(2 * GRAIN)
    return not before and connection.finishing


@pytest.fixture
def pair() -> Iterator[tuple[Worker, Worker]]:
    """Two workers."""
    workers = Worker(), Worker()
    yield workers
    for one in workers:
        one.close()


def test_the_time_that_is_left_of_the_keep_alive_timeout_moves_along(pair: tuple[Worker, Worker]) -> None:
    old, new = pair
    client, connection = old.connect()
    with client:
        old.ask(client)
        old.bench.advance(50)
        assert closes_at(new, move(connection, old, new), 25)


def test_so_does_what_is_left_of_the_time_for_the_first_head(pair: tuple[Worker, Worker]) -> None:
    old, new = pair
    client, connection = old.connect()
    with client:
        old.bench.advance(8)
        assert closes_at(new, move(connection, old, new), 2)
        assert client.recv(1000) == b"", "as of any other that says nothing: silently"


def test_a_request_gives_it_the_whole_time_anew(pair: tuple[Worker, Worker]) -> None:
    old, new = pair
    client, connection = old.connect()
    with client:
        old.ask(client)
        old.bench.advance(70)
        moved = move(connection, old, new)
        new.ask(client)
        assert closes_at(new, moved, 75)


@pytest.mark.parametrize("theirs", [20.0, 5.0])
def test_the_successors_own_timeout_is_a_limit_too(theirs: float) -> None:
    old, new = Worker(timeout_keep_alive=math.inf), Worker(timeout_keep_alive=theirs)
    client, connection = old.connect()
    with client:
        old.ask(client)
        old.bench.advance(1000)
        assert closes_at(new, move(connection, old, new), theirs)
    old.close()
    new.close()


def test_one_that_comes_back_has_what_it_had(pair: tuple[Worker, Worker]) -> None:
    old, _ = pair
    client, connection = old.connect()
    with client:
        old.ask(client)
        old.bench.advance(50)
        lifted = old.driver.lift(connection, {0})
        assert lifted is not None
        assert not connection.movable
        old.bench.advance(10)
        assert len(old.driver) == 1
        assert old.driver.connections == []
        old.driver.put_back(connection, lifted[2][2], lifted[1])
        assert old.driver.connections == [connection]
        assert closes_at(old, connection, 15)


def test_one_whose_time_is_over_on_its_way_is_served_all_the_same(pair: tuple[Worker, Worker]) -> None:
    """What has come is looked at before a timeout counts."""
    old, new = pair
    client, connection = old.connect()
    with client:
        old.ask(client)
        old.bench.advance(74.99)
        client.sendall(GET)
        moved = move(connection, old, new)
        new.bench.advance(0.5)
        assert client.recv(1000).endswith(b"ok")
        assert not moved.finishing


@given(waits=st.lists(st.floats(0, 30), min_size=1, max_size=12), own=st.integers(0, 3), hinted=st.booleans())
def test_each_is_given_up_at_its_own_time_whatever_is_between_them(waits: list[float], own: int, hinted: bool) -> None:
    old, new = Worker(), Worker()
    clients = []
    due: dict[Connection, float] = {}
    connections = []
    for wait in waits:
        client, connection = old.connect()
        clients.append(client)
        old.ask(client)
        connections.append(connection)
        old.bench.advance(wait)
        new.bench.advance(wait)
        if len(due) < own:
            client, kept = new.connect()
            clients.append(client)
            new.ask(client)
            due[kept] = new.bench.loop.time() + 75
    before: Connection | None = None
    for connection in connections:
        if connection.movable:  # else its time is over
            lifted_at = old.bench.loop.time()
            left = 75 - (lifted_at - 1000.0 - sum(waits[: connections.index(connection)]))
            before = move(connection, old, new, before if hinted else None)
            due[before] = new.bench.loop.time() + left
    for connection, at in sorted(due.items(), key=lambda item: item[1]):
        now = new.bench.loop.time()
        if at - GRAIN > now:
            new.bench.advance(at - GRAIN - now)
            assert not connection.finishing
        new.bench.advance(max(0.0, at + 2 * GRAIN - new.bench.loop.time()))
        assert connection.finishing
    for client in clients:
        client.close()
    old.close()
    new.close()
