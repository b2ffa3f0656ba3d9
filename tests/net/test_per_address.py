"""``--limit-connections-per-ip``: how many connections one address may have, and what a newcomer over it gets."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from lastcall.net.peers import COMPLAINT_SECONDS, PeerLimit
from testing.moving import Connect, Start, ask, driver_of, joined, settled
from testing.peer import Peer, eventually
from testing.running import Lines, Running, hello

Serve = Callable[..., Running]
NOBODY = ["10.9.9.9"]  # is trusted: else the loopback is, as the proxy's address


def refused(address: tuple[str, int]) -> bool:
    """Whether a newcomer is reset at once, which ``connect`` may be the first to say."""
    try:
        with Peer(address) as peer:
            return peer.sock.recv(1) == b""
    except ConnectionResetError:
        return True


def test_who_has_enough_is_reset_until_one_is_closed(serve: Serve, log: Lines) -> None:
    server = serve(hello, limit_connections_per_ip=2, forwarded_allow_ips=NOBODY)
    with server.peer() as one, server.peer() as two:
        assert one.get().status == two.get().status == 200
        for _ in range(5):
            assert refused(server.address)
        assert one.get().status == 200
        two.close()
        eventually(lambda: server.connections == 1)
        with server.peer() as three:
            assert three.get().status == 200
    assert len([line for line in log.messages(logging.WARNING) if "limit-connections-per-ip" in line]) == 1
    eventually(lambda: server.connections == 0)
    peers = driver_of(server).peers
    assert peers is not None
    assert (peers.refused, len(peers)) == (5, 0)


def test_a_trusted_proxy_is_not_counted(serve: Serve) -> None:
    server = serve(hello, limit_connections_per_ip=1)  # the loopback, unless somebody else is named
    with server.peer() as one, server.peer() as two, server.peer() as three:
        assert {peer.get().status for peer in (one, two, three)} == {200}


def test_unix_sockets_are_not_counted(serve: Serve, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    serve(hello, uds=path, limit_connections_per_ip=1, forwarded_allow_ips=NOBODY)
    with Peer(path) as one, Peer(path) as two:
        assert one.get().status == two.get().status == 200


def test_an_ipv4_client_of_a_socket_for_both_is_counted_by_its_own_address(serve: Serve) -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as sock:
        port = sock.getsockname()[1]
        serve(hello, sockets=[sock.dup()], limit_connections_per_ip=1, forwarded_allow_ips=NOBODY)
        with Peer(("127.0.0.1", port)) as one, Peer(("::1", port)) as other:
            assert one.get().status == other.get().status == 200
            assert refused(("127.0.0.1", port))


def test_an_address_is_counted_where_its_connections_move_to(connect: Connect, start: Start) -> None:
    options = {"limit_connections_per_ip": 3, "limit_requests_per_connection": 3, "forwarded_allow_ips": NOBODY}
    old, new = start("old", **options), start("new", **options)
    peers = [connect(old) for _ in range(3)]
    for peer in peers:
        assert peer.get().status == 200
    settled(old, 3)
    with joined(old, new) as (sending, _):
        ask(old, sending.move_all)
        eventually(lambda: new.connections == 3)
        said = [[peer.get().headers.get("connection") for _ in range(2)] for peer in peers]
        assert said == [[None, "close"]] * 3, "so is what it has asked before"
        eventually(lambda: not len(driver_of(new).peers or ()))


# -- the book alone ----------------------------------------------------------------------------------------------------


def test_only_addresses_with_a_connection_are_remembered() -> None:
    limit = PeerLimit(2)
    for number in range(1000):
        key = number.to_bytes(4, "big")
        limit.come(key)
        assert not limit.full(key, "192.0.2.1", 0.0)
        limit.gone(key)
    assert len(limit) == 0


def test_one_line_tells_of_all_that_an_interval_had(caplog: pytest.LogCaptureFixture) -> None:
    limit = PeerLimit(1)
    limit.come(b"1234")
    with caplog.at_level(logging.WARNING, "lastcall.error"):
        for moment in range(40):
            assert limit.full(b"1234", "192.0.2.1", moment / 4)
        assert limit.full(b"1234", "192.0.2.1", COMPLAINT_SECONDS)
    assert [record.args[0] for record in caplog.records if isinstance(record.args, tuple)] == [1, 40]


@pytest.mark.parametrize(
    ("exempt", "host", "trusted"),
    [
        (["10.0.0.0/8"], "10.2.3.4", True),
        (["10.0.0.0/8"], "11.2.3.4", False),
        (["10.0.0.0/8"], "::ffff:10.2.3.4", True),
        (["2001:db8::/32"], "2001:db8::7", True),
        (["2001:db8::/32"], "10.2.3.4", False),
        (["unix", "a name"], "10.2.3.4", False),
        (["*"], "10.2.3.4", True),
    ],
)
def test_who_is_exempt(exempt: list[str], host: str, trusted: bool) -> None:
    limit = PeerLimit(1, exempt)
    limit.come(b"1234")
    assert limit.full(b"1234", host, 0.0) is not trusted
