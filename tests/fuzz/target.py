"""What the fuzzer calls with arbitrary bytes, and what must hold for all of them. It knows ``wire`` only."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from lastcall.base.errors import LocalProtocolError, RemoteProtocolError
from lastcall.wire.head import ResponseHead, checked
from lastcall.wire.http1 import Event, RequestParser
from lastcall.wire.response import encoded

STATUSES = {400, 413, 414, 417, 431, 501, 505}
OURS = {b"transfer-encoding", b"keep-alive", b"proxy-connection", b"upgrade", b"te", b"trailer", b"connection"}
PREFIX = 3  # bytes of each input that choose what is done with the others

Notice = Callable[[object], None]


def refusal(parser: RequestParser, error: RemoteProtocolError) -> tuple[int, str]:
    """What ``error`` says, after proving that the parser stays broken."""
    verdict = (parser.status, parser.reason)
    if error.status not in STATUSES or (error.status, str(error)) != verdict:
        raise AssertionError(f"{error.status} {error}, but {verdict}") from error
    parser.receive_data(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    try:
        parser.next_event()
    except RemoteProtocolError as again:
        if (again.status, str(again)) == verdict:
            return verdict
    raise AssertionError("another verdict after a refusal") from error


def parse(parts: list[bytes], limits: dict[str, int], notice: Notice | None = None) -> list[tuple[object, ...]]:
    """Everything that a parser tells about ``parts``. Body bytes are joined: only the split may tell them apart."""
    parser = RequestParser(**limits)
    told: list[tuple[object, ...]] = []
    body = b""
    previous = Event.NEED_DATA
    try:
        for part in parts:
            parser.receive_data(part)
            while (found := parser.next_event())[0] is not Event.NEED_DATA:
                event, payload = found
                if event is Event.HEAD:
                    assert parser.method != "CONNECT"
                    told.append((
                        parser.method, parser.path, parser.raw_path, parser.query_string, tuple(parser.headers),
                        parser.minor, parser.content_length, parser.chunked, parser.keep_alive,
                        parser.expect_continue, parser.upgrade_websocket, parser.has_body,
                    ))  # fmt: skip
                    body = b""
                elif event is Event.DATA:
                    assert payload
                    body += payload
                else:
                    told.append((event, body))
                    body = b""
                if notice is not None:
                    notice((previous, event, parser.chunked, parser.minor, parser.keep_alive))
                    previous = event
        told.append((body, parser.unconsumed, parser.idle))
    except RemoteProtocolError as error:
        told.append((body, *refusal(parser, error)))
    if notice is not None:
        notice(told[-1][1:] if parser.status else ("requests", min(len(told), 8)))
    return told


def check_parser(choice: int, seed: int, data: bytes, notice: Notice | None = None) -> None:
    """The verdict on ``data`` is the same whole, byte by byte, and in pieces of sizes that ``seed`` chooses."""
    limits: dict[str, int] = {}
    if choice & 1:
        limits = {
            "limit_request_line": 8 + (choice >> 3) * 2,
            "limit_headers": 1 + seed % 5,
            "limit_header_bytes": seed % 90,
            "limit_body": seed % 30 - 1,
        }
    whole = parse([data], limits, notice)
    assert parse([data[i : i + 1] for i in range(len(data))], limits) == whole
    parts, at = [], 0
    while at < len(data):
        seed = zlib.crc32(seed.to_bytes(4, "big"))
        size = seed % 17
        parts.append(data[at : at + size])  # an empty one now and then
        at += size
    assert parse(parts, limits) == whole


def check_known_names(
    head: ResponseHead, status: int, headers: list[tuple[bytes, bytes]], defaults: list[tuple[bytes, bytes]]
) -> None:
    """The same names, known by now, and names that are equal but other objects, make the same head."""
    copies = [(bytes(bytearray(name)), value) for name, value in headers]
    for again in (headers, copies):
        other = checked(status, again[len(defaults) :], defaults)
        for fact in ("fields", "content_length", "close", "has_date", "has_server", "bodiless"):
            assert getattr(other, fact) == getattr(head, fact)


def check_response(choice: int, seed: int, data: bytes, notice: Notice | None = None) -> None:
    """Whatever an application sends as headers: refused, or written with one line for each that is not ours."""
    cells = data.split(b"\x1f")
    headers = [(cells[i], cells[i + 1]) for i in range(0, len(cells) - 1, 2)]
    status = seed % 1100
    defaults = headers[:1] if choice & 2 else []
    try:
        head = checked(status, headers[len(defaults) :], defaults)
    except LocalProtocolError as error:
        if notice is not None:
            notice(("refused", str(error)[:12]))
        return
    assert 200 <= status <= 999
    check_known_names(head, status, headers, defaults)
    line, *lines = encoded(head).split(b"\r\n")
    assert lines.pop() == b""
    assert line.startswith(b"HTTP/1.1 %d " % status)
    assert not any(byte in cell for cell in (line, *lines) for byte in (b"\r", b"\n", b"\0"))
    expected = [
        name + b": " + value
        for name, value in [*headers[len(defaults) :], *defaults]
        if name.lower() not in OURS and not (status == 204 and name.lower() == b"content-length")
    ]
    given = {name.lower() for name, _ in headers[len(defaults) :]}
    if defaults and defaults[0][0].lower() in given and defaults[0][0].lower() not in OURS:
        expected.pop()
    assert lines == expected or (status == 204 and lines == expected[: len(lines)])
    if notice is not None:
        notice(("written", len(lines), head.close, head.content_length >= 0, head.has_date, head.has_server))


def check(data: bytes, notice: Notice | None = None) -> None:
    """One execution. The first bytes choose the codec, its limits and the splits; the rest is what it is given."""
    if len(data) < PREFIX:
        return
    choice, seed = data[0], int.from_bytes(data[1:PREFIX], "big")
    (check_response if choice & 4 else check_parser)(choice, seed, data[PREFIX:], notice)
