"""An HTTP answer as it is kept in a record, and as it is sent again."""

from __future__ import annotations

import json
from collections.abc import Iterable

from lastcall_once._record import Record, replace
from lastcall_once._types import Send

_MARK = b"http1\n"  # another version of the form gets another mark
# What belongs to the connection that the first answer went over (RFC 9110 7.6.1).
_NOT_KEPT = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"upgrade"))
_REPLAYED = (b"idempotent-replayed", b"true")


class Answer(Record):
    """A complete answer. ``body`` is None if it was too large to be kept: the work is done, and cannot be replayed."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes | None

    def encode(self) -> bytes:
        """The answer as the bytes of a record's ``result``."""
        head = {
            "status": self.status,
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in self.headers],
            "kept": self.body is not None,
        }
        return b"%b%b\n%b" % (_MARK, json.dumps(head, separators=(",", ":")).encode(), self.body or b"")

    def without_cookies(self) -> Answer:
        """The same without ``Set-Cookie``: a session is the first caller's, whoever asks for it again."""
        headers = tuple((name, value) for name, value in self.headers if name.lower() != b"set-cookie")
        return replace(self, headers=headers)

    async def replay(self, send: Send) -> None:
        """Send the answer again: status, headers and body as they were, and ``Idempotent-Replayed: true``."""
        await send({"type": "http.response.start", "status": self.status, "headers": [*self.headers, _REPLAYED]})
        await send({"type": "http.response.body", "body": self.body or b""})


def answer_of(status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes | None) -> Answer:
    """The answer of these parts, without the headers that belong to a connection."""
    kept = tuple((bytes(name), bytes(value)) for name, value in headers if bytes(name).lower() not in _NOT_KEPT)
    return Answer(status, kept, body)


def decode(result: bytes | None) -> Answer | None:
    """The answer that ``encode`` made ``result`` of; None if it is something else's result, or there is none."""
    if result is None or not result.startswith(_MARK):
        return None
    head, newline, body = result[len(_MARK) :].partition(b"\n")
    try:
        fields = json.loads(head)
        headers = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in fields["headers"])
        return Answer(int(fields["status"]), headers, body if fields["kept"] and newline else None)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
