"""The PROXY protocol's header: what is one, what may become one, and what is refused."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.wire.proxy_protocol import MAX_V1, SIGNATURE, ProxyHeader, ProxyProtocolError, Verdict, parse

PORTS = st.integers(0, 65535)


def v2(command: int, family: int, body: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


@given(source=st.ip_addresses(v=4), destination=st.ip_addresses(v=4), sport=PORTS, dport=PORTS, rest=st.binary())
def test_both_versions_say_the_same_and_leave_what_follows(
    source: Any, destination: Any, sport: Any, dport: Any, rest: Any
) -> None:
    line = f"PROXY TCP4 {source} {destination} {sport} {dport}\r\n".encode()
    binary = v2(0x21, 0x11, source.packed + destination.packed + struct.pack("!HH", sport, dport))
    for header in (line, binary):
        parsed = parse(header + rest)
        assert parsed == ProxyHeader(len(header), False, (str(source), sport), (str(destination), dport))
        assert all(parse(header[:cut]) is Verdict.MORE for cut in range(len(header)))


@given(st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"]))
def test_any_bytes_are_a_header_a_verdict_or_an_error(rest: Any, start: Any) -> None:
    try:
        parsed = parse(start + rest)
    except ProxyProtocolError:
        assert start
    else:
        assert isinstance(parsed, Verdict) or parsed.length <= len(start + rest)


def test_a_health_check_is_local_and_tlvs_are_kept_in_order() -> None:
    assert parse(v2(0x20, 0, b"")) == ProxyHeader(16, True, None, None)
    address = socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    tlvs = b"\x01\x00\x02h2" + b"\x20\x00\x00"
    parsed = parse(v2(0x21, 0x21, address * 2 + b"\x00\x01\x00\x02" + tlvs))
    assert isinstance(parsed, ProxyHeader)
    assert (parsed.source, parsed.tlvs) == (("2001:db8::1", 1), ((1, b"h2"), (32, b"")))


def test_what_another_protocol_says_is_no_header() -> None:
    assert parse(b"GET / HTTP/1.1\r\n") is Verdict.ABSENT
    assert parse(b"POST / HTTP/1.1\r\n") is Verdict.ABSENT
    assert parse(b"P") is Verdict.MORE


@pytest.mark.parametrize(
    "bad",
    [
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        b"PROXY TCP4 ::1 ::1 1 1\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n",
        b"PROXY TCP4  1.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY " + b"x" * MAX_V1,
        v2(0x11, 0x11, b""),
        v2(0x22, 0x11, b""),
        v2(0x21, 0x11, b"\0" * 11),
        v2(0x21, 0x31, b"\0" * 215),
        v2(0x21, 0x11, b"\0" * 12 + b"\x01\x00"),
        SIGNATURE + b"\x21\x11\xff\xff",
    ],
)
def test_malformed_headers_are_errors(bad: Any) -> None:
    with pytest.raises(ProxyProtocolError):
        parse(bad)
