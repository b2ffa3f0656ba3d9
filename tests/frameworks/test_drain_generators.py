"""Streams of plain generators in Starlette and FastAPI at a stop: told, not told, left by their clients, tokens."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from testing.clock import Stopwatch
from testing.peer import Peer
from tests.frameworks.apps import common, generators_app
from tests.frameworks.draining import Streaming, draining, names

pytestmark = pytest.mark.slow

APPS = {name: f"generators_app:{name}" for name in ("starlette", "wrapped", "in_fastapi")}


@pytest.mark.parametrize("app", APPS)
def test_a_quiet_generator_ends_when_the_notice_tells_it(app: str, tmp_path: Path) -> None:
    ways = ["callback", "wait", "thread", "scope"] + (["sse"] if app == "in_fastapi" else [])
    with draining(APPS[app], tmp_path / "report") as server, ExitStack() as stack:
        streams = [stack.enter_context(Streaming(server.url, f"/told/{how}")) for how in ways]
        server.stop()
        for stream, how in zip(streams, ways, strict=True):
            expected = b'data: "hello"\n\ndata: "bye"\n\n' if how == "sse" else b"hello\nbye\n"
            assert stream.read() == expected
            assert stream.whole
        report = server.stopped()
    assert (report["cut"], report["finished"]) == ([], len(ways))
    assert report["seconds"] < 2


def test_the_very_first_stream_can_close_itself_from_a_task_that_its_framework_has_started(tmp_path: Path) -> None:
    options = ("--timeout-graceful-shutdown", "1", "--drain-farewell", "0.1")
    with (
        draining(APPS["in_fastapi"], tmp_path / "report", *options) as server,
        Streaming(server.url, "/closing") as stream,
    ):
        server.stop()
        assert stream.read() == b'data: "hello"\n\n'
        report = server.stopped()
    assert (report["closed_by_policy"], report["cut"]) == (1, [])


@pytest.mark.parametrize("app", ["wrapped", "in_fastapi"])
def test_one_that_is_not_told_is_disconnected_and_cancelled_the_margin_later(app: str, tmp_path: Path) -> None:
    """Also one that has never sent a byte of its body: its head is out, so its client saw it begin."""
    with (
        draining(APPS[app], tmp_path / "report", "--timeout-graceful-shutdown", "2") as server,
        Streaming(server.url, "/untold") as untold,
        Streaming(server.url, "/silent", first=False) as silent,
        Streaming(server.url, "/events/endless") as endless,
    ):
        server.stop()
        watch = Stopwatch()
        assert (untold.read(), silent.read()) == (b"hello\n", b"")
        endless.read()
        assert 1.5 < watch.seconds < 2.5
        assert [stream.whole for stream in (untold, silent, endless)] == [False, False, False]
        report = server.stopped()
    assert names(report) == [(path, "stream", "disconnected") for path in ("/events/endless", "/silent", "/untold")]
    assert {cut["phase"] for cut in report["cut"]} == {"DISCONNECTING"}
    assert report["phases"]["DRAINING"] == pytest.approx(1.8, abs=0.2)
    assert report["phases"]["DISCONNECTING"] == pytest.approx(0.2, abs=0.15)
    for path in ("/untold", "/silent", "/events/endless"):
        assert server.process.stderr.count(generators_app.ENDED + path) == 1, "its finally ran"


@pytest.mark.parametrize("app", APPS)
def test_one_whose_client_leaves_is_cancelled_after_timeout_disconnect(app: str, tmp_path: Path) -> None:
    with draining(APPS[app], tmp_path / "report", "--timeout-disconnect", "0.4") as server:
        with Streaming(server.url, "/untold"), Streaming(server.url, "/silent", first=False):
            pass
        watch = Stopwatch()
        for path in ("/untold", "/silent"):
            server.process.wait_for(generators_app.ENDED + path)
        assert 0.3 < watch.seconds < 2
        server.stop()
        report = server.stopped()
    assert report["cut"] == []
    assert report["seconds"] < 2, "nobody had to be waited for"


@pytest.mark.parametrize("app", ["wrapped", "in_fastapi"])
def test_background_tasks_finish_within_the_grace(app: str, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with (
        draining(APPS[app], tmp_path / "report", "--timeout-graceful-shutdown", "3") as server,
        Peer(server.url) as peer,
    ):
        assert peer.get(f"/background?until={go}").body == b"accepted"
        server.stop()
        assert peer.ended() == "FIN"
        peer.close()
        go.touch()
        report = server.stopped()
    assert (report["in_flight"], report["finished"], report["background_finished"]) == ({"background": 1}, 1, 1)
    stderr = server.process.stderr
    assert stderr.index(generators_app.WORKED) < stderr.index(common.CLOSED)


@pytest.mark.parametrize("app", APPS)
def test_drain_close_ends_endless_generators_after_the_farewell(app: str, tmp_path: Path) -> None:
    options = ("--drain-close", "/events*", "--drain-farewell", "0.5")
    with (
        draining(APPS[app], tmp_path / "report", *options) as server,
        Streaming(server.url, "/events/endless") as endless,
        Streaming(server.url, "/told/wait") as told,
    ):
        server.stop()
        watch = Stopwatch()
        before = endless.body.count(b"tick")
        assert told.read().endswith(b"bye\n")
        assert endless.read().count(b"tick") > before + 5, "it went on during the farewell"
        assert 0.4 < watch.seconds < 1.5
        assert told.whole
        assert not endless.whole
        report = server.stopped()
    assert (report["cut"], report["closed_by_policy"], report["finished"]) == ([], 1, 1)
    assert generators_app.ENDED + "/events/endless" in server.process.stderr


@pytest.mark.parametrize("app", ["wrapped", "in_fastapi"])
def test_a_cancel_at_the_end_of_the_grace_leaves_no_traceback(app: str, tmp_path: Path) -> None:
    """A handler and a background task that wait for ever. Middlewares must not make an error of the cancellation."""
    with (
        draining(APPS[app], tmp_path / "report", "--timeout-graceful-shutdown", "0.5") as server,
        Peer(server.url) as waiting,
        Peer(server.url) as answered,
    ):
        waiting.request("/never")
        assert answered.get(f"/background?until={tmp_path / 'nothing'}").body == b"accepted"
        server.stop()
        assert waiting.answer().status == 503
        assert waiting.ended() == answered.ended() == "FIN"
        waiting.close()
        answered.close()
        report = server.stopped()
    assert names(report) == [("/never", "request", "cancelled")]
    assert (report["cancelled"], report["finished"]) == (2, 0)
    assert generators_app.ENDED + "/never" in server.process.stderr


def test_a_models_answer_of_three_seconds_arrives_to_its_last_token(tmp_path: Path) -> None:
    with draining(APPS["in_fastapi"], tmp_path / "report") as server, Streaming(server.url, "/tokens") as answer:
        for _ in range(9):
            answer.body += answer.chunk()
        server.stop()  # about half a second after the request
        assert answer.read().decode() == "".join([*generators_app.TOKENS, generators_app.DONE])
        assert answer.whole
        report = server.stopped()
    assert (report["cut"], report["finished"]) == ([], 1)
    assert report["seconds"] < 4
