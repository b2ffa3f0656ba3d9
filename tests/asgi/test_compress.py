"""``--compress``: what is compressed and how, what is left alone, and what reaches the client when."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Callable
from typing import Any

import brotli
import pytest
import zstandard

from lastcall.asgi.codings import available
from lastcall.asgi.compress import SLICE, SMALLEST, Compressing
from lastcall.base.errors import LocalProtocolError
from lastcall.base.types import Message, Receive, Scope, Send

TEXT = b"All happy families are alike; " * 200
Headers = list[tuple[bytes, bytes]]
HTML: Headers = [(b"content-type", b"text/html; charset=utf-8")]


def decoded(coding: str, data: bytes) -> bytes:
    """The whole of a complete stream, by the libraries' own decoders."""
    if coding == "gzip":
        stream = zlib.decompressobj(31)
        out = stream.decompress(data)
        assert stream.eof
        assert not stream.unused_data
        return out
    if coding == "br":
        return brotli.decompress(data)
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


DECODERS: dict[str, Callable[[], Callable[[bytes], bytes]]] = {
    "gzip": lambda: zlib.decompressobj(31).decompress,
    "br": lambda: brotli.Decompressor().process,
    "zstd": lambda: zstandard.ZstdDecompressor().decompressobj().decompress,
}


class Exchange:
    """One request. ``sent`` is what reached the server; ``scope`` is what the application got."""

    def __init__(
        self,
        *body: bytes,
        headers: Headers | None = None,
        accept: str | None = "gzip",
        method: str = "GET",
        status: int = 200,
        more: Headers | None = None,
        extensions: dict[str, Any] | None = None,
    ) -> None:
        self.sent: list[Message] = []
        self.scope: Scope = {}
        self.after: list[int] = []
        request = [(b"accept-encoding", accept.encode())] if accept is not None else []
        asked: Scope = {"type": "http", "method": method, "headers": request + (more or [])}
        if extensions is not None:
            asked["extensions"] = extensions

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            self.scope = scope
            await send({"type": "http.response.start", "status": status, "headers": headers or HTML})
            for n, piece in enumerate(body, 1):
                await send({"type": "http.response.body", "body": piece, "more_body": n < len(body)})
                self.after.append(len(self.sent))

        async def send(message: Message) -> None:
            self.sent.append(message)

        async def receive() -> Message:
            raise AssertionError("nobody reads")

        asyncio.run(Compressing(app)(asked, receive, send))

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_a_whole_body(coding: str) -> None:
    got = Exchange(TEXT, accept=coding, headers=[*HTML, (b"content-length", b"%d" % len(TEXT)), (b"etag", b'"v1"')])
    assert decoded(coding, got.body) == TEXT
    assert len(got.body) < len(TEXT) / 10
    assert got.headers[b"content-encoding"] == coding.encode()
    assert got.headers[b"content-length"] == b"%d" % len(got.body)
    assert got.headers[b"etag"] == b'W/"v1"'
    assert got.headers[b"vary"] == b"accept-encoding"
    assert not got.sent[-1]["more_body"]


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_each_piece_of_a_stream_can_be_read_when_it_was_sent(coding: str) -> None:
    pieces = [b"first " * 20, b"second", b"third " * 9, b""]
    got = Exchange(*pieces, accept=coding)
    decode = DECODERS[coding]()
    begin = 1
    for piece, end in zip(pieces, got.after, strict=True):
        assert b"".join(decode(message["body"]) for message in got.sent[begin:end]) == piece
        begin = end
    assert b"content-length" not in got.headers
    assert decoded(coding, got.body) == b"".join(pieces)


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_a_large_body_is_compressed_in_slices_between_which_others_run(coding: str) -> None:
    body = random.Random(1).randbytes(10 * SLICE + 1)
    turns = 0

    async def main() -> list[Message]:
        sent: list[Message] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": HTML})
            await send({"type": "http.response.body", "body": body})

        async def send(message: Message) -> None:
            sent.append(message)

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        scope = {"type": "http", "method": "GET", "headers": [(b"accept-encoding", coding.encode())]}
        await Compressing(app)(scope, None, send)  # type: ignore[arg-type]
        task.cancel()
        return sent

    sent = asyncio.run(main())
    assert turns >= 10
    assert max(len(message["body"]) for message in sent[1:]) < 2**18 + 3 * SLICE
    assert decoded(coding, b"".join(message["body"] for message in sent[1:])) == body


@pytest.mark.parametrize(
    "case",
    [
        {"headers": [(b"content-type", b"image/png")]},
        {"headers": [(b"content-type", b"text/event-stream; charset=utf-8")]},
        {"headers": [(b"x", b"no content type")]},
        {"headers": [*HTML, (b"Content-Encoding", b"br")]},
        {"headers": [*HTML, (b"cache-control", b"max-age=3, No-Transform")]},
        {"headers": [*HTML, (b"content-range", b"bytes 0-1/2")]},
        {"status": 206},
        {"status": 304},
        {"status": 204},
    ],
)
def test_what_is_passed_on_as_it_is(case: dict[str, Any]) -> None:
    got = Exchange(TEXT, **case)
    assert got.body == TEXT
    assert got.sent[0]["headers"] == case.get("headers", HTML)


@pytest.mark.parametrize(
    "case",
    [{"accept": None}, {"accept": "deflate"}, {"method": "HEAD"}, {"more": [(b"range", b"bytes=0-9")]}],
)
def test_what_depends_on_the_request_says_so(case: dict[str, Any]) -> None:
    got = Exchange(TEXT, **case)
    assert got.body == TEXT
    assert got.headers == {**dict(HTML), b"vary": b"accept-encoding"}


def test_a_small_body_is_left_alone() -> None:
    assert Exchange(TEXT[: SMALLEST - 1]).body == TEXT[: SMALLEST - 1]
    assert b"content-encoding" in Exchange(TEXT[:SMALLEST]).headers


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"*", [b"*"]), (b"Accept-Encoding, cookie", [b"Accept-Encoding, cookie"]), (b"x", [b"x", b"accept-encoding"])],
)
def test_vary_is_said_once(before: bytes, after: list[bytes]) -> None:
    got = Exchange(TEXT, headers=[*HTML, (b"vary", before)])
    assert [value for name, value in got.sent[0]["headers"] if name == b"vary"] == after


def test_a_weak_tag_stays() -> None:
    assert Exchange(TEXT, headers=[*HTML, (b"etag", b'W/"a"')]).headers[b"etag"] == b'W/"a"'


@pytest.mark.parametrize("name", [b"content-digest", b"repr-digest", b"digest", b"content-md5", b"accept-ranges"])
def test_what_speaks_of_other_bytes_is_dropped(name: bytes) -> None:
    """RFC 9530 2 and 3: both digests are of the bytes with their coding."""
    assert name not in Exchange(TEXT, headers=[*HTML, (name, b"of the bytes before")]).headers
    assert name in Exchange(TEXT, accept="identity", headers=[*HTML, (name, b"of the bytes before")]).headers


def test_files_are_read_by_the_application_where_they_would_be_compressed() -> None:
    extensions: dict[str, Any] = {"http.response.pathsend": {}, "http.response.zerocopysend": {}, "tls": {}}
    assert Exchange(TEXT, extensions=extensions).scope["extensions"] == {"tls": {}}
    assert Exchange(TEXT, extensions=extensions, accept=None).scope["extensions"] == extensions


@pytest.mark.parametrize("pieces", [(TEXT,), (TEXT, TEXT, TEXT), (TEXT, b"")])
def test_a_length_that_is_wrong_stays_an_error(pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(LocalProtocolError, match="declares"):
        Exchange(*pieces, headers=[*HTML, (b"content-length", b"%d" % (len(TEXT) + 1))])


def test_what_is_no_request_is_the_applications() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    scope: Scope = {"type": "lifespan"}
    asyncio.run(Compressing(app)(scope, None, None))  # type: ignore[arg-type]
    assert seen[0] is scope


def test_the_best_coding_comes_first() -> None:
    assert tuple(available()) == ("zstd", "br", "gzip")
