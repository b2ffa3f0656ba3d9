"""The sample applications as curl sees them: connections, heads, uploads, HTTP/1.0."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.frameworks.apps import common
from tests.frameworks.curl import curl
from tests.frameworks.serving import FRAMEWORKS, Served

pytestmark = pytest.mark.slow

WAYS_TO_UPLOAD = {
    # curl waits a minute for the 100, longer than it may run: without one the body is never sent.
    "100-continue": ["--header", "Expect: 100-continue", "--expect100-timeout", "60"],
    "at once": ["--header", "Expect:"],
    "chunked": ["--header", "Expect:", "--header", "Transfer-Encoding: chunked"],
    "HTTP/1.0": ["--http1.0", "--header", "Expect:"],
}


@pytest.fixture(scope="module")
def five_megabytes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("curl") / "five-megabytes.bin"
    path.write_bytes(random.Random(5).randbytes(5_000_000))
    return path


@pytest.fixture(scope="module")
def expected(five_megabytes: Path) -> dict[str, Any]:
    return common.digest(five_megabytes.read_bytes())


def test_json(server: Served) -> None:
    got = curl(f"{server.url}/json")
    assert got.json == {"framework": server.framework, "answer": 42}
    (head,) = got.heads
    assert (head.version, head.status, head.all("content-type")) == ("HTTP/1.1", 200, ["application/json"])
    assert head.all("content-length") == [str(len(got.stdout))]
    assert head.all("transfer-encoding") == []
    assert head.all("server") == ["lastcall"]
    assert len(head.all("date")) == 1


def test_path_and_query(server: Served) -> None:
    assert curl(f"{server.url}/items/7?q=caf%C3%A9+%26").json == {"id": 7, "q": "café &"}


def test_one_connection_for_many_requests(server: Served) -> None:
    client, body = f"{server.url}/client", f"{server.url}/upload"
    got = curl(client, client, "--next", "--data", "a body", body, "--next", client)
    first, second, digest, third = got.documents
    assert first == second == third
    assert first["http_version"] == "1.1"
    assert digest["length"] == 6
    assert got.reused == 3


@pytest.mark.parametrize(("path", "status"), [("/json", 200), ("/nowhere", 404)])
def test_head_has_the_head_of_get_and_no_body(server: Served, path: str, status: int) -> None:
    got = curl("--head", server.url + path, "--next", server.url + path)
    head, get = got.heads
    assert (head.status, get.status) == (status, status)
    ignored = ("date", "connection")
    assert [field for field in head.headers if field[0] not in ignored] == [
        field for field in get.headers if field[0] not in ignored
    ]
    # With --head curl prints the head; had the server sent a body too, the next answer would not have been understood.
    assert got.text.startswith("HTTP/1.1 ")
    assert got.reused == 1


def test_not_found_keeps_the_connection(server: Served) -> None:
    got = curl("--output", "/dev/null", f"{server.url}/nowhere", f"{server.url}/client")
    assert got.statuses == [404, 200]
    assert got.reused == 1


@pytest.mark.parametrize("way", WAYS_TO_UPLOAD)
def test_upload_of_a_raw_body(server: Served, five_megabytes: Path, expected: dict[str, Any], way: str) -> None:
    got = curl(*WAYS_TO_UPLOAD[way], "--data-binary", f"@{five_megabytes}", f"{server.url}/upload")
    assert got.json == expected
    assert got.statuses == ([100, 200] if way == "100-continue" else [200])


@pytest.mark.parametrize("way", ["100-continue", "at once", "HTTP/1.0"])
def test_upload_of_a_form(server: Served, five_megabytes: Path, expected: dict[str, Any], way: str) -> None:
    form = ["--form", f"file=@{five_megabytes}", "--form", "field=a value"]
    got = curl(*WAYS_TO_UPLOAD[way], *form, f"{server.url}/form")
    assert got.json == {"field": "a value", "filename": five_megabytes.name, **expected}
    assert got.statuses == ([100, 200] if way == "100-continue" else [200])


# Django's multipart parser takes a body without Content-Length for an empty one, whatever the server.
@pytest.mark.parametrize("server", [name for name in FRAMEWORKS if name != "django"], indirect=True)
def test_chunked_upload_of_a_form(server: Served, five_megabytes: Path, expected: dict[str, Any]) -> None:
    form = ["--form", f"file=@{five_megabytes}", "--form", "field=a value"]
    got = curl(*WAYS_TO_UPLOAD["chunked"], *form, f"{server.url}/form")
    assert got.json == {"field": "a value", "filename": five_megabytes.name, **expected}


def test_an_upload_that_nobody_asked_for(server: Served, five_megabytes: Path) -> None:
    got = curl("--header", "Expect:", "--data-binary", f"@{five_megabytes}", f"{server.url}/nowhere")
    assert got.statuses == [404]


def test_streaming(server: Served) -> None:
    got = curl("--no-buffer", f"{server.url}/stream", f"{server.url}/stream")
    assert got.stdout == 2 * b"".join(common.PIECES)
    assert [head.all("transfer-encoding") for head in got.heads] == [["chunked"], ["chunked"]]
    assert got.reused == 1


def test_server_sent_events(server: Served) -> None:
    got = curl("--no-buffer", f"{server.url}/events")
    assert got.heads[0].all("content-type")[0].startswith("text/event-stream")
    assert [line for line in got.text.splitlines() if line.startswith("data:")] == [
        "data: event 0",
        "data: event 1",
        "data: event 2",
    ]


def test_streaming_to_http_1_0_ends_with_the_connection(server: Served) -> None:
    got = curl("--http1.0", f"{server.url}/stream")
    assert got.stdout == b"".join(common.PIECES)
    (head,) = got.heads
    assert (head.all("transfer-encoding"), head.all("content-length")) == ([], [])
    assert "\n* Closing connection" in got.trace


def test_keep_alive_in_http_1_0_has_to_be_asked_for(server: Served) -> None:
    client = f"{server.url}/client"
    first, second = curl("--http1.0", client, client).documents
    assert first["client"] != second["client"]
    got = curl("--http1.0", "--header", "Connection: keep-alive", client, client)
    assert got.documents[0] == got.documents[1]
    assert got.documents[0]["http_version"] == "1.0"
    assert got.reused == 1


def test_redirect_with_cookies(server: Served, tmp_path: Path) -> None:
    got = curl("--location", "--cookie-jar", str(tmp_path / "cookies"), f"{server.url}/login")
    assert got.documents == [common.COOKIES]
    assert got.statuses == [303, 200]
    assert [cookie.partition("=")[0] for cookie in got.heads[0].all("set-cookie")] == list(common.COOKIES)
    assert got.reused == 1


def test_state_of_the_lifespan(server: Served) -> None:
    assert curl(f"{server.url}/state").json == {"value": common.STATE}


def test_an_exception_is_a_500_and_serving_goes_on(server: Served) -> None:
    got = curl("--output", "/dev/null", f"{server.url}/fail", f"{server.url}/client")
    assert got.statuses == [500, 200]
