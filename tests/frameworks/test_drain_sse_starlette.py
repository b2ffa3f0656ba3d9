"""SIGTERM and SIGINT under sse-starlette as it comes from PyPI.

It looks twice a second at ``signal.getsignal(SIGTERM).__self__.should_exit`` and ends its streams when that is true,
whatever they are doing. lastcall shows it late: 0.6 s or the margin before streams are disconnected anyway.
"""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from testing.peer import Peer
from tests.frameworks.apps import sse_app
from tests.frameworks.draining import Streaming, draining, names

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("signum", "options", "last_poll", "disconnect"),
    [
        (signal.SIGTERM, ("--timeout-graceful-shutdown", "2"), 1.2, 1.8),
        (signal.SIGINT, (), 2.1, 2.7),  # G is 3 s after Ctrl-C
    ],
)
def test_endless_streams_go_on_and_end_before_they_would_be_disconnected(
    signum: signal.Signals, options: tuple[str, ...], last_poll: float, disconnect: float, tmp_path: Path
) -> None:
    with draining("sse_app:app", tmp_path / "report", *options) as server, ExitStack() as stack:
        asking: list[tuple[str, ...]] = [("Accept: text/event-stream",), (), ()]
        streams = [stack.enter_context(Streaming(server.url, "/endless", *headers)) for headers in asking]
        quiet = stack.enter_context(Streaming(server.url, "/quiet", first=False))
        server.stop(signum)
        before = [int(stream.body.split()[-1]) for stream in streams]
        for stream in streams:
            stream.read()
        assert quiet.read() == b""
        report = server.stopped()
    broken_off = [("/endless", "stream", "broken off")] * 2 + [("/quiet", "stream", "broken off")]
    assert names(report) == broken_off, "sse-starlette does not end them, it stops"
    assert (report["finished"], report["broken_off"], report["in_flight"]) == (1, 3, {"stream": 4})
    assert last_poll <= report["phases"]["DRAINING"] < disconnect
    assert "DISCONNECTING" not in report["phases"]
    for stream, number in zip(streams, before, strict=True):
        numbers = [int(line.split()[1]) for line in stream.body.decode().splitlines() if line]
        assert numbers == list(range(len(numbers))), "nothing was left out"
        assert len(numbers) - number > last_poll / sse_app.STEP / 4, "it went on (how fast depends on the machine)"
    assert [stream.whole for stream in streams] == [True, False, False], "but who asked for events comes back"
    stderr = server.process.stderr
    assert stderr.count(sse_app.ENDED + "/endless") == 3
    assert stderr.count("INFO:     GET /endless: the application returned in the middle of its response") == 2
    assert sse_app.ENDED + "/quiet" in stderr


def test_finite_streams_are_sent_in_full_and_nothing_waits_longer(tmp_path: Path) -> None:
    with draining("sse_app:app", tmp_path / "report") as server, ExitStack() as stack:
        streams = [stack.enter_context(Streaming(server.url, f"/finite/{length}")) for length in (20, 30)]
        server.stop()
        for stream, length in zip(streams, (20, 30), strict=True):
            assert stream.read() == b"".join(b"data: %d\r\n\r\n" % number for number in range(length))
            assert stream.whole
        report = server.stopped()
    assert (report["cut"], report["finished"]) == ([], 2)
    assert report["seconds"] < 3


def test_the_shutdown_event_comes_and_the_farewell_gets_out(tmp_path: Path) -> None:
    with (
        draining("sse_app:app", tmp_path / "report", "--timeout-graceful-shutdown", "2") as server,
        Streaming(server.url, "/farewell") as stream,
    ):
        server.stop()
        assert stream.read().endswith(b"event: bye\r\ndata: come back\r\n\r\n")
        assert stream.whole
        report = server.stopped()
    assert (report["cut"], report["finished"]) == ([], 1)
    assert "DISCONNECTING" not in report["phases"]


def test_drain_close_ends_streams_early_and_a_finite_one_beside_them_is_finished(tmp_path: Path) -> None:
    options = ("--drain-close", "/*", "--drain-finish", "/finite/*", "--drain-farewell", "0.3")
    with draining("sse_app:app", tmp_path / "report", *options) as server, ExitStack() as stack:
        endless, finite = (stack.enter_context(Streaming(server.url, path)) for path in ("/endless", "/finite/30"))
        quiet = stack.enter_context(Streaming(server.url, "/quiet", first=False))
        server.stop()
        for stream in (endless, quiet):
            stream.read()
            assert not stream.whole
        assert finite.read().endswith(b"data: 29\r\n\r\n")
        report = server.stopped()
    assert (report["cut"], report["finished"], report["closed_by_policy"]) == ([], 1, 2)
    assert report["seconds"] < 3
    assert server.process.stderr.count(sse_app.ENDED) == 3


def test_a_second_signal_cancels_them_and_nobody_is_alarmed(tmp_path: Path) -> None:
    options = ("--timeout-graceful-shutdown", "none")
    with draining("sse_app:app", tmp_path / "report", *options) as server, ExitStack() as stack:
        endless = stack.enter_context(Streaming(server.url, "/endless"))
        quiet = stack.enter_context(Streaming(server.url, "/quiet", first=False))
        server.stop()
        time.sleep(0.6)  # two signals within half a second are one
        server.process.signal(signal.SIGTERM)
        for stream in (endless, quiet):
            stream.read()
            assert not stream.whole
        report = server.stopped()
    assert [(path, outcome) for path, _, outcome in names(report)] == [
        ("/endless", "disconnected"),
        ("/quiet", "disconnected"),
    ]
    assert server.process.stderr.count(sse_app.ENDED) == 2


def test_a_client_that_leaves_ends_its_stream_while_the_server_goes_on(tmp_path: Path) -> None:
    with draining("sse_app:app", tmp_path / "report") as server:
        for path in ("/endless", "/quiet"):
            with Streaming(server.url, path, first=path == "/endless"):
                pass
            server.process.wait_for(sse_app.ENDED + path)
        with Peer(server.url) as peer:
            assert peer.get("/finite/1").status == 200
        server.stop()
        report = server.stopped()
    assert report["cut"] == []
    assert report["seconds"] < 2, "nobody had to be waited for"
