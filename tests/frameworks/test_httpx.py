"""The sample applications as httpx sees them: reuse, streaming in lock step, many at a time, large bodies."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Iterator

import httpx
import pytest

from tests.frameworks.apps import common
from tests.frameworks.serving import Served

pytestmark = pytest.mark.slow


@pytest.fixture
def client(server: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=10) as client:
        yield client


def test_one_connection_for_everything(client: httpx.Client) -> None:
    port = client.get("/client").json()["client"][1]
    assert client.head("/json").content == b""
    assert client.get("/nowhere").status_code == 404
    assert client.post("/upload", content=b"x").json()["length"] == 1
    assert client.get("/stream").content == b"".join(common.PIECES)
    assert client.post("/gate/unused").status_code == 204
    assert client.get("/client").json()["client"][1] == port


def test_each_piece_of_a_stream_arrives_before_the_next_is_made(server: Served, client: httpx.Client) -> None:
    gate = "lockstep"
    with (
        httpx.Client(base_url=server.url, trust_env=False, timeout=10) as other,
        client.stream("GET", "/stream", params={"gate": gate}) as response,
    ):
        assert response.headers["transfer-encoding"] == "chunked"
        arriving = response.iter_raw()
        assert next(arriving) == common.PIECES[0]
        for piece in common.PIECES[1:]:
            assert other.post(f"/gate/{gate}").status_code == 204
            assert next(arriving) == piece
        assert list(arriving) == []


def test_fifty_requests_at_the_same_time(server: Served) -> None:
    """Each waits in the application for the other 49."""

    async def meet() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=20, limits=limits) as client:
            return await asyncio.gather(*(client.get("/meet/50") for _ in range(50)))

    assert [response.json() for response in asyncio.run(meet())] == [{"met": 50}] * 50


def test_large_download(client: httpx.Client) -> None:
    digest = hashlib.sha256()
    with client.stream("GET", "/large") as response:
        assert response.headers["content-length"] == str(common.LARGE)
        for piece in response.iter_raw():
            digest.update(piece)
        assert response.num_bytes_downloaded == common.LARGE
    assert digest.hexdigest() == common.digest(common.large())["sha256"]


def test_upload_in_pieces(client: httpx.Client) -> None:
    """httpx sends a generator chunked, here in uneven pieces."""
    numbers = random.Random(1)
    pieces = [numbers.randbytes(numbers.randrange(1, 70_000)) for _ in range(40)]
    response = client.post("/upload", content=iter(pieces))
    assert response.request.headers["transfer-encoding"] == "chunked"
    assert response.json() == common.digest(b"".join(pieces))


def test_upload_of_a_form(client: httpx.Client) -> None:
    content = random.Random(2).randbytes(300_000)
    response = client.post("/form", data={"field": "ä value"}, files={"file": ("some name.bin", content)})
    assert response.json() == {"field": "ä value", "filename": "some name.bin", **common.digest(content)}


def test_empty_upload(client: httpx.Client) -> None:
    assert client.post("/upload").json() == common.digest(b"")


def test_a_client_that_leaves_in_mid_stream_harms_nobody(client: httpx.Client) -> None:
    gate = "left"
    with client.stream("GET", "/stream", params={"gate": gate}) as response:
        assert next(response.iter_raw()) == common.PIECES[0]
    # Leaving the block has closed the connection. The application goes on, to nobody; the fixture sees no traceback.
    for _ in common.PIECES[1:]:
        assert client.post(f"/gate/{gate}").status_code == 204
    assert client.get("/json").status_code == 200
