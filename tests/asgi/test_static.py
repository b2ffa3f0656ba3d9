"""``--static``: which file a path means, what never leaves its directory, conditions, ranges and variants."""

from __future__ import annotations

import asyncio
import gzip
import os
from pathlib import Path
from typing import Any

import pytest

from lastcall.asgi.static import StaticFiles
from lastcall.base.types import Message, Receive, Scope, Send

SCRIPT = b"export const answer = 42;\n" * 100


@pytest.fixture
def web(tmp_path: Path) -> Path:
    directory = tmp_path / "web"
    (directory / "deep").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "web-other").mkdir()
    (tmp_path / "web-other" / "o.txt").write_text("secret")
    (directory / "a.txt").write_text("0123456789")
    (directory / "deep" / "Case.html").write_text("<p>")
    (directory / "日本 é.txt").write_text("unicode")
    (directory / "app.js").write_bytes(SCRIPT)
    (directory / "app.js.gz").write_bytes(gzip.compress(SCRIPT))
    (directory / ".env").write_text("secret")
    (directory / ".git").mkdir()
    (directory / ".git" / "config").write_text("secret")
    (directory / ".well-known").mkdir()
    (directory / ".well-known" / "security.txt").write_text("public")
    (directory / "out.txt").symlink_to(tmp_path / "secret.txt")
    (directory / "out").symlink_to(tmp_path / "web-other")
    (directory / "env.txt").symlink_to(directory / ".env")
    (directory / "in.txt").symlink_to("a.txt")
    (directory / "current").symlink_to("deep")
    (directory / "deep" / "up").symlink_to("..")
    (directory / "broken").symlink_to("nowhere")
    os.mkfifo(directory / "pipe")
    return directory


class Answer:
    def __init__(self) -> None:
        self.messages: list[Message] = []

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": b"the application"})


class Files:
    def __init__(self, *directories: tuple[str, Path]) -> None:
        self.app = StaticFiles(application, tuple((prefix, str(path)) for prefix, path in directories))

    def get(self, path: str, *, method: str = "GET", extensions: Any = None, root: str = "", **headers: str) -> Answer:
        answer = Answer()
        scope: Scope = {
            "type": "http",
            "method": method,
            "path": path,
            "root_path": root,
            "query_string": b"",
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
            "extensions": extensions or {},
        }

        async def send(message: Message) -> None:
            if message["type"] == "http.response.zerocopysend":
                message["file"].seek(message["offset"])
                message = {"type": "sent", "body": message["file"].read(message.get("count", -1))}
            answer.messages.append(message)

        async def receive() -> Message:
            raise AssertionError("a file needs no request body")

        asyncio.run(self.app(scope, receive, send))
        return answer


@pytest.fixture
def files(web: Path) -> Files:
    return Files(("/static", web))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/a.txt", b"0123456789"),
        ("/in.txt", b"0123456789"),
        ("/deep/Case.html", b"<p>"),
        ("/current/Case.html", b"<p>"),
        ("/日本 é.txt", b"unicode"),
        ("/.well-known/security.txt", b"public"),
    ],
)
def test_a_file(files: Files, path: str, body: bytes) -> None:
    got = files.get("/static" + path)
    assert (got.status, got.body) == (200, body)
    assert got.headers["content-length"] == str(len(body))
    assert got.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in got.headers


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/deep/../a.txt",
        "//a.txt",
        "/deep//Case.html",
        "/./a.txt",
        "/a.txt/",
        "/a.txt\0",
        "/..\\secret.txt",
        "//etc/passwd",
        "/.env",
        "/.git/config",
        "/out.txt",
        "/out/o.txt",
        "/env.txt",
        "/broken",
        "/pipe",
        "/deep/up/a.txt",
        "/deep/case.html",
        "/A.TXT",
        "/deep",
        "/",
        "/app.js.gz",
        "/nothing",
    ],
)
def test_what_is_no_file_is_404_and_does_not_reach_the_application(files: Files, path: str) -> None:
    got = files.get("/static" + path)
    assert (got.status, got.body) == (404, b"Not Found\n")


@pytest.mark.parametrize("path", ["/", "/static", "/statical/a.txt", "/other/static/a.txt", "/Static/a.txt"])
def test_what_is_beside_the_prefix_is_the_applications(files: Files, path: str) -> None:
    assert files.get(path).status == 299


def test_at_the_root_the_application_has_the_rest(web: Path) -> None:
    files = Files(("", web))
    assert files.get("/a.txt").status == 200
    assert files.get("/nothing").status == 299


def test_the_closer_prefix_wins(web: Path) -> None:
    files = Files(("/s", web), ("/s/deep", web.parent / "web-other"))
    assert files.get("/s/deep/o.txt").status == 200
    assert files.get("/s/deep/Case.html").status == 404
    assert files.get("/s/a.txt").status == 200


def test_below_a_root_path(files: Files) -> None:
    assert files.get("/api/static/a.txt", root="/api").status == 200


def test_types(files: Files) -> None:
    assert files.get("/static/app.js").headers["content-type"].startswith("text/javascript")
    assert files.get("/static/deep/Case.html").headers["content-type"].startswith("text/html")


def test_head_and_other_methods(files: Files) -> None:
    head = files.get("/static/a.txt", method="HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "10")
    post = files.get("/static/a.txt", method="POST")
    assert (post.status, post.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("zero_copy", [False, True])
@pytest.mark.parametrize(
    ("asked", "status", "body", "content_range"),
    [
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-2", 206, b"89", "bytes 8-9/10"),
        ("bytes=-99", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=8-99", 206, b"89", "bytes 8-9/10"),
        ("bytes=10-", 416, b"", "bytes */10"),
        ("bytes=-0", 416, b"", "bytes */10"),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("bytes=+1-2", 200, b"0123456789", None),
        ("bytes=1_0-", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
    ],
)
def test_ranges(files: Files, asked: str, status: int, body: bytes, content_range: str | None, zero_copy: bool) -> None:
    extensions: dict[str, Any] = {"http.response.zerocopysend": {}} if zero_copy else {}
    got = files.get("/static/a.txt", range=asked, extensions=extensions)
    assert (got.status, got.body, got.headers.get("content-range")) == (status, body, content_range)
    assert got.headers["content-length"] == str(len(body))


def test_a_range_of_another_version_is_the_whole_file(files: Files) -> None:
    tag = files.get("/static/a.txt").headers["etag"]
    assert files.get("/static/a.txt", range="bytes=0-1", if_range=tag).status == 206
    assert files.get("/static/a.txt", range="bytes=0-1", if_range='"other"').status == 200
    assert files.get("/static/a.txt", range="bytes=0-1", if_range=f"W/{tag}").status == 200


def test_a_range_of_a_head_is_ignored(files: Files) -> None:
    assert files.get("/static/a.txt", method="HEAD", range="bytes=0-1").status == 200


def test_conditions(files: Files) -> None:
    plain = files.get("/static/a.txt")
    tag, date = plain.headers["etag"], plain.headers["last-modified"]
    for condition in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        got = files.get("/static/a.txt", if_none_match=condition)
        assert (got.status, got.body, got.headers["etag"]) == (304, b"", tag)
    assert files.get("/static/a.txt", if_none_match='"x"', if_modified_since=date).status == 200
    assert files.get("/static/a.txt", if_modified_since=date).status == 304
    assert files.get("/static/a.txt", if_modified_since="Thu, 01 Jan 1970 00:00:01 GMT").status == 200


def test_a_compressed_variant_has_a_tag_of_its_own(files: Files) -> None:
    plain = files.get("/static/app.js", accept_encoding="gzip;q=0, br")
    packed = files.get("/static/app.js", accept_encoding="br, gzip")
    assert plain.body == SCRIPT
    assert "content-encoding" not in plain.headers
    assert gzip.decompress(packed.body) == SCRIPT
    assert packed.headers["content-encoding"] == "gzip"
    assert plain.headers["vary"].lower() == packed.headers["vary"].lower() == "accept-encoding"
    assert plain.headers["etag"] != packed.headers["etag"]
    tag = packed.headers["etag"]
    again = files.get("/static/app.js", accept_encoding="gzip", if_none_match=tag)
    assert (again.status, again.headers["etag"]) == (304, tag)
    assert files.get("/static/app.js", range="bytes=0-1", if_range=tag).status == 200
    assert files.get("/static/app.js", range="bytes=0-1", if_range=tag, accept_encoding="gzip").status == 206


def test_a_file_that_changes_is_sent_as_it_is_now(files: Files, web: Path) -> None:
    before = files.get("/static/a.txt").headers["etag"]
    (web / "a.txt").write_text("a longer text than before")
    got = files.get("/static/a.txt", if_none_match=before)
    assert (got.status, got.body, got.headers["content-length"]) == (200, b"a longer text than before", "25")
    (web / "a.txt").unlink()
    assert files.get("/static/a.txt").status == 404
    (web / "a.txt").write_text("back")
    assert files.get("/static/a.txt").body == b"back"


def test_the_servers_ways_to_send_files_are_used(files: Files, web: Path) -> None:
    got = files.get("/static/a.txt", extensions={"http.response.pathsend": {}})
    assert got.messages[1] == {"type": "http.response.pathsend", "path": str(web / "a.txt")}
    both = files.get("/static/a.txt", extensions={"http.response.pathsend": {}, "http.response.zerocopysend": {}})
    assert (both.messages[1]["type"], both.body) == ("sent", b"0123456789")


def test_a_lifespan_is_the_applications() -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    asyncio.run(StaticFiles(app, ())({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan"]
