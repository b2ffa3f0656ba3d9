"""What makes two requests the same one: the key as it was sent, whose it is, and what it was used for."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from lastcall_once._types import Message, Receive, Scope

MOST_CHARACTERS = 255
# RFC 8941 3.3.3; parameters may follow, and none has a meaning (draft-ietf-httpapi-idempotency-key-header-07 2.1).
_QUOTED = re.compile(rb'"((?:[ !#-\[\]-~]|\\["\\])*)"(?: *;[ -~]*)?')
_BARE = re.compile(rb"[!#-~]+")  # no quotes, and no spaces: that would be two headers that a proxy has joined
_ESCAPED = re.compile(r"\\(.)")
_BOUNDARY = re.compile(rb"""(?i:;[ \t]*boundary)[ \t]*=[ \t]*(?:"([^"\\]{1,70})"|([^\s;"]{1,70})[ \t]*(?=;|\Z))""")


def parse_key(values: Sequence[bytes]) -> str:
    """The key that the values of all ``Idempotency-Key`` headers say: a structured field's string, or bare.

    ``"k"`` and ``k`` are the same key. Raises ValueError, with a sentence for the client, for anything else than one
    value of 1 to 255 visible ASCII characters (spaces may be in a quoted one).
    """
    if len(values) != 1:
        raise ValueError("The header was sent more than once.")
    value = values[0].strip(b" \t")
    if quoted := _QUOTED.fullmatch(value):
        key = _ESCAPED.sub(r"\1", quoted[1].decode("ascii"))
    elif _BARE.fullmatch(value):
        key = value.decode("ascii")
    else:
        raise ValueError("It has to be a string in double quotes, or visible ASCII characters without spaces.")
    if not 1 <= len(key) <= MOST_CHARACTERS:
        raise ValueError(f"It has {len(key)} characters; there have to be 1 to {MOST_CHARACTERS}.")
    return key


def hash_of_caller(caller: str | bytes) -> str:
    """The name under which a caller's keys are kept: 32 hexadecimal digits that do not tell who it is."""
    raw = caller if isinstance(caller, bytes) else caller.encode("utf-8", "surrogatepass")
    return hashlib.sha256(b"lastcall once caller\0" + raw).hexdigest()[:32]


class Body:
    """A request's body, read ahead up to ``most`` bytes and then given to the application as if nobody had.

    ``complete`` says whether ``read`` came to the body's end. From then on ``receive`` is the server's own, and returns
    ``http.disconnect`` when the client has left.
    """

    def __init__(self, receive: Receive, most: int) -> None:
        self.complete = False
        self._receive = receive
        self._most = most
        self._size = 0
        self._messages: list[Message] = []
        self._given = 0

    async def read(self) -> bool:
        """Read ahead. False: the client has left, and nothing is to be done for it."""
        while not (self.complete or self.large):
            message = await self._receive()
            if message["type"] != "http.request":
                return False
            self._messages.append(message)
            self._size += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)
        return True

    async def receive(self) -> Message:
        """ASGI's ``receive`` for the application."""
        if self._given < len(self._messages):
            message = self._messages[self._given]
            self._given += 1
            if self._given == len(self._messages):
                self._messages, self._given = [], 0  # the memory is the application's now
            return message
        return await self._receive()

    async def ask(self) -> Message:
        """The server's own ``receive``, past what was read ahead."""
        return await self._receive()

    @property
    def large(self) -> bool:
        """Whether the body has more than ``most`` bytes."""
        return self._size > self._most

    def start(self) -> bytes:
        """The first ``most`` bytes, however they came. Call it before the application is called."""
        return b"".join(message.get("body", b"") for message in self._messages)[: self._most]


def fingerprint_of(scope: Scope, body: Body, *, canonical_json: bool = False) -> str:
    """The fingerprint of what a key is used for: method, path, query and body, in 64 hexadecimal digits.

    Of a large body its beginning counts, and the ``Content-Length``. Two multipart bodies are the same that have the
    same parts, whatever the boundary between them: clients make a new one for each try. With ``canonical_json``
    two JSON bodies are the same that differ in white space and the order of members only.

    The path counts as it was sent: what ``%2F`` and ``/`` mean to the application is not known here.
    """
    content = body.start()
    kind = _content_type(scope)
    if body.large:
        form = b"part " + b",".join(value for name, value in scope["headers"] if name == b"content-length")
    elif canonical_json and _is_json(kind) and (canonical := _canonical(content)) is not None:
        form, content = b"json", canonical
    else:
        form = b"bytes"
    pieces = [content]
    if (boundary := _boundary(kind)) is not None:
        form, pieces = form + b" multipart", content.split(b"--" + boundary)
    path = scope["path"].encode("utf-8", "surrogatepass")
    sent = scope.get("raw_path")
    if sent is not None and sent != path:
        form, pieces = form + b" sent", [sent, *pieces]
    parts = [scope["method"].encode("ascii", "replace"), path, scope.get("query_string", b""), form, *pieces]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:" % len(part))  # so that no part can pass for the beginning of the next
        digest.update(part)
    return digest.hexdigest()


def _content_type(scope: Scope) -> bytes:
    return next((bytes(value) for name, value in scope["headers"] if name == b"content-type"), b"")


def _is_json(content_type: bytes) -> bool:
    kind = content_type.partition(b";")[0].strip().lower()
    return kind == b"application/json" or kind.endswith(b"+json")


def _boundary(content_type: bytes) -> bytes | None:
    """The boundary of a multipart body (RFC 2046 5.1.1); None for another one, or where there is none to be read."""
    if content_type[:10].lower() != b"multipart/":
        return None
    found = _BOUNDARY.findall(content_type)
    return found[0][0] or found[0][1] if len(found) == 1 else None


def _canonical(content: bytes) -> bytes | None:
    """JSON in one spelling, or None for what is no JSON (or has a member twice: readers differ in which one counts)."""
    try:
        value = json.loads(content, object_pairs_hook=_members, parse_float=_Spelled, parse_int=_Spelled)
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        return None


class _Spelled(dict[str, str]):
    """A number as it was written: 1, 1.0 and 1e0 may be three things to the application, and 0.1 is not a float."""

    def __init__(self, text: str) -> None:
        super().__init__({"\0number": text})


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member is there twice")
    return found
