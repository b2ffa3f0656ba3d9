"""What a response looks like on the wire: framing, connection management, the server's own fields, and every misuse."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lastcall.base.errors import LocalProtocolError
from lastcall.base.types import ASGIApp, Message, Receive, Scope, Send
from testing.memory import GET, OLD_GET, Bench, Stage, answering, body, get, start

MakeBench = Callable[..., Bench]
PIECES = (b"some", b"", b" bytes", b"!")
WHOLE = b"".join(PIECES)
LENGTH = (b"content-length", str(len(WHOLE)).encode())


def sending(*messages: Message) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def bodies(pieces: tuple[bytes, ...]) -> Iterator[Message]:
    yield from (body(piece, more=True) for piece in pieces[:-1])
    yield body(pieces[-1])


def failing(*messages: Message) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        raise RuntimeError("oh no")

    return app


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


# -- framing (RFC 9112 6.3, 9.3) ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "status", "version", "declared", "connection"),
    [
        *itertools.product(
            ("GET", "HEAD", "POST", "OPTIONS"),
            (200, 204, 205, 299, 304, 404, 500),
            ("1.0", "1.1"),
            (False, True),
            (None, "keep-alive", "close", "Close, keep-alive"),
        )
    ],
)
def test_framing(
    bench: MakeBench, method: str, status: int, version: str, declared: bool, connection: str | None
) -> None:
    """The whole product; an independent client must read what the application meant, and reuse what it may reuse."""
    bodiless = method == "HEAD" or status in (204, 205, 304)
    delimited = bodiless or declared or version == "1.1"
    asked = connection == "keep-alive" or (version == "1.1" and connection is None)
    one = bench(sending(start(status, *[LENGTH] * declared), *bodies(PIECES)))
    client = one.connect()
    request = get("/", *([f"Connection: {connection}"] if connection else []), method=method, version=version)
    client.send(request)
    answer = client.answer(method)

    assert (answer.status, answer.body, answer.complete) == (status, b"" if bodiless else WHOLE, True)
    length = b"0" if status == 205 else LENGTH[1] if declared and status != 204 else None
    assert answer["content-length"] == length
    assert answer["transfer-encoding"] == (b"chunked" if version == "1.1" and not bodiless and not declared else None)
    kept = asked and delimited
    assert client.kept_alive is kept
    assert client.gone is not kept
    assert not client.stream.was_reset
    told = {"1.0": (None, b"keep-alive"), "1.1": (b"close", None)}[version][kept]
    assert answer["connection"] == told
    if kept:
        client.send(request)
        assert client.answer(method) == answer
    assert one.records[0].bytes_sent == len(answer.body)


def test_one_chunk_per_piece_and_no_empty_one(bench: MakeBench) -> None:
    client = bench(sending(start(), *bodies(PIECES)), date_header=False, server_header=False).connect()
    client.send(GET)
    assert client.take() == (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\n6\r\n bytes\r\n1\r\n!\r\n0\r\n\r\n"
    )


@pytest.mark.parametrize("size", [0, 1, 9, 15, 16, 255, 256, 4095, 65535, 65536, 300_000])
def test_chunk_sizes(bench: MakeBench, size: int) -> None:
    """Hexadecimal sizes of every number of digits, in one message and as the part before the end."""
    data = b"x" * size
    assert bench(sending(start(), body(data))).ask(GET).body == data
    assert bench(sending(start(), body(data, more=True), body())).ask(GET).body == data


def test_the_head_waits_for_the_first_body_message(bench: MakeBench) -> None:
    stage = Stage()
    client = bench(stage).connect()
    client.send(GET)
    stage.last.sends(start())
    assert client.take() == b""
    stage.last.sends(body(more=True))
    assert client.take().endswith(b"transfer-encoding: chunked\r\n\r\n")
    stage.last.sends(body())
    assert client.take() == b"0\r\n\r\n"


@pytest.mark.parametrize(
    "pieces", [(WHOLE + b"more",), (WHOLE, b"more"), (WHOLE[:3], WHOLE[3:] + b"m", b"o", b"re"), (WHOLE, b"", b"m")]
)
def test_a_body_longer_than_declared_is_cut_and_logged_once(
    bench: MakeBench, caplog: pytest.LogCaptureFixture, pieces: tuple[bytes, ...]
) -> None:
    client = bench(sending(start(200, LENGTH), *bodies(pieces))).connect()
    client.send(get("/long?q=1"))
    assert client.answer().body == WHOLE
    assert client.kept_alive
    assert errors(caplog) == ["GET /long: the response body is longer than its content-length: cut"]


@pytest.mark.parametrize("pieces", [(b"",), (WHOLE[:-1],), (WHOLE[:2], WHOLE[2:5])])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_body_shorter_than_declared_ends_the_connection(
    bench: MakeBench, caplog: pytest.LogCaptureFixture, pieces: tuple[bytes, ...], version: str
) -> None:
    client = bench(sending(start(200, LENGTH), *bodies(pieces))).connect()
    client.send(get(version=version))
    assert client.stream.closed
    answer = client.answer()
    assert (answer.body, answer.complete) == (b"".join(pieces), False)
    [line] = errors(caplog)
    assert f"{len(WHOLE) - len(b''.join(pieces))} bytes shorter than its content-length" in line


# -- connection management and the server's fields ---------------------------------------------------------------------


@pytest.mark.parametrize("value", [b"close", b"Close", b"keep-alive, close", b"x ,\tCLOSE", b"close,close"])
def test_the_applications_close_is_honoured(bench: MakeBench, value: bytes) -> None:
    client = bench(answering(b"ok", 200, (b"Connection", value))).connect()
    client.send(GET)
    assert client.answer()["connection"] == b"close"
    assert client.gone
    client.send(GET)
    assert client.take() == b""


@pytest.mark.parametrize("value", [b"keep-alive", b"upgrade", b"x-close", b"closed", b""])
def test_other_connection_options_are_dropped(bench: MakeBench, value: bytes) -> None:
    client = bench(answering(b"ok", 200, (b"connection", value))).connect()
    client.send(GET)
    assert client.answer()["connection"] is None
    assert client.kept_alive


@pytest.mark.parametrize(
    "name", [b"transfer-encoding", b"Keep-Alive", b"proxy-connection", b"UPGRADE", b"te", b"Trailer"]
)
def test_hop_by_hop_fields_are_dropped(bench: MakeBench, name: bytes) -> None:
    client = bench(sending(start(200, (name, b"chunked"), (b"x-kept", b"1")), body(b"ok"))).connect()
    client.send(GET, OLD_GET)
    new, old = client.answers("GET", "GET")
    assert (new.body, old.body, new["x-kept"]) == (b"ok", b"ok", b"1")
    assert new["transfer-encoding"] == b"chunked"  # ours, and once
    assert old[name.decode().lower()] is None


def test_date_and_server(bench: MakeBench) -> None:
    one = bench(answering())
    answer = one.ask(GET)
    assert (answer["date"], answer["server"]) == (b"Tue, 14 Nov 2023 22:30:00 GMT", b"lastcall")
    one.advance(0.9)
    assert one.ask(GET)["date"] == b"Tue, 14 Nov 2023 22:30:00 GMT"
    one.advance(0.2)
    assert one.ask(GET)["date"] == b"Tue, 14 Nov 2023 22:30:01 GMT"


@pytest.mark.parametrize(("date", "server"), [*itertools.product((False, True), repeat=2)])
def test_date_and_server_can_be_switched_off(bench: MakeBench, date: bool, server: bool) -> None:
    one = bench(answering(), date_header=date, server_header=server)
    answer = one.ask(GET)
    assert ((answer["date"] is not None), (answer["server"] is not None)) == (date, server)
    refused = one.ask(b"nonsense\r\n\r\n")
    assert ((refused["date"] is not None), (refused["server"] is not None)) == (date, server)


@pytest.mark.parametrize("names", [("date",), ("server",), ("date", "server"), ("Date", "SERVER")])
def test_the_applications_own_date_and_server_win(bench: MakeBench, names: tuple[str, ...]) -> None:
    answer = bench(answering(b"ok", 200, *((name.encode(), b"mine") for name in names))).ask(GET)
    for name in ("date", "server"):
        mine = name in (n.lower() for n in names)
        assert (answer[name] == b"mine") is mine
        assert answer[name] is not None


def test_default_headers_are_added_where_the_application_has_none(bench: MakeBench) -> None:
    defaults = ((b"x-frame", b"deny"), (b"X-Twice", b"default"), (b"server", b"other"))
    one = bench(answering(b"ok", 200, (b"X-TWICE", b"own")), headers=defaults)
    answer = one.ask(GET)
    assert (answer["x-frame"], answer["x-twice"], answer["server"]) == (b"deny", b"own", b"other")
    without = bench(sending({"type": "http.response.start", "status": 200}, body(b"")), headers=defaults).ask(GET)
    assert (without["x-frame"], without["x-twice"]) == (b"deny", b"default")


def test_a_status_without_a_phrase(bench: MakeBench) -> None:
    client = bench(answering(b"", 299)).connect()
    client.send(GET)
    assert client.take().startswith(b"HTTP/1.1 299 \r\n")


# -- misuse: before the first byte a 500, after it a visible cut -------------------------------------------------------


@pytest.mark.parametrize("messages", [[], [start(201, (b"x-secret", b"1"))]], ids=["nothing sent", "start sent"])
def test_an_exception_before_the_first_byte_is_a_500(
    bench: MakeBench, caplog: pytest.LogCaptureFixture, messages: list[Message]
) -> None:
    client = bench(failing(*messages)).connect()
    client.send(get("/x?q"))
    answer = client.answer()
    assert (answer.status, answer.body, answer["x-secret"]) == (500, b"Internal Server Error\n", None)
    assert client.kept_alive
    [record] = caplog.records
    assert record.getMessage() == "Exception in ASGI application: GET /x"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], RuntimeError)


@pytest.mark.parametrize(
    ("version", "fields", "reset"),
    [("1.1", [], False), ("1.1", [LENGTH], False), ("1.0", [LENGTH], False), ("1.0", [], True)],
    ids=["chunked", "length", "length 1.0", "close-delimited"],
)
@pytest.mark.parametrize("raises", [True, False])
def test_an_end_in_mid_body_never_looks_complete(
    bench: MakeBench,
    caplog: pytest.LogCaptureFixture,
    version: str,
    fields: list[tuple[bytes, bytes]],
    reset: bool,
    raises: bool,
) -> None:
    """What is delimited by the close gets a RST: behind a FIN it would pass for the whole."""
    play: Callable[..., Any] = failing if raises else sending
    one = bench(play(start(200, *fields), body(b"some", more=True)))
    client = one.connect()
    client.send(get(version=version))
    assert client.stream.closed
    assert client.stream.was_reset is reset
    if not reset:
        answer = client.answer()
        assert (answer.body, answer.complete) == (b"some", False)
    [line] = errors(caplog)
    assert ("Exception in ASGI application" if raises else "returned in the middle of its response") in line
    assert [(r.status, r.bytes_sent) for r in one.records] == [(200, 4)]
    assert one.tasks.count == 0


def test_an_application_that_returns_without_a_response(bench: MakeBench, caplog: pytest.LogCaptureFixture) -> None:
    client = bench(sending()).connect()
    client.send(GET)
    assert client.answer().status == 500
    assert client.kept_alive
    assert errors(caplog) == ["GET /: the application returned without a response"]


def test_an_exception_after_the_end_of_the_response_is_logged_and_harms_nobody(
    bench: MakeBench, caplog: pytest.LogCaptureFixture
) -> None:
    client = bench(failing(start(), body(b"ok"))).connect()
    client.send(GET, GET)
    assert [answer.status for answer in client.answers("GET", "GET")] == [200, 200]
    assert client.kept_alive
    assert errors(caplog) == ["Exception in ASGI application: GET /"] * 2


@pytest.mark.parametrize(
    "message",
    [
        *(start(200, (b"x" + bad, b"v")) for bad in (b"\r", b"\n", b"\0", b" ", b":", b"\xe9", b"\x7f", b"(")),
        *(start(200, (b"x", b"v" + bad)) for bad in (b"\r", b"\n", b"\0", b"\r\nset-cookie: a=b")),
        start(200, (b"", b"v")),
        start(200, (b"x", "v")),  # type: ignore[arg-type]
        start(200, ("x", b"v")),  # type: ignore[arg-type]
        start(200, (b"x", None)),  # type: ignore[arg-type]
        start(200, (b"x",)),  # type: ignore[arg-type]
        start(200, (b"x", b"v", b"w")),  # type: ignore[arg-type]
        start(200, b"x"),  # type: ignore[arg-type]
        *(start(200, (b"content-length", value)) for value in (b"", b"-1", b"+1", b"1 ", b"1_0", b"0x1", b"9" * 19)),
        start(200, (b"content-length", b"2"), (b"Content-Length", b"2")),
        *(start(status) for status in (0, 100, 101, 199, 1000, -200, "200", None, 200.0)),  # type: ignore[arg-type]
        {"type": "http.response.start"},
        {"type": "http.response.body", "body": b"before the start"},
        {"type": "http.response.trailers", "headers": []},
        {"type": "websocket.accept"},
        {"type": None},
        {"body": b""},
        [],
        None,
    ],
    ids=repr,
)
def test_what_asgi_and_http_do_not_allow_raises_and_leaves_nothing_behind(bench: MakeBench, message: Any) -> None:
    stage = Stage()
    one = bench(stage)
    client = one.connect()
    client.send(GET)
    stage.last.sends(message)
    assert [type(result) for result in stage.last.results] == [LocalProtocolError]
    assert client.take() == b""
    stage.last.sends(start(200, (b"x-good", b"1")), body(b"ok"))
    answer = client.answer()
    assert (answer.status, answer.body, answer["x-good"]) == (200, b"ok", b"1")


def test_a_second_start_raises(bench: MakeBench) -> None:
    stage = Stage()
    client = bench(stage).connect()
    client.send(GET)
    stage.last.sends(start(200, (b"x-one", b"1")), start(404))
    assert [type(result) for result in stage.last.results] == [type(None), LocalProtocolError]
    stage.last.sends(body(b"ok", more=True), start(404), body())
    assert type(stage.last.results[3]) is LocalProtocolError
    assert client.answer()["x-one"] == b"1"


@pytest.mark.parametrize("data", ["text", 5, [b"x"], {}], ids=repr)
def test_a_body_that_is_not_bytes_raises(bench: MakeBench, data: Any) -> None:
    stage = Stage()
    client = bench(stage).connect()
    client.send(GET)
    stage.last.sends(start(), body(data))
    assert type(stage.last.results[1]) is LocalProtocolError
    assert client.take() == b""


@pytest.mark.parametrize("data", [b"ok", bytearray(b"ok"), memoryview(b"xokx")[1:3]], ids=["bytes", "array", "view"])
def test_bytes_like_bodies_and_headers(bench: MakeBench, data: Any) -> None:
    answer = bench(sending(start(200, (b"x-a", data)), body(data))).ask(GET)
    assert (answer.body, answer["x-a"]) == (b"ok", b"ok")


def test_headers_may_be_any_iterable_and_are_taken_when_sent(bench: MakeBench) -> None:
    stage = Stage()
    client = bench(stage).connect()
    client.send(GET)
    fields = [[b"x-a", bytearray(b"1")]]
    stage.last.sends({"type": "http.response.start", "status": 200, "headers": fields})
    fields[0][1][:] = b"2\r\n"  # type: ignore[index]
    fields.append([b"x-b", b"2"])
    stage.last.sends(body(b"ok"))
    answer = client.answer()
    assert (answer["x-a"], answer["x-b"]) == (b"1", None)
    client.send(GET)
    stage.last.sends({"type": "http.response.start", "status": 200, "headers": iter([(b"x-a", b"3")])}, body())
    assert client.answer()["x-a"] == b"3"


def test_messages_after_the_end_are_ignored(bench: MakeBench) -> None:
    stage = Stage()
    client = bench(stage).connect()
    client.send(GET)
    stage.last.sends(start(), body(b"ok"), body(b"more", more=True), body(b"end"))
    assert stage.last.results == [None] * 4
    assert client.answer().body == b"ok"
    client.send(GET)
    assert len(stage.calls) == 2
    stage.calls[0].sends(body(b"of another answer"))
    assert client.take() == b""
