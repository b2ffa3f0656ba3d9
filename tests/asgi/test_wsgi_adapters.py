"""Our WSGI adapter and a2wsgi's, by the same questions. The answers are a table of the page about WSGI.

Each question is a way of PEP 3333, or of RFC 9110, that applications rely on; the adapters are driven over plain ASGI.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from wsgiref.types import WSGIApplication
from wsgiref.validate import validator

import pytest
from a2wsgi import WSGIMiddleware

from lastcall.asgi.wsgi import WSGIAdapter
from lastcall.base.types import ASGIApp, Message, Scope
from testing.pages import page

PLAIN = [("content-type", "text/plain")]
FAILURE = RuntimeError("of the application")
PATIENCE = 5.0


class Driver:
    """A server's side: chunks of a body, then nothing more; what was sent; what came out of the application."""

    def __init__(self, make: Callable[[WSGIApplication], ASGIApp], app: WSGIApplication, *chunks: bytes) -> None:
        self.sent: list[Message] = []
        self.error: BaseException | None = None
        self._make, self._app = make, app
        self._chunks = list(chunks or (b"",))

    def run(self, method: str = "GET", **changes: Any) -> Driver:
        asyncio.run(asyncio.wait_for(self._run(method, changes), PATIENCE))
        return self

    async def _run(self, method: str, changes: dict[str, Any]) -> None:
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": "/",
            "raw_path": b"/",
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"example.org")],
            "client": ("192.0.2.7", 4711),
            "server": ("127.0.0.1", 8000),
            **changes,
        }

        async def receive() -> Message:
            if not self._chunks:
                await asyncio.Event().wait()
            body = self._chunks.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(self._chunks)}

        async def send(message: Message) -> None:
            self.sent.append(message)

        try:
            await self._make(self._app)(scope, receive, send)
        except Exception as exc:
            self.error = exc

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])

    @property
    def complete(self) -> bool:
        return bool(self.sent) and self.sent[-1].get("more_body", False) is False and len(self.sent) > 1


Make = Callable[[WSGIApplication], ASGIApp]
Question = Callable[[Make], None]


def chunked_body(make: Make) -> None:
    def app(environ: Any, start: Any) -> Any:
        start("200 OK", PLAIN)
        return [environ["wsgi.input"].read()]

    assert Driver(make, app, b"one", b"two", b"").run("POST").body == b"onetwo"


def input_terminated(make: Make) -> None:
    def app(environ: Any, start: Any) -> Any:
        start("200 OK", PLAIN)
        return [str(environ.get("wsgi.input_terminated")).encode()]

    assert Driver(make, app).run().body == b"True"


def lines_of_the_input(make: Make) -> None:
    def app(environ: Any, start: Any) -> Any:
        start("200 OK", PLAIN)
        body = environ["wsgi.input"]
        return [repr((body.readline(), body.read(2), list(body))).encode()]

    assert Driver(make, app, b"a\nbc", b"d\ne").run("POST").body == b"(b'a\\n', b'bc', [b'd\\n', b'e'])"


def exception_before_start(make: Make) -> None:
    def app(environ: Any, start: Any) -> Any:
        raise FAILURE

    got = Driver(make, app).run()
    assert got.error is FAILURE
    assert not got.sent


def exception_after_start(make: Make) -> None:
    def app(environ: Any, start: Any) -> Iterator[bytes]:
        start("200 OK", PLAIN)
        yield b"some"
        raise FAILURE

    got = Driver(make, app).run()
    assert got.error is FAILURE
    assert not got.complete


def exc_info_replaces_the_head(make: Make) -> None:
    def app(environ: Any, start: Any) -> Any:
        start("200 OK", PLAIN)
        try:
            raise FAILURE
        except RuntimeError as exc:
            start("500 Oops", PLAIN, (type(exc), exc, exc.__traceback__))
        return [b"sorry"]

    got = Driver(make, app).run()
    assert [got.sent[0]["status"], got.body] == [500, b"sorry"]


def exc_info_after_the_head_raises(make: Make) -> None:
    def app(environ: Any, start: Any) -> Iterator[bytes]:
        start("200 OK", PLAIN)
        yield b"some"
        start("500 Oops", PLAIN, (RuntimeError, FAILURE, None))
        yield b"never"

    got = Driver(make, app).run()
    assert got.error is FAILURE
    assert not got.complete


def second_start_without_exc_info(make: Make) -> None:
    def app(environ: Any, start: Any) -> Any:
        start("200 OK", PLAIN)
        start("200 OK", PLAIN)
        return [b""]

    assert Driver(make, app).run().error is not None


def the_head_waits_for_the_body(make: Make) -> None:
    def app(environ: Any, start: Any) -> Iterator[bytes]:
        start("200 OK", PLAIN)
        yield b""
        start("503 Busy", PLAIN, (RuntimeError, FAILURE, None))
        yield b"busy"

    assert Driver(make, app).run().sent[0]["status"] == 503


def write_callable(make: Make) -> None:
    def app(environ: Any, start: Any) -> Any:
        write = start("200 OK", PLAIN)
        write(b"one ")
        return [b"two"]

    assert Driver(make, app).run().body == b"one two"


class Closing:
    def __init__(self, fail: bool) -> None:
        self.closed = 0
        self._fail = fail

    def __iter__(self) -> Iterator[bytes]:
        yield b"piece"
        if self._fail:
            raise FAILURE

    def close(self) -> None:
        self.closed += 1


def close_after_the_end(make: Make) -> None:
    _closed(make, fail=False)


def close_after_an_exception(make: Make) -> None:
    _closed(make, fail=True)


def _closed(make: Make, *, fail: bool) -> None:
    body = Closing(fail)

    def app(environ: Any, start: Any) -> Any:
        start("200 OK", PLAIN)
        return body

    Driver(make, app).run()
    assert body.closed == 1


def the_length_of_a_list(make: Make) -> None:
    def app(environ: Any, start: Any) -> Any:
        start("200 OK", PLAIN)
        return [b"12", b"345"]

    assert Driver(make, app).run().headers.get(b"content-length") == b"5"


def a_path_of_other_bytes(make: Make) -> None:
    def app(environ: Any, start: Any) -> Any:
        start("200 OK", PLAIN)
        return [environ["PATH_INFO"].encode("latin-1")]

    assert Driver(make, app).run(path="/\ufffd", raw_path=b"/%ff").body == b"/\xff"


def no_spoofing_by_underscores(make: Make) -> None:
    def app(environ: Any, start: Any) -> Any:
        start("200 OK", PLAIN)
        return [environ.get("HTTP_X_USER", "").encode()]

    assert Driver(make, app).run(headers=[(b"x_user", b"root")]).body == b""


def repeated_cookies(make: Make) -> None:
    def app(environ: Any, start: Any) -> Any:
        start("200 OK", PLAIN)
        return [environ["HTTP_COOKIE"].encode()]

    assert Driver(make, app).run(headers=[(b"cookie", b"a=1"), (b"cookie", b"b=2")]).body == b"a=1; b=2"


def the_validator(make: Make) -> None:
    def app(environ: Any, start: Any) -> Any:
        environ["wsgi.input"].read(3)
        start("200 OK", PLAIN)
        return [b"valid"]

    got = Driver(make, validator(app), b"four").run("POST", server=("127.0.0.1", 8000))
    assert (got.error, got.body) == (None, b"valid")


def cancelling_frees_the_thread(make: Make) -> None:
    """A cancelled request's generator is stopped at its next piece, and closed."""
    begun, closed = threading.Event(), threading.Event()

    def app(environ: Any, start: Any) -> Iterator[bytes]:
        start("200 OK", PLAIN)
        try:
            for _ in range(100_000):
                begun.set()
                yield b"x"
        finally:
            closed.set()

    async def main() -> None:
        async def receive() -> Message:
            return await asyncio.Future()

        async def send(message: Message) -> None:
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()

        scope = {
            "type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "path": "/", "raw_path": b"/",
            "root_path": "", "query_string": b"", "headers": [], "client": ("192.0.2.7", 1), "server": ("127.0.0.1", 1),
        }  # fmt: skip
        task: asyncio.Task[None] = asyncio.ensure_future(_call(make(app), scope, receive, send))
        await asyncio.to_thread(begun.wait, PATIENCE)
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait({task}, timeout=2)
        assert await asyncio.to_thread(closed.wait, 1)

    asyncio.run(main())


async def _call(app: Any, *arguments: Any) -> None:
    waiting: Awaitable[None] = app(*arguments)
    await waiting


QUESTIONS: tuple[Question, ...] = (
    chunked_body, input_terminated, lines_of_the_input, exception_before_start, exception_after_start,
    exc_info_replaces_the_head, exc_info_after_the_head_raises, second_start_without_exc_info,
    the_head_waits_for_the_body, write_callable, close_after_the_end, close_after_an_exception, the_length_of_a_list,
    a_path_of_other_bytes, no_spoofing_by_underscores, repeated_cookies, the_validator, cancelling_frees_the_thread,
)  # fmt: skip


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.__name__)
def test_ours_is_right(question: Question) -> None:
    adapters: list[WSGIAdapter] = []

    def make(app: WSGIApplication) -> ASGIApp:
        adapters.append(WSGIAdapter(app, threads=2))
        return adapters[-1]

    try:
        question(make)
    finally:
        for adapter in adapters:
            adapter.close()


def a2wsgi_fails() -> list[str]:
    """The questions that a2wsgi answers wrongly."""
    wrong = []
    for question in QUESTIONS:
        try:
            question(lambda app: WSGIMiddleware(app, workers=2))  # type: ignore[arg-type, return-value]
        except BaseException:  # what a server would see, whatever it is
            wrong.append(question.__name__)
    return wrong


def test_the_page_says_what_a2wsgi_does() -> None:
    rows = page("docs/how-to/run-a-wsgi-application.md").rows("asked", "lastcall", "a2wsgi")
    assert [row[0].replace(" ", "_") for row in rows] == [question.__name__ for question in QUESTIONS]
    assert [row[0].replace(" ", "_") for row in rows if row[2] != "yes"] == a2wsgi_fails()
