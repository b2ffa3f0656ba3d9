"""Clients that notice everything. h11 parses what comes over HTTP/1.1, wsproto what comes over WebSocket.

They say when each byte came, and whether a connection ended with a FIN or an RST, see :mod:`lastcall_drill.connection`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final, TypedDict, Unpack

import h11

from lastcall_drill.connection import CONNECT_SECONDS, End, Socket, SocketOptions
from lastcall_drill.timeline import Timeline
from lastcall_drill.websocket import WebSocketClient

__all__ = ["End", "HTTPClient", "Response", "WebSocketClient", "head"]

KEPT: Final = 1 << 20  # bytes of a body that are kept to be looked at
_LONGEST_HEAD: Final = 1 << 16


class RequestOptions(TypedDict, total=False):
    """What a request can have beside its path. ``headers`` are lines ``Name: value``.

    A ``body`` brings its own Content-Length.
    """

    method: str
    headers: Iterable[str]
    body: bytes | None


class Response:
    """What came in answer to one request. Times are ``time.monotonic()``, None while it has not come.

    ``status`` is 0 while there is no head. ``complete``: its end has come, as its framing says. ``error`` says why it
    never will: the connection ended, or what came is no HTTP. ``body`` keeps the first mebibyte.
    """

    def __init__(self, method: str) -> None:
        self.method = method
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self.size = 0
        self.started: float | None = None
        self.ended: float | None = None
        self.complete = False
        self.error = ""

    @property
    def over(self) -> bool:
        """Nothing more will come: it is complete, or failed."""
        return self.complete or bool(self.error)

    def header(self, name: str) -> str:
        """A header field's value, the empty string if there is none. Case does not matter."""
        return next((value for key, value in self.headers if key == name.lower()), "")

    @property
    def says_close(self) -> bool:
        """The server has announced that it will close the connection after it (RFC 9112 9.6)."""
        return "close" in {token.strip().lower() for token in self.header("connection").split(",")}

    @property
    def outcome(self) -> str:
        """What became of it, in words: ``answered with 200``, ``the connection was reset without a response``."""
        if self.complete:
            return f"answered with {self.status}"
        return self.error or ("no end of the response came" if self.status else "no response came")

    def __repr__(self) -> str:
        how = "complete" if self.complete else self.error or "under way"
        return f"<{self.method} {self.status or 'no head'}, {self.size} bytes, {how}>"


class HTTPClient(Socket):
    """An HTTP/1.1 connection. For its parameters see :class:`Socket`.

    ``responses`` has one :class:`Response` for each request that :meth:`request` has sent or :meth:`expect` has
    announced, in their order. Informational responses are passed over.
    """

    def __init__(self, port: int, timeline: Timeline, name: str, **options: Unpack[SocketOptions]) -> None:
        self.responses: list[Response] = []
        self.stray = b""  # bytes that came without a request
        self._parser: h11.Connection | None = None
        super().__init__(port, timeline, name, **options)

    def request(self, path: str, **options: Unpack[RequestOptions]) -> Response:
        """Send a request and return its response, which fills as it comes."""
        method = options.get("method", "GET")
        response = self.expect(method)
        self._note("request", f"{method} {path}")
        self.send(head(path, **options) + (options.get("body") or b""))
        return response

    def expect(self, method: str = "GET") -> Response:
        """Announce a request whose bytes are sent by :meth:`send`, and return its response."""
        with self._changed:
            response = Response(method)
            if self.end is not None:
                response.error = "the connection had ended before"
            self.responses.append(response)
            if self.stray:
                data, self.stray = self.stray, b""
                self._take(data, time.monotonic())
        return response

    def wait_head(self, response: Response, timeout: float) -> bool:
        """Wait for the head of a response; whether it has come."""
        self._wait(lambda: response.status != 0 or response.over, timeout)
        return response.status != 0

    def wait_body(self, response: Response, size: int, timeout: float) -> bool:
        """Wait for ``size`` bytes of a response's body; whether they have come."""
        self._wait(lambda: response.size >= size or response.over, timeout)
        return response.size >= size

    def wait(self, response: Response, timeout: float) -> bool:
        """Wait until a response is over; whether it is complete."""
        self._wait(lambda: response.over, timeout)
        return response.complete

    def get(self, path: str, timeout: float = CONNECT_SECONDS, **options: Unpack[RequestOptions]) -> Response:
        """A request and the wait for the end of its response."""
        response = self.request(path, **options)
        self.wait(response, timeout)
        return response

    def _take(self, data: bytes, now: float) -> None:
        while data:
            response = next((one for one in self.responses if not one.over), None)
            if response is None:
                self.stray += data
                return
            if self._parser is None:
                self._parser = _parser(response.method)
            self._parser.receive_data(data)
            data = self._parse(self._parser, response, now)

    def _take_end(self, now: float) -> None:
        if self._parser is not None and self.end is not End.RST:
            self._parser.receive_data(b"")
            self._parse(self._parser, next(one for one in self.responses if not one.over), now)
        for response in self.responses:
            if not response.over:
                part = "before its end" if response.status else "without a response"
                ours = "no end of the response came" if response.status else "no response came"
                words = {End.FIN: f"the connection was closed {part}", End.RST: f"the connection was reset {part}"}
                response.error = words.get(self.end or End.OURS, ours)
                response.ended = now

    def _parse(self, parser: h11.Connection, response: Response, now: float) -> bytes:
        """Move on by what has come. Returns what lies behind the response, once it is complete."""
        while True:
            try:
                event = parser.next_event()
            except h11.RemoteProtocolError as error:
                if self.end is None:  # otherwise the end says it better
                    response.error, response.ended = f"not HTTP/1.1: {error}", now
                    self._note("response", response.error, now)
                self._parser = None
                return b""
            if isinstance(event, h11.Response):
                response.status, response.started = event.status_code, now
                response.headers = [(key.decode("latin-1"), value.decode("latin-1")) for key, value in event.headers]
                self._note("response", f"{event.status_code}{', Connection: close' * response.says_close}", now)
            elif isinstance(event, h11.Data):
                response.size += len(event.data)
                response.body += bytes(event.data)[: KEPT - len(response.body)]
            elif isinstance(event, h11.EndOfMessage):
                response.complete, response.ended = True, now
                self._note("response", f"complete, {response.size} bytes", now)
                self._parser = None
                return parser.trailing_data[0]
            elif not isinstance(event, h11.InformationalResponse):
                return b""


def head(path: str, **options: Unpack[RequestOptions]) -> bytes:
    """The bytes of a request's head. A Host and a Content-Length among ``headers`` stand for our own."""
    body, headers = options.get("body"), list(options.get("headers", ()))
    given = {line.partition(":")[0].strip().lower() for line in headers}
    host = () if "host" in given else ("Host: drill",)
    length = () if body is None or "content-length" in given else (f"Content-Length: {len(body)}",)
    line = f"{options.get('method', 'GET')} {path} HTTP/1.1"
    return "\r\n".join((line, *host, *headers, *length, "", "")).encode("latin-1")


def _parser(method: str) -> h11.Connection:
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LONGEST_HEAD)
    parser.send(h11.Request(method=method, target="/", headers=[("Host", "drill")]))
    parser.send(h11.EndOfMessage())
    return parser
