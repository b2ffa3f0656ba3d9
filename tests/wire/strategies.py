"""Hypothesis strategies: streams of valid requests together with what they must be read as, and ways to spoil them."""

from __future__ import annotations

import itertools
import re
import string
from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

TCHARS = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"
FRAMING = {"host", "content-length", "transfer-encoding", "connection", "expect", "upgrade"}
FIELD_VALUE = [c for c in range(0x20, 0x100) if c != 0x7F] + [0x09]


@dataclass(frozen=True)
class Wanted:
    """A request as it was meant: what any parser that reads it must find."""

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]  # as sent but for case and white space around values
    minor: int
    keep_alive: bool
    body: bytes
    wire: bytes = field(repr=False, default=b"")


tokens = st.text(TCHARS, min_size=1, max_size=12)
STANDARD = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE")
methods = st.one_of(st.sampled_from([*STANDARD, "purge", "M-SEARCH"]), tokens).filter(
    lambda method: method in STANDARD or method.upper() not in (*STANDARD, "CONNECT")
)
targets = st.one_of(
    st.just("/"),
    st.text([chr(c) for c in range(0x21, 0x7F) if c != 0x23], max_size=40).map(lambda text: "/" + text),
    st.sampled_from(
        ["/a%20b%2f?c=%41", "/%", "/%e2%82%ac?", "http://b.example:8000/x?y", "http://b", "https://[::1]?q"]
    ),
)
names = st.one_of(
    st.sampled_from(
        ["Accept", "user-agent", "X-FORWARDED-FOR", "cookie", "Te", "Trailer", "Keep-Alive", "N" * 64, "n" * 65]
    ),
    tokens,
).filter(lambda name: name.lower() not in FRAMING)
values = st.lists(st.sampled_from(FIELD_VALUE), max_size=30).map(lambda codes: bytes(codes).strip(b" \t"))
white_space = st.text(" \t", max_size=3)
bodies = st.one_of(
    st.binary(max_size=60), st.sampled_from([b"\r\n", b"0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"x" * 5000])
)
extensions = st.sampled_from(["", "", ";b", ";a", ' ;a="b c"', "\t; a = b;c", ";" + "x" * 100])


@st.composite
def spelled(draw: st.DrawFn, name: str, value: bytes) -> bytes:
    """One field line, with the freedom that the grammar leaves."""
    before, after = draw(white_space), draw(white_space)
    name = draw(st.sampled_from([name, name.lower(), name.upper(), name.title()]))
    return name.encode() + b":" + before.encode() + value + after.encode() + b"\r\n"


@st.composite
def chunked(draw: st.DrawFn, body: bytes) -> bytes:
    """``body`` in chunks, with extensions and trailers."""
    cuts = sorted(draw(st.sets(st.integers(1, max(len(body) - 1, 1)), max_size=4)) & set(range(1, len(body))))
    places = [0, *cuts, len(body)]
    lines = []
    for start, end in itertools.pairwise(places):
        if start < end:
            size = draw(st.sampled_from(["%x", "%X", "0%x", "%016x"])) % (end - start)
            lines.append(f"{size}{draw(extensions)}\r\n".encode() + body[start:end] + b"\r\n")
    lines.append(f"{draw(st.sampled_from(['0', '000']))}{draw(extensions)}\r\n".encode())
    for name, value in draw(st.lists(st.tuples(names, values), max_size=2)):
        lines.append(draw(spelled(name, value)))
    return b"".join(lines) + b"\r\n"


@st.composite
def requests(draw: st.DrawFn) -> Wanted:
    """One valid request."""
    method, target, minor = draw(methods), draw(targets), draw(st.sampled_from([1, 1, 1, 0]))
    fields: list[tuple[str, bytes]] = draw(st.lists(st.tuples(names, values), max_size=5))
    if minor == 1 or draw(st.booleans()):
        fields.append(("Host", draw(st.sampled_from([b"a", b"", b"a.example:80", b"[::1]:1"]))))
    connection = draw(st.sampled_from([b"", b"", b"close", b"keep-alive", b"Keep-Alive, x", b"x ,CLOSE", b"upgrade"]))
    if connection:
        fields.append(("Connection", connection))
    if draw(st.integers(0, 9)) == 0:
        fields.append(("Upgrade", b"websocket"))
    kind = draw(st.sampled_from(["none", "length", "chunked"] if minor else ["none", "length"]))
    body = b"" if kind == "none" else draw(bodies)
    wire_body = body
    if kind == "length":
        fields.append(("Content-Length", b"%d" % len(body)))
    elif kind == "chunked":
        fields.append(("Transfer-Encoding", draw(st.sampled_from([b"chunked", b"Chunked"]))))
        wire_body = draw(chunked(body))
    if draw(st.integers(0, 9)) == 0:
        fields.append(("Expect", b"100-continue"))
    fields = draw(st.permutations(fields))
    tokens_of = {token.strip().lower() for token in connection.split(b",")}
    head = [f"{method} {target} HTTP/1.{minor}\r\n".encode(), *(draw(spelled(*pair)) for pair in fields), b"\r\n"]
    return Wanted(
        method=method,
        target=target.encode(),
        headers=[(name.lower().encode(), value) for name, value in fields],
        minor=minor,
        keep_alive=b"close" not in tokens_of and (minor == 1 or b"keep-alive" in tokens_of),
        body=body,
        wire=b"".join(head) + wire_body,
    )


@st.composite
def streams(draw: st.DrawFn, most: int = 3) -> list[Wanted]:
    """Pipelined requests; empty lines may come before each (RFC 9112 2.2)."""
    wanted = draw(st.lists(requests(), min_size=1, max_size=most))
    return [replace(one, wire=b"\r\n" * draw(st.sampled_from([0, 0, 0, 1, 2])) + one.wire) for one in wanted]


def wire(wanted: list[Wanted]) -> bytes:
    return b"".join(one.wire for one in wanted)


cuts = st.lists(st.integers(0, 2000), max_size=12)

# What smuggling is made of, to be put in, over, or instead of bytes of a valid stream.
MORSELS = [
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\n\n", b" ", b"\t", b"\r\n ", b"\x00", b"\x0b", b"\x7f", b"\xff", b":",
    b" :", b";", b",", b"0", b"+", b"-", b"0x", b"_", b"Content-Length: 3\r\n", b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n",
    b"Transfer-Encoding: chunked, identity\r\n", b"Transfer-Encoding : chunked\r\n",
    b"Transfer-Encoding:\r\n chunked\r\n", b"Host: b\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n",
    b"0\r\n\r\n", b"5\r\nhello\r\n", b"ffffffffffffffff\r\n", b"1;a\r\nx\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HTTP/1.0", b"HTTP/2.0",
]  # fmt: skip
LINES = [morsel for morsel in MORSELS if morsel.endswith(b"\r\n")] + [
    b"A: b\r\n", b"A:\xff\x80 \r\n", b"A: b\x01\r\n", b"A: b\n", b"Content-Length: 2\r\n", b"Content-Length: 02\r\n",
    b"Content-Length: 2, 2\r\n", b"Connection: x, close\r\n", b"0\r\n", b"1;a=b\r\nx\r\n", b"2\r\nok\r\n",
    b"content-LENGTH:0\r\n", b"transfer-ENCODING:CHUNKED\r\n",
]  # fmt: skip


@st.composite
def incomplete(draw: st.DrawFn) -> bytes:
    """A valid stream after a few mutations; about a third of them are still valid."""
    data = bytearray(wire(draw(streams(most=2))))
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(data)))
        how = draw(st.sampled_from(["line", "line", "number", "insert", "replace", "delete", "case", "duplicate"]))
        if how == "line":
            at = data.find(b"\r\n", at) + 2
            data[at:at] = draw(st.sampled_from(LINES))
        elif how == "number":
            place = re.compile(rb"[0-9a-fA-F]").search(data, at)
            if place:
                data[place.start() : place.end()] = draw(
                    st.sampled_from([b"0", b"1", b"2", b"9", b"a", b"F", b"00", b"05"])
                )
        elif how == "insert":
            data[at:at] = draw(st.sampled_from(MORSELS))
        elif how == "replace":
            morsel = draw(st.sampled_from(MORSELS))
            data[at : at + len(morsel)] = morsel
        elif how == "delete":
            del data[at : at + draw(st.integers(1, 4))]
        elif how == "case":
            data[at : at + 8] = data[at : at + 8].swapcase()
        else:
            end = min(len(data), at + draw(st.integers(1, 40)))
            data[end:end] = data[at:end]
    return bytes(data)
