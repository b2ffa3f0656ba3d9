"""The drill's clients, against sockets that do exactly one thing."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Ping, Pong, Request, TextMessage

from lastcall_drill.client import End, HTTPClient, WebSocketClient, head
from lastcall_drill.timeline import Timeline

SECONDS = 5.0
Meet = Callable[..., tuple[HTTPClient, socket.socket]]


class Listener:
    """A listener, and the server's side of the connections to it."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.settimeout(SECONDS)
        self.port: int = self.socket.getsockname()[1]
        self.timeline = Timeline(time.monotonic())
        self.accepted: list[socket.socket] = []

    def accept(self) -> socket.socket:
        peer, _ = self.socket.accept()
        peer.settimeout(SECONDS)
        self.accepted.append(peer)
        return peer

    def meet(self, **options: bool) -> tuple[HTTPClient, socket.socket]:
        client = HTTPClient(self.port, self.timeline, "one", **options)  # type: ignore[arg-type]
        return client, self.accept()

    def what(self) -> list[str]:
        return [moment.what for moment in self.timeline.moments]


@pytest.fixture
def listener() -> Iterator[Listener]:
    found = Listener()
    yield found
    found.socket.close()
    for peer in found.accepted:
        peer.close()


def reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def test_a_close_is_a_fin_and_a_reset_is_an_rst(listener: Listener) -> None:
    client, peer = listener.meet()
    peer.close()
    assert client.wait_end(SECONDS) is End.FIN
    other, peer = listener.meet()
    reset(peer)
    assert other.wait_end(SECONDS) is End.RST
    assert [what for what in listener.what() if what in ("fin", "rst")] == ["fin", "rst"]
    client.close()
    other.close()


def test_unread_bytes_make_the_servers_close_an_rst(listener: Listener) -> None:
    client, peer = listener.meet()
    response = client.request("/")
    peer.close()  # without having read the request
    client.wait(response, SECONDS)
    assert client.end is End.RST
    assert response.outcome == "the connection was reset without a response"
    client.close()


def test_a_client_that_was_refused_says_so_and_raises(listener: Listener) -> None:
    listener.socket.close()
    with pytest.raises(ConnectionRefusedError):
        HTTPClient(listener.port, listener.timeline, "one")
    assert listener.what() == ["refused"]


def test_a_response_is_read_as_it_comes(listener: Listener) -> None:
    with listener.meet()[0] as client:
        peer = listener.accepted[0]
        response = client.request("/a?b", method="POST", headers=["X: y"], body=b"zz")
        assert peer.recv(9999) == b"POST /a?b HTTP/1.1\r\nHost: drill\r\nX: y\r\nContent-Length: 2\r\n\r\nzz"
        assert not client.wait_head(response, 0)
        peer.sendall(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nConnection: Close\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        assert client.wait_head(response, SECONDS)
        assert (response.status, response.complete, response.says_close) == (200, False, True)
        peer.sendall(b"3\r\nabc\r\n")
        assert client.wait_body(response, 3, SECONDS)
        assert not client.wait(response, 0.01)
        peer.sendall(b"0\r\n\r\n")
        assert client.wait(response, SECONDS)
        assert (response.body, response.size) == (b"abc", 3)
        assert response.started is not None
        assert response.ended is not None
        assert response.started <= response.ended


@pytest.mark.parametrize(
    ("data", "complete", "outcome"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", False, "the connection was closed before its end"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
            False,
            "the connection was closed before its end",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\nab", True, "answered with 200"),
        (b"", False, "the connection was closed without a response"),
        (b"no HTTP at all\r\n\r\n", False, "not HTTP/1.1: illegal status line: bytearray(b'no HTTP at all')"),
    ],
)
def test_what_an_end_makes_of_a_response(listener: Listener, data: bytes, complete: bool, outcome: str) -> None:
    with listener.meet()[0] as client:
        response = client.request("/")
        listener.accepted[0].recv(9999)
        listener.accepted[0].sendall(data)
        listener.accepted[0].close()
        assert client.wait(response, SECONDS) is complete
        assert response.outcome == outcome


def test_a_response_that_never_comes_is_none(listener: Listener) -> None:
    client, _ = listener.meet()
    response = client.request("/")
    assert not client.wait(response, 0.01)
    assert response.outcome == "no response came"
    client.close()
    assert (client.end, response.outcome) == (End.OURS, "no response came")


def test_pipelined_answers_are_told_apart(listener: Listener) -> None:
    with listener.meet()[0] as client:
        responses = [client.expect("HEAD"), client.expect(), client.expect()]
        client.send(head("/", method="HEAD") + head("/") + head("/"))
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"
        listener.accepted[0].sendall(answer + answer + b"a" + answer + b"b" + b"stray")
        for response in responses:
            assert client.wait(response, SECONDS)
        assert [response.body for response in responses] == [b"", b"a", b"b"]
        assert client._wait(lambda: client.stray == b"stray", SECONDS)


def test_a_paused_client_reads_nothing_before_it_is_resumed(listener: Listener) -> None:
    client, peer = listener.meet(paused=True)
    with client:
        response = client.request("/")
        peer.recv(9999)
        peer.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert not client.wait(response, 0.05)
        client.resume()
        assert client.wait(response, SECONDS)


def websocket(listener: Listener, *, mute: bool = False) -> tuple[WebSocketClient, socket.socket, WSConnection]:
    client = WebSocketClient(listener.port, listener.timeline, "ws", mute=mute)
    peer = listener.accept()
    server = WSConnection(ConnectionType.SERVER)
    server.receive_data(peer.recv(9999))
    (request,) = server.events()
    assert isinstance(request, Request)
    assert request.target == "/ws"
    peer.sendall(server.send(AcceptConnection()))
    assert client.wait_open(SECONDS)
    return client, peer, server


def test_messages_and_the_close_frame_of_a_websocket(listener: Listener) -> None:
    client, peer, server = websocket(listener)
    with client:
        peer.sendall(server.send(TextMessage("bye")) + server.send(CloseConnection(code=1012, reason="restart")))
        assert client.wait_close(SECONDS) == 1012
        assert ([text for _, text in client.messages], client.close_reason) == (["bye"], "restart")
        server.receive_data(peer.recv(9999))
        (echo,) = server.events()
        assert isinstance(echo, CloseConnection)
        peer.close()
        assert client.wait_end(SECONDS) is End.FIN


def test_a_websocket_without_a_close_frame(listener: Listener) -> None:
    client, peer, _ = websocket(listener)
    with client:
        peer.close()
        assert client.wait_close(SECONDS) is None
        assert client.end is End.FIN


def test_a_mute_client_answers_nothing(listener: Listener) -> None:
    client, peer, server = websocket(listener, mute=True)
    with client:
        peer.sendall(server.send(Ping(b"1")) + server.send(CloseConnection(code=1001)))
        assert client.wait_close(SECONDS) == 1001
        peer.settimeout(0.05)
        with pytest.raises(TimeoutError):
            peer.recv(9999)


def test_a_ping_is_answered(listener: Listener) -> None:
    client, peer, server = websocket(listener)
    with client:
        peer.sendall(server.send(Ping(b"1")))
        server.receive_data(peer.recv(9999))
        (pong,) = server.events()
        assert isinstance(pong, Pong)


def test_a_handshake_that_is_refused(listener: Listener) -> None:
    client = WebSocketClient(listener.port, listener.timeline, "ws")
    with client:
        listener.accept().sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        assert not client.wait_open(SECONDS)
        assert client.status == 403
