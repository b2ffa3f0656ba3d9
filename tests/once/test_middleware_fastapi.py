"""The middleware as it is added to a framework's application, with the framework's own test client."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse

from lastcall.once.middleware import IdempotencyMiddleware

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
