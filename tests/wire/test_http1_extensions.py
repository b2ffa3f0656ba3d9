"""Two grammars and their oracles: chunk extensions (RFC 9112 7.1.1) as a regular expression, and ``ipaddress``."""

from __future__ import annotations

import ipaddress
import re

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tests.wire.harness import parse

BWS = rb"[ \t]*"
TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
EXTENSIONS = re.compile(rb"(?:%b;%b%b(?:%b=%b(?:%b|%b))?)*" % (BWS, BWS, TOKEN, BWS, BWS, TOKEN, QUOTED))
"""``*( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )``, from the RFC's ABNF."""


def post(size_line: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + size_line + b"\r\nhello\r\n0\r\n\r\n"


def get(host: str) -> bytes:
    return f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


pieces = st.sampled_from(
    [b";", b"=", b'"', b"\\", b" ", b"\t", b"a", b"bc", b"1", b"\x80", b"(", b",", b":", b"\x7f", b"!"]
)


blanks = st.sampled_from([b"", b"", b" ", b"\t "])
tokens = st.sampled_from([b"a", b"bc", b"1", b"!#$%&'*+-.^_`|~", b"Z9"])
quoted = st.sampled_from([b'""', b'"a b"', b'"\\""', b'"\\\\"', b'"\t!#[]~\x80\xff"', b'"\\\t\\ \\\xff"'])
values = st.tuples(blanks, st.just(b"="), blanks, st.one_of(tokens, quoted)).map(b"".join)
meant = st.tuples(blanks, st.just(b";"), blanks, tokens, st.one_of(st.just(b""), values)).map(b"".join)


@settings(max_examples=500)
@given(
    st.one_of(st.lists(meant, max_size=4).map(b"".join), st.lists(st.one_of(pieces, meant), max_size=12).map(b"".join))
)
@example(b";;")
@example(b";=")
@example(b";a=b c")
@example(b';a="b"c')
@example(b';a="b')
@example(b';a="b\\"')
@example(b';a="b\\')
@example(b";a=")
@example(b";a ")
@example(b" ;\ta = b ; c")
@example(b';a="\\"\\\\;\t\xff"')
def test_chunk_extensions_are_those_of_the_grammar(text: bytes) -> None:
    assume(text[:1] not in b"0123456789abcdefABCDEF" or not text)  # digits of the size
    outcome = parse(post(b"5" + text))
    if EXTENSIONS.fullmatch(text):
        assert outcome.status == 0
        assert outcome.messages[0].body == b"hello"
        assert outcome.messages[0].complete
    else:
        assert outcome.status == 400
        assert outcome.messages[0].body == b""


addresses = st.one_of(
    st.ip_addresses(v=6).map(str),
    st.ip_addresses(v=6).map(lambda address: address.exploded),
    st.ip_addresses(v=4).map(lambda address: f"::ffff:{address}"),
    st.text("0123456789abcdefABCDEF:.", max_size=40),
    st.lists(st.sampled_from(["", "0", "1", "ffff", "12345", "1.2.3.4", "256.1.1.1", "::"]), max_size=9).map(":".join),
)


@settings(max_examples=1000)
@given(addresses, st.sampled_from(["", ":", ":80"]))
@example("...", "")
@example(":", "")
@example(":::", "")
@example("1:2:3:4:5:6:7:8:9", "")
@example("00001::", "")
@example("a.b.c", "")
def test_an_ip_literal_is_an_ipv6_address(text: str, port: str) -> None:
    try:
        ipaddress.IPv6Address(text)
        wanted = 0
    except ValueError:
        wanted = 400
    assert parse(get(f"[{text}]{port}")).status == wanted


def test_zeros_before_a_number_are_accepted_and_count_nothing() -> None:
    """RFC 9110 8.6 and RFC 9112 7.1 allow them; it is the value that must not be too large."""
    for zeros in (1, 10):
        (message,) = parse(post(b"0" * zeros + b"5")).messages
        assert message.body == b"hello"
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %b\r\n\r\nhello"
    (message,) = parse(head % b"05").messages
    assert (message.body, message.complete) == (b"hello", True)
    assert parse(head % (b"9" * 19)).status == 400
    assert parse(post(b"f" * 17)).status == 400
