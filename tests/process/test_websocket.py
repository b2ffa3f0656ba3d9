"""WebSockets of a real server: each way to answer the handshake, each way to end, and the stop."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from wsproto.frame_protocol import Opcode

from lastcall.supervisor.beats import resident
from testing.peer import Peer, eventually
from testing.process import ServerProcess
from testing.websocket import ACCEPT, HANDSHAKE, WebSocketPeer
from tests.process.conftest import Start, wait_for_output

APP = "sockets:app"
DRIVERS = pytest.mark.parametrize("driver", ["native", "asyncio"])


def address(server: ServerProcess) -> str:
    return server.addresses[0]


@DRIVERS
def test_an_echo_from_the_handshake_to_the_clients_close(start: Start, driver: str) -> None:
    server = start(APP, "--driver", driver)
    with WebSocketPeer(address(server), more="Sec-WebSocket-Protocol: chat, other\r\n") as peer:
        answer = peer.handshake
        assert answer.status == 101
        assert answer.headers["sec-websocket-accept"] == ACCEPT
        assert answer.headers["sec-websocket-protocol"] == "chat"
        assert answer.headers["x-a"] == "b"
        messages: list[str | bytes] = ["hello", "", b"", "é" * 3000, b"\xff" * 200_000]
        for message in messages:
            peer.say(message)
            assert peer.message() == message
        peer.ping(b"there?")
        assert peer.frame() == (Opcode.PONG, b"there?")
        peer.say_close(1001, "leaving")
        assert peer.close_frame()[0] == 1001
        assert peer.ended() == "FIN"
    wait_for_output(server, "told 1001 'leaving'")
    wait_for_output(server, "raised ClientDisconnected")
    assert '"GET / HTTP/1.1" 101' in server.stdout + server.stderr


def test_messages_are_compressed_where_the_client_offers_it(start: Start) -> None:
    server = start(APP)
    with WebSocketPeer(address(server), deflate=True) as peer:
        for message in ["short", "long " * 1000, "long " * 1000]:
            peer.say(message)
            assert peer.message() == message


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [("/reject", 403, b"Forbidden\n"), ("/deny", 401, b"who are you"), ("/raise", 500, None), ("/return", 500, None)],
)
def test_a_handshake_that_is_not_accepted(start: Start, path: str, status: int, body: bytes | None) -> None:
    server = start(APP)
    with WebSocketPeer(address(server), path) as peer:
        assert peer.handshake.status == status
        assert body is None or peer.handshake.body == body
        assert peer.ended() == "FIN"


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ==", 400),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
        ("Connection: keep-alive, Upgrade", "Connection: keep-alive", 400),
        ("Version: 13", "Version: 8", 426),
    ],
)
def test_what_is_no_handshake(start: Start, old: str, new: str, status: int) -> None:
    server = start(APP)
    with Peer(address(server)) as peer:
        peer.send(HANDSHAKE.format(path="/", more="").replace(old, new).encode())
        answer = peer.answer()
        assert answer.status == status
        assert status != 426 or answer.headers["sec-websocket-version"] == "13"


@pytest.mark.parametrize(
    ("word", "code", "reason"),
    [("close", 3001, "as you wish"), ("return", 1000, ""), ("raise", 1011, "internal error")],
)
def test_the_application_ends_it(start: Start, word: str, code: int, reason: str) -> None:
    server = start(APP)
    with WebSocketPeer(address(server)) as peer:
        peer.say(word)
        assert peer.close_frame() == (code, reason)
        peer.say_close(1000)  # whatever the client answers, a FIN follows at once
        assert peer.ended() == "FIN"
    if word == "close":
        wait_for_output(server, "told 3001 'as you wish'")


def test_a_client_that_answers_no_close_has_a_second(start: Start) -> None:
    server = start(APP)
    with WebSocketPeer(address(server)) as peer:
        peer.say("return")
        assert peer.close_frame()[0] == 1000
        assert peer.silent(0.5)
        assert peer.ended() == "FIN"


@pytest.mark.parametrize("leave", [Peer.close, Peer.reset, Peer.finish])
def test_a_client_that_just_leaves(start: Start, leave: object) -> None:
    server = start(APP)
    with WebSocketPeer(address(server)) as peer:
        leave(peer)  # type: ignore[operator]
        wait_for_output(server, "told 1006 ''")


def test_a_client_that_breaks_the_protocol_is_told(start: Start) -> None:
    server = start(APP, "--ws-max-size", "100")
    with WebSocketPeer(address(server)) as peer:
        peer.send(b"\x81\x05hello")
        assert peer.close_frame()[0] == 1002
        assert peer.ended() == "FIN"
    wait_for_output(server, "told 1002")
    with WebSocketPeer(address(server)) as peer:
        peer.say("x" * 101)
        assert peer.close_frame()[0] == 1009


def test_a_full_queue_stops_reading_and_loses_nothing(start: Start) -> None:
    """Nor is a client whose answers to pings are behind what is not read taken for dead."""
    server = start(
        APP, "--ws-max-queue", "4", "--ws-ping-interval", "0.3", "--ws-ping-timeout", "0.3", "--timeout-disconnect", "9"
    )
    with WebSocketPeer(address(server), "/busy") as peer:
        wait_for_output(server, "busy")
        for number in range(60):
            peer.say(f"{number}")
        wait_for_output(server, "done")
        came: list[object] = []
        while len(came) < 60:
            opcode, payload = peer.frame()
            if opcode is Opcode.TEXT:
                came.append(payload)
        assert came == [f"{number}" for number in range(60)]


def test_a_client_that_answers_no_ping_is_closed(start: Start) -> None:
    server = start(APP, "--ws-ping-interval", "0.2", "--ws-ping-timeout", "0.2")
    with WebSocketPeer(address(server)) as peer:
        assert peer.frame() == (Opcode.PING, b"")
        peer.say("any byte counts")
        while (frame := peer.frame())[0] is not Opcode.CLOSE:
            assert frame[1] in (b"", "any byte counts")
        assert frame[1][0] == 1011
    wait_for_output(server, "told 1011")


def test_an_application_that_does_not_answer_the_handshake(start: Start) -> None:
    server = start(APP, "--ws-handshake-timeout", "0.2")
    with WebSocketPeer(address(server), "/wait") as peer:
        assert peer.handshake.status == 503
        assert peer.handshake.headers["retry-after"] == "1"
    wait_for_output(server, "told {'type': 'websocket.disconnect', 'code': 1006")


@DRIVERS
def test_a_stop_closes_with_1012_and_names_it_in_the_report(start: Start, tmp_path: Path, driver: str) -> None:
    report = tmp_path / "report.json"
    server = start(APP, "--drain-report", str(report), "--driver", driver)
    with WebSocketPeer(address(server)) as peer, WebSocketPeer(address(server)) as mute:
        with Peer(address(server)) as late:
            late.send(HANDSHAKE.format(path="/wait", more="").encode())
            wait_for_output(server, "waits")
            server.signal(signal.SIGTERM)
            assert late.answer().status == 503, "a handshake that is not accepted yet"
        assert peer.close_frame() == (1012, "service restart")
        peer.say_close(1000)
        assert mute.close_frame() == (1012, "service restart")
        assert server.wait() == 0
    assert server.stdout.count("told 1012 'service restart'") == 2
    told = json.loads(report.read_text())
    assert told["in_flight"] == {"websocket": 3}
    assert (told["finished"], told["closed_by_policy"], told["cut"]) == (1, 2, [])


def test_a_handler_that_works_is_not_cancelled_before_it_is_told(start: Start) -> None:
    server = start(APP, "--timeout-graceful-shutdown", "4", "--drain-farewell", "0.1")
    with WebSocketPeer(address(server), "/busy") as peer:
        wait_for_output(server, "busy")
        server.signal(signal.SIGTERM)
        assert peer.close_frame()[0] == 1012
        assert server.wait() == 0
    assert "done\ntold 1012" in server.stdout


def test_one_that_may_finish_is_closed_at_the_end_of_the_grace(start: Start) -> None:
    server = start(APP, "--drain-finish", "/f*", "--timeout-graceful-shutdown", "1.5")
    with WebSocketPeer(address(server), "/fin") as peer:
        server.signal(signal.SIGTERM)
        server.wait_for("Stopping")
        time.sleep(0.3)
        peer.say("still here")
        assert peer.message() == "still here"
        assert peer.close_frame()[0] == 1012
        assert server.wait() == 0


def test_workers_close_theirs_in_a_reload_and_the_service_goes_on(start: Start) -> None:
    server = start(APP, "--workers", "2")
    with WebSocketPeer(address(server)) as peer:
        server.signal(signal.SIGHUP)
        assert peer.close_frame()[0] == 1012
        with WebSocketPeer(address(server)) as again:
            again.say("new")
            assert again.message() == "new"
    server.wait_for("Reloaded")
    assert server.stop() == 0


def test_off_it_is_plain_http(start: Start) -> None:
    server = start(APP, "--ws", "none")
    with WebSocketPeer(address(server)) as peer:
        assert (peer.handshake.status, peer.handshake.body) == (200, b"http")
    eventually(lambda: "--ws none" in server.stderr)


def test_who_pings_and_does_not_read_is_bounded(start: Start) -> None:
    """The server keeps one answer, and not one for each."""
    server = start(APP)
    with WebSocketPeer(address(server)) as peer:
        before = resident(server.pid)
        peer.sock.settimeout(0.5)
        flood = b"\x89\xfd\0\0\0\0" + bytes(125)
        try:
            for _ in range(4000):
                peer.sock.sendall(flood * 100)
        except TimeoutError:
            pass
        assert resident(server.pid) - before < 8 << 20


def test_what_came_before_our_close_is_delivered(start: Start) -> None:
    server = start("sockets:app", "--ws-max-queue", "2", "--drain-farewell", "0.1", "--timeout-graceful-shutdown", "5")
    with WebSocketPeer(address(server), "/late") as peer:
        wait_for_output(server, "late")
        for number in range(10):
            peer.say(f"{number}")
        server.signal(signal.SIGTERM)
        assert peer.close_frame()[0] == 1012
        assert server.wait() == 0
    assert "got 0 1 2 3 4 5 6 7 8 9\ntold 1012" in server.stdout


def test_an_answer_in_place_of_the_handshake_waits_for_its_client(start: Start) -> None:
    server = start(APP)
    with Peer(address(server), receive_buffer=4096) as peer:
        before = resident(server.pid)
        peer.send(HANDSHAKE.format(path="/long", more="").encode())
        assert peer.head()[0] == 403
        time.sleep(0.5)
        assert "all is sent" not in server.stdout
        assert resident(server.pid) - before < 8 << 20
        assert sum(len(chunk) for chunk in iter(peer.chunk, b"")) == 400 * 65536
    wait_for_output(server, "all is sent")


@pytest.mark.parametrize("value", ["websocket", "WebSocket", "h2c, websocket", "h2c\r\nUpgrade: websocket"])
def test_a_websocket_may_be_one_of_several_protocols(start: Start, value: str) -> None:
    """RFC 9110 7.8."""
    server = start(APP)
    with Peer(address(server)) as peer:
        text = HANDSHAKE.format(path="/", more="").replace("Upgrade: websocket", f"Upgrade: {value}")
        peer.send(text.encode())
        assert peer.answer().status == 101
