"""The middleware as it is added to a framework's application, with the framework's own test client."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI, HTTPException, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import StreamingResponse
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from companions.once.tests.calls import Call, until
from lastcall_once.middleware import IdempotencyMiddleware

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about the test client's own dependencies
    from fastapi.testclient import TestClient


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    app = FastAPI()
    app.add_middleware(IdempotencyMiddleware, store=f"sqlite:///{tmp_path}/once.db", required=["/charges"])
    app.state.runs = []

    @app.post("/charges", status_code=201)
    async def charges(request: Request, tasks: BackgroundTasks) -> dict[str, Any]:
        sent = await request.json()
        app.state.runs.append(sent)
        tasks.add_task(app.state.runs.append, "background")
        if sent.get("amount") is None:
            raise HTTPException(422, "no amount")
        if sent["amount"] < 0:
            raise ArithmeticError("a bug")
        return {"run": len(app.state.runs)}

    @app.post("/export")
    async def export() -> StreamingResponse:
        app.state.runs.append("export")
        return StreamingResponse((b"%d\n" % number for number in range(1000)), media_type="text/csv")

    return app


KEY = {"Idempotency-Key": "k", "Authorization": "Bearer x"}


@pytest.mark.parametrize("lifespan", [True, False])
def test_with_fastapi(app: FastAPI, lifespan: bool) -> None:
    client = TestClient(app, raise_server_exceptions=False)
    if lifespan:
        with client:
            use(app, client)
    else:  # each request in an event loop of its own
        use(app, client)


def use(app: FastAPI, client: TestClient) -> None:
    first, again = (client.post("/charges", json={"amount": 1}, headers=KEY) for _ in range(2))
    assert first.json() == again.json() == {"run": 1}
    assert first.status_code == again.status_code == 201
    assert again.headers["idempotent-replayed"] == "true"
    assert app.state.runs == [{"amount": 1}, "background"]

    # The status is that of a validation error; the type is not.
    other = client.post("/charges", json={"amount": 2}, headers=KEY)
    assert (other.status_code, other.json()["code"]) == (422, "once_mismatch")
    invalid = [client.post("/charges", json={}, headers=KEY | {"Idempotency-Key": "2"}) for _ in range(2)]
    assert [answer.json() for answer in invalid] == [{"detail": "no amount"}] * 2
    assert "idempotent-replayed" in invalid[1].headers
    assert client.post("/charges", json={"amount": 1}).json()["code"] == "once_key_required"

    app.state.runs.clear()
    failed = [client.post("/charges", json={"amount": -1}, headers=KEY | {"Idempotency-Key": "3"}) for _ in range(2)]
    assert [answer.status_code for answer in failed] == [500, 500]
    assert len(app.state.runs) == 2

    streams = [client.post("/export", headers=KEY | {"Idempotency-Key": "4"}) for _ in range(2)]
    assert streams[0].content == streams[1].content
    assert app.state.runs.count("export") == 1


@pytest.mark.parametrize("outside", [False, True])
def test_redirects_of_the_framework_lead_somewhere(outside: bool) -> None:
    """To www, to https, and to the path with a slash: all are 307, and the client sends the same key again."""
    app = FastAPI()
    urls: list[str] = []

    @app.post("/slash/")
    async def slash(request: Request) -> str:
        urls.append(str(request.url))
        return "here"

    def redirecting(app: Any) -> Any:
        return TrustedHostMiddleware(HTTPSRedirectMiddleware(app), allowed_hosts=["www.shop.example"])

    guarded: Any = IdempotencyMiddleware(app if outside else redirecting(app), "memory:")
    client = TestClient(redirecting(guarded) if outside else guarded, base_url="http://shop.example")
    path, end = ("/slash/", 2) if outside else ("/slash", 3)
    first = client.post(path, headers={"Idempotency-Key": "r"})
    assert (first.status_code, len(first.history)) == (200, end)
    # Where the redirects are outside, a retry may begin where the first try began; else it is another request there.
    again = client.post(path if outside else str(first.url), headers={"Idempotency-Key": "r"})
    assert again.status_code == 200
    assert again.headers["idempotent-replayed"] == "true"
    assert urls == ["https://www.shop.example/slash/"]


ORIGINS = ("https://a.example", "https://b.example")


def ordered(*outside: str) -> TestClient:
    """A client of an application whose middlewares are outside of once, or inside."""
    app = FastAPI()

    @app.post("/report")
    async def report() -> Response:
        return Response("x" * 10_000, media_type="text/plain")

    def add(name: str) -> None:
        if name == "cors":
            app.add_middleware(CORSMiddleware, allow_origins=ORIGINS, expose_headers=["Idempotent-Replayed"])
        else:
            app.add_middleware(GZipMiddleware)

    for name in {"cors", "gzip"} - {*outside}:
        add(name)
    app.add_middleware(IdempotencyMiddleware, store="memory:")
    for name in outside:
        add(name)
    return TestClient(app)


def test_compression_outside_is_each_retrys_own_and_inside_the_firsts() -> None:
    for outside in (True, False):
        client = ordered("gzip") if outside else ordered("cors")
        encodings = []
        for accepted in ("gzip", "identity", "gzip"):
            answer = client.post("/report", headers={"Idempotency-Key": "k", "Accept-Encoding": accepted})
            assert answer.text == "x" * 10_000
            encodings.append(answer.headers.get("content-encoding"))
        assert encodings == ["gzip", None if outside else "gzip", "gzip"]


def test_cors_outside_is_each_retrys_own_and_inside_the_firsts() -> None:
    for outside in (True, False):
        client = ordered("cors") if outside else ordered("gzip")
        allowed = []
        for origin, key in ((ORIGINS[0], "k"), (ORIGINS[1], "k"), (ORIGINS[1], "malformed key")):
            answer = client.post("/report", headers={"Idempotency-Key": key, "Origin": origin})
            allowed.append(answer.headers.get("access-control-allow-origin"))
        assert allowed == ([ORIGINS[0], ORIGINS[1], ORIGINS[1]] if outside else [ORIGINS[0], ORIGINS[0], None])


def test_a_form_that_is_sent_again_is_the_same_request() -> None:
    """httpx makes a new boundary for each request, as browsers do."""
    app = FastAPI()
    bodies = []

    @app.post("/upload")
    async def upload(request: Request) -> int:
        bodies.append(await request.body())
        return len(bodies)

    client = TestClient(IdempotencyMiddleware(app, "memory:"))
    for content, status, runs in ((b"1", 200, 1), (b"1", 200, 1), (b"2", 422, 1)):
        answer = client.post("/upload", files={"file": ("a.txt", content)}, headers={"Idempotency-Key": "k"})
        assert (answer.status_code, len(bodies)) == (status, runs)
    client.post("/upload", files={"file": ("a.txt", b"1")}, headers={"Idempotency-Key": "2"})
    assert bodies[0] != bodies[1]  # the boundary


class PassOn(BaseHTTPMiddleware):
    """It cancels what it has called when the client leaves."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


@pytest.mark.parametrize("below", [False, True])
@pytest.mark.parametrize("spec_version", ["2.1", "2.3", "2.4"])
def test_a_client_that_leaves_a_stream_does_not_end_it(app: FastAPI, spec_version: str, below: bool) -> None:
    """Starlette ends streams whose client leaves, where a server's spec_version says that send() would not tell."""
    if below:
        app.add_middleware(PassOn)

    async def body() -> None:
        handed_over = asyncio.Event()

        @app.post("/slow")
        async def slow() -> StreamingResponse:
            async def pieces() -> AsyncIterator[bytes]:
                app.state.runs.append("begun")
                yield b"first"
                await handed_over.wait()
                yield b"second"
                for _ in range(50):
                    await asyncio.sleep(0)
                yield b"last"
                app.state.runs.append("ended")

            return StreamingResponse(pieces())

        def request() -> Call:
            made = Call(app, path="/slow")
            made.scope["asgi"] = {"version": "3.0", "spec_version": spec_version}
            return made

        first = request()
        await until(lambda: first.messages)
        first.leave()
        for _ in range(20):
            await asyncio.sleep(0)  # for whoever wants to make something of it
        handed_over.set()
        with suppress(OSError):  # that the client has left
            await first.task
        await until(lambda: "ended" in app.state.runs)
        again = request()
        await again.task
        assert (again.replayed, again.body) == (True, b"firstsecondlast")
        assert app.state.runs == ["begun", "ended"]

    asyncio.run(body())
