"""WSGI applications behind ASGI (PEP 3333, ``--interface wsgi``).

Every request runs in a worker thread of the adapter's own pool. The thread never touches the event loop: it asks for
one ASGI call at a time through a :class:`_Bridge` and blocks until the request's task has made it. So both directions
have backpressure, a request body takes no more memory than one message and one buffer, and a cancelled or
disconnected request shows in the thread as :class:`ClientDisconnected` from its next read or write.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import io
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any
from urllib.parse import unquote_to_bytes
from wsgiref.types import WSGIApplication

from lastcall.base.errors import ClientDisconnected, LocalProtocolError
from lastcall.base.types import Message, Receive, Scope, Send

DEFAULT_THREADS = 10
"""Requests that run at the same time; further ones wait for a thread."""
BODY_BUFFER = 64 * 1024
"""Bytes that ``wsgi.input`` reads ahead at most, beside the message it is reading from."""

Headers = list[tuple[bytes, bytes]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class WSGIAdapter:
    """An ASGI 3 application that runs a WSGI application in at most ``threads`` threads at a time.

    It has no lifespan (it raises, which ASGI defines as "unsupported") and no WebSocket. The pool is made by the first
    request; call :meth:`close` when the server has stopped, or its idle threads outlive the server.
    """

    def __init__(self, app: WSGIApplication, *, threads: int = DEFAULT_THREADS) -> None:
        self.app = app
        self.threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._bridges: set[_Bridge] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; returns when the worker thread has ended and called the iterable's ``close()``.

        Raises what the application raises, and :class:`ClientDisconnected` when the client left before the end. When
        cancelled it waits for the thread, which cannot be interrupted; cancelled once more it leaves the thread alone.
        """
        if scope["type"] != "http":
            raise LocalProtocolError(f"a WSGI application has no {scope['type']}")
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="lastcall-wsgi")
        bridge = _Bridge(receive, send)
        self._bridges.add(bridge)
        try:
            await bridge.run(self._pool, lambda: _serve(self.app, scope, bridge))
        finally:
            self._bridges.discard(bridge)

    def close(self) -> None:
        """Let the pool's threads end, without waiting for them.

        Idle ones end at once, busy ones get an error from their next read or write. Call it in the event loop's
        thread, or when the loop no longer runs. May be called twice.
        """
        for bridge in list(self._bridges):
            bridge.abandon("the server has stopped")
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


# Loop side: the request's task.


class _Bridge:
    """Carries the ASGI calls of one request from its worker thread to its task.

    All calls are made in the request's own task, so that cancelling it interrupts them. A call travels as (messages,
    answer): messages to send in turn, or none for a ``receive()``.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._calls: asyncio.Queue[tuple[tuple[Message, ...], Future[Message | None]] | None] = asyncio.Queue()
        self._pending: Future[Message | None] | None = None
        self._thread_ended = asyncio.Event()
        self._gone = ""

    # Called in the worker thread.

    def receive(self) -> Message:
        """Make a ``receive()`` and return its message."""
        message = self._ask(())
        assert message is not None, "receive() returns a message"
        return message

    def send(self, *messages: Message) -> None:
        """Send the messages in turn; returns when the server has taken the last one (backpressure)."""
        self._ask(messages)

    def _ask(self, messages: tuple[Message, ...]) -> Message | None:
        answer: Future[Message | None] = Future()
        try:
            self._loop.call_soon_threadsafe(self._post, messages, answer)
        except RuntimeError:  # the loop is closed
            raise ClientDisconnected("the server has stopped") from None
        return answer.result()

    # Called in the event loop.

    async def run(self, pool: ThreadPoolExecutor, work: Callable[[], None]) -> None:
        """Run ``work`` in a thread of ``pool``, with this task's context variables, and make its calls."""
        job = pool.submit(contextvars.copy_context().run, work)
        job.add_done_callback(lambda _: self._report_end())
        try:
            while (call := await self._calls.get()) is not None:
                await self._make(*call)
        except asyncio.CancelledError:
            self.abandon("the request was cancelled")
            if not job.cancel():
                await self._thread_ended.wait()
            raise
        finally:
            self.abandon("the request is over")
        job.result()

    def abandon(self, why: str) -> None:
        """Make the call under way and every later one raise :class:`ClientDisconnected` in the thread."""
        self._gone = self._gone or why
        if self._pending is not None:
            self._fail(self._pending)
        waiting = [self._calls.get_nowait() for _ in range(self._calls.qsize())]
        for call in waiting:
            if call is not None:
                self._fail(call[1])
        if None in waiting:
            self._calls.put_nowait(None)  # run() still wants to know that the thread has ended

    async def _make(self, messages: tuple[Message, ...], answer: Future[Message | None]) -> None:
        """Make one call, and bring its result or exception to the thread."""
        self._pending = answer
        received: Message | None = None
        try:
            if messages:
                for message in messages:
                    await self._send(message)
            else:
                received = await self._receive()
        except Exception as exc:
            if not answer.done():
                answer.set_exception(exc)
        else:
            if not answer.done():
                answer.set_result(received)
        # Not in a ``finally``: when this task is cancelled, abandon() still has to find the answer.
        self._pending = None

    def _post(self, messages: tuple[Message, ...], answer: Future[Message | None]) -> None:
        if self._gone:
            self._fail(answer)
        else:
            self._calls.put_nowait((messages, answer))

    def _fail(self, answer: Future[Message | None]) -> None:
        if not answer.done():
            answer.set_exception(ClientDisconnected(self._gone))

    def _report_end(self) -> None:
        """Called where the job ends: in the worker thread, or in the loop when it was cancelled before it began."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody waits for the end
            self._loop.call_soon_threadsafe(self._note_end)

    def _note_end(self) -> None:
        self._thread_ended.set()
        self._calls.put_nowait(None)


# Thread side: one request as PEP 3333 wants it.


def _serve(app: WSGIApplication, scope: Scope, bridge: _Bridge) -> None:
    """Call the application and send what it returns. ``close()`` is called whatever happens."""
    response = _Response(bridge, scope["method"])
    body = app(environ_of(scope, io.BufferedReader(_Body(bridge), BODY_BUFFER)), response.start_response)
    try:
        response.send_all(body)
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()


def environ_of(scope: Scope, body: io.BufferedIOBase) -> dict[str, Any]:
    """Build the PEP 3333 environ of an ``http`` scope.

    Strings hold bytes as latin-1. ``SCRIPT_NAME`` is ``root_path``, ``PATH_INFO`` the rest of the path (ASGI HTTP
    spec: it includes ``root_path``), its very bytes where it is not UTF-8. Repeated header fields are joined with
    ``,``, cookies with ``; ``. A field whose name has an underscore is left out: as ``HTTP_X_Y`` it could pass for the
    ``X-Y`` that a proxy guarantees.
    """
    root_path = _bytes(scope.get("root_path", ""))
    path, prefix = _path(scope, root_path), root_path.rstrip(b"/")
    if path == root_path or path.startswith(prefix + b"/"):
        path = path[len(prefix) :]
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": prefix.decode("latin-1"),
        "PATH_INFO": path.decode("latin-1"),
        "QUERY_STRING": scope.get("query_string", b"").decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": body,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if scope.get("client"):
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = scope["client"][0], str(scope["client"][1])
    for raw_name, raw_value in scope["headers"]:
        if b"_" in raw_name:
            continue
        name, value = raw_name.decode("latin-1").upper().replace("-", "_"), raw_value.decode("latin-1")
        if name not in ("CONTENT_LENGTH", "CONTENT_TYPE"):
            name = f"HTTP_{name}"
        if name in environ:
            value = f"{environ[name]}{'; ' if name == 'HTTP_COOKIE' else ','}{value}"
        environ[name] = value
    environ["SERVER_NAME"], environ["SERVER_PORT"] = _server_name(scope, environ.get("HTTP_HOST", ""))
    return environ


def _path(scope: Scope, root_path: bytes) -> bytes:
    """The decoded bytes of the path, ``root_path`` included.

    In ``path`` what is not UTF-8 has been replaced, so they come from ``raw_path``, which has the root path as it is.
    Where the two differ, somebody has rewritten ``path`` on the way here: then that one counts.
    """
    path: str = scope["path"]
    raw: bytes | None = scope.get("raw_path")
    if raw is not None:
        prefix = root_path if raw.startswith(root_path) else b""
        found = prefix + unquote_to_bytes(raw[len(prefix) :])
        if found.decode("utf-8", "replace") == path:
            return found
    return _bytes(path)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _server_name(scope: Scope, host: str) -> tuple[str, str]:
    """SERVER_NAME and SERVER_PORT, which may not be empty: on a unix socket they come from the Host header."""
    server = scope.get("server")
    if server and server[1] is not None:
        return server[0], str(server[1])
    name, colon, port = host.rpartition(":")
    if not colon or not port.isdigit():
        name, port = host, "443" if scope.get("scheme") == "https" else "80"
    return name or "localhost", port


class _Body(io.RawIOBase):
    """``wsgi.input``: asks the server for the next piece of the body when the application reads, not earlier.

    Earlier would also mean 100 Continue for a body that the application does not want (RFC 9110, 10.1.1).
    """

    def __init__(self, bridge: _Bridge) -> None:
        super().__init__()
        self._bridge = bridge
        self._rest = memoryview(b"")
        self._more = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill ``buffer`` with what is there; 0 is the end. Raises :class:`ClientDisconnected` if it never came."""
        while not self._rest and self._more:
            message = self._bridge.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected("the client left before its request was complete")
            self._rest = memoryview(message.get("body", b""))
            self._more = message.get("more_body", False)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


class _Response:
    """``start_response``, ``write`` and the sending of one response.

    The head waits for the first byte of the body (PEP 3333, "The start_response Callable"), so an application can
    still replace it through ``exc_info`` until then.
    """

    def __init__(self, bridge: _Bridge, method: str) -> None:
        self._bridge = bridge
        self._method = method
        self._start: Message | None = None
        self._head_sent = False

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        """Set the head and return ``write``. A second call needs ``exc_info``, which is raised if the head is out."""
        if exc_info is not None:
            try:
                if self._head_sent and exc_info[1] is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # PEP 3333: avoid a circular reference through the traceback
        elif self._start is not None:
            raise LocalProtocolError("start_response() was called twice without exc_info")
        self._start = {"type": "http.response.start", "status": _status(status), "headers": _encoded(headers)}
        return self.write

    def write(self, data: bytes) -> None:
        """Send ``data`` now; returns when the server has taken it (PEP 3333, "The write Callable")."""
        _check_chunk(data)
        if data:
            self._bridge.send(*self._head(), {"type": "http.response.body", "body": data, "more_body": True})

    def send_all(self, body: Iterable[bytes]) -> None:
        """Send every chunk of ``body`` as it comes, then the end of the response."""
        last = b""
        if isinstance(body, list | tuple):
            # All of it is here, so it is one chunk of known length (PEP 3333, "Handling the Content-Length Header").
            for chunk in body:
                _check_chunk(chunk)
            last = b"".join(body)
            self._add_length(len(last))
        else:
            for chunk in body:
                self.write(chunk)
        self._bridge.send(*self._head(), {"type": "http.response.body", "body": last, "more_body": False})

    def _head(self) -> tuple[Message, ...]:
        """The message that starts the response, if it has not been sent."""
        if self._start is None:
            raise LocalProtocolError("the application sent its body before it called start_response()")
        if self._head_sent:
            return ()
        self._head_sent = True
        return (self._start,)

    def _add_length(self, length: int) -> None:
        """Declare the length, unless the application did, or the response to a HEAD or a 204/304 carries no body."""
        if self._start is None or self._head_sent or self._method == "HEAD" or self._start["status"] in (204, 304):
            return
        headers: Headers = self._start["headers"]
        if not any(name in (b"content-length", b"transfer-encoding") for name, _ in headers):
            headers.append((b"content-length", b"%d" % length))


def _check_chunk(chunk: object) -> None:
    if not isinstance(chunk, bytes):
        hint = " (was a bare bytes object returned, and not a list of one?)" if isinstance(chunk, int) else ""
        raise LocalProtocolError(f"a WSGI application sends bytes, not {type(chunk).__name__}{hint}")


def _status(status: object) -> int:
    """The number of a status line such as ``200 OK``; ASGI has no reason phrase."""
    code = status.partition(" ")[0] if isinstance(status, str) else ""
    if not (len(code) == 3 and code.isascii() and code.isdigit()):
        raise LocalProtocolError(f"a WSGI status is a string such as '200 OK', not {status!r}")
    return int(code)


def _encoded(headers: list[tuple[str, str]]) -> Headers:
    try:
        return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    except (AttributeError, TypeError, ValueError) as exc:
        raise LocalProtocolError(f"WSGI headers are a list of (str, str) in latin-1: {exc}") from exc
