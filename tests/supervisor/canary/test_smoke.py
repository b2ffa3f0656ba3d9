"""The smoke checks against real servers on unix sockets: what they accept, and what they say of all else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from lastcall.supervisor.canary.smoke import BODY_AT_MOST, Discovery, Streams, checks_for, smoke

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def checked(tmp_path: Path, answer: bytes | Answer, status: int = 200, timeout: float = 20.0, path: str = "/x") -> str:
    """What ``smoke`` says of a server that answers so; bytes: these, then the end of the connection."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(reader, writer)
        except ConnectionError:
            pass  # it has seen enough
        finally:
            writer.close()

    async def main() -> str:
        where = str(tmp_path / "worker.sock")
        async with await asyncio.start_unix_server(handle, where):
            return await smoke(where, [(path, status)], timeout)

    return asyncio.run(main())


GOOD = {
    "content-length": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    "more than asked for": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
    "trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n",
    "until the end": b"HTTP/1.0 200\r\n\r\nabc",
    "early hints before": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("name", GOOD)
def test_a_complete_answer_with_the_status_is_good(tmp_path: Path, name: str) -> None:
    assert checked(tmp_path, GOOD[name]) == ""


@pytest.mark.parametrize("status", [204, 304, 401, 307, 503])
def test_any_status_may_be_expected(tmp_path: Path, status: int) -> None:
    answer = b"HTTP/1.1 %d X\r\n%s\r\n" % (status, b"" if status in (204, 304) else b"Content-Length: 0\r\n")
    assert checked(tmp_path, answer, status) == ""
    assert checked(tmp_path, answer, 200) == f"GET /x: expected 200, got {status}"


BAD = {
    "a closed connection": b"",
    "half a response head": b"HTTP/1.1 200 OK\r\nContent-",
    "a response head that is too long": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000 + b"\r\n\r\n",
    "no HTTP response": b"220 mail.example ESMTP\r\n\r\n",
    "101, which was not asked for": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    "200 with a body that was cut": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
    "200 with a Content-Length that is no number": b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
    "200 with a body of more than 16 MiB": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nabc" % (BODY_AT_MOST + 1),
    "200 with a broken chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD)
def test_a_broken_answer_is_a_miss_that_says_what_came(tmp_path: Path, name: str) -> None:
    assert checked(tmp_path, BAD[name]) == f"GET /x: expected 200, got {name}"


@pytest.mark.parametrize("chunks", [b"3\r\nabc\r\n", b"3\r\nab", b"3\r\nabc\r\n0\r\n", b"3"])
def test_chunks_without_an_end_are_a_body_that_was_cut(tmp_path: Path, chunks: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
    assert checked(tmp_path, answer) == "GET /x: expected 200, got 200 with a body that was cut"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_without_an_end_is_not_read_for_ever(tmp_path: Path, chunked: bool) -> None:
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + (b"Transfer-Encoding: chunked\r\n" if chunked else b"") + b"\r\n")
        data = b"x" * 65536
        while not writer.is_closing():
            writer.write(b"10000\r\n%s\r\n" % data if chunked else data)
            await writer.drain()

    assert checked(tmp_path, pour) == "GET /x: expected 200, got 200 with a body of more than 16 MiB"


def test_a_server_that_does_not_answer_is_a_miss_after_the_time_limit(tmp_path: Path) -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    assert checked(tmp_path, wait, timeout=0.05) == "GET /x: expected 200, got no complete answer within 0.05 s"


def test_a_socket_that_is_not_there_is_a_miss(tmp_path: Path) -> None:
    missed = asyncio.run(smoke(str(tmp_path / "nobody.sock"), [("/x", 200)]))
    assert missed.startswith("GET /x: expected 200, got no connection (")


def test_the_request_is_a_plain_get_that_ends_its_connection(tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def main() -> str:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(GOOD["content-length"])
            writer.close()

        where = str(tmp_path / "worker.sock")
        async with await asyncio.start_unix_server(handle, where):

            async def connect() -> Streams:
                return await asyncio.open_unix_connection(where)

            return await smoke(connect, [("/a?b=c", 200), ("/d", 500), ("/never", 200)])

    assert asyncio.run(main()) == "GET /d: expected 500, got 200"
    assert [request.split(b"\r\n")[0] for request in seen] == [b"GET /a?b=c HTTP/1.1", b"GET /d HTTP/1.1"]
    assert all(b"\r\nHost: localhost\r\n" in request for request in seen)
    assert all(b"\r\nConnection: close\r\n" in request for request in seen)


def test_by_default_readiness_and_what_the_old_generation_has_are_checked() -> None:
    assert checks_for((), "", ()) == ()
    assert checks_for((), "/ready", ()) == (("/ready", 200),)
    assert checks_for((), "/ready", ("/docs",)) == (("/ready", 200), ("/docs", 200))
    assert checks_for((("/mine", 401),), "/ready", ("/docs",)) == (("/mine", 401),)


def test_a_generation_is_asked_once_for_what_it_has_and_for_what_it_has_not(tmp_path: Path) -> None:
    where = str(tmp_path / "old.sock")
    asked: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        asked.append(path)
        status = 200 if path == "/docs" else 500
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)
        writer.close()

    async def main() -> None:
        discovery = Discovery()
        assert await discovery.ask(1, where) == (), "nobody is there"
        async with await asyncio.start_unix_server(handle, where):
            for _ in range(3):
                assert await discovery.ask(1, where) == ("/docs",)
            assert asked == ["/openapi.json", "/docs"]
            discovery.passed(2, (("/ready", 200), ("/docs", 200)))
            assert await discovery.ask(2, where) == ("/docs",)
        assert asked == ["/openapi.json", "/docs", "/openapi.json"], "what a worker has passed is known"
        for generation in range(3, 50):
            assert await discovery.ask(generation, where) == ()
        assert len(discovery._found) < 10, "those that are gone are forgotten"

    asyncio.run(main())
