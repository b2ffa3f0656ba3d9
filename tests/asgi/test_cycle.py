"""The HTTP cycle as an application sees it (ASGI HTTP spec 2.5): scope, receive, send, every way to end, contexts."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.base.errors import ClientDisconnected
from lastcall.base.types import ASGIApp, Message, Receive, Scope, Send
from lastcall.notice.notice import DrainNotice, view
from testing.memory import GET, Bench, Stage, answering, body, get, post, start

MakeBench = Callable[..., Bench]
DISCONNECT = {"type": "http.disconnect"}


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


# -- the scope ---------------------------------------------------------------------------------------------------------


def scope_of(bench: MakeBench, request_bytes: bytes, stream: dict[str, Any] | None = None, **options: Any) -> Scope:
    stage = Stage()
    bench(stage, **options).connect(**(stream or {})).send(request_bytes)
    return stage.last.scope


def test_the_whole_scope(bench: MakeBench) -> None:
    request_bytes = (
        b"PATCH /a%20b/%C3%A9%2F?q=%20&r HTTP/1.1\r\nHost: Example.org:81\r\nX-Two: 1\r\nCOOKIE: a=b\r\n"
        b"x-two:  2 \r\nEmpty:\r\nHigh: \xff\r\n\r\n"
    )
    scope = scope_of(bench, request_bytes)
    notice = scope["extensions"]["lastcall.drain"]["notice"]
    assert isinstance(notice, DrainNotice)
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "PATCH",
        "scheme": "http",
        "path": "/a b/é/",
        "raw_path": b"/a%20b/%C3%A9%2F",
        "query_string": b"q=%20&r",
        "root_path": "",
        "headers": [
            (b"host", b"Example.org:81"),
            (b"x-two", b"1"),
            (b"cookie", b"a=b"),
            (b"x-two", b"2"),
            (b"empty", b""),
            (b"high", b"\xff"),
        ],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "extensions": {"lastcall.drain": {"notice": notice}},
    }


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        (GET, {"method": "GET", "path": "/", "raw_path": b"/", "query_string": b""}),
        (get("/", version="1.0"), {"http_version": "1.0", "headers": []}),
        (get("/", method="HEAD"), {"method": "HEAD"}),
        (get("/", method="brew"), {"method": "BREW"}),
        (get("/?"), {"path": "/", "query_string": b""}),
        (get("/a?b?c=%3f"), {"path": "/a", "raw_path": b"/a", "query_string": b"b?c=%3f"}),
        (get("//a/../b"), {"path": "//a/../b", "raw_path": b"//a/../b"}),
        (get("/%ff%zz%"), {"path": "/\ufffd%zz%", "raw_path": b"/%ff%zz%"}),
        (get("*", method="OPTIONS"), {"path": "*", "raw_path": b"*"}),
        (
            get("http://other:1/p?q"),
            {
                "path": "/p",
                "raw_path": b"/p",
                "query_string": b"q",
                "headers": [(b"host", b"other:1")],
                "scheme": "http",
            },
        ),
        (get("http://other"), {"path": "/", "raw_path": b"/", "headers": [(b"host", b"other")]}),
    ],
)
def test_what_a_request_line_becomes(bench: MakeBench, request_bytes: bytes, expected: dict[str, Any]) -> None:
    scope = scope_of(bench, request_bytes)
    assert {key: scope[key] for key in expected} == expected


def test_the_types_are_those_that_frameworks_check(bench: MakeBench) -> None:
    scope = scope_of(bench, get("/a?b"), state={})
    assert type(scope) is dict
    assert type(scope["headers"]) is list
    assert {type(pair) for pair in scope["headers"]} == {tuple}
    for key in ("type", "http_version", "method", "scheme", "path", "root_path"):
        assert type(scope[key]) is str
    for key in ("raw_path", "query_string"):
        assert type(scope[key]) is bytes
    for key in ("asgi", "extensions", "state"):
        assert type(scope[key]) is dict


def test_the_root_path_is_part_of_the_path(bench: MakeBench) -> None:
    scope = scope_of(bench, get("/a%20b?c"), root_path="/mounted")
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/mounted", "/mounted/a b", b"/mounted/a%20b")


def test_addresses_of_a_unix_socket(bench: MakeBench) -> None:
    scope = scope_of(bench, GET, {"client": None, "server": ("/run/app.sock", None)})
    assert (scope["client"], scope["server"]) == (None, ("/run/app.sock", None))


def test_there_is_no_state_without_a_lifespan(bench: MakeBench) -> None:
    assert "state" not in scope_of(bench, GET)


def test_nothing_that_an_application_writes_reaches_another_request(bench: MakeBench) -> None:
    shared: list[int] = []
    state = {"shared": shared, "name": "lifespan"}
    stage = Stage()
    one = bench(stage, state=state)
    client = one.connect()
    clean: list[dict[str, Any]] = []
    notices: list[object] = []
    for number in range(3):
        client.send(get("/"))
        scope = stage.last.scope
        (extension,) = scope["extensions"].values()
        assert list(extension) == ["notice"]
        notices.append(extension.pop("notice"))
        clean.append({key: dict(value) if isinstance(value, dict) else value for key, value in scope.items()})
        assert scope["state"]["shared"] is shared, "a shallow copy: ASGI lifespan spec 2.0"
        shared.append(number)
        for key in ("asgi", "extensions", "state"):
            scope[key].clear()
            scope[key]["mine"] = 1
        scope["headers"].clear()
        for key in list(scope):
            scope[key] = "mine"
        stage.last.sends(start(), body())
    assert clean[0] == clean[1] == clean[2]
    assert len(set(notices)) == 3
    assert state == {"shared": [0, 1, 2], "name": "lifespan"}


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_the_drain_extension_is_in_every_scope_and_fresh_in_each(bench: MakeBench, version: str) -> None:
    """Middleware may replace or empty what it got; the next request, pipelined ones too, has its own."""
    stage = Stage()
    one = bench(stage)
    client = one.connect()
    client.send(get("/", "Connection: keep-alive", version=version) * 3)
    for number in range(3):
        extensions = stage.calls[number].scope["extensions"]
        notice = extensions["lastcall.drain"]["notice"]
        assert (notice.is_set(), notice.stopping, notice.remaining()) == (False, False, None)
        assert notice == view(one.tasks.snapshot()[0])
        extensions["lastcall.drain"].clear()
        extensions.clear()
        stage.calls[number].sends(start(200, (b"content-length", b"0")), body())
    assert len(stage.calls) == 3


def test_what_an_application_holds_has_the_documented_attributes_only(bench: MakeBench) -> None:
    """Neither the cycle nor the server can be reached through it: no ``cancel()``, no ``disconnect_response()``."""
    notice = scope_of(bench, GET)["extensions"]["lastcall.drain"]["notice"]
    public = {name for name in dir(notice) if not name.startswith("_")}
    assert public == {"stopping", "is_set", "wait", "remaining", "add_callback", "finish", "close", "track"}


def test_a_request_without_a_server_has_a_notice_that_is_never_set(bench: MakeBench) -> None:
    """As an embedder's own HTTPService has: waiting for it is possible, and it does not come."""
    notice = scope_of(bench, GET)["extensions"]["lastcall.drain"]["notice"]
    assert not notice.is_set()


def test_the_scheme_is_the_servers(bench: MakeBench) -> None:
    assert scope_of(bench, get("https://a/"))["scheme"] == "http"


# -- receive -----------------------------------------------------------------------------------------------------------


def test_a_request_without_a_body_is_one_empty_message(bench: MakeBench) -> None:
    stage = Stage()
    client = bench(stage).connect()
    client.send(GET)
    assert stage.last.receives() == {"type": "http.request", "body": b"", "more_body": False}
    assert stage.last.receives() is None, "there is nothing more to know while the client is there"


def test_what_has_come_is_one_message(bench: MakeBench) -> None:
    stage = Stage()
    client = bench(stage).connect()
    client.send(post(10), b"01", b"23", b"4")
    assert stage.last.receives() == {"type": "http.request", "body": b"01234", "more_body": True}
    assert stage.last.receives() is None
    client.send(b"5")
    assert stage.last.results[-1] == {"type": "http.request", "body": b"5", "more_body": True}
    client.send(b"6789")
    assert stage.last.receives() == {"type": "http.request", "body": b"6789", "more_body": False}


def test_the_end_of_a_chunked_body_may_come_alone(bench: MakeBench) -> None:
    stage = Stage()
    client = bench(stage).connect()
    client.send(get("/", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n")
    assert stage.last.receives() == {"type": "http.request", "body": b"abc", "more_body": True}
    assert stage.last.receives() is None
    client.send(b"0\r\n\r\n")
    assert stage.last.results[-1] == {"type": "http.request", "body": b"", "more_body": False}


class Listeners:
    """Tasks that await ``receive()`` of one upload, and what they got in the order of their ends."""

    def __init__(self, one: Bench) -> None:
        stage = one.service.app
        assert isinstance(stage, Stage)
        self.loop = one.loop
        self.client = one.connect()
        self.client.send(get("/", "Transfer-Encoding: chunked", method="POST"))
        self.source = stage.last.receive
        self.sent = b""
        self.got: list[Message] = []
        self.tasks: list[asyncio.Task[Message]] = []

    def keep(self, task: asyncio.Task[Message]) -> None:
        if not task.cancelled() and task.exception() is None:
            self.got.append(task.result())

    def feed(self, piece: bytes = b"abc") -> None:
        self.sent += piece
        self.client.connection.feed(b"%x\r\n%b\r\n" % (len(piece), piece))

    def receive(self) -> None:
        self.tasks.append(self.loop.create_task(self.source()))  # type: ignore[arg-type]
        self.tasks[-1].add_done_callback(self.keep)

    def cancel_at_once(self) -> None:
        self.receive()
        self.tasks[-1].cancel()

    def cancel_earlier(self) -> None:
        for task in self.tasks[-1:]:
            task.cancel()

    def time_out(self) -> None:
        self.receive()
        self.loop.call_later(0.5, self.tasks[-1].cancel)

    def finish(self) -> None:
        self.client.connection.feed(b"0\r\n\r\n")
        self.receive()
        self.receive()


ACTIONS = (Listeners.feed, Listeners.receive, Listeners.cancel_at_once, Listeners.cancel_earlier, Listeners.time_out)


@given(actions=st.lists(st.sampled_from(ACTIONS), max_size=30), together=st.booleans())
def test_a_cancelled_receive_loses_no_message(actions: list[Callable[[Listeners], None]], together: bool) -> None:
    """Whatever is cancelled, and when: before its first step, while it waits, in the step in which bytes come."""
    one = Bench(Stage(), access=False)
    listeners = Listeners(one)
    for action in actions:
        if together:
            one.loop.call_soon(action, listeners)
        else:
            one.loop.call(action, listeners)
            one.advance(0.3)
    one.settle()
    one.loop.call(listeners.finish)
    one.advance(1)
    assert b"".join(message["body"] for message in listeners.got) == listeners.sent
    assert [message["more_body"] for message in listeners.got].count(False) == 1
    assert {message["type"] for message in listeners.got} == {"http.request"}
    one.close()


def test_wait_for_with_every_outcome(bench: MakeBench) -> None:
    outcome: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for seconds in (0, 0.5, 0.5, 5):
            try:
                outcome.append((await asyncio.wait_for(receive(), seconds))["body"])
            except TimeoutError:
                outcome.append("timeout")

    one = bench(app)
    client = one.connect()
    client.send(post(2))
    one.advance(0.6)
    client.send(b"a")
    one.advance(1)
    client.send(b"b")
    one.advance(1)
    assert outcome[-2:] == [b"a", b"b"] or outcome == ["timeout", "timeout", b"a", b"b"]


def test_several_receivers_each_get_their_own(bench: MakeBench) -> None:
    got: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        got.extend(await asyncio.gather(*(receive() for _ in range(5))))

    one = bench(app)
    client = one.connect()
    client.send(post(4))
    client.send(b"a", b"b", b"c", b"d")
    assert got == []
    client.reset()
    assert [message.get("body", b"!") for message in got] == [b"a", b"b", b"c", b"d", b"!"]


def test_receive_and_send_can_be_used_at_the_same_time(bench: MakeBench) -> None:
    """Full duplex: the answer streams while the request still does."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            await send(body(message["body"].upper(), more=more))

    client = bench(app).connect()
    client.send(post(6))
    for piece in (b"ab", b"cd", b"ef"):
        client.send(piece)
        assert piece.upper() in client.stream.written
    answer = client.answer("POST")
    assert (answer.body, answer.complete) == (b"ABCDEF", True)


# -- ends --------------------------------------------------------------------------------------------------------------


class Boom(Exception):
    """An application's own mistake."""


def leaving(make: Callable[[ClientDisconnected], BaseException]) -> ASGIApp:
    """An application that, told by ``send()`` that the client has left, raises what ``make`` makes of it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"x", more=True))
        try:
            while True:
                await asyncio.sleep(1)
                await send(body(b"x", more=True))
        except ClientDisconnected as gone:
            raise make(gone)  # noqa: B904 - the implicit chain is what most code has

    return app


def explicitly(gone: ClientDisconnected) -> BaseException:
    error = Boom()
    error.__cause__ = gone
    return error


def deeply(gone: ClientDisconnected) -> BaseException:
    outer, inner = Boom(), Boom()
    inner.__cause__ = gone
    outer.__cause__ = inner
    return outer


def in_a_circle(gone: ClientDisconnected) -> BaseException:
    error = Boom()
    error.__cause__ = ExceptionGroup("tasks", [error])
    error.__cause__.__context__ = gone
    return error


def in_two_branches(gone: ClientDisconnected) -> BaseException:
    first, second = Boom(), Boom()
    first.__cause__ = second.__cause__ = explicitly(gone)
    return ExceptionGroup("tasks", [first, second])


@pytest.mark.parametrize(
    ("make", "logged"),
    [
        (lambda gone: gone, False),
        (lambda gone: Boom(), False),
        (explicitly, False),
        (deeply, False),
        (lambda gone: ExceptionGroup("tasks", [gone]), False),
        (lambda gone: ExceptionGroup("tasks", [gone, ExceptionGroup("more", [gone, gone])]), False),
        (lambda gone: BaseExceptionGroup("tasks", [explicitly(gone), gone]), False),
        (in_two_branches, False),
        (in_a_circle, True),
        (lambda gone: ExceptionGroup("tasks", [gone, Boom()]), True),
        (lambda gone: ExceptionGroup("tasks", [ExceptionGroup("more", [gone, Boom()])]), True),
    ],
    ids=[
        "itself",
        "while handling it",
        "raise from",
        "chain",
        "group",
        "nested",
        "mixed chain",
        "two branches",
        "circle",
        "one other",
        "deep other",
    ],
)
def test_the_news_that_the_client_left_is_no_error(
    bench: MakeBench, caplog: pytest.LogCaptureFixture, make: Any, logged: bool
) -> None:
    one = bench(leaving(make))
    client = one.connect()
    client.send(GET)
    client.reset()
    one.advance(2)
    assert one.tasks.count == 0
    assert errors(caplog) == (["Exception in ASGI application: GET /"] if logged else [])


def test_another_exception_after_the_client_left_is_an_error(
    bench: MakeBench, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        raise Boom

    client = bench(app).connect()
    client.send(GET)
    client.reset()
    assert errors(caplog) == ["Exception in ASGI application: GET /"]


def test_a_chain_in_a_circle(bench: MakeBench, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        first, second = Boom(), Boom()
        first.__cause__, second.__cause__ = second, first
        raise first

    assert bench(app).ask(GET).status == 500
    assert len(errors(caplog)) == 1


def test_a_circle_through_a_group(bench: MakeBench, caplog: pytest.LogCaptureFixture) -> None:
    """What Starlette's BaseHTTPMiddleware makes of every exception: the cause of itself, by way of a task group's."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        error = Boom()
        error.__cause__ = ExceptionGroup("tasks", [error])
        raise error

    assert bench(app).ask(GET).status == 500
    assert errors(caplog) == ["Exception in ASGI application: GET /"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (SystemExit(3), "GET /: the application called sys.exit(3); only this request ends"),
        (SystemExit("text"), "GET /: the application called sys.exit('text'); only this request ends"),
        (KeyboardInterrupt(), "Exception in ASGI application: GET /"),
        (GeneratorExit(), "Exception in ASGI application: GET /"),
        (StopIteration(), "Exception in ASGI application: GET /"),
        (asyncio.CancelledError(), "GET /: the application's task was cancelled, not by the server"),
        (BaseExceptionGroup("g", [KeyboardInterrupt()]), "Exception in ASGI application: GET /"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("suspend", [False, True])
def test_no_exception_leaves_the_request(
    bench: MakeBench, caplog: pytest.LogCaptureFixture, error: BaseException, line: str, suspend: bool
) -> None:
    """Not even those that asyncio lets through: the loop, the connection and the other requests go on."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if suspend:
            await asyncio.sleep(1)
        raise error

    one = bench(app)
    client = one.connect()
    client.send(GET)
    one.advance(2)
    assert client.answer().status == 500
    assert client.kept_alive
    assert errors(caplog) == [line]
    assert one.tasks.count == 0
    error.__traceback__ = None  # it lives as long as this module, and so would the request's frames


def test_sys_exit_in_mid_response_aborts(bench: MakeBench, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"x", more=True))
        sys.exit()

    client = bench(app).connect()
    client.send(GET)
    assert not client.answer().complete
    assert len(errors(caplog)) == 1


@pytest.mark.parametrize("moment", ["unstarted", "held", "started", "complete"])
def test_a_cancel_by_the_server(bench: MakeBench, caplog: pytest.LogCaptureFixture, moment: str) -> None:
    """A response that has not started gets a 503; nobody is told of an error that is none."""
    stage = Stage()
    one = bench(stage)
    client = one.connect()
    client.send(GET)
    if moment != "unstarted":
        stage.last.sends(start())
    if moment in ("started", "complete"):
        stage.last.sends(body(b"x", more=moment == "started"))
    [entry] = one.tasks.snapshot()
    assert entry.describe() == "GET /"
    one.loop.call(entry.cancel)
    assert stage.last.cancelled
    assert one.tasks.count == 0
    answer = client.answer()
    if moment in ("unstarted", "held"):
        assert (answer.status, answer["retry-after"], answer["connection"]) == (503, b"1", b"close")
    else:
        assert (answer.status, answer.complete) == (200, moment == "complete")
    assert errors(caplog) == []


def test_a_cancel_that_the_application_swallows_changes_nothing(
    bench: MakeBench, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            await send(start())
            await send(body(b"saved"))

    one = bench(app)
    client = one.connect()
    client.send(GET)
    for entry in one.tasks.snapshot():
        one.loop.call(entry.cancel)
    assert client.answer().body == b"saved"
    assert one.tasks.count == 0
    assert errors(caplog) == []


def test_a_cancel_before_the_first_step(bench: MakeBench, caplog: pytest.LogCaptureFixture) -> None:
    """Where tasks are not eager, or the loop does not run yet: the application is never called."""
    stage = Stage()
    one = bench(stage)
    client = one.connect()
    client.connection.feed(GET)  # outside the running loop
    [entry] = one.tasks.snapshot()
    entry.cancel()
    one.settle()
    assert stage.calls == []
    assert client.answer().status == 503
    assert one.tasks.count == 0
    assert errors(caplog) == []


def test_background_work_is_in_the_ledger_until_it_ends(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage)
    client = one.connect()
    client.send(get("/first"))
    stage.last.sends(start(), body())
    client.send(get("/second"))
    assert [entry.describe() for entry in one.tasks] == ["GET /second", "GET /first"]
    stage.calls[0].ends()
    assert [entry.describe() for entry in one.tasks] == ["GET /second"]
    client.reset()
    assert one.tasks.count == 1, "a task whose client left still runs"
    stage.last.ends()
    assert (one.tasks.count, one.tasks.total) == (0, 2)


def test_descriptions_fit_into_a_line(bench: MakeBench, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        return

    bench(app).ask(get("/%0a%1b[31m?secret=1"))
    assert errors(caplog) == ["GET /%0a%1b[31m: the application returned without a response"]


# -- applications of every shape ---------------------------------------------------------------------------------------


class Awaitable:
    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.send = send

    def __await__(self) -> Iterator[Any]:
        yield from asyncio.sleep(0.1).__await__()
        yield from self.send(start()).__await__()
        yield from self.send(body(b"ok")).__await__()


def future_app(scope: Scope, receive: Receive, send: Send) -> Any:
    return asyncio.ensure_future(answering(b"ok")(scope, receive, send))


def plain_app(scope: Scope, receive: Receive, send: Send) -> Any:
    return answering(b"ok")(scope, receive, send)


class Instance:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> str:
        await answering(b"ok")(scope, receive, send)
        return "what an application returns has no meaning"


@pytest.mark.parametrize(
    "app", [Awaitable, future_app, plain_app, Instance()], ids=["class", "future", "def", "instance"]
)
def test_whatever_can_be_awaited_is_an_application(bench: MakeBench, app: Any) -> None:
    one = bench(app)
    client = one.connect()
    client.send(GET)
    one.advance(1)
    assert client.answer().body == b"ok"


@pytest.mark.parametrize("result", [None, 5, "text", iter(())], ids=lambda result: type(result).__name__)
def test_an_application_that_returns_no_awaitable(
    bench: MakeBench, caplog: pytest.LogCaptureFixture, result: object
) -> None:
    assert bench(lambda scope, receive, send: result).ask(GET).status == 500
    [record] = caplog.records
    assert record.exc_info is not None
    assert "must return an awaitable" in str(record.exc_info[1])


def test_an_application_that_takes_other_arguments(bench: MakeBench, caplog: pytest.LogCaptureFixture) -> None:
    assert bench(lambda scope: None).ask(GET).status == 500
    assert errors(caplog) == ["Exception in ASGI application: GET /"]


# -- contexts ----------------------------------------------------------------------------------------------------------

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


@pytest.mark.parametrize("suspend", [False, True])
@pytest.mark.parametrize("pipelined", [False, True])
def test_each_request_has_a_context_of_its_own(bench: MakeBench, suspend: bool, pipelined: bool) -> None:
    """A pipelined request starts when the response before it is complete, yet not in the context that completed it."""
    seen: list[tuple[str, str]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found = VARIABLE.get()
        VARIABLE.set(scope["path"])
        if suspend:
            await asyncio.sleep(0.1)
        await send(start())
        await send(body())
        await asyncio.sleep(0.1)
        seen.append((found, VARIABLE.get()))

    context = contextvars.copy_context()
    context.run(VARIABLE.set, "server")
    one = bench(app, context=context)
    client = one.connect()
    requests = [get("/1"), get("/2"), get("/3")]
    client.send(*([b"".join(requests)] if pipelined else requests))
    one.advance(1)
    assert sorted(seen) == [("server", "/1"), ("server", "/2"), ("server", "/3")]
    assert context[VARIABLE] == "server"
    assert VARIABLE.get() == "unset"


def test_the_next_request_does_not_start_inside_send(bench: MakeBench) -> None:
    """On the stack of another application it would inherit its task, its context, and its recursion depth."""
    depth: list[int] = []
    current: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        depth.append(len(inspect.stack()))
        current.append(asyncio.current_task())
        await asyncio.sleep(0)
        await send(start())
        await send(body())

    client = bench(app).connect()
    client.send(GET * 20)
    assert len(client.answers(*["GET"] * 20)) == 20
    assert len({id(task) for task in current}) == 20
    assert max(depth) - min(depth) <= 2
    assert None not in current


def test_the_current_task_is_the_requests(bench: MakeBench) -> None:
    """``asyncio.timeout`` and anyio's cancel scopes cancel the current task: that must be the request's."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(1):
                await asyncio.sleep(10)
        except TimeoutError:
            await send(start(504))
            await send(body())

    one = bench(app)
    client = one.connect()
    client.send(GET)
    one.advance(1.5)
    assert client.answer().status == 504
