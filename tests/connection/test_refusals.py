"""Requests that the server itself answers: one clear error, ``Connection: close``, and no application is called."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

import pytest

from lastcall.base.errors import ClientDisconnected
from testing.memory import GET, Bench, Stage, answering, body, echo, get, post, start

MakeBench = Callable[..., Bench]
CHUNKED = get("/", "Transfer-Encoding: chunked", method="POST")

REFUSED = [
    (400, b"GET / HTTP/1.1\r\n\r\n"),
    (400, b"GET / HTTP/1.1\nHost: a\n\n"),
    (400, b"\x16\x03\x01\x02\x00\x01\x00"),
    (400, post(1, "Content-Length: 2")),
    (400, post(1, "Transfer-Encoding: chunked")),
    (413, post(1001)),
    (414, b"GET /" + b"a" * 300 + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
    (417, get("/", "Expect: miracles")),
    (431, get("/", "X: " + "y" * 2000)),
    (431, get("/", *["X: y"] * 20)),
    (501, get("a:80", method="CONNECT")),
    (501, get("/", "Transfer-Encoding: gzip, chunked")),
    (505, b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
]
LIMITS = {"limit_request_line": 200, "limit_headers": 10, "limit_header_bytes": 1000, "limit_body": 1000}


@pytest.mark.parametrize(("status", "data"), REFUSED, ids=lambda value: repr(value)[:60])
@pytest.mark.parametrize("bytewise", [False, True])
def test_refusals(bench: MakeBench, status: int, data: bytes, bytewise: bool) -> None:
    stage = Stage()
    one = bench(stage, **LIMITS)
    client = one.connect()
    client.send(*([data[i : i + 1] for i in range(len(data))] if bytewise else [data]))
    answer = client.answer()
    assert (answer.status, answer["connection"], answer.complete) == (status, b"close", True)
    assert answer["content-type"] == b"text/plain; charset=utf-8"
    assert answer.body.startswith(answer.reason + b": ")
    assert stage.calls == []
    assert client.stream.fin_sent
    client.send(GET)
    assert client.take() == b""
    # The log names what was asked for as soon as there is a request line.
    line = re.match(rb"(GET|POST) (/) HTTP/1\.1\r\n", data)
    method, target = (line[1].decode(), "/") if line else ("-", "-")
    assert [(r.client, r.method, r.target, r.status) for r in one.records] == [
        ("127.0.0.1:50000", method, target, status)
    ]
    assert one.tasks.total == 0


def test_a_refusal_is_one_line_in_the_log(bench: MakeBench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lastcall.error")
    one = bench(answering())
    one.connect(client=("::1", 7)).send(b"GET\n")
    one.connect(client=None).send(b"GET\n")
    assert [record.getMessage() for record in caplog.records] == [
        "Invalid HTTP request from ::1:7: line ends in a bare LF (400)",
        "Invalid HTTP request from a client on a unix socket: line ends in a bare LF (400)",
    ]


def test_a_refusal_keeps_its_place_behind_earlier_answers(bench: MakeBench) -> None:
    stage = Stage()
    client = bench(stage).connect()
    client.send(GET + b"nonsense\r\n\r\n" + GET)
    assert client.take() == b""
    stage.last.sends(start(), body(b"ok"))
    good, bad = client.answers("GET", "GET")
    assert (good.status, good.body, bad.status) == (200, b"ok", 400)
    assert len(stage.calls) == 1
    assert client.gone


@pytest.mark.parametrize(
    ("status", "parts"),
    [
        (400, (CHUNKED, b"3\r\nabc\r\n", b"x\r\n")),
        (400, (CHUNKED, b"3\r\nabcd")),
        (413, (CHUNKED, b"3\r\nabc\r\n", b"ffff\r\n")),
        (431, (CHUNKED, b"0\r\n", b"X: " + b"y" * 2000 + b"\r\n\r\n")),
    ],
)
def test_a_broken_body_is_refused_and_the_application_told(
    bench: MakeBench, caplog: pytest.LogCaptureFixture, status: int, parts: tuple[bytes, ...]
) -> None:
    stage = Stage()
    one = bench(stage, **LIMITS)
    client = one.connect()
    client.send(parts[0])
    stage.last.do(stage.last.receive)
    client.send(*parts[1:])
    answer = client.answer("POST")
    assert (answer.status, answer["connection"]) == (status, b"close")
    assert client.gone
    while stage.last.results[-1]["type"] == "http.request":
        stage.last.do(stage.last.receive)
    assert stage.last.results[-1] == {"type": "http.disconnect"}
    stage.last.sends(start(), body(b"too late"))
    assert type(stage.last.results[-2]) is ClientDisconnected
    stage.last.ends(stage.last.results[-2])
    assert client.take() == b""
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert one.tasks.count == 0
    assert [record.status for record in one.records] == [status]


def test_a_broken_body_behind_a_started_response_cuts_it(bench: MakeBench) -> None:
    stage = Stage()
    client = bench(stage).connect()
    client.send(CHUNKED)
    stage.last.sends(start(), body(b"some", more=True))
    client.send(b"x\r\n")
    assert client.stream.closed
    answer = client.answer("POST")
    assert (answer.status, answer.body, answer.complete) == (200, b"some", False)
    assert stage.last.receives() == {"type": "http.disconnect"}


def test_a_whole_body_that_is_broken_at_once_never_reaches_the_application(bench: MakeBench) -> None:
    stage = Stage()
    client = bench(stage, **LIMITS).connect()
    client.send(CHUNKED + b"3\r\nabc\r\nnonsense\r\n")
    assert client.answer("POST").status == 400
    assert stage.calls == []


def test_the_body_limit_is_inclusive(bench: MakeBench) -> None:
    one = bench(echo, **LIMITS)
    assert one.ask(post(1000) + b"x" * 1000, method="POST").status == 200
    assert one.ask(CHUNKED + b"3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n", method="POST").status == 200
    assert one.ask(CHUNKED + b"3e8\r\n" + b"x" * 1000 + b"\r\n1\r\n", method="POST").status == 413


def test_an_upgrade_is_ignored_with_one_warning(bench: MakeBench, caplog: pytest.LogCaptureFixture) -> None:
    """RFC 9110 7.8: a server may ignore an Upgrade; only for a WebSocket somebody will wonder."""
    one = bench(answering())
    websocket = get(
        "/", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: a", "Sec-WebSocket-Version: 13"
    )
    for request in (get("/", "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings"), websocket, websocket):
        client = one.connect()
        client.send(request)
        assert client.answer().status == 200
        assert client.kept_alive
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "WebSocket" in record.getMessage()
