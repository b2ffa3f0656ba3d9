"""Compression of an application's responses (``--compress``), as an ASGI application around it.

It is no part of the connection: where the option is off, nothing of it is on the way of a request. What is compressed
is decided once, by the head of the response, which waits for the first piece of its body (ASGI HTTP, "Response Start").
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from lastcall.asgi.accept_encoding import choose
from lastcall.asgi.codings import Compressor, available
from lastcall.base.errors import LocalProtocolError
from lastcall.base.types import ASGIApp, Message, Receive, Scope, Send

SMALLEST: Final = 500
"""Bytes of a whole body below which compression saves no packet."""
SLICE: Final = 32 * 1024
"""Bytes that are compressed at a time, about a millisecond's work; then other tasks may run."""

_FILE_EXTENSIONS: Final = ("http.response.pathsend", "http.response.zerocopysend")
_COMPRESSIBLE: Final = re.compile(
    rb"text/(?!event-stream)[^;]*|application/(json|javascript|xml|wasm|x-javascript|x-ndjson|graphql|manifest\+json"
    rb"|rtf|toml|yaml|x-yaml|sql)|(application|image|model|message)/[^;]*\+(json|xml|yaml)|image/(bmp|x-icon"
    rb"|vnd\.microsoft\.icon)|font/(ttf|otf|collection)|application/vnd\.ms-fontobject"
)
Headers = list[tuple[bytes, bytes]]


class Compressing:
    """An ASGI application that compresses the responses of ``app`` where client, method and response allow it."""

    def __init__(self, app: ASGIApp, codings: Mapping[str, Callable[[], Compressor]] | None = None) -> None:
        self.app = app
        self._codings = available() if codings is None else codings
        self._offered = tuple(self._codings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application; raises what it raises, and what ``send`` does."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        accepted = [value.decode("latin-1") for name, value in scope["headers"] if name == b"accept-encoding"]
        coding = choose(accepted, self._offered)
        # A part of a compressed representation would be another part (RFC 9110 14.2), so a request for one gets it
        # as it is. A HEAD has no body that could be compressed.
        if scope["method"] == "HEAD" or any(name == b"range" for name, _ in scope["headers"]):
            coding = ""
        if coding and scope.get("extensions"):
            # A file that the kernel sends cannot be compressed on its way: the application reads it instead.
            extensions = {name: value for name, value in scope["extensions"].items() if name not in _FILE_EXTENSIONS}
            scope = {**scope, "extensions": extensions}
        response = _Response(send, self._codings[coding] if coding else None, coding.encode())
        await self.app(scope, receive, response.send)


class _Response:
    """The sending of one response. It holds one head and, while it compresses, one stream: no piece of a body."""

    def __init__(self, send: Send, make: Callable[[], Compressor] | None, coding: bytes) -> None:
        self._send = send
        self._make = make
        self._coding = coding
        self._start: Message | None = None
        self._stream: Compressor | None = None
        self._expected: int | None = None
        self._taken = 0
        self._step: Send = self._before

    async def send(self, message: Message) -> None:
        """What the application calls."""
        await self._step(message)

    async def _before(self, message: Message) -> None:
        """Until the response starts: hints pass."""
        if message["type"] != "http.response.start":
            await self._send(message)
            return
        headers = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ())]
        if not _may_be_coded(message["status"], headers):
            self._step = self._send
            await self._send(message)
            return
        self._start = {**message, "headers": headers}
        self._step = self._first

    async def _first(self, message: Message) -> None:
        """The first piece of the body decides."""
        if message["type"] == "http.response.start":
            raise LocalProtocolError("http.response.start was sent twice")
        start, self._start = self._start, None
        assert start is not None, "the head came before"
        headers: Headers = start["headers"]
        is_body = message["type"] == "http.response.body"
        if is_body:
            _vary(headers)
        whole = is_body and not message.get("more_body", False)
        small = whole and len(message.get("body", b"")) < SMALLEST
        length = _length(headers)
        if self._make is None or not is_body or small or (length is not None and length < SMALLEST):
            self._step = self._send
            await self._send(start)
            await self._send(message)
            return
        self._stream = self._make()
        self._expected = length
        start["headers"] = _coded(headers, self._coding)
        self._step = self._body
        if whole and len(message["body"]) <= SLICE:
            # All of it is here and small enough: the answer has a length, and is one write.
            self._count(message["body"], last=True)
            data = self._stream.compress(message["body"]) + self._stream.finish()
            start["headers"].append((b"content-length", b"%d" % len(data)))
            self._step = self._send
            await self._send(start)
            await self._send({**message, "body": data})
            return
        await self._send(start)
        await self._body(message)

    async def _body(self, message: Message) -> None:
        """Compress a piece. What the application sends, its client can read: each piece is flushed."""
        stream = self._stream
        assert stream is not None, "the first piece has made it"
        if message["type"] != "http.response.body":
            await self._send(message)
            return
        more = message.get("more_body", False)
        body = message.get("body", b"")
        self._count(body, last=not more)
        for piece, is_last in _slices(body):
            data = stream.compress(piece)
            if is_last:
                data += stream.flush() if more else stream.finish()
            if data or (is_last and not more):
                await self._send({**message, "body": data, "more_body": more or not is_last})
            if not is_last:
                await asyncio.sleep(0)
        if not more:
            self._stream = None
            self._step = self._send

    def _count(self, body: bytes, *, last: bool) -> None:
        """The declared length is no longer the server's to check, so it is checked here: a cut has to look cut."""
        self._taken += len(body)
        if self._expected is not None and (self._taken > self._expected or (last and self._taken < self._expected)):
            raise LocalProtocolError(f"the response declares {self._expected} bytes of content, and has {self._taken}")


def _slices(body: bytes) -> Iterator[tuple[memoryview | bytes, bool]]:
    """``body`` in pieces of at most SLICE bytes, each with whether it is the last. An empty body is one piece."""
    if len(body) <= SLICE:
        yield body, True
        return
    view = memoryview(body)
    for begin in range(0, len(view), SLICE):
        yield view[begin : begin + SLICE], begin + SLICE >= len(view)


def _may_be_coded(status: int, headers: Headers) -> bool:
    """Whether a response is of a kind that gets compressed for those who accept it."""
    if status < 200 or status in (204, 205, 206, 304):
        return False
    content_type = b""
    for name, value in headers:
        if name in (b"content-encoding", b"content-range", b"transfer-encoding"):
            return False
        if name == b"cache-control" and b"no-transform" in [part.strip().lower() for part in value.split(b",")]:
            return False  # RFC 9111 5.2.2.6
        if name == b"content-type":
            content_type = value
    return _COMPRESSIBLE.fullmatch(content_type.partition(b";")[0].strip().lower()) is not None


def _vary(headers: Headers) -> None:
    """Say that the answer depends on Accept-Encoding, also where it is not compressed (RFC 9110 12.5.5)."""
    for name, value in headers:
        if name == b"vary" and {b"*", b"accept-encoding"} & {part.strip().lower() for part in value.split(b",")}:
            return
    headers.append((b"vary", b"accept-encoding"))


def _length(headers: Headers) -> int | None:
    for name, value in headers:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return None


def _coded(headers: Headers, coding: bytes) -> Headers:
    """The headers of the compressed response.

    A strong ETag promises the same bytes, so it becomes a weak one (RFC 9110 8.8.1). Digests, of the content and of
    the representation (RFC 9530: its coding is a part of it), and Accept-Ranges are of bytes that nobody gets.
    """
    made: Headers = []
    for name, value in headers:
        if name in (b"content-length", b"accept-ranges", b"content-md5", b"content-digest", b"repr-digest", b"digest"):
            continue
        weak = name == b"etag" and not value.startswith(b"W/")
        made.append((name, b"W/" + value if weak else value))
    made.append((b"content-encoding", coding))
    return made
