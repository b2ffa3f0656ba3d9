"""Requests that must be served: each whole, cut everywhere, byte by byte, and with another request behind it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from lastcall.wire.http1 import COMMON_NAMES, Event, RequestParser
from tests.wire.harness import Message, parse, parse_every_way

NEXT = b"DELETE /next HTTP/1.1\r\nHost: next\r\n\r\n"
HOST = (b"host", b"a")


@dataclass
class Case:
    """Bytes, and where the message differs from a plain GET of "/" with ``Host: a``."""

    name: str
    data: bytes
    expected: dict[str, Any] = field(default_factory=dict)


def get(target: str = "/", fields: str = "", *, version: str = "1.1", host: str = "a") -> bytes:
    return f"GET {target} HTTP/{version}\r\nHost: {host}\r\n{fields}\r\n".encode("latin-1")


def post(fields: str, body: bytes, *, version: str = "1.1") -> bytes:
    return f"POST / HTTP/{version}\r\nHost: a\r\n{fields}\r\n".encode() + body


CHUNKED = "Transfer-Encoding: chunked\r\n"
CHUNKED_POST: dict[str, Any] = {
    "method": "POST",
    "headers": [HOST, (b"transfer-encoding", b"chunked")],
    "chunked": True,
    "has_body": True,
}

# fmt: off
TARGETS = [
    Case("root", get()),
    Case("path", get("/a/b"), {"path": "/a/b", "raw_path": b"/a/b"}),
    Case("query", get("/a?b=c&d"), {"path": "/a", "raw_path": b"/a", "query_string": b"b=c&d"}),
    Case("empty query", get("/?")),
    Case("two question marks", get("/?a?b"), {"query_string": b"a?b"}),
    Case("query keeps its escapes", get("/?a=%20%zz"), {"query_string": b"a=%20%zz"}),
    Case("escapes", get("/a%20b%2Fc%41"), {"path": "/a b/cA", "raw_path": b"/a%20b%2Fc%41"}),
    Case("UTF-8", get("/%E2%82%ac"), {"path": "/€", "raw_path": b"/%E2%82%ac"}),
    Case("not UTF-8", get("/%ff"), {"path": "/\ufffd", "raw_path": b"/%ff"}),
    Case("NUL, escaped", get("/%00"), {"path": "/\0", "raw_path": b"/%00"}),
    Case("stray percent signs", get("/%/%4/%zz%"), {"path": "/%/%4/%zz%", "raw_path": b"/%/%4/%zz%"}),
    Case("escape at the end", get("/a%4"), {"path": "/a%4", "raw_path": b"/a%4"}),
    Case("dots stay", get("/a/../b//."), {"path": "/a/../b//.", "raw_path": b"/a/../b//."}),
    Case("two slashes first", get("//a"), {"path": "//a", "raw_path": b"//a"}),
    Case("every VCHAR", get("/!\"$&'()*+,-.:;<=>@[\\]^_`{|}~"), {
        "path": "/!\"$&'()*+,-.:;<=>@[\\]^_`{|}~",
        "raw_path": b"/!\"$&'()*+,-.:;<=>@[\\]^_`{|}~",
    }),
    Case("version in the path", get("/HTTP/1.1"), {"path": "/HTTP/1.1", "raw_path": b"/HTTP/1.1"}),
    # RFC 9112 3.2.2: the authority of an absolute-form target wins over Host
    Case("absolute-form", get("http://b:8080/x?y"), {
        "path": "/x", "raw_path": b"/x", "query_string": b"y", "headers": [(b"host", b"b:8080")],
    }),
    Case("absolute-form, no path", get("http://b"), {"headers": [(b"host", b"b")]}),
    Case("absolute-form, query only", get("HTTPS://b?q"), {"query_string": b"q", "headers": [(b"host", b"b")]}),
    Case("absolute-form, IPv6", get("http://[::1]:80/"), {"headers": [(b"host", b"[::1]:80")]}),
    Case("absolute-form keeps the place of Host", b"GET http://b/ HTTP/1.1\r\nX: 1\r\nHost: a\r\nY: 2\r\n\r\n", {
        "headers": [(b"x", b"1"), (b"host", b"b"), (b"y", b"2")],
    }),
    Case("absolute-form in 1.0 without Host", b"GET http://b/ HTTP/1.0\r\nX: 1\r\n\r\n", {
        "headers": [(b"host", b"b"), (b"x", b"1")], "minor": 0, "keep_alive": False,
    }),
    Case("asterisk-form", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", {
        "method": "OPTIONS", "path": "*", "raw_path": b"*",
    }),
    Case("OPTIONS of a path", b"OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n", {"method": "OPTIONS"}),
]

METHODS = [
    *(Case(name, f"{name} / HTTP/1.1\r\nHost: a\r\n\r\n".encode(), {"method": name}) for name in (
        "HEAD", "POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND", "M-SEARCH", "GE", "GETS", "!#$%&'*+-.^_`|~0"
    )),
    # ASGI HTTP scope: "method" is uppercased
    Case("lower case", b"purge / HTTP/1.1\r\nHost: a\r\n\r\n", {"method": "PURGE"}),
]

HEADERS = [
    Case("names are lower-cased", get(fields="X-AbC: DeF\r\n"), {"headers": [HOST, (b"x-abc", b"DeF")]}),
    Case("a known name in any case", get(fields="USER-Agent: x\r\n"), {"headers": [HOST, (b"user-agent", b"x")]}),
    Case("optional white space", get(fields="A:b\r\nC: \t d \t \r\nE:\r\nF: \t \r\n"), {
        "headers": [HOST, (b"a", b"b"), (b"c", b"d"), (b"e", b""), (b"f", b"")],
    }),
    Case("white space inside", get(fields="A: b \t c\r\n"), {"headers": [HOST, (b"a", b"b \t c")]}),
    Case("order and repetition", get(fields="B: 1\r\nA: 2\r\nB: 3\r\n"), {
        "headers": [HOST, (b"b", b"1"), (b"a", b"2"), (b"b", b"3")],
    }),
    Case("obs-text", get(fields="A: \xe9\xff\x80\r\n"), {"headers": [HOST, (b"a", b"\xe9\xff\x80")]}),
    Case("every tchar", get(fields="!#$%&'*+-.^_`|~09azAZ: x\r\n"), {
        "headers": [HOST, (b"!#$%&'*+-.^_`|~09azaz", b"x")],
    }),
    Case("colons in the value", get(fields="A::b:\r\n"), {"headers": [HOST, (b"a", b":b:")]}),
    *(Case(f"a name of {n} bytes", get(fields=f"{'N' * n}: x\r\n"), {"headers": [HOST, (b"n" * n, b"x")]})
      for n in (1, 63, 64, 65, 200)),
    Case("empty Host", get(host=""), {"headers": [(b"host", b"")]}),
    *(Case(f"Host: {host}", get(host=host), {"headers": [(b"host", host.encode())]}) for host in (
        "a.example", "127.0.0.1:8000", "[::1]", "[fe80::1]:65535", "a:", "A-b_c~.d", "%41.example", "!$&'()*+,;="
    )),
    Case("1.0 without Host", b"GET / HTTP/1.0\r\n\r\n", {"headers": [], "minor": 0, "keep_alive": False}),
    Case("Upgrade: websocket", get(fields="Upgrade: WebSocket\r\n"), {
        "headers": [HOST, (b"upgrade", b"WebSocket")], "upgrade_websocket": True,
    }),
    Case("Upgrade: h2c", get(fields="Upgrade: h2c\r\n"), {"headers": [HOST, (b"upgrade", b"h2c")]}),
    Case("one empty line first", b"\r\n" + get()),
    Case("two empty lines first", b"\r\n\r\n" + get()),
]

# RFC 9112 9.3
KEEP_ALIVE = [
    Case(f"HTTP/{version}, Connection: {value}", get(fields=f"Connection: {value}\r\n", version=version), {
        "headers": [HOST, (b"connection", value.strip().encode())],
        "minor": int(version[-1]),
        "keep_alive": expected,
    })
    for version, value, expected in (
        ("1.1", "close", False),
        ("1.1", "CLOSE", False),
        ("1.1", "keep-alive", True),
        ("1.1", "keep-alive, close", False),
        ("1.1", "upgrade ,\tclose\t, x", False),
        ("1.1", ",close", False),
        ("1.1", "closed", True),
        ("1.1", "x-close", True),
        ("1.1", "clos", True),
        ("1.1", "", True),
        ("1.0", "keep-alive", True),
        ("1.0", "Keep-Alive, x", True),
        ("1.0", "close", False),
        ("1.0", "keep-alive, close", False),
        ("1.0", "upgrade", False),
    )
] + [
    Case("HTTP/1.0 without Connection", get(version="1.0"), {"minor": 0, "keep_alive": False}),
    Case("Connection on two lines", get(fields="Connection: keep-alive\r\nConnection: close\r\n"), {
        "headers": [HOST, (b"connection", b"keep-alive"), (b"connection", b"close")], "keep_alive": False,
    }),
]

BODIES = [
    Case("Content-Length", post("Content-Length: 5\r\n", b"hello"), {
        "method": "POST", "headers": [HOST, (b"content-length", b"5")], "content_length": 5, "has_body": True,
        "body": b"hello",
    }),
    Case("a body that looks like a request", post(f"Content-Length: {len(NEXT)}\r\n", NEXT), {
        "method": "POST", "headers": [HOST, (b"content-length", b"%d" % len(NEXT))], "content_length": len(NEXT),
        "has_body": True, "body": NEXT,
    }),
    Case("Content-Length: 0", post("Content-Length: 0\r\n", b""), {
        "method": "POST", "headers": [HOST, (b"content-length", b"0")], "content_length": 0,
    }),
    # RFC 9110 8.6 allows a list of the same decimal value; it is handed on once
    Case("the same Content-Length twice", post("Content-Length: 2\r\nX: y\r\nContent-length: 02\r\n", b"ok"), {
        "method": "POST", "headers": [HOST, (b"content-length", b"2"), (b"x", b"y")], "content_length": 2,
        "has_body": True, "body": b"ok",
    }),
    Case("a body with GET", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok", {
        "headers": [HOST, (b"content-length", b"2")], "content_length": 2, "has_body": True, "body": b"ok",
    }),
    Case("a body in 1.0", post("Content-Length: 2\r\n", b"ok", version="1.0"), {
        "method": "POST", "headers": [HOST, (b"content-length", b"2")], "content_length": 2, "has_body": True,
        "body": b"ok", "minor": 0, "keep_alive": False,
    }),
    Case("chunked", post(CHUNKED, b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"), CHUNKED_POST | {"body": b"hello!"}),
    Case("chunked, empty", post(CHUNKED, b"0\r\n\r\n"), CHUNKED_POST),
    Case("chunked in any case", post("transfer-encoding: \t CHUNKed \r\n", b"0\r\n\r\n"), CHUNKED_POST | {
        "headers": [HOST, (b"transfer-encoding", b"CHUNKed")],
    }),
    Case("chunk sizes", post(CHUNKED, b"A\r\n0123456789\r\n0a\r\n0123456789\r\n000\r\n\r\n"), CHUNKED_POST | {
        "body": b"01234567890123456789",
    }),
    Case("CR, LF and digits in chunk data", post(CHUNKED, b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n"), CHUNKED_POST | {
        "body": b"\r\n0\r\n\r\n",
    }),
    # RFC 9112 7.1.1, 7.1.2: extensions and trailers are read and dropped
    Case("extensions", post(CHUNKED, b'2;a;b=c;d="e f"\r\nok\r\n0 \t; x\r\n\r\n'), CHUNKED_POST | {"body": b"ok"}),
    Case("trailers", post(CHUNKED, b"0\r\nA: b\r\nContent-Length: 9\r\nHost: x\r\n\r\n"), CHUNKED_POST),
    Case("Expect: 100-continue", post("Content-Length: 1\r\nExpect: 100-Continue\r\n", b"x"), {
        "method": "POST", "headers": [HOST, (b"content-length", b"1"), (b"expect", b"100-Continue")],
        "content_length": 1, "has_body": True, "body": b"x", "expect_continue": True,
    }),
    # RFC 9110 10.1.1: none of these is waiting for an interim response
    Case("Expect without a body", get(fields="Expect: 100-continue\r\n"), {
        "headers": [HOST, (b"expect", b"100-continue")],
    }),
    Case("Expect in 1.0", post("Content-Length: 1\r\nExpect: 100-continue\r\n", b"x", version="1.0"), {
        "method": "POST", "headers": [HOST, (b"content-length", b"1"), (b"expect", b"100-continue")],
        "content_length": 1, "has_body": True, "body": b"x", "minor": 0, "keep_alive": False,
    }),
    Case("an unknown Expect in 1.0", get(fields="Expect: tea\r\n", version="1.0"), {
        "headers": [HOST, (b"expect", b"tea")], "minor": 0, "keep_alive": False,
    }),
]
# fmt: on

CASES = TARGETS + METHODS + HEADERS + KEEP_ALIVE + BODIES


def expected_message(case: Case) -> Message:
    plain: dict[str, Any] = {
        "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": [HOST], "minor": 1,
        "content_length": -1, "chunked": False, "keep_alive": True, "expect_continue": False,
        "upgrade_websocket": False, "has_body": False, "complete": True,
    }  # fmt: skip
    return Message(**plain | case.expected)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_valid_request_is_read(case: Case) -> None:
    outcome = parse_every_way(case.data)
    assert (outcome.status, outcome.reason, outcome.rest, outcome.idle) == (0, "", b"", True)
    assert outcome.messages == [expected_message(case)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_request_leaves_nothing_behind_for_the_next_one(case: Case) -> None:
    follower = expected_message(Case("", b"", {
        "method": "DELETE", "path": "/next", "raw_path": b"/next", "headers": [(b"host", b"next")],
    }))  # fmt: skip
    assert parse_every_way(case.data + NEXT).messages == [expected_message(case), follower]
    # and the other way round: nothing of the first one colours what the case says
    assert parse(NEXT + case.data).messages == [follower, expected_message(case)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bytes_of_the_next_request_are_left_alone(case: Case) -> None:
    outcome = parse_every_way(case.data + b"PUT /half")
    assert outcome.messages == [expected_message(case)]
    assert (outcome.rest, outcome.idle) == (b"PUT /half", False)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_request_is_complete_before_its_last_byte(case: Case) -> None:
    for end in range(len(case.data)):
        outcome = parse(case.data[:end])
        assert outcome.status == 0
        assert not any(message.complete for message in outcome.messages), f"after {end} bytes"


def test_the_events_of_a_body() -> None:
    parser = RequestParser()
    parser.receive_data(post("Content-Length: 4\r\n", b"ab"))
    assert parser.next_event() == (Event.HEAD, None)
    assert parser.next_event() == (Event.DATA, b"ab")
    assert parser.next_event() == (Event.NEED_DATA, None)
    parser.receive_data(b"cd" + NEXT)
    assert parser.next_event() == (Event.DATA, b"cd")
    assert parser.unconsumed == NEXT
    assert parser.next_event() == (Event.END, None)
    assert parser.next_event() == (Event.HEAD, None)
    assert (parser.method, parser.unconsumed, parser.idle) == ("DELETE", b"", True)
    assert parser.next_event() == (Event.NEED_DATA, None)


def test_a_parser_that_was_shown_nothing() -> None:
    parser = RequestParser()
    assert parser.next_event() == (Event.NEED_DATA, None)
    assert (parser.unconsumed, parser.idle) == (b"", True)
    parser.receive_data(b"")
    assert parser.next_event() == (Event.NEED_DATA, None)


def test_every_common_name_is_one_object_for_the_life_of_the_process() -> None:
    assert len(set(COMMON_NAMES)) == len(COMMON_NAMES)
    special = {b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade"}
    assert special < set(COMMON_NAMES)
    for name in sorted(set(COMMON_NAMES) - special):
        seen = []
        for spelling in (name, name.upper(), name.title()):
            (message,) = parse(b"GET / HTTP/1.1\r\nHost: a\r\n" + spelling + b": v\r\n\r\n").messages
            assert message.headers[1] == (name, b"v")
            seen.append(message.headers[1][0])
        assert seen[0] is seen[1] is seen[2]


def test_the_limits_are_told_and_checked() -> None:
    parser = RequestParser(limit_request_line=1, limit_headers=2, limit_header_bytes=3, limit_body=4)
    limits = (parser.limit_request_line, parser.limit_headers, parser.limit_header_bytes, parser.limit_body)
    assert limits == (1, 2, 3, 4)
    assert RequestParser().limit_body == -1
    for name in ("limit_request_line", "limit_headers", "limit_header_bytes"):
        with pytest.raises(ValueError, match="negative"):
            RequestParser(**{name: -1})
    with pytest.raises(ValueError, match="negative"):
        RequestParser(limit_body=-2)


def test_a_parser_of_a_long_connection_takes_many_requests() -> None:
    parser = RequestParser()
    data = b"".join(case.data for case in CASES if not case.data.startswith(b"\r\n"))
    for _ in range(20):
        parser.receive_data(data)
        count = 0
        while (event := parser.next_event()[0]) is not Event.NEED_DATA:
            count += event is Event.HEAD
        assert count == sum(not case.data.startswith(b"\r\n") for case in CASES)
    assert parser.idle
