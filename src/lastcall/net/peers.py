"""``--limit-connections-per-ip``: how many connections each address has, and who may have no more.

Who is over it is reset as soon as it is accepted, before a byte is read: whatever more is done for it, a TLS handshake
say, is what a flood is after. HAProxy's ``tcp-request connection reject`` does the same. nginx's ``limit_conn`` answers
503, but only a request, and a client that holds connections open sends none.

An IPv6 client has a /64 at least, so that counts as one address; an IPv4 address counts as itself where it comes by an
IPv6 socket. Memory is bounded by the open connections: an address without any is forgotten.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable
from typing import Final

logger = logging.getLogger("lastcall.error")

COMPLAINT_SECONDS: Final = 10.0
"""However many are refused, there is one line about them in so many seconds."""


class PeerLimit:
    """How many connections each address has. Keys are the packed address, 4 bytes, or the 8 of an IPv6 /64.

    ``exempt``: addresses and networks of trusted proxies, behind which many clients have one address; "*" is everybody.
    What is no address (``unix``) is passed over: unix sockets are never counted.
    """

    def __init__(self, most: int, exempt: Iterable[str] = ()) -> None:
        self.most = most
        self.refused = 0
        self._open: dict[bytes, int] = {}
        self._everybody = False
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for text in exempt:
            if text == "*":
                self._everybody = True
                continue
            try:
                self._networks.append(ipaddress.ip_network(text, strict=False))
            except ValueError:
                continue
        self._unsaid = 0
        self._quiet_until = float("-inf")

    def __len__(self) -> int:
        """How many addresses are known: those with an open connection."""
        return len(self._open)

    def full(self, key: bytes, host: str, now: float) -> bool:
        """Whether this newcomer is one too many, which is counted, and said now and then (``now``: seconds)."""
        if self._open.get(key, 0) < self.most or self._trusted(host):
            return False
        self.refused += 1
        self._unsaid += 1
        if now >= self._quiet_until:
            self._quiet_until = now + COMPLAINT_SECONDS
            logger.warning(
                "%d connection%s reset: %s already has --limit-connections-per-ip (%d)",
                self._unsaid,
                "" if self._unsaid == 1 else "s",
                host,
                self.most,
            )
            self._unsaid = 0
        return True

    def come(self, key: bytes) -> None:
        """One is open."""
        self._open[key] = self._open.get(key, 0) + 1

    def gone(self, key: bytes) -> None:
        """One is closed."""
        left = self._open[key] - 1
        if left:
            self._open[key] = left
        else:
            del self._open[key]

    def _trusted(self, host: str) -> bool:
        if self._everybody:
            return True
        address = ipaddress.ip_address(host.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None) or address
        return any(mapped in network for network in self._networks)
