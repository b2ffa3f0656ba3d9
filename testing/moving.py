"""Servers that pass connections on to each other, as a test sees them: from its own thread."""

from __future__ import annotations

import concurrent.futures
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import pytest

from lastcall.base.types import ASGIApp, Receive, Scope, Send
from lastcall.net.driver import Driver
from lastcall.net.listener import Listener
from lastcall.net.moving import Adopter, Mover, moving_pair
from testing.peer import PATIENCE, Peer, eventually
from testing.running import STOP_SECONDS, Lines, Running, respond, running, whole_body

T = TypeVar("T")
Start = Callable[..., Running]
Connect = Callable[[Running], Peer]


def ask(server: Running, function: Callable[[], T]) -> T:
    """Call ``function`` in the server's loop; its result, or what it raised."""
    answer: concurrent.futures.Future[T] = concurrent.futures.Future()

    def called() -> None:
        try:
            answer.set_result(function())
        except BaseException as error:
            answer.set_exception(error)

    server.call(called)
    return answer.result(STOP_SECONDS)


def driver_of(server: Running) -> Driver:
    """The driver of a server that serves."""
    found = server.server._driver
    assert found is not None
    return found


def listeners_of(server: Running) -> dict[int, Listener]:
    """The server's listeners by their keys, which are set."""
    found = dict(enumerate(server.server._listeners))
    for key, listener in found.items():
        listener.key = key
    return found


def mover(server: Running, sock: socket.socket, on_done: Callable[[], object] | None = None) -> Mover:
    """A Mover of ``server`` over ``sock``."""
    listeners_of(server)
    return ask(server, lambda: Mover(driver_of(server), sock, server.loop, on_done=on_done))


def adopter(server: Running, sock: socket.socket, on_done: Callable[[], object] | None = None) -> Adopter:
    """An Adopter of ``server`` over ``sock``."""
    listeners = listeners_of(server)
    return ask(server, lambda: Adopter(driver_of(server), listeners, sock, server.loop, on_done=on_done))


@contextmanager
def joined(old: Running, new: Running) -> Iterator[tuple[Mover, Adopter]]:
    """A Mover of ``old`` and an Adopter of ``new`` that belong together; both are closed at the end."""
    ours, theirs = moving_pair()
    sending, receiving = mover(old, ours), adopter(new, theirs)
    try:
        yield sending, receiving
    finally:
        for server, side in ((old, sending), (new, receiving)):
            if server.thread.is_alive():
                ask(server, side.close)


@pytest.fixture
def start(log: Lines) -> Iterator[Start]:
    """``start(name)``: a server that answers with its name. ``start(name, app)``: one with another application."""
    with ExitStack() as stack:

        def begin(name: str, app: object = None, **options: Any) -> Running:
            server = stack.enter_context(running(named(name) if app is None else app, driver="native", **options))
            listeners_of(server)
            return server

        yield begin


@pytest.fixture
def connect() -> Iterator[Connect]:
    """``connect(server)``: a client of it, closed at the end."""
    with ExitStack() as stack:
        yield lambda server: stack.enter_context(server.peer())


def named(name: str) -> ASGIApp:
    """An application that answers with its name, the client's address and the path."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await whole_body(receive)
        await respond(send, json.dumps([name, scope["client"], scope["path"], scope["root_path"]]).encode())

    return app


def who(peer: Peer, path: str = "/") -> str:
    """Which server answers on this connection; the client must be who it is."""
    name, client, asked, _ = json.loads(peer.get(path).body)
    assert tuple(client) == peer.name
    assert asked == path
    return str(name)


def settled(old: Running, count: int) -> None:
    """Wait until ``old`` has seen all that its clients did: ``count`` connections are open and idle."""
    eventually(lambda: ask(old, lambda: sum(one.movable for one in driver_of(old).connections)) == count)


class Successor:
    """The other end of a Mover, played by the test."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(PATIENCE)

    def room(self, room: int) -> None:
        """Say how many connections can come."""
        self.sock.send(json.dumps({"room": room, "keys": [0]}).encode())

    def take(self) -> tuple[list[int], list[list[Any]]]:
        """One message: the descriptors, and what is said of them."""
        data, descriptors, _, _ = socket.recv_fds(self.sock, 65536, 250)
        return descriptors, json.loads(data)

    def received(self, count: int, room: int = 250) -> None:
        """Acknowledge."""
        self.sock.send(json.dumps({"received": count, "room": room}).encode())

    def close(self) -> None:
        """Die."""
        self.sock.close()


def clients(records: list[list[Any]]) -> set[tuple[str, int]]:
    """Whose connections these are."""
    return {(record[1][0], record[1][1]) for record in records}


Pair = tuple[socket.socket, Successor]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The Mover's end, and its successor."""
    ours, theirs = moving_pair()
    yield ours, Successor(theirs)
    ours.close()
    theirs.close()
