"""One worker's HTTP connections over streams in memory: a real loop, real connections, a clock that costs nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass
from typing import Any

import h11

from lastcall.asgi.scope import HTTPScopes
from lastcall.base.options import HTTPOptions
from lastcall.base.sinks import AccessSink
from lastcall.base.types import ASGIApp, Message, Receive, Scope, Send
from lastcall.connection.deadlines import Deadlines
from lastcall.connection.http1 import HTTP1Connection
from lastcall.connection.memory import MemoryStream
from lastcall.connection.scheduler import Scheduler
from lastcall.connection.service import HTTPService
from lastcall.notice.running import RunningTasks
from lastcall.observe.access import LoggerAccess
from lastcall.server.parts import AGE_LOOKS
from testing.loop import VirtualLoop

EPOCH = 1_700_000_000.0  # the wall clock when the loop's clock shows 0: Tue, 14 Nov 2023 22:13:20 GMT

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OLD_GET = b"GET / HTTP/1.0\r\n\r\n"


def get(path: str = "/", *fields: str, method: str = "GET", version: str = "1.1") -> bytes:
    """A request without a body."""
    host = () if version == "1.0" else ("Host: a",)
    return "\r\n".join((f"{method} {path} HTTP/{version}", *host, *fields, "", "")).encode()


def post(length: int, *fields: str, path: str = "/", version: str = "1.1") -> bytes:
    """The head of a request with a body of ``length`` bytes."""
    return get(path, f"Content-Length: {length}", *fields, method="POST", version=version)


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> Message:
    """A response's first message."""
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes = b"", *, more: bool = False) -> Message:
    """A part of a response's body; the last one unless ``more``."""
    return {"type": "http.response.body", "body": data, "more_body": more}


def answering(data: bytes = b"ok", status: int = 200, *headers: tuple[bytes, bytes]) -> ASGIApp:
    """Make an application that answers everything with ``data``, at once and with its length."""
    fields = ((b"content-length", str(len(data)).encode()), *headers)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(status, *fields))
        await send(body(data))

    return app


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the whole request body."""
    data = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        data += message["body"]
        if not message["more_body"]:
            break
    await send(start(200, (b"content-length", str(len(data)).encode())))
    await send(body(data))


@dataclass(frozen=True)
class Record:
    """What the access sink was told of one response."""

    client: str
    method: str
    target: str
    http_version: str
    status: int
    duration: float
    bytes_sent: int
    mark: str | None = None


class Recorder(logging.Handler):
    """Takes the records of ``LoggerAccess`` apart."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Record] = []

    def emit(self, record: logging.LogRecord) -> None:
        line: Any = record
        client, method, target, http_version, status = line.args
        self.records.append(
            Record(client, method, target, http_version, status, line.duration, line.bytes_sent, line.mark)
        )


@dataclass
class Answer:
    """One response as h11 reads it. ``complete`` is False where it ends before its own framing says so."""

    status: int
    reason: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    complete: bool

    def __getitem__(self, name: str) -> bytes | None:
        """A field's value, or None; fails if there are several."""
        found = [value for key, value in self.headers if key == name.encode()]
        assert len(found) <= 1, f"{len(found)} {name} headers"
        return found[0] if found else None


def read_answers(data: bytes, *methods: str, closed: bool) -> list[Answer]:
    """Everything in ``data`` as an independent client reads it that has sent requests with ``methods`` (GET if none).

    Fails where a client would: broken framing, bytes behind the last answer, or an answer too few.
    """
    answers = []
    for number, method in enumerate(methods or ("GET",)):
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        client.send(h11.EndOfMessage())
        client.receive_data(data)
        if closed:
            client.receive_data(b"")
        answer: Answer | None = None
        while True:
            try:
                event = client.next_event()
            except h11.RemoteProtocolError:
                if not closed or answer is None:
                    raise
                break
            if isinstance(event, h11.Response):
                answer = Answer(event.status_code, bytes(event.reason), list(event.headers), b"", False)
            elif isinstance(event, h11.Data):
                assert answer is not None
                answer.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert answer is not None
                answer.complete = True
                break
            elif event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                break
        assert answer is not None, f"answer {number + 1} is missing"
        answers.append(answer)
        data = client.trailing_data[0]
    assert not data or not answers[-1].complete, f"bytes behind the last answer: {data[:200]!r}"
    return answers


class Client:
    """The other end of one connection. Everything is done from inside the running loop, which then comes to rest."""

    def __init__(self, bench: Bench, **stream: Any) -> None:
        self.bench = bench
        self.stream = MemoryStream(bench.scheduler, **stream)
        self.connection = HTTP1Connection(bench.service, bench.scopes, self.stream)
        bench.loop.call(self.stream.open)

    def send(self, *parts: bytes) -> None:
        """Send ``parts``, each in a packet of its own."""
        for part in parts:
            self.bench.loop.call(self.connection.feed, part)

    def send_last(self, data: bytes) -> None:
        """Send ``data`` with a FIN right behind it."""
        self.bench.loop.call(self.connection.feed_last, data)

    def eof(self) -> None:
        """Send a FIN."""
        self.bench.loop.call(self.connection.feed_eof)

    def reset(self) -> None:
        """Send a RST."""
        self.bench.loop.call(self.connection.feed_reset)

    def read(self, n: int | None = None) -> None:
        """Make room for ``n`` bytes more (None: for everything, from now on) in a stream with a capacity."""
        self.bench.loop.call(self.stream.drain, n)

    def take(self) -> bytes:
        """The bytes that came since the last call."""
        return self.stream.take()

    def answers(self, *methods: str) -> list[Answer]:
        """What came since the last call, as answers to requests with ``methods`` (GET if none)."""
        return read_answers(self.take(), *methods, closed=self.gone)

    def answer(self, method: str = "GET") -> Answer:
        """The one answer that came since the last call."""
        return self.answers(method)[0]

    @property
    def gone(self) -> bool:
        """Whether the server has closed its direction, or the connection."""
        return self.stream.closed or self.stream.fin_sent

    @property
    def kept_alive(self) -> bool:
        """Whether the connection waits for another request."""
        return not self.gone and not self.connection.finishing and self.connection.idle and self.stream.reading


class Bench:
    """A worker without sockets; ``options`` are those of ``HTTPOptions``. ``close()`` fails if anything went wrong."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        state: dict[str, Any] | None = None,
        on_max_requests: Callable[[], object] | None = None,
        context: Context | None = None,
        access: bool = True,
        clock: Callable[[VirtualLoop], float] | None = None,
        asgi_spec: str = "2.5",
        **options: Any,
    ) -> None:
        self.options = HTTPOptions(**options)
        self.loop = VirtualLoop()
        self.tasks = RunningTasks()
        self._recorder = Recorder()
        logger = logging.Logger("access", logging.INFO)
        logger.addHandler(self._recorder)
        self.scheduler = Scheduler(
            self.loop,
            Deadlines(
                header=self.options.timeout_header,
                body=self.options.timeout_body,
                keep_alive=self.options.timeout_keep_alive,
                write=self.options.timeout_write,
                age=self.options.max_connection_age / AGE_LOOKS,
                request=self.options.timeout_request,
            ),
            LoggerAccess(logger) if access else AccessSink(),
            date_header=self.options.date_header,
            server_header=self.options.server_header,
            clock=self.loop.time if clock is None else lambda: clock(self.loop),
            time=lambda: EPOCH + self.loop.time(),
        )
        self.service = HTTPService(
            app,
            self.tasks,
            self.scheduler,
            self.options,
            state=state,
            on_max_requests=on_max_requests,
            context=context,
            asgi_spec=asgi_spec,
        )
        self.scopes = HTTPScopes(root_path=self.options.root_path, state=state, spec_version=asgi_spec)

    def connect(self, **stream: Any) -> Client:
        """A new connection; ``stream`` are arguments of ``MemoryStream``."""
        return Client(self, **stream)

    def ask(self, *parts: bytes, method: str = "GET") -> Answer:
        """The answer to one request on a connection of its own."""
        client = self.connect()
        client.send(*parts)
        return client.answer(method)

    def settle(self) -> None:
        """Run until nothing is left to do at this moment."""
        self.loop.settle()

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        self.loop.advance(seconds)

    @property
    def records(self) -> list[Record]:
        """What the access sink was told so far."""
        return self._recorder.records

    def close(self) -> None:
        """Cancel what still runs; fail if an exception reached the loop or was never retrieved."""
        for entry in self.tasks:
            entry.cancel()
        self.loop.settle()
        self.scheduler.close()
        self.loop.finish()
        assert self.loop.errors == []


class Stage:
    """An application that a test plays itself: each request's ``scope``, ``receive`` and ``send`` wait in ``calls``.

    A request's task ends when its ``end`` future is set, with the exception that it holds, if any.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send)
        self.calls.append(call)
        await call.run()

    @property
    def last(self) -> Call:
        """The newest request."""
        return self.calls[-1]


class Call:
    """One request on a ``Stage``: the test hands its task one awaitable after the other."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self._loop = asyncio.get_running_loop()
        self._jobs: asyncio.Queue[Callable[[], Awaitable[Any]] | BaseException | None] = asyncio.Queue()
        self.results: list[Any] = []
        self.cancelled = False

    async def run(self) -> None:
        try:
            while (job := await self._jobs.get()) is not None:
                if isinstance(job, BaseException):
                    raise job
                try:
                    self.results.append(await job())
                except asyncio.CancelledError:
                    raise
                except Exception as error:
                    self.results.append(error)
        except asyncio.CancelledError:
            self.cancelled = True
            raise

    def do(self, job: Callable[[], Awaitable[Any]]) -> None:
        """Let the task await what ``job`` returns; the outcome, exceptions included, is appended to ``results``."""
        self._loop.call_soon(self._jobs.put_nowait, job)
        self._loop.settle()  # type: ignore[attr-defined]

    def sends(self, *messages: Message) -> None:
        """Send ``messages``, one after the other."""
        for message in messages:
            self.do(lambda message=message: self.send(message))  # type: ignore[misc]

    def receives(self) -> Any:
        """Await ``receive()``; the message, or None if it still waits."""
        before = len(self.results)
        self.do(self.receive)
        return self.results[-1] if len(self.results) > before else None

    def ends(self, error: BaseException | None = None) -> None:
        """Return, or raise ``error``."""
        self._loop.call_soon(self._jobs.put_nowait, error)
        self._loop.settle()  # type: ignore[attr-defined]
