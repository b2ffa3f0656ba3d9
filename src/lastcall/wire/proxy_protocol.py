"""The PROXY protocol's header, versions 1 and 2 (HAProxy's proxy-protocol.txt). Pure."""

from __future__ import annotations

import enum
import ipaddress
from typing import Final, NamedTuple

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
MAX_V1: Final = 107
"""Bytes of the longest line of version 1, its CRLF included (section 2.1)."""
MAX_V2: Final = 4096
"""Bytes of the longest header of version 2 that is taken. The format allows 65551: too many to keep for a peer."""

_ADDRESSES: Final = {1: 4, 2: 16}
_UNIX_BYTES: Final = 216


class ProxyProtocolError(ValueError):
    """What came is the beginning of a PROXY header, and is malformed or too long."""


class Verdict(enum.Enum):
    """What bytes are that are no header yet."""

    MORE = enum.auto()
    """They may become one."""
    ABSENT = enum.auto()
    """They cannot: another protocol speaks."""


class ProxyHeader(NamedTuple):
    """A whole header.

    `source` and `destination` are (host, port), or None where the sender speaks for itself (LOCAL, UNKNOWN) or names
    no internet address. `length` is how many bytes it took; `tlvs` are (type, value) in order.
    """

    length: int
    local: bool
    source: tuple[str, int] | None
    destination: tuple[str, int] | None
    tlvs: tuple[tuple[int, bytes], ...] = ()


def parse(data: bytes) -> ProxyHeader | Verdict:
    """The header at the beginning of `data`, whatever follows it. Raises ProxyProtocolError."""
    if data.startswith(b"PROXY "):
        return _parse_v1(data)
    if data.startswith(SIGNATURE):
        return _parse_v2(data)
    if b"PROXY ".startswith(data) or SIGNATURE.startswith(data):
        return Verdict.MORE
    return Verdict.ABSENT


def _parse_v1(data: bytes) -> ProxyHeader | Verdict:
    end = data.find(b"\r\n", 0, MAX_V1)
    if end < 0:
        if len(data) >= MAX_V1:
            raise ProxyProtocolError("the line is longer than 107 bytes")
        return Verdict.MORE
    length = end + 2
    words = data[:end].split(b" ")
    if words[1] == b"UNKNOWN":  # what follows it is to be ignored (2.1)
        return ProxyHeader(length, False, None, None)
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        raise ProxyProtocolError("the line is not PROXY, a protocol, two addresses and two ports")
    version = 4 if words[1] == b"TCP4" else 6
    source = (_host(words[2], version), _port(words[4]))
    return ProxyHeader(length, False, source, (_host(words[3], version), _port(words[5])))


def _host(word: bytes, version: int) -> str:
    if b"%" in word:  # a zone means nothing to another host
        raise ProxyProtocolError("an address has a zone")
    try:
        address = ipaddress.ip_address(word.decode("ascii"))
    except ValueError as error:
        raise ProxyProtocolError("an address is none") from error
    if address.version != version:
        raise ProxyProtocolError("an address is of the other family")
    return str(address)


def _port(word: bytes) -> int:
    if not word.isdigit() or len(word) > 5 or (word[:1] == b"0" and word != b"0") or int(word) > 65535:
        raise ProxyProtocolError("a port is none")
    return int(word)


def _parse_v2(data: bytes) -> ProxyHeader | Verdict:
    if len(data) < 16:
        return Verdict.MORE
    command = data[12]
    family, transport = data[13] >> 4, data[13] & 15
    length = 16 + int.from_bytes(data[14:16], "big")
    if command not in (0x20, 0x21):
        raise ProxyProtocolError("the version or the command is unknown")
    if family > 3 or transport > 2:
        raise ProxyProtocolError("the address family or the transport is unknown")
    if length > MAX_V2:
        raise ProxyProtocolError(f"the header is longer than {MAX_V2} bytes")
    if len(data) < length:
        return Verdict.MORE
    if command == 0x20:  # a health check: the real addresses hold, and the rest is discarded (2.2)
        return ProxyHeader(length, True, None, None)
    source = destination = None
    at = 16
    if size := _ADDRESSES.get(family):
        at += 2 * size + 4
        if at > length:
            raise ProxyProtocolError("the addresses are cut off")
        ports = data[16 + 2 * size : at]
        if transport == 1:
            source = (_packed(data[16 : 16 + size]), int.from_bytes(ports[:2], "big"))
            destination = (_packed(data[16 + size : 16 + 2 * size]), int.from_bytes(ports[2:], "big"))
    elif family == 3:
        at += _UNIX_BYTES
        if at > length:
            raise ProxyProtocolError("the addresses are cut off")
    return ProxyHeader(length, False, source, destination, _tlvs(data[at:length]) if family else ())


def _packed(raw: bytes) -> str:
    return str(ipaddress.ip_address(raw))


def _tlvs(raw: bytes) -> tuple[tuple[int, bytes], ...]:
    found = []
    at = 0
    while at < len(raw):
        end = at + 3 + int.from_bytes(raw[at + 1 : at + 3], "big")
        if at + 3 > len(raw) or end > len(raw):
            raise ProxyProtocolError("a TLV is cut off")
        found.append((raw[at], raw[at + 3 : end]))
        at = end
    return tuple(found)
