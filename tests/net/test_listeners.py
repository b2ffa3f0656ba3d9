"""Listening sockets: addresses, unix socket files, inherited descriptors, and errors that name the address."""

from __future__ import annotations

import os
import socket
import ssl
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lastcall.base.errors import ConfigError, StartupError
from lastcall.base.options import BindSpec
from lastcall.base.types import Receive, Scope, Send
from lastcall.net.binding import adopt, bind, given
from lastcall.net.listener import Listener, Owner
from testing.peer import Peer
from testing.running import config, hello, respond, running
from tests.net.conftest import Serve


def tcp(host: str = "127.0.0.1", port: int = 0) -> BindSpec:
    return BindSpec("tcp", host=host, port=port)


def unix(path: Path, mode: int | None = None) -> BindSpec:
    return BindSpec("unix", path=str(path), mode=mode)


def address(listener: Listener) -> tuple[str, int]:
    found = listener.address
    assert isinstance(found, tuple)
    return found


@pytest.fixture
def bound() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def listen(stack: ExitStack, *specs: BindSpec, backlog: int = 10) -> list[Listener]:
    found = bind(specs)
    for listener in found:
        stack.callback(listener.close)
        listener.listen(backlog)
    return found


def test_a_listener_is_ours_unless_it_was_given_to_us(bound: ExitStack, tmp_path: Path) -> None:
    for listener in bind((tcp(), unix(tmp_path / "socket"))):
        bound.callback(listener.close)
        assert (listener.owner, listener.scheme, listener.tls) == (Owner.OURS, "http", None)
    sock = bound.enter_context(socket.create_server(("127.0.0.1", 0)))
    assert adopt(sock).owner == Owner.INHERITED


def test_a_listener_says_what_is_spoken_behind_it(bound: ExitStack) -> None:
    sock = bound.enter_context(socket.create_server(("127.0.0.1", 0)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listener = Listener(sock, Owner.SLOT, scheme="https", tls=context)
    assert (listener.owner, listener.scheme, listener.tls, listener.protocol) == (Owner.SLOT, "https", context, None)
    assert listener.url == f"https://127.0.0.1:{sock.getsockname()[1]}"


def test_port_0_becomes_the_real_one(bound: ExitStack) -> None:
    (listener,) = listen(bound, tcp())
    host, port = address(listener)
    assert host == "127.0.0.1"
    assert port != 0
    assert listener.url == f"http://127.0.0.1:{port}"
    Peer((host, port)).close()


def test_a_bound_port_refuses_until_it_listens(bound: ExitStack) -> None:
    (listener,) = bind((tcp(),))
    bound.callback(listener.close)
    host, port = address(listener)
    with pytest.raises(ConnectionRefusedError):
        Peer((host, port))
    listener.listen(1)
    Peer((host, port)).close()


def test_a_port_can_be_taken_again_at_once_after_a_restart(bound: ExitStack) -> None:
    (listener,) = listen(bound, tcp())
    host, port = address(listener)
    with Peer((host, port)):
        listener.sock.setblocking(True)
        accepted, _ = listener.sock.accept()
        accepted.close()  # the server closes first: TIME_WAIT is on its side
    listener.close()
    listen(bound, tcp(port=port))


def test_a_taken_port_is_named(bound: ExitStack) -> None:
    (listener,) = listen(bound, tcp())
    port = int(listener.address[1])
    with pytest.raises(StartupError, match=rf"127\.0\.0\.1:{port}\b"):
        bind((tcp(port=port),))


@pytest.mark.parametrize("first", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("second", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_port_is_bound_once_although_nobody_listens(bound: ExitStack, first: str, second: str) -> None:
    (listener,) = bind((tcp(first),))
    bound.callback(listener.close)
    port = int(listener.address[1])
    with pytest.raises(StartupError, match=rf"{second}:{port}\b"):
        bind((tcp(second, port),))
    listener.close()
    with pytest.raises(StartupError, match=rf"{second}:{port}\b"):
        bind((tcp(first, port), tcp(second, port)))


def test_a_port_that_waits_to_listen_can_be_taken_over_from_connections_that_linger(bound: ExitStack) -> None:
    (listener,) = listen(bound, tcp())
    where = address(listener)
    with Peer(where):
        listener.sock.setblocking(True)
        accepted, _ = listener.sock.accept()
        listener.close()
        (successor,) = listen(bound, tcp(port=where[1]))  # while the old one's connection is open
        Peer(where).close()
        accepted.close()
    successor.close()
    listen(bound, tcp(port=where[1]))  # and while it is in TIME_WAIT


def test_listeners_reuse_addresses_but_no_ports(bound: ExitStack) -> None:
    for listener in listen(bound, tcp(), tcp("::1")):
        assert listener.sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) != 0
        assert listener.sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0


def test_a_unix_socket_is_given_once(bound: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "socket"
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    for other in (path, Path("socket"), tmp_path / "link" / "socket"):
        with pytest.raises(StartupError, match=f"unix:{other}"):
            bind((unix(path), unix(other)))
        assert not path.exists()


def test_of_two_that_start_on_one_unix_socket_the_first_finds_out(bound: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    (first,) = bind((unix(path),))
    bound.callback(first.close)
    (second,) = bind((unix(path),))
    bound.callback(second.close)
    with pytest.raises(StartupError, match=f"unix:{path}"):
        first.listen(1)
    first.close()
    second.listen(1)
    Peer(str(path)).close()


def test_a_unix_socket_whose_file_was_removed_is_not_listened_on(tmp_path: Path) -> None:
    (listener,) = bind((unix(tmp_path / "socket"),))
    (tmp_path / "socket").unlink()
    with pytest.raises(StartupError, match=f"unix:{tmp_path}/socket"):
        listener.listen(1)
    listener.close()


def test_a_relative_path_is_removed_from_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    (listener,) = bind((unix(Path("socket")),))
    monkeypatch.chdir(tmp_path / "elsewhere")
    listener.listen(1)
    Peer(str(tmp_path / "socket")).close()
    listener.close()
    assert not (tmp_path / "socket").exists()


def test_a_file_whose_mode_cannot_be_set_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refuse)  # an owner's own chmod does not fail for real
    with pytest.raises(StartupError, match=f"unix:{tmp_path}/socket"):
        bind((unix(tmp_path / "socket"),))
    assert not (tmp_path / "socket").exists()


def test_an_unknown_host_is_named() -> None:
    with pytest.raises(StartupError, match=r"no\.such\.host\.invalid:80"):
        bind((tcp("no.such.host.invalid", 80),))


def test_all_listeners_are_bound_or_none(bound: ExitStack, tmp_path: Path) -> None:
    (taken,) = listen(bound, tcp())
    with pytest.raises(StartupError):
        bind((unix(tmp_path / "socket"), tcp(port=int(taken.address[1]))))
    assert not (tmp_path / "socket").exists()


def test_both_ip_versions_can_have_the_same_port(bound: ExitStack) -> None:
    for four, six in (("127.0.0.1", "::1"), ("0.0.0.0", "::")):
        (first,) = listen(bound, tcp(four))
        port = int(first.address[1])
        first.close()
        one, two = listen(bound, tcp(four, port), tcp(six, port))
        assert one.address == (four, port)
        assert two.address == (six, port)
        assert two.url == f"http://[{six}]:{port}"
        Peer(("127.0.0.1", port)).close()
        Peer(("::1", port)).close()
        one.close()
        two.close()


def test_no_descriptor_is_inherited_and_none_blocks(bound: ExitStack, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        given.set_inheritable(True)
        found = listen(bound, tcp(), unix(tmp_path / "s"), BindSpec("fd", fd=given.fileno()))
        assert not given.get_inheritable(), "it was inherited for us, not for our children"
    for listener in found:
        assert not listener.sock.get_inheritable()
        assert not listener.sock.getblocking()


def test_the_backlog_is_the_one_that_was_asked_for(bound: ExitStack) -> None:
    (listener,) = listen(bound, tcp(), backlog=7)
    info = listener.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    assert int.from_bytes(info[28:32], "little") == 7  # tcpi_sacked: of a listener, its backlog


def test_a_unix_socket_is_open_to_everybody_unless_told_otherwise(bound: ExitStack, tmp_path: Path) -> None:
    listen(bound, unix(tmp_path / "open"), unix(tmp_path / "closed", 0o600))
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o666
    assert stat.S_IMODE((tmp_path / "closed").stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o660, 0o600, 0o777, 0o000])
def test_the_mode_of_a_prepared_socket_is_kept_unless_another_is_given(
    bound: ExitStack, tmp_path: Path, mode: int
) -> None:
    for name, asked, expected in (("kept", None, mode), ("given", 0o640, 0o640)):
        path = tmp_path / name
        with socket.socket(socket.AF_UNIX) as prepared:
            prepared.bind(str(path))
        path.chmod(mode)
        listen(bound, unix(path, asked))
        assert stat.S_IMODE(path.stat().st_mode) == expected


def test_the_file_of_a_server_that_is_gone_is_replaced(bound: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    (listener,) = listen(bound, unix(path))
    Peer(str(path)).close()
    assert listener.url == f"unix:{path}"


def test_a_server_that_answers_is_not_replaced(bound: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listen(bound, unix(path))
    with pytest.raises(StartupError, match=f"unix:{path}"):
        bind((unix(path),))
    Peer(str(path)).close()


def test_a_server_whose_backlog_is_full_is_not_replaced(bound: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listen(bound, unix(path), backlog=0)
    clients = []
    while True:
        client = socket.socket(socket.AF_UNIX)
        bound.enter_context(client)
        client.setblocking(False)
        try:
            client.connect(str(path))
        except BlockingIOError:
            break
        clients.append(client)
    with pytest.raises(StartupError, match=f"unix:{path}"):
        bind((unix(path),))
    assert path.exists()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(StartupError, match=f"unix:{path}"):
        bind((unix(path),))
    assert path.read_text() == "data"


def test_a_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "socket"
    with pytest.raises(StartupError, match=f"unix:{path}"):
        bind((unix(path),))


def test_closing_removes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    (listener,) = bind((unix(path),))
    assert path.exists()
    listener.close()
    assert not path.exists()
    listener.close()


def test_closing_leaves_the_file_of_a_successor(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    (listener,) = bind((unix(path),))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind(str(path))
        listener.close()
        assert path.exists()


def test_an_inherited_descriptor_stays_the_givers(bound: ExitStack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        (listener,) = listen(bound, BindSpec("fd", fd=given.fileno()))
        assert listener.owner == Owner.INHERITED
        assert listener.address == given.getsockname()
        listener.close()
        Peer(given.getsockname()).close()


@pytest.mark.parametrize("kind", ["closed", "file", "datagram"])
def test_a_descriptor_that_cannot_be_listened_on_is_named(kind: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        if kind == "file":
            fd = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
            stack.callback(os.close, fd)
        elif kind == "datagram":
            fd = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).fileno()
        else:
            fd = os.dup(0)
            os.close(fd)
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(StartupError, match=rf"fd://{fd}\b"):
            bind((BindSpec("fd", fd=fd),))
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_datagram_socket_is_not_adopted() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        pytest.raises(ConfigError),
    ):
        given([sock])


def test_a_unix_socket_is_served_and_has_no_client_address(serve: Serve, tmp_path: Path) -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await respond(send)

    path = str(tmp_path / "socket")
    server = serve(app, uds=path)
    assert server.server.addresses == [path]
    with Peer(path) as peer:
        assert peer.get().status == 200
    assert scopes[0]["client"] is None
    assert list(scopes[0]["server"]) == [path, None]
    server.stop()
    assert not os.path.exists(path)


def test_ipv6_is_served(serve: Serve) -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await respond(send)

    server = serve(app, host="::1", port=0)
    with server.peer() as peer:
        assert peer.get().status == 200
        assert tuple(scopes[0]["client"]) == peer.name
        assert tuple(scopes[0]["server"]) == server.address


def test_several_listeners_of_all_kinds_are_served(serve: Serve, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        path = tmp_path / "socket"
        binds = ["127.0.0.1:0", "[::1]:0", f"unix:{path},mode=0600", f"fd://{given.fileno()}"]
        server = serve(hello, bind=binds)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        for address in server.server.addresses:
            with Peer(address) as peer:
                assert peer.get().status == 200
        assert len(server.server.addresses) == 4


def test_a_taken_port_is_told_before_the_application_is_imported(bound: ExitStack) -> None:
    (listener,) = listen(bound, tcp())
    with (
        pytest.raises(StartupError, match=f":{listener.address[1]}"),
        running("no_such_module:app", port=int(listener.address[1])),
    ):
        pass
    assert config(hello).options.net.binds[0].port == 0
