"""WSGI applications behind the adapter: PEP 3333, threads, backpressure, and every way a request can end early."""

from __future__ import annotations

import asyncio
import contextvars
import io
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any
from urllib.parse import unquote
from wsgiref.types import StartResponse, WSGIApplication
from wsgiref.validate import validator

import pytest

from lastcall.asgi.lifespan import Lifespan, LifespanOutcome
from lastcall.asgi.wsgi import WSGIAdapter, environ_of
from lastcall.base.errors import ClientDisconnected, LocalProtocolError
from lastcall.base.types import Message, Scope

Environ = dict[str, Any]


def scope_of(**changes: Any) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"example.org")],
        "client": ("192.0.2.7", 4711),
        "server": ("127.0.0.1", 8000),
        **changes,
    }


class Server:
    """The server's side of one request: a body to receive, and what was sent. ``gate`` holds back each ``send()``."""

    def __init__(self, *chunks: bytes, left: bool = False) -> None:
        self.incoming: list[Message] = [
            {"type": "http.request", "body": chunk, "more_body": left or number < len(chunks)}
            for number, chunk in enumerate(chunks or (b"",), 1)
        ]
        self.received = 0
        self.sent: list[Message] = []
        self.gone = False
        self.gate: asyncio.Event | None = None

    async def receive(self) -> Message:
        self.received += 1
        return self.incoming.pop(0) if self.incoming else {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.gone:
            raise ClientDisconnected("the client left")
        self.sent.append(message)

    @property
    def head(self) -> Message:
        return self.sent[0]

    @property
    def chunks(self) -> list[bytes]:
        return [message["body"] for message in self.sent[1:]]

    @property
    def complete(self) -> bool:
        return not self.sent[-1]["more_body"]


def run(
    app: WSGIApplication,
    server: Server | None = None,
    main: Callable[[Any], Awaitable[None]] | None = None,
    **changes: Any,
) -> Server:
    """Serve one request, or run ``main(call)`` where ``call()`` serves one; no thread may be left."""
    server = server or Server()
    adapter = WSGIAdapter(app, threads=2)

    async def all_of_it() -> None:
        def call() -> Any:
            return adapter(scope_of(**changes), server.receive, server.send)

        await (call() if main is None else main(call))

    try:
        asyncio.run(all_of_it())
    finally:
        adapter.close()
    return server


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def hello(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello ", b"world"]


class Chunks:
    """An iterable that counts, and says whether it was closed."""

    def __init__(self, *chunks: bytes, before: Callable[[int], None] = lambda _: None) -> None:
        self.chunks = chunks
        self.before = before
        self.taken = 0
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self.chunks:
            self.before(self.taken)
            self.taken += 1
            yield chunk

    def close(self) -> None:
        self.closed += 1


def streaming(body: Iterable[bytes], headers: list[tuple[str, str]] | None = None) -> WSGIApplication:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", headers or [])
        return body

    return app


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive(), thread


# Requests and responses.


def test_a_list_is_sent_whole_with_its_length() -> None:
    server = run(hello)
    assert server.sent == [
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"text/plain"), (b"content-length", b"11")],
        },
        {"type": "http.response.body", "body": b"hello world", "more_body": False},
    ]


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Not Modified")]
)
def test_no_length_is_made_up_for_a_response_without_body(method: str, status: str) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, [])
        return []

    assert run(app, method=method).head["headers"] == []


def test_a_declared_length_is_left_alone() -> None:
    assert run(streaming([b"ab"], [("Content-Length", "7")])).head["headers"] == [(b"content-length", b"7")]


def test_the_adapter_passes_the_standard_librarys_validator() -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        stream = environ["wsgi.input"]
        lines = [stream.readline(), *stream.readlines(100), stream.read(10)]
        start_response("200 OK", [("Content-Type", "text/plain")])
        return lines

    server = run(
        validator(app),
        Server(b"one\ntw", b"o\nthree"),
        method="POST",
        headers=[(b"host", b"example.org"), (b"content-length", b"12"), (b"content-type", b"text/plain")],
    )
    assert b"".join(server.chunks) == b"one\ntwo\nthree"
    assert server.complete


def test_an_iterable_is_sent_chunk_by_chunk_and_empty_chunks_are_skipped() -> None:
    body = Chunks(b"", b"one", b"", b"two")
    server = run(streaming(body))
    assert server.chunks == [b"one", b"two", b""]
    assert [message["more_body"] for message in server.sent[1:]] == [True, True, False]
    assert body.closed == 1


def test_the_head_waits_for_the_first_byte() -> None:
    server = Server()
    sent_before: list[int] = []
    run(streaming(Chunks(b"", b"x", before=lambda _: sent_before.append(len(server.sent)))), server)
    assert sent_before == [0, 0]


def test_a_generator_may_start_the_response_with_its_first_chunk() -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("201 Created", [])
        yield b"made"

    server = run(app)
    assert server.head["status"] == 201
    assert server.chunks == [b"made", b""]


def test_write_and_the_iterable_are_one_body() -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [])
        write(b"")
        write(b"one")
        return [b"two"]

    server = run(app)
    assert server.head["headers"] == []
    assert server.chunks == [b"one", b"two"]
    assert server.complete


def test_exc_info_replaces_a_head_that_is_not_out() -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("X-Good", "1")])
        try:
            raise RuntimeError("too late for that")
        except RuntimeError:
            start_response("500 Oh", [("X-Bad", "1")], sys.exc_info())
        return [b"sorry"]

    server = run(app)
    assert server.head["status"] == 500
    assert server.head["headers"][0] == (b"x-bad", b"1")


def test_exc_info_is_raised_when_the_head_is_out() -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])(b"begun")
        try:
            raise RuntimeError("lost")
        except RuntimeError:
            start_response("500 Oh", [], sys.exc_info())
        raise AssertionError("start_response() did not raise")

    server = Server()
    with pytest.raises(RuntimeError, match="lost"):
        run(app, server)
    assert not server.complete


@pytest.mark.parametrize(
    "body",
    [["text"], Chunks("text"), b"bare"],  # type: ignore[arg-type]
)
def test_a_body_that_is_not_bytes(body: Any) -> None:
    with pytest.raises(LocalProtocolError):
        run(streaming(body))


@pytest.mark.parametrize("status", ["OK", "20 OK", "2000", "", "²00 OK", 200, None])
def test_a_status_that_is_none(status: Any) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, [])
        return []

    with pytest.raises(LocalProtocolError):
        run(app)


@pytest.mark.parametrize("headers", [[("X-A", "\u20ac")], [("X-A", 1)], [("X-A",)], [(b"x-a", "1")], None])
def test_headers_that_are_none(headers: Any) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", headers)
        return []

    with pytest.raises(LocalProtocolError):
        run(app)


def test_a_second_start_response_needs_exc_info() -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        start_response("200 OK", [])
        return []

    with pytest.raises(LocalProtocolError):
        run(app)


@pytest.mark.parametrize("body", [[], [b"x"], Chunks(b"x"), Chunks()])
def test_a_body_before_start_response(body: Iterable[bytes]) -> None:
    with pytest.raises(LocalProtocolError):
        run(lambda environ, start_response: body)


# The environ.


def test_environ_of_a_plain_request() -> None:
    body = io.BytesIO()
    environ = environ_of(
        scope_of(
            method="POST",
            path="/app/caf\u00e9",
            root_path="/app",
            query_string=b"q=%C3%A9",
            headers=[
                (b"host", b"example.org:8000"),
                (b"content-type", b"text/plain"),
                (b"content-length", b"5"),
                (b"accept", b"text/html"),
                (b"accept", b"*/*"),
                (b"cookie", b"a=1"),
                (b"cookie", b"b=2"),
                (b"x_forwarded_for", b"forged"),
                (b"x-forwarded-for", b"192.0.2.1"),
            ],
        ),
        body,
    )
    assert environ == {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "/app",
        "PATH_INFO": "/caf\u00c3\u00a9",
        "QUERY_STRING": "q=%C3%A9",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "REMOTE_ADDR": "192.0.2.7",
        "REMOTE_PORT": "4711",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "5",
        "HTTP_HOST": "example.org:8000",
        "HTTP_ACCEPT": "text/html,*/*",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_X_FORWARDED_FOR": "192.0.2.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": body,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }


@pytest.mark.parametrize(
    ("root_path", "path", "script_name", "path_info"),
    [
        ("", "/a", "", "/a"),
        ("/app", "/app", "/app", ""),
        ("/app", "/app/", "/app", "/"),
        ("/app/", "/app/x", "/app", "/x"),
        ("/app", "/apple", "/app", "/apple"),
        ("/", "/x", "", "/x"),
        ("/\u20ac", "/\u20ac/x", "/\u00e2\u0082\u00ac", "/x"),
        ("", "/\udcff", "", "/\u00ff"),
    ],
)
def test_script_name_and_path_info(root_path: str, path: str, script_name: str, path_info: str) -> None:
    environ = environ_of(scope_of(root_path=root_path, path=path), io.BytesIO())
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == (script_name, path_info)


@pytest.mark.parametrize(
    ("root_path", "raw_path", "path_info"),
    [
        ("", b"/caf%E9/x", "/caf\u00e9/x"),
        ("", b"/%FF%2F", "/\u00ff/"),
        ("", b"/caf%C3%A9", "/caf\u00c3\u00a9"),
        ("", b"/%zz%4", "/%zz%4"),
        ("/a%41", b"/a%41/%E9", "/\u00e9"),
        ("/\u20ac", "/\u20ac".encode() + b"/%E9", "/\u00e9"),
        ("/app", b"/app", ""),
        ("/app", b"*", "*"),
    ],
)
def test_path_info_has_the_bytes_of_the_path(root_path: str, raw_path: bytes, path_info: str) -> None:
    """PEP 3333, Unicode Issues: latin-1 of the bytes, whether they are UTF-8 or not."""
    prefix = root_path if raw_path != b"*" else ""
    path = prefix + unquote(raw_path.decode().removeprefix(prefix), errors="replace")
    environ = environ_of(scope_of(root_path=root_path, path=path, raw_path=raw_path), io.BytesIO())
    assert environ["PATH_INFO"] == path_info


def test_a_path_that_somebody_has_rewritten_is_believed() -> None:
    environ = environ_of(scope_of(path="/new", raw_path=b"/old"), io.BytesIO())
    assert environ["PATH_INFO"] == "/new"


@pytest.mark.parametrize(
    ("server", "scheme", "host", "expected"),
    [
        (("10.0.0.1", 81), "http", b"example.org", ("10.0.0.1", "81")),
        (("/run/app.sock", None), "http", b"example.org:8080", ("example.org", "8080")),
        (("/run/app.sock", None), "https", b"example.org", ("example.org", "443")),
        (("/run/app.sock", None), "http", b"[::1]", ("[::1]", "80")),
        (None, "http", b"", ("localhost", "80")),
    ],
)
def test_server_name_and_port_are_never_empty(server: Any, scheme: str, host: bytes, expected: tuple[str, str]) -> None:
    environ = environ_of(scope_of(server=server, scheme=scheme, headers=[(b"host", host)]), io.BytesIO())
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == expected


def test_no_client_no_remote_address() -> None:
    environ = environ_of(scope_of(client=None), io.BytesIO())
    assert "REMOTE_ADDR" not in environ


# The request body.


def test_the_body_is_asked_for_only_when_it_is_read() -> None:
    server = run(hello, Server(b"unread"))
    assert server.received == 0


def test_the_body_is_read_in_pieces_with_bounded_memory() -> None:
    server = Server(*[b"x" * 1000] * 500)
    ahead: list[int] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        total = 0
        while piece := environ["wsgi.input"].read(1000):
            total += len(piece)
            ahead.append(server.received * 1000 - total)
        assert environ["wsgi.input"].read() == b""
        start_response("200 OK", [])
        return [b"%d" % total]

    assert run(app, server).chunks == [b"500000"]
    assert max(ahead) <= 65 * 1024


def test_a_client_that_leaves_in_its_upload_raises_from_read() -> None:
    raised: list[BaseException] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            environ["wsgi.input"].read()
        except OSError as exc:
            raised.append(exc)
            raise
        return []

    with pytest.raises(ClientDisconnected):
        run(app, Server(b"half", left=True))
    assert len(raised) == 1


def test_reading_the_body_after_the_response_raises() -> None:
    kept: list[Any] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        kept.append(environ["wsgi.input"])
        return hello(environ, start_response)

    async def main(call: Callable[[], Awaitable[None]]) -> None:
        await call()
        with pytest.raises(ClientDisconnected):
            await asyncio.to_thread(kept[0].read)

    run(app, Server(b"unread"), main)


# Threads, backpressure, and ends.


def test_the_application_runs_in_a_thread_with_the_requests_context() -> None:
    variable = contextvars.ContextVar("variable", default="none")
    seen: list[tuple[str, bool]] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append((variable.get(), threading.current_thread() is threading.main_thread()))
        return hello(environ, start_response)

    async def main(call: Callable[[], Awaitable[None]]) -> None:
        variable.set("request")
        await call()

    run(app, main=main)
    assert seen == [("request", False)]


def test_the_loop_goes_on_while_the_application_blocks_and_threads_are_bounded() -> None:
    release = threading.Event()
    lock = threading.Lock()
    running: list[int] = [0, 0]

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        with lock:
            running[0] += 1
            running[1] = max(running)
        assert release.wait(10)
        with lock:
            running[0] -= 1
        return hello(environ, start_response)

    async def main(call: Callable[[], Awaitable[None]]) -> None:
        requests = [asyncio.ensure_future(call()) for _ in range(5)]
        await until(lambda: running[0] == 2)
        release.set()
        await asyncio.gather(*requests)

    server = run(app, main=main)
    assert running == [0, 2]
    assert len(server.sent) == 10


def test_a_slow_client_holds_the_application_back() -> None:
    server = Server()
    body = Chunks(*[b"x"] * 10)

    async def main(call: Callable[[], Awaitable[None]]) -> None:
        server.gate = asyncio.Event()
        request = asyncio.ensure_future(call())
        await until(lambda: body.taken == 1)
        await asyncio.sleep(0.02)
        assert body.taken == 1, "the second chunk waits until the first is taken"
        server.gate.set()
        await request

    run(streaming(body), server, main)
    assert server.chunks == [b"x"] * 10 + [b""]


def test_a_client_that_leaves_stops_the_iteration_and_closes() -> None:
    server = Server()

    def leave(taken: int) -> None:
        server.gone = taken == 3

    body = Chunks(*[b"x"] * 100, before=leave)
    with pytest.raises(ClientDisconnected):
        run(streaming(body), server)
    assert body.taken == 4
    assert body.closed == 1


@pytest.mark.parametrize("begun", [0, 2])
def test_an_exception_reaches_the_server_and_close_is_called(begun: int) -> None:
    def fail(taken: int) -> None:
        if taken == begun:
            raise RuntimeError("lost")

    server = Server()
    body = Chunks(b"x", b"y", b"z", before=fail)
    with pytest.raises(RuntimeError, match="lost"):
        run(streaming(body), server)
    assert len(server.sent) == (begun + 1 if begun else 0)
    assert body.closed == 1


def test_close_is_called_when_the_application_never_starts() -> None:
    body = Chunks(b"x")
    with pytest.raises(LocalProtocolError):
        run(lambda environ, start_response: body)
    assert body.closed == 1


def test_cancelling_waits_for_the_thread_and_closes() -> None:
    server = Server()
    body = Chunks(b"x", b"y")

    async def main(call: Callable[[], Awaitable[None]]) -> None:
        server.gate = asyncio.Event()
        request = asyncio.ensure_future(call())
        await until(lambda: body.taken == 1)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert body.closed == 1, "the task ends after its thread"

    run(streaming(body), server, main)
    assert server.sent == []


def test_cancelling_twice_leaves_the_thread() -> None:
    release = threading.Event()
    entered = threading.Event()
    refused: list[BaseException] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        entered.set()
        assert release.wait(10)
        try:
            start_response("200 OK", [])(b"too late")
        except ClientDisconnected as exc:
            refused.append(exc)
        return []

    async def main(call: Callable[[], Awaitable[None]]) -> None:
        request = asyncio.ensure_future(call())
        await until(entered.is_set)
        request.cancel()
        await asyncio.sleep(0.01)
        assert not request.done()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        release.set()
        await until(lambda: bool(refused))

    assert run(app, main=main).sent == []


def test_cancelling_a_request_that_has_no_thread_yet() -> None:
    release = threading.Event()
    calls: list[int] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        calls.append(1)
        assert release.wait(10)
        return hello(environ, start_response)

    async def main(call: Callable[[], Awaitable[None]]) -> None:
        busy = [asyncio.ensure_future(call()) for _ in range(2)]
        await until(lambda: len(calls) == 2)
        waiting = asyncio.ensure_future(call())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        release.set()
        await asyncio.gather(*busy)

    run(app, main=main)
    assert calls == [1, 1]


@pytest.mark.parametrize("gone", [False, True])
def test_closing_the_adapter_frees_a_thread_that_waits_for_the_server(gone: bool) -> None:
    server = Server()
    body = Chunks(b"x", b"y")
    adapter = WSGIAdapter(streaming(body))

    async def main() -> None:
        server.gate = asyncio.Event()
        request = asyncio.ensure_future(adapter(scope_of(), server.receive, server.send))
        await until(lambda: body.taken == 1)
        adapter.close()
        await until(lambda: body.closed == 1)
        server.gone = gone
        server.gate.set()
        with pytest.raises(ClientDisconnected):
            await request

    asyncio.run(main())


def test_closing_the_adapter_in_the_turn_in_which_a_request_ends() -> None:
    server = Server()
    release = threading.Event()

    class Body(Chunks):
        def close(self) -> None:
            assert release.wait(10)

    adapter = WSGIAdapter(streaming(Body(b"x")), threads=1)

    async def main() -> None:
        request = asyncio.ensure_future(adapter(scope_of(), server.receive, server.send))
        await until(lambda: len(server.sent) == 3)
        release.set()
        # The only thread takes this when it has reported the end of the request, which the loop cannot see until we
        # await. Then it handles the report, the close, and only in its next turn the request's task.
        assert adapter._pool is not None
        adapter._pool.submit(int).result(10)
        asyncio.get_running_loop().call_soon(adapter.close)
        await request

    asyncio.run(main())
    assert server.complete


def test_a_thread_that_outlives_its_loop_gets_an_error() -> None:
    release = threading.Event()
    entered = threading.Event()
    ended = threading.Event()
    raised: list[BaseException] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        entered.set()
        assert release.wait(10)
        try:
            start_response("200 OK", [])(b"too late")
        except ClientDisconnected as exc:
            raised.append(exc)
        ended.set()
        return []

    async def main(call: Callable[[], Awaitable[None]]) -> None:
        request = asyncio.ensure_future(call())
        await until(entered.is_set)
        for _ in range(2):
            request.cancel()
            await asyncio.sleep(0)
        await asyncio.wait({request})

    run(app, main=main)
    release.set()
    assert ended.wait(10)
    assert len(raised) == 1


def test_a_closed_adapter_can_serve_again() -> None:
    adapter = WSGIAdapter(hello)
    for _ in range(2):
        server = Server()
        asyncio.run(adapter(scope_of(), server.receive, server.send))
        assert server.complete
        adapter.close()
        adapter.close()


# Other scopes.


def test_lifespan_is_unsupported_and_auto_serves_without() -> None:
    async def main() -> None:
        lifespan = Lifespan(WSGIAdapter(hello))
        assert await lifespan.startup() is True
        assert lifespan.state is None
        assert await lifespan.shutdown(1) is LifespanOutcome.UNSUPPORTED

    asyncio.run(main())


def test_websocket_is_refused() -> None:
    with pytest.raises(LocalProtocolError):
        run(hello, type="websocket")
