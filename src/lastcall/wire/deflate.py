"""permessage-deflate (RFC 7692): what is agreed on, and the two halves of it. zlib does the work.

Memory, per connection and only once a compressed message has come or gone: inflating takes 11 KiB with
``WINDOW_BITS``, 39 with a client's own window of 32 KiB; deflating takes 38 KiB with the values here (tracemalloc).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

from lastcall.base.record import Record

WINDOW_BITS = 12
"""Of what we send, and of what we ask clients for that let us choose: 4 KiB."""

MEMORY_LEVEL = 5
LEAST_BITS = 9
"""zlib cannot deflate with a window of 8 bits, and a client was seen to refuse that answer: never agree on it."""

MOST_BITS = 15
LEVEL = 6
TAIL = b"\x00\x00\xff\xff"
"""The end of each message, which is not sent (RFC 7692 7.2.1)."""

WORTH_IT = 64
"""Bytes of a message. A shorter one is not compressed: it seldom gets smaller, and what was compressed must be sent so,
since both sides' windows have it."""

MOST_FINAL = 8
"""Blocks of a message that say that they are its last. There is no reason for one."""

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'\s*;\s*({_TOKEN})(?:\s*=\s*(?:({_TOKEN})|"({_TOKEN})"))?')
_NAME = re.compile(rf"\s*({_TOKEN})")


class Agreement(Record):
    """What both sides do (RFC 7692 7.1): bits of the windows, and whether each message begins with an empty one."""

    server_bits: int = MOST_BITS
    client_bits: int = MOST_BITS
    server_no_takeover: bool = False
    client_no_takeover: bool = False
    told_client_bits: bool = False

    @property
    def header(self) -> bytes:
        """The value of our Sec-WebSocket-Extensions."""
        words = ["permessage-deflate"]
        if self.server_no_takeover:
            words.append("server_no_context_takeover")
        if self.client_no_takeover:
            words.append("client_no_context_takeover")
        if self.server_bits < MOST_BITS:
            words.append(f"server_max_window_bits={self.server_bits}")
        if self.told_client_bits:
            words.append(f"client_max_window_bits={self.client_bits}")
        return "; ".join(words).encode()


def agree(values: Iterable[bytes]) -> Agreement | None:
    """Return what can be agreed on: the first offer that will do, of all header lines together; None: no compression.

    Raises ValueError for what is no list of extensions (RFC 6455 9.1).
    """
    for name, parameters in _offers(b",".join(values).decode("latin-1")):
        if name == "permessage-deflate" and (found := _accept(parameters)) is not None:
            return found
    return None


def _offers(text: str) -> Iterable[tuple[str, list[tuple[str, str | None]]]]:
    at = 0
    while True:
        while (blank := re.compile(r"[\s,]*").match(text, at)) and blank.end() > at:
            at = blank.end()
        if at == len(text):
            return
        found = _NAME.match(text, at)
        if found is None:
            raise ValueError("no extension's name")
        name, at = found[1], found.end()
        parameters = []
        while parameter := _PARAMETER.match(text, at):
            value = parameter[2] if parameter[2] is not None else parameter[3]
            parameters.append((parameter[1].lower(), value))
            at = parameter.end()
        if rest := re.compile(r"\s*(,|$)").match(text, at):
            at = rest.end()
        else:
            raise ValueError("no list of extensions")
        yield name.lower(), parameters


def _accept(parameters: list[tuple[str, str | None]]) -> Agreement | None:
    """What we answer to an offer; None where it has to be declined (RFC 7692 5.1, 7.1)."""
    server_bits, client_bits, told = WINDOW_BITS, MOST_BITS, False
    server_alone = client_alone = False
    if len({name for name, _ in parameters}) < len(parameters):
        return None
    for name, value in parameters:
        if name == "server_no_context_takeover" and value is None:
            server_alone = True
        elif name == "client_no_context_takeover" and value is None:
            client_alone = True
        elif name == "server_max_window_bits" and (bits := _bits(value)) is not None:
            if bits < LEAST_BITS:
                return None
            server_bits = min(server_bits, bits)
        elif name == "client_max_window_bits" and (value is None or _bits(value) is not None):
            told, client_bits = True, max(LEAST_BITS, min(WINDOW_BITS, _bits(value) or MOST_BITS))
            if value is not None and int(value) < LEAST_BITS:
                told, client_bits = False, MOST_BITS  # it may use less than we can hold
        else:
            return None
    return Agreement(server_bits, client_bits, server_alone, client_alone, told)


def _bits(value: str | None) -> int | None:
    """8 to 15, without leading zeros; None for anything else."""
    return int(value) if value is not None and re.fullmatch(r"[89]|1[0-5]", value) else None


class Inflater:
    """What comes. Nothing is held before the first compressed message."""

    def __init__(self, agreement: Agreement) -> None:
        self._agreement = agreement
        self._stream: zlib._Decompress | None = None
        self._final = 0  # final blocks in this message

    def inflate(self, piece: bytes, limit: int) -> bytes:
        """Inflate more of a message; b"" is its end.

        Raises OverflowError for more than ``limit`` bytes, which are not made, and ValueError for what is not deflated.
        After a final block nothing may refer to what was before it.
        """
        ends = not piece
        data = TAIL if ends else piece
        found = b""
        while True:
            if self._stream is None:
                self._stream = zlib.decompressobj(-self._agreement.client_bits)
            try:
                found += self._stream.decompress(data, limit - len(found) + 1)
            except zlib.error as error:
                raise ValueError(str(error)) from None
            if len(found) > limit or self._stream.unconsumed_tail:
                raise OverflowError(f"more than {limit} bytes")
            if not self._stream.eof:
                break
            # RFC 7692 7.2.3.5: a final block is followed by another one. Each is a copy of what is behind it.
            data, self._stream = self._stream.unused_data, None
            self._final += 1
            if self._final > MOST_FINAL:
                raise ValueError("too many final blocks")
            if not data:
                break
        if ends:
            self._final = 0
            if self._agreement.client_no_takeover:
                self._stream = None
        return found


class Deflater:
    """What goes."""

    def __init__(self, agreement: Agreement) -> None:
        self._agreement = agreement
        self._stream: zlib._Compress | None = None

    def deflate(self, message: bytes) -> bytes:
        """A whole message, without its tail."""
        stream = self._stream
        if stream is None:
            stream = zlib.compressobj(LEVEL, zlib.DEFLATED, -self._agreement.server_bits, MEMORY_LEVEL)
        found = stream.compress(message) + stream.flush(zlib.Z_SYNC_FLUSH)
        self._stream = None if self._agreement.server_no_takeover else stream
        return found[: -len(TAIL)]
