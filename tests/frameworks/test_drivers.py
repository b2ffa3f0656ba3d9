"""Every framework on the other driver and loop, and one on every pair; the other modules run on the default pair."""

from __future__ import annotations

import random
from collections.abc import Iterator

import httpx
import pytest

from tests.frameworks.apps import common
from tests.frameworks.curl import curl
from tests.frameworks.serving import FRAMEWORKS, Served, serving

pytestmark = pytest.mark.slow

OTHER = ("asyncio", "uvloop")
PAIRS = [("starlette", ("native", "uvloop")), ("starlette", ("asyncio", "asyncio"))]
PAIRS += [(framework, OTHER) for framework in FRAMEWORKS]


@pytest.fixture(
    scope="module",
    params=PAIRS,
    ids=lambda param: f"{param[0]}-{param[1][0]}-{param[1][1]}",
)
def server(request: pytest.FixtureRequest) -> Iterator[Served]:
    framework, (driver, loop) = request.param
    with serving(framework, "--driver", driver, "--loop", loop) as served:
        yield served


def test_requests_of_all_kinds_on_one_connection(server: Served) -> None:
    body = random.Random(3).randbytes(1_000_000)
    with httpx.Client(base_url=server.url, trust_env=False, timeout=10) as client:
        port = client.get("/client").json()["client"][1]
        assert client.get("/json").json()["framework"] == server.framework
        assert client.get("/state").json() == {"value": common.STATE}
        head = client.head("/json")
        assert (head.status_code, head.content) == (200, b"")
        assert client.get("/nowhere").status_code == 404
        assert client.post("/upload", content=body).json() == common.digest(body)
        assert client.post("/upload", content=iter([body, body])).json() == common.digest(body + body)
        assert client.post("/form", data={"field": "x"}, files={"file": body}).json()["length"] == len(body)
        assert len(client.get("/large").content) == common.LARGE
        assert client.get("/client").json()["client"][1] == port


def test_streaming_in_lock_step(server: Served) -> None:
    with (
        httpx.Client(base_url=server.url, trust_env=False, timeout=10) as client,
        client.stream("GET", "/stream", params={"gate": "lockstep"}) as response,
    ):
        arriving = response.iter_raw()
        assert next(arriving) == common.PIECES[0]
        for piece in common.PIECES[1:]:
            assert client.post("/gate/lockstep").status_code == 204
            assert next(arriving) == piece
        assert list(arriving) == []


def test_curl_with_expect_and_with_http_1_0(server: Served) -> None:
    upload = ["--data", "a body", f"{server.url}/upload"]
    expecting = curl("--header", "Expect: 100-continue", "--expect100-timeout", "60", *upload)
    assert (expecting.statuses, expecting.json) == ([100, 200], common.digest(b"a body"))
    old = curl("--http1.0", f"{server.url}/stream")
    assert old.stdout == b"".join(common.PIECES)
