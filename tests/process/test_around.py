"""Static files, compression and WSGI in real servers, over curl and httpx."""

from __future__ import annotations

import gzip
import os
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from testing.patience import Patience
from testing.process import ServerProcess
from tests.frameworks.curl import curl
from tests.process.conftest import Start, wait_for_output


def url(server: ServerProcess) -> str:
    return server.addresses[0] if server.addresses[0].startswith("http") else f"http://{server.addresses[0]}"


@pytest.fixture
def web(tmp_path: Path) -> Path:
    (tmp_path / "a.css").write_text("p { color: red }\n" * 100)
    (tmp_path / "a.css.gz").write_bytes(gzip.compress((tmp_path / "a.css").read_bytes()))
    return tmp_path


def test_files_compression_and_reloads_with_workers(start: Start, web: Path) -> None:
    server = start(
        "around:app", "--workers", "2", "--static", f"/static={web}", "--compress", "--health-path", "/static/health"
    )
    base = url(server)
    with httpx.Client(base_url=base) as client:
        for coding in ("gzip", "br", "zstd"):
            got = client.get("/", headers={"accept-encoding": coding})
            assert (got.headers["content-encoding"], got.text) == (coding, "the application " * 100)
        assert client.get("/static/health/ready").status_code == 200
        file = client.get("/static/a.css", headers={"accept-encoding": "br, gzip"})
        assert (file.headers["content-encoding"], file.text) == ("gzip", (web / "a.css").read_text())
        assert client.get("/static/new.css").status_code == 404
    assert curl("--path-as-is", f"{base}/static/%2e%2e/{web.name}/a.css").heads[0].status == 404
    assert curl("--range", "0-0", f"{base}/static/a.css").stdout == b"p"
    (web / "new.css").write_text("new")
    os.kill(server.pid, signal.SIGHUP)
    patience = Patience(10)
    while httpx.get(f"{base}/static/new.css").status_code != 200:  # each time a new connection, to either generation
        assert not patience.over
        time.sleep(0.02)
    assert "GET /static/a.css" in server.stderr + server.stdout
    assert server.stop() == 0


def test_a_compressed_stream_arrives_piece_by_piece_and_is_cut_at_the_stop(start: Start) -> None:
    server = start("around:app", "--compress", "--timeout-graceful-shutdown", "1", "--timeout-cancel", "1")
    got = b""

    def read_all() -> None:
        nonlocal got
        with httpx.stream("GET", url(server) + "/stream", headers={"accept-encoding": "gzip"}) as response:
            for piece in response.iter_bytes():
                got += piece
                if got.endswith(b"piece 2\n"):
                    server.signal(signal.SIGTERM)

    with pytest.raises(httpx.RemoteProtocolError):
        read_all()
    assert got == b"piece 0\npiece 1\npiece 2\n"
    server.wait()


def test_a_missing_directory_is_an_error_at_the_start(start: Start, tmp_path: Path) -> None:
    server = start("around:app", "--static", f"/static={tmp_path}/missing", "--workers", "2", ready=False)
    assert server.wait() == 2
    assert "expected a directory that exists" in server.stderr


def test_a_thread_that_does_not_end_is_named_and_does_not_hold_the_stop(start: Start) -> None:
    server = start("around:wsgi", "--timeout-graceful-shutdown", "0.5", "--timeout-cancel", "0.5")
    assert curl("--data-binary", "upload", "--header", "Transfer-Encoding: chunked", url(server)).stdout == b"upload"

    def stop_it() -> None:
        wait_for_output(server, "blocking")
        server.signal(signal.SIGTERM)

    threading.Thread(target=stop_it).start()
    assert httpx.get(url(server) + "/block", timeout=20).status_code == 503
    assert server.wait() == 5
    assert "Abandoned, threads that do not end: lastcall-wsgi_0" in server.stderr
    assert "Cut: GET /block" in server.stderr
