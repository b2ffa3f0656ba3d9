"""``sockets=``: what cannot be served is named before anything is touched, and nothing of the server stays behind."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from lastcall import Server
from lastcall.base.errors import ConfigError, StartupError
from lastcall.base.options import BindSpec
from lastcall.net.binding import bind
from testing.running import config, hello


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def unbound(stack: ExitStack) -> socket.socket:
    return stack.enter_context(socket.socket())


def unbound_unix(stack: ExitStack) -> socket.socket:
    return stack.enter_context(socket.socket(socket.AF_UNIX))


def datagram(stack: ExitStack) -> socket.socket:
    sock = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
    sock.bind(("127.0.0.1", 0))
    return sock


def connected(stack: ExitStack) -> socket.socket:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    return stack.enter_context(socket.create_connection(listener.getsockname()))


def half_a_pair(stack: ExitStack) -> socket.socket:
    ours, theirs = socket.socketpair()
    stack.enter_context(theirs)
    return stack.enter_context(ours)


def closed(stack: ExitStack) -> socket.socket:
    sock = socket.create_server(("127.0.0.1", 0))
    sock.close()
    return sock


def over_tls(stack: ExitStack) -> socket.socket:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    return stack.enter_context(context.wrap_socket(listener, server_side=True))


UNUSABLE = [unbound, unbound_unix, datagram, connected, half_a_pair, closed, over_tls]


def refused(sockets: Any) -> ConfigError:
    """What ``serve(sockets)`` raises; nothing may be left of it."""
    server = Server(config(hello))

    async def main() -> None:
        before = handlers()
        task = asyncio.create_task(server.serve(sockets))
        await asyncio.wait({task})
        assert handlers() == before
        assert asyncio.all_tasks() == {asyncio.current_task()}
        with pytest.raises(ConfigError):
            await server.wait_stopped()
        await task

    with pytest.raises(ConfigError) as raised:
        asyncio.run(main())
    assert not server.started
    return raised.value


@pytest.mark.parametrize("sockets", [["x"], "x", [None], 5, [5], [], (), b"x"], ids=repr)
def test_what_is_no_list_of_sockets_is_a_config_error_that_names_it(sockets: Any) -> None:
    error = refused(sockets)
    assert error.option == "sockets"
    wrong = sockets[0] if isinstance(sockets, list) and sockets else sockets
    assert error.value == wrong or error.value in wrong


@pytest.mark.parametrize("make", UNUSABLE)
def test_a_socket_that_cannot_listen_is_a_config_error_and_all_are_closed(
    make: Callable[[ExitStack], socket.socket], stack: ExitStack
) -> None:
    good = socket.create_server(("127.0.0.1", 0))
    bad = make(stack)
    assert refused([good, bad]).value is bad
    assert good.fileno() == bad.fileno() == -1


def test_what_is_no_socket_does_not_keep_the_others_open() -> None:
    good = socket.create_server(("127.0.0.1", 0))
    assert refused([None, good]).value is None
    assert good.fileno() == -1


def test_a_server_that_cannot_even_begin_closes_them_too() -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    server = Server(config("main:app", app_dir="/no/such/directory"))
    with pytest.raises(ConfigError, match="--app-dir"):
        asyncio.run(server.serve([sock]))
    assert sock.fileno() == -1


def test_a_socket_is_given_once() -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    assert refused([sock, sock]).value is sock
    assert sock.fileno() == -1


def test_sockets_may_come_from_an_iterator(stack: ExitStack) -> None:
    sock = socket.create_server(("127.0.0.1", 0))

    async def main() -> Any:
        server = Server(config(hello))
        serving = asyncio.create_task(server.serve(iter([sock])))  # type: ignore[arg-type]
        while not server.started and not serving.done():
            await asyncio.sleep(0)
        server.drain()
        return await serving

    assert asyncio.run(main()).exit_code == 0
    assert sock.fileno() == -1


@pytest.mark.parametrize("make", [one for one in UNUSABLE if one not in (closed, over_tls)])
def test_an_inherited_descriptor_that_cannot_listen_is_named(
    make: Callable[[ExitStack], socket.socket], stack: ExitStack
) -> None:
    fd = make(stack).fileno()
    with pytest.raises(StartupError, match=rf"fd://{fd}\b"):
        bind((BindSpec("fd", fd=fd),))
