"""X-Forwarded-For, X-Forwarded-Proto and RFC 7239 Forwarded, read. Pure; who is trusted comes as an argument."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_HOPS: Final = 64
"""Hops that are read, from the right. Proxies add one each; what is further left cannot be theirs."""

_PAIR: Final = re.compile(
    r"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:\"((?:[^\"\\]|\\.)*)\"|([^\s\",;]*))[ \t]*(;|,|$)", re.ASCII
)


def node(text: str) -> tuple[str, int] | None:
    """(host, port) of one hop, port 0 where none is said. None for `unknown`, `_obfuscated` and what is no address."""
    text = text.strip(" \t")
    host, port = text, ""
    if text.startswith("["):
        host, closed, port = text[1:].partition("]")
        if not closed or (port and not port.startswith(":")):
            return None
        port = port[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return None
        address = address.ipv4_mapped or address
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0
    return str(address), number if number <= 65535 else 0


def listed(lines: Sequence[bytes]) -> list[str]:
    """The values of a list in several header lines, in order, without the empty ones; the last MAX_HOPS of them."""
    values = b",".join(lines).decode("latin-1").rsplit(",", 2 * MAX_HOPS)[-2 * MAX_HOPS :]
    return [value for each in values if (value := each.strip(" \t"))][-MAX_HOPS:]


def elements(lines: Sequence[bytes]) -> list[dict[str, str]] | None:
    """The elements of Forwarded (RFC 7239 4), names in lower case.

    None where it is malformed: nothing of it holds then.
    """
    text = b",".join(lines).decode("latin-1")
    found: list[dict[str, str]] = []
    pairs: dict[str, str] = {}
    at = 0
    while at < len(text):
        if text[at] in " \t,;":  # empty elements and pairs, blanks
            if text[at] == "," and pairs:
                found.append(pairs)
                pairs = {}
            at += 1
            continue
        match = _PAIR.match(text, at)
        if match is None:
            return None
        name = match[1].lower()
        if name in pairs:  # each parameter at most once
            return None
        pairs[name] = match[3] if match[2] is None else re.sub(r"\\(.)", r"\1", match[2])
        at = match.start(4)
    if pairs:
        found.append(pairs)
    return found[-MAX_HOPS:]


def client(hops: Sequence[str], trusts: Callable[[str], bool]) -> tuple[str, int] | None:
    """The client, from the right over trusted hops: the first not trusted, else the leftmost.

    None where that hop says no address, or there are no hops: the caller keeps the peer.
    """
    found = None
    for hop in reversed(hops):
        found = node(hop)
        if found is None or not trusts(found[0]):
            break
    return found
