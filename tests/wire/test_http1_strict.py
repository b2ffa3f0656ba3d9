"""What must be refused, one row each: the clause, the bytes, the status. Most of it two parsers could read in two ways.

Every row is refused alike whole, cut at every place, and byte by byte, alone and behind a flawless request.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tests.wire.harness import Limits, bytewise, parse, parse_every_way

FLAWLESS = b"POST /before HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nok\r\n0\r\nT: u\r\n\r\n"
CTLS = [*range(0x00, 0x09), *range(0x0B, 0x0D), *range(0x0E, 0x20), 0x7F]  # without HTAB, LF, CR
NO_TCHARS = [ord(c) for c in '"(),/:;<=>?@[\\]{}'] + [0x20, 0x80, 0xFF]


@dataclass
class Row:
    clause: str
    name: str
    data: bytes
    status: int = 400
    limits: Limits = field(default_factory=Limits)
    reason: str = ""  # a part of it, where the status alone would prove little

    def __str__(self) -> str:
        return f"{self.clause}: {self.name}"


def get(fields: bytes, target: bytes = b"/", version: bytes = b"1.1") -> bytes:
    return b"GET " + target + b" HTTP/" + version + b"\r\nHost: a\r\n" + fields + b"\r\n"


def post(fields: bytes, body: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n" + body


def chunks(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked\r\n", body)


def te(value: bytes, status: int = 400) -> Row:
    return Row("RFC 9112 6.1", f"Transfer-Encoding: {value!r}", post(b"Transfer-Encoding: " + value + b"\r\n"), status)


# fmt: off
# RFC 9112 6.1-6.3, RFC 9110 8.6: where a message ends
LENGTHS = [
    Row("RFC 9112 6.3", "Content-Length, then Transfer-Encoding",
        post(b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), reason="both"),
    Row("RFC 9112 6.3", "Transfer-Encoding, then Content-Length",
        post(b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", b"0\r\n\r\n"), reason="both"),
    Row("RFC 9110 8.6", "two Content-Length", post(b"Content-Length: 4\r\nContent-Length: 5\r\n", b"12345")),
    Row("RFC 9110 8.6", "two Content-Length, one 0", post(b"Content-Length: 0\r\nContent-Length: 5\r\n", b"1234")),
    Row("RFC 9110 8.6", "the third Content-Length", post(b"Content-Length: 4\r\n" * 2 + b"Content-Length: 5\r\n")),
    *(Row("RFC 9110 8.6", f"Content-Length: {value!r}", post(b"Content-Length: " + value + b"\r\n", b"123456"))
      for value in (b"", b" ", b"+4", b"-4", b"-0", b"4_0", b"0x4", b"4 4", b"4,4", b"4, 4", b"4;", b"4.0", b"1e1",
                    b"four", b"0b1", b"\xb2", b"\xd9\xa4", b"1" * 19, b"9" * 19, b"18446744073709551620",
                    b"0" * 18 + b"4", b"4\x0b", b"\x0c4", b'"4"')),
    te(b"gzip, chunked", 501), te(b"gzip,deflate\t,  Chunked", 501), te(b"x;a=b, chunked", 501),
    te(b"chunked, gzip"), te(b"chunked, chunked"), te(b"chunked, gzip, chunked"), te(b"xchunked"), te(b"chunkedx"),
    te(b"chunked;q=1"), te(b"chunked ;"), te(b'"chunked"'), te(b"chunk ed"), te(b"chu\xebked"), te(b"identity"),
    te(b"gzip"), te(b""), te(b","), te(b",chunked"), te(b"chunked,"), te(b", chunked"), te(b"gzip,,chunked"),
    te(b"gzip, \t, chunked"), te(b"chunked\x00"), te(b"chunked\x0b"), te(b"\x0cchunked"),
    te(b"a," * 16 + b"chunked"), te(b"a," * 40000 + b"chunked", 431), te(b"chunked\r\nTransfer-Encoding: chunked"),
    te(b"chunked\r\nTransfer-Encoding: gzip"), te(b"gzip\r\nTransfer-Encoding: chunked", 501),
    te(b"chunked\r\nTransfer-Encoding:"),
    *(Row("RFC 9112 6.1", f"HTTP/1.0 with Transfer-Encoding: {value!r}",
          get(b"Transfer-Encoding: " + value + b"\r\n", version=b"1.0"), reason="HTTP/1.0")
      for value in (b"chunked", b"gzip", b"", b"chunked\r\nContent-Length: 0")),
]

# RFC 9112 5: the lines of fields
FIELDS = [
    Row("RFC 9112 5.1", "space before the colon", get(b"A : b\r\n"), reason="space before"),
    Row("RFC 9112 5.1", "tab before the colon", get(b"A\t: b\r\n"), reason="space before"),
    Row("RFC 9112 5.1", "space before the colon of Content-Length", post(b"Content-Length : 4\r\n", b"1234")),
    Row("RFC 9112 5.1", "space before the colon of Transfer-Encoding", post(b"Transfer-Encoding : chunked\r\n")),
    Row("RFC 9112 5.2", "folded by a space", get(b"A: b\r\n c\r\n"), reason="folding"),
    Row("RFC 9112 5.2", "folded by a tab", get(b"A: b\r\n\tc\r\n"), reason="folding"),
    Row("RFC 9112 5.2", "folded line with a colon", get(b"A: b\r\n Content-Length: 5\r\n"), reason="folding"),
    Row("RFC 9112 5.2", "folded Transfer-Encoding", post(b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n")),
    Row("RFC 9112 2.2", "white space before the first field", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", reason="folding"),
    Row("RFC 9112 2.2", "a line of white space", get(b" \r\n"), reason="folding"),
    Row("RFC 9112 5", "no name", get(b": b\r\n")),
    Row("RFC 9112 5", "no colon", get(b"A\r\n")),
    Row("RFC 9112 5", "no colon, long", get(b"A" * 500 + b"\r\n")),
    Row("RFC 9112 5", "space in the name", get(b"A b: c\r\n")),
    *(Row("RFC 9110 5.1", f"{c:#04x} in a name", get(b"A%cB: c\r\n" % c)) for c in (*CTLS, *NO_TCHARS) if c != 0x3A),
    *(Row("RFC 9110 5.1", f"{c:#04x} first in a name", get(b"%cB: c\r\n" % c)) for c in (*CTLS, *NO_TCHARS)),
    *(Row("RFC 9110 5.5", f"{c:#04x} in a value", get(b"A: b%cc\r\n" % c), reason="control") for c in CTLS),
    *(Row("RFC 9110 5.5", f"{c:#04x} alone in a value", get(b"A: %c\r\n" % c), reason="control") for c in CTLS),
    *(Row("RFC 9110 5.5", f"{c:#04x} in a long value", get(b"A: " + b"b" * 33 + b"%c" % c + b"b" * 33 + b"\r\n"))
      for c in CTLS),
]

# RFC 9112 2.2: CR and LF stand together, and only at the end of a line
VICTIM = (
    b"POST /path HTTP/1.1\r\nHost: a\r\nA: b c\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;e=f\r\n1\r\n\n2\r\n0\r\nT: v\r\n\r\n"
)
DATA = range(VICTIM.index(b"1\r\n\n2"), VICTIM.index(b"1\r\n\n2") + 5)
OUTSIDE_DATA = [i for i in range(len(VICTIM)) if i not in DATA]
LINE_ENDS = [i for i in OUTSIDE_DATA if VICTIM[i : i + 2] == b"\r\n" and i + 1 not in DATA]


def inserted(text: bytes, at: int) -> bytes:
    return VICTIM[:at] + text + VICTIM[at:]


BREAKS = [
    *(Row("RFC 9112 2.2", f"a bare LF before byte {i}", inserted(b"\n", i)) for i in OUTSIDE_DATA if VICTIM[i] != 0x0A),
    *(Row("RFC 9112 2.2", f"a bare CR before byte {i}", inserted(b"\r", i)) for i in OUTSIDE_DATA if VICTIM[i] != 0x0D),
    *(Row("RFC 9112 2.2", f"a bare LF for the CR LF at {i}", VICTIM[:i] + VICTIM[i + 1 :]) for i in LINE_ENDS),
    *(Row("RFC 9112 2.2", f"a bare CR for the CR LF at {i}", VICTIM[: i + 1] + VICTIM[i + 2 :] + b"GET")
      for i in LINE_ENDS),
    *(Row("RFC 9112 2.2", f"LF CR for the CR LF at {i}", VICTIM[:i] + b"\n\r" + VICTIM[i + 2 :]) for i in LINE_ENDS),
    Row("RFC 9112 2.2", "a bare LF and nothing else", b"\n"),
    Row("RFC 9112 2.2", "all lines end in a bare LF", b"GET / HTTP/1.1\nHost: a\n\n"),
    Row("RFC 9112 2.2", "all lines end in a bare CR", b"GET / HTTP/1.1\rHost: a\r\r"),
    Row("RFC 9112 2.2", "an empty line that ends in a bare LF", get(b"")[:-2] + b"\n"),
    Row("RFC 9112 2.2", "a bare CR wins over any other complaint", b"CONNECT a:1\r HTTP/9.9\r\n", reason="bare CR"),
    Row("RFC 9112 2.2", "three empty lines", b"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", reason="empty lines"),
]

# RFC 9112 3: the request line
REQUEST_LINES = [
    *(Row("RFC 9112 3", f"{line!r}", line + b"\r\nHost: a\r\n\r\n") for line in (
        b"GET  / HTTP/1.1", b"GET /  HTTP/1.1", b"GET / HTTP/1.1 ", b" GET / HTTP/1.1", b"GET\t/ HTTP/1.1",
        b"GET /\tHTTP/1.1", b"GET / /HTTP/1.1", b"GET / a HTTP/1.1", b"GET  HTTP/1.1", b"GET HTTP/1.1", b"GET / ",
        b"GET /", b"GET", b"GET ", b"/ HTTP/1.1", b" / HTTP/1.1", b"GET /HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1 200 OK",
        b"GET / http/1.1", b"GET / HTTP/1.1.1", b"GET / HTTP/11", b"GET / HTTP/1.", b"GET / HTTP/.1", b"GET / HTTP/1,1",
        b"GET / HTTP/a.1", b"GET / HTTP/1.a", b"GET / HTTP/1.10", b"GET / HTTP/01.1", b"GET / HTTP/+1.1",
        b"GET / HTTPS/1.1", b"GET / HTTP 1.1", b"GET / HTTP/ 1.1", b"GET / XTTP/1.1", b"GET / HTTP/\xb9.1", b"a: b",
    )),
    *(Row("RFC 9110 9.1", f"{c:#04x} in the method", b"GE%cT / HTTP/1.1\r\nHost: a\r\n\r\n" % c)
      for c in (*CTLS, *NO_TCHARS) if c != 0x20),
    *(Row("RFC 9110 9.1", f"{c:#04x} first in the method", b"%cGET / HTTP/1.1\r\nHost: a\r\n\r\n" % c)
      for c in (*CTLS, *NO_TCHARS) if c != 0x20),
    *(Row("RFC 9112 3.2", f"{c:#04x} in the target", get(b"", b"/a%cb" % c), reason="target")
      for c in (*CTLS, 0x20, 0x23, *range(0x80, 0x100))),
    *(Row("RFC 9112 3.2", f"{c:#04x} in a long target", get(b"", b"/" + b"a" * 40 + b"%c" % c + b"b" * 40))
      for c in (0x00, 0x09, 0x20, 0x23, 0x7F, 0x80)),
    # RFC 9112 3.2.1-3.2.4: the forms of a target
    *(Row("RFC 9112 3.2", f"the target {target!r}", get(b"", target)) for target in (
        b"a", b"?a", b"a/b", b"a.example:80", b"*", b"**", b"*/", b"\\", b"#", b"/#", b"%2f", b"ftp://a/", b"http:",
        b"http:/", b"http://", b"https://", b"http:///a", b"http://?q", b"http:a", b"http:\\\\a", b"://a",
        b"http://:80/", b"http://a:b/", b"http://a:123456/", b"http://a:-1/", b"http://[::1/", b"http://[]/",
        b"http://[:]/", b"http://[g::]/", b"http://[::1]a/", b"http://[::1%25lo]/", b"http://%4/", b"http://%zz/",
        b'http://a"b/', b"http://a\\b/", b"http://a[b/", b"httpss://a/", b"xhttp://a/", b"ws://a/",
    )),
    *(Row("RFC 9110 4.2.4", f"userinfo: {target!r}", get(b"", target), reason="authority") for target in (
        b"http://u@a/", b"http://u:p@a/", b"http://a:80@b/", b"https://@a/", b"http://a@[::1]/",
    )),
    *(Row("RFC 9112 3.2.4", f"* with {method!r}", method + b" * HTTP/1.1\r\nHost: a\r\n\r\n", reason="OPTIONS")
      for method in (b"HEAD", b"POST", b"OPTION", b"OPTIONSX")),
    *(Row("RFC 9110 9.3.6", f"{line!r}", line + b"\r\nHost: a\r\n\r\n", 501) for line in (
        b"CONNECT a:80 HTTP/1.1", b"CONNECT / HTTP/1.1", b"CONNECT a:80 HTTP/1.0", b"CONNECT \x01 HTTP/1.1",
    )),
    # Methods are case-sensitive, but ASGI hands them on in upper case: two readings of one request.
    *(Row("RFC 9110 9.1", f"{method!r}", method + b" / HTTP/1.1\r\nHost: a\r\n\r\n", reason="upper case")
      for method in (b"head", b"Head", b"get", b"oPTIONS", b"connect", b"Connect", b"trace", b"patch")),
]

VERSIONS = [
    *(Row("RFC 9110 15.6.6", f"HTTP/{v}", f"GET / HTTP/{v}\r\nHost: a\r\n\r\n".encode(), 505) for v in (
        "0.9", "0.0", "1.2", "1.9", "2.0", "2.1", "3.0", "9.9"
    )),
    Row("RFC 9113 3.4", "the HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    Row("RFC 9113 3.4", "the HTTP/2 preface with SETTINGS",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", 505),
    Row("RFC 1945 4.1", "HTTP/0.9", b"GET /\r\n"),
    Row("RFC 8446 5.1", "a TLS ClientHello", bytes.fromhex("16030100c8010000c40303"), reason="TLS"),
]

# RFC 9110 7.2, RFC 9112 3.2
HOSTS = [
    Row("RFC 9112 3.2", "no Host", b"GET / HTTP/1.1\r\nA: b\r\n\r\n", reason="missing Host"),
    Row("RFC 9112 3.2", "no fields at all", b"GET / HTTP/1.1\r\n\r\n", reason="missing Host"),
    Row("RFC 9112 3.2.2", "absolute-form without Host", b"GET http://a/ HTTP/1.1\r\n\r\n", reason="missing Host"),
    Row("RFC 9112 3.2", "two Hosts", get(b"Host: b\r\n"), reason="more than one"),
    Row("RFC 9112 3.2", "the same Host twice", get(b"host: a\r\n"), reason="more than one"),
    Row("RFC 9112 3.2", "two Hosts in 1.0", get(b"Host: a\r\n", version=b"1.0"), reason="more than one"),
    Row("RFC 9112 3.2", "two empty Hosts", b"GET / HTTP/1.1\r\nHost:\r\nHost:\r\n\r\n", reason="more than one"),
    Row("RFC 9112 3.2.2", "an invalid Host with absolute-form", b"GET http://a/ HTTP/1.1\r\nHost: /\r\n\r\n"),
    *(Row("RFC 9110 7.2", f"Host: {host!r}", b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n", reason="invalid Host")
      for host in (b"a b", b"a/b", b"a?b", b"a#b", b"a@b", b"u:p@a", b"a\\b", b"<a>", b'"a"', b"a, b", b"{a}", b"a^",
                   b"a|b", b"a`", b"\xe9", b"a:b", b"a:80b", b"a:+80", b"a:-1", b"a:123456", b"a:80:80", b"::1",
                   b"[::1", b"[]", b"[:]", b"::1]", b"[::1]80", b"[::1]:x", b"[::1]a", b"[g::1]", b"[::1%25lo]",
                   b"[v1.a]", b"a[", b"%", b"%4", b"a%4", b"%zz", b"%4z", b"http://a")),
]

CHUNKS = [
    *(Row("RFC 9112 7.1", f"the chunk-size line {line!r}", chunks(line + b"\r\nab\r\n0\r\n\r\n")) for line in (
        b"", b" ", b"+2", b"-2", b"0x2", b"0X2", b"2_0", b"g", b"2g", b" 2", b"\t2", b"2 ", b"2\t", b"2 2", b"2.0",
        b"2,", b"2:a", b"2 a", b"2 =;", b";a", b" ;a", b"\xb2", b"2\xa0", b'"2"', b"2\x00", b"2\x0b", b"\x002", b"x2",
        b"2h", b"f" * 16, b"4000000000000010", b"1" + b"0" * 16, b"f" * 17, b"f" * 100, b"8000000000000000",
        b"7fffffffffffffff", b"10000000000000002",
    )),
    *(Row("RFC 9112 7.1.1", f"{c:#04x} in a chunk extension", chunks(b"2;a%cb\r\nab\r\n" % c), reason="control")
      for c in CTLS),
    *(Row("RFC 9112 7.1.1", f"{c:#04x} before a chunk extension", chunks(b"2%c;a\r\nab\r\n" % c)) for c in CTLS),
    Row("RFC 9112 7.1.1", "a chunk-size line without an end", chunks(b"2;" + b"a" * 5000)),
    Row("RFC 9112 7.1", "a chunk-size of too many zeros", chunks(b"0" * 5000)),
    *(Row("RFC 9112 7.1", f"{end!r} after the data", chunks(b"2\r\nab" + end + b"0\r\n\r\n"), reason="longer")
      for end in (b"c\r\n", b"\n", b"\rX", b" \r\n", b"\r\r\n", b"\n\r\n", b"0\r\n", b"\x00\r\n")),
    Row("RFC 9112 7.1", "no CR LF after the data", chunks(b"2\r\nab2\r\nab\r\n0\r\n\r\n"), reason="longer"),
    Row("RFC 9112 7.1", "a longer chunk than was said", chunks(b"1\r\nab\r\n0\r\n\r\n"), reason="longer"),
    Row("RFC 9112 7.1", "a shorter chunk than was said", chunks(b"3\r\nab\r\n0\r\n\r\n"), reason="longer"),
    *(Row("RFC 9112 7.1.2", f"the trailer {line!r}", chunks(b"0\r\n" + line + b"\r\n\r\n")) for line in (
        b" a: b", b"\ta: b", b"a : b", b"a\t: b", b": b", b"a", b"a b: c", b"a: \x00", b"a: \x0b", b"a: b\r\n c", b"0",
        b"\x00: a", b"a\x7f: b", b"a: \x7f", b"GET / HTTP/1.1", b"a\xff: b",
    )),
]

EXPECTATIONS = [
    *(Row("RFC 9110 10.1.1", f"Expect: {value!r}", get(b"Expect: " + value + b"\r\n"), 417)
      for value in (b"", b"100", b"100-continued", b"x100-continue", b"100-continue, 100-continue", b"100-continue;a",
                    b"200-ok", b"100-continue\r\nExpect: tea", b"tea\r\nExpect: 100-continue")),
]

# Our own bounds. What lies just within them is proved in test_the_limits_themselves_are_allowed.
LIMITS = [
    Row("RFC 9112 3", "a long request line", get(b"", b"/" + b"a" * 20), 414, Limits(limit_request_line=33)),
    Row("RFC 9112 3", "a request line without an end", b"GET /" + b"a" * 40, 414, Limits(limit_request_line=30)),
    Row("RFC 9112 3", "a long method", b"A" * 40, 414, Limits(limit_request_line=30)),
    Row("RFC 9112 3", "16 KiB of request line", b"GET /" + b"a" * 16384, 414),
    Row("RFC 6585 5", "129 fields", get(b"A: b\r\n" * 128), 431),
    Row("RFC 6585 5", "too many fields", get(b"A: b\r\n" * 2), 431, Limits(limit_headers=2)),
    Row("RFC 6585 5", "no fields allowed", get(b""), 431, Limits(limit_headers=0)),
    Row("RFC 6585 5", "a repeated field counts", get(b"Content-Length: 0\r\n" * 2), 431, Limits(limit_headers=2)),
    Row("RFC 6585 5", "a long field", get(b"A: " + b"b" * 100 + b"\r\n"), 431, Limits(limit_header_bytes=50)),
    Row("RFC 6585 5", "a field without an end", get(b"")[:-2] + b"A" * 100, 431, Limits(limit_header_bytes=50)),
    Row("RFC 6585 5", "64 KiB of fields", get(b"A: " + b"b" * 65535 + b"\r\n"), 431),
    Row("RFC 6585 5", "fields of 64 KiB together", get((b"A: " + b"b" * 1000 + b"\r\n") * 70), 431),
    *(Row("RFC 6585 5", f"one byte over, a field of {n}", get(b"A: " + b"b" * (n - 5) + b"\r\n"), 431,
          Limits(limit_header_bytes=9 + n - 1)) for n in (6, 7, 8, 20)),
    Row("RFC 6585 5", "too many trailers", chunks(b"0\r\n" + b"A: b\r\n" * 3 + b"\r\n"), 431, Limits(limit_headers=2)),
    Row("RFC 6585 5", "129 trailers", chunks(b"0\r\n" + b"A: b\r\n" * 129), 431),
    Row("RFC 6585 5", "a long trailer", chunks(b"0\r\nA: " + b"b" * 100), 431, Limits(limit_header_bytes=50)),
    Row("RFC 6585 5", "64 KiB of trailers", chunks(b"0\r\n" + (b"A: " + b"b" * 1000 + b"\r\n") * 70), 431),
    Row("RFC 9112 7.1.1", "64 KiB of chunk extensions", chunks((b"1;" + b"a" * 4000 + b"\r\nx\r\n") * 17), 431),
    Row("RFC 9112 7.1.1", "many extensions", chunks(b"1;ab\r\nx\r\n" * 20), 431, Limits(limit_header_bytes=50)),
    Row("RFC 9110 15.5.14", "a large body, declared", post(b"Content-Length: 11\r\n"), 413, Limits(limit_body=10)),
    Row("RFC 9110 15.5.14", "the largest", post(b"Content-Length: " + b"9" * 18 + b"\r\n"), 413, Limits(limit_body=10)),
    Row("RFC 9110 15.5.14", "no body allowed", post(b"Content-Length: 1\r\n"), 413, Limits(limit_body=0)),
    Row("RFC 9110 15.5.14", "a large chunk", chunks(b"B\r\n"), 413, Limits(limit_body=10)),
    Row("RFC 9110 15.5.14", "chunks that add up", chunks(b"A\r\n0123456789\r\n1\r\n"), 413, Limits(limit_body=10)),
    Row("RFC 9110 15.5.14", "a huge chunk", chunks(b"f" * 15 + b"\r\n"), 413, Limits(limit_body=10)),
]
# fmt: on

ROWS = LENGTHS + FIELDS + BREAKS + REQUEST_LINES + VERSIONS + HOSTS + CHUNKS + EXPECTATIONS + LIMITS


def test_the_corpus_has_no_row_twice() -> None:
    """A table this long hides a copy easily: each row has its own bytes."""
    assert len({str(row) for row in ROWS}) == len(ROWS)
    assert len({(row.data, *row.limits.items()) for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_it_is_refused(row: Row) -> None:
    outcome = parse_every_way(row.data, row.limits)
    assert outcome.status == row.status, outcome.reason
    assert row.reason in outcome.reason
    # a head is told before its body is refused, but no message is ever told as complete
    assert not any(message.complete for message in outcome.messages)


@pytest.mark.parametrize("row", [row for row in ROWS if not row.limits and "empty lines" not in row.reason], ids=str)
def test_it_is_refused_behind_a_flawless_request(row: Row) -> None:
    outcome = parse(FLAWLESS + row.data)
    assert outcome.status == row.status, outcome.reason
    assert (outcome.messages[0].path, outcome.messages[0].body) == ("/before", b"ok")
    assert [message.complete for message in outcome.messages] == [True] + [False] * (len(outcome.messages) - 1)
    assert parse(*bytewise(FLAWLESS + row.data)) == outcome


def test_the_victim_is_flawless_when_left_alone() -> None:
    outcome = parse_every_way(VICTIM)
    assert (outcome.status, outcome.idle) == (0, True)
    assert [(message.body, message.complete) for message in outcome.messages] == [(b"1\r\n\n2", True)]


@pytest.mark.parametrize("first", [c for c in range(256) if c != 0x0D and chr(c) not in "!#$%&'*+-.^_`|~" and not (
    c < 128 and chr(c).isalnum()
)])  # fmt: skip
def test_what_cannot_begin_a_method_is_refused_at_the_first_byte(first: int) -> None:
    """No line to wait for: a TLS client would wait for its ServerHello as long as we wait for its LF."""
    outcome = parse(bytes([first]))
    assert outcome.status == 400
    assert ("TLS" in outcome.reason) == (first == 0x16)
    # between two requests as well
    assert parse(FLAWLESS + bytes([first])).status == 400


@pytest.mark.parametrize("limits", [
    Limits(limit_request_line=len(b"GET /abc HTTP/1.1")),
    Limits(limit_headers=3),
    Limits(limit_header_bytes=len(b"Host: a\r\nA: bcd\r\nTransfer-Encoding: chunked\r\n")),
    Limits(limit_body=4),
])  # fmt: skip
def test_the_limits_themselves_are_allowed(limits: Limits) -> None:
    """As much as a limit says is served, however it is split: also when only the CR of a line's end is there."""
    data = (
        b"GET /abc HTTP/1.1\r\nHost: a\r\nA: bcd\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2;" + b"e" * 12 + b"\r\nab\r\n2;" + b"f" * 12 + b"\r\ncd\r\n0;" + b"g" * 12 + b"\r\n"
        b"A: b\r\nA: b\r\nA: " + b"b" * 20 + b"\r\n\r\n"
    )
    twice = parse_every_way(data + data, limits)
    assert (twice.status, twice.reason) == (0, "")
    assert [message.body for message in twice.messages] == [b"abcd", b"abcd"]
    for name, value in list(limits.items()):
        less = Limits(**{name: value - 1})  # type: ignore[misc]
        assert parse_every_way(data, less).status in (413, 414, 431)


def test_a_declared_body_of_the_limit_is_allowed() -> None:
    data = post(b"Content-Length: 10\r\n", b"0123456789")
    assert parse_every_way(data, Limits(limit_body=10)).messages[0].complete
    assert parse_every_way(get(b""), Limits(limit_body=0)).messages[0].complete


def test_a_chunk_size_line_of_4_kib_is_allowed() -> None:
    for size in (b"1;" + b"a" * 4094, b"0" * 4095 + b"1"):
        assert parse_every_way(chunks(size + b"\r\nx\r\n0\r\n\r\n")).messages[0].body == b"x"
        assert parse_every_way(chunks(size[:1] + size + b"\r\nx\r\n0\r\n\r\n")).status == 400


def test_the_largest_lengths_are_understood() -> None:
    (message,) = parse(post(b"Content-Length: " + b"9" * 18 + b"\r\n", b"begin")).messages
    assert (message.content_length, message.body, message.complete) == (10**18 - 1, b"begin", False)
    (message,) = parse(chunks(b"1000000000000000\r\nbegin")).messages
    assert (message.body, message.complete) == (b"begin", False)
