"""``lifespan.shutdown`` comes after the ``finally`` of a stream that its framework has left to the collector."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from testing.peer import Peer, eventually
from tests.frameworks.apps import common, finally_app
from tests.frameworks.draining import Drained, Streaming, draining

pytestmark = pytest.mark.slow

ENDS = {
    "closed by policy": ("--drain-close", "*", "--drain-farewell", "0.2"),
    "the end of the grace": ("--timeout-graceful-shutdown", "1"),
}


def in_order(server: Drained, number: int) -> None:
    """Each generator found the database open."""
    stderr = server.process.stderr
    said = [line for line in stderr.splitlines() if line in (finally_app.ROLLED_BACK, common.CLOSED)]
    assert said == [finally_app.ROLLED_BACK] * number + [common.CLOSED], stderr
    assert finally_app.TOO_LATE not in stderr


@pytest.mark.parametrize(
    ("end", "loop", "app", "path"),
    [
        *((end, loop, "app", path) for end in ENDS for loop in ("auto", "uvloop") for path in ("/stream", "/cycle")),
        *((end, "auto", "wrapped", "/stream") for end in ENDS),
        ("closed by policy", "uvloop", "wrapped", "/cycle"),
        ("closed by policy", "asyncio", "app", "/stream"),
    ],
)
def test_the_finally_of_a_stream_runs_to_its_end_before_the_shutdown(
    end: str, loop: str, app: str, path: str, tmp_path: Path
) -> None:
    options = ("--loop", loop, *ENDS[end])
    with draining(f"finally_app:{app}", tmp_path / "report", *options) as server, ExitStack() as stack:
        streams = [stack.enter_context(Streaming(server.url, path)) for _ in range(2)]
        server.stop()
        for one in streams:
            one.read()
        server.stopped()
    in_order(server, 2)


def test_also_where_the_loop_was_entered_anew(tmp_path: Path) -> None:
    """A SystemExit leaves the loop, which sets its hooks again when it goes on; the stream began before."""
    options = ("--drain-close", "*", "--drain-farewell", "0.2", "--drain-delay", "1")
    with draining("finally_app:app", tmp_path / "report", *options) as server, ExitStack() as stack:
        before = stack.enter_context(Streaming(server.url, "/stream"))
        with Peer(server.url) as peer:
            assert peer.get("/wild").status == 200
        server.process.wait_for("Stopping")
        after = stack.enter_context(Streaming(server.url, "/stream"))
        for one in (before, after):
            one.read()
        server.stopped(alarms=("Traceback", "never retrieved"))
    in_order(server, 2)


@pytest.mark.parametrize("loop", ["auto", "uvloop"])
@pytest.mark.parametrize("when", ["before the stop", "in the stop"])
def test_the_generator_of_a_client_that_has_left_is_closed_before_the_shutdown(
    when: str, loop: str, tmp_path: Path
) -> None:
    """In a cycle, so that nobody has found it yet when the stop looks."""
    options = ("--loop", loop, "--drain-delay", "0" if when == "before the stop" else "1")
    with draining("finally_app:app", tmp_path / "report", *options) as server:
        one = Streaming(server.url, "/cycle")
        if when == "in the stop":
            server.stop()
        one.reset()
        if when == "before the stop":
            eventually(lambda: '"GET /cycle HTTP/1.1" 200' in server.process.stdout)
            time.sleep(10 * finally_app.STEP)  # most likely its task has ended, too, and the stop never hears of it
            server.stop()
        server.stopped()
    in_order(server, 1)


@pytest.mark.parametrize("loop", ["auto", "uvloop"])
def test_also_where_its_last_reference_is_dropped_in_a_thread(loop: str, tmp_path: Path) -> None:
    with draining("finally_app:app", tmp_path / "report", "--loop", loop) as server, Peer(server.url) as peer:
        peer.request("/thread")
        server.process.wait_for("the generator waits")  # the request has arrived, and the thread's turn comes
        server.stop()
        assert peer.answer().body == b"dropped"
        server.stopped()
    in_order(server, 1)


@pytest.mark.parametrize("loop", ["auto", "uvloop"])
def test_also_where_the_application_has_set_an_eager_task_factory(loop: str, tmp_path: Path) -> None:
    """With which no loop but asyncio's own makes tasks: uvloop 0.23 fails."""
    options = ("--loop", loop, "--drain-close", "*", "--drain-farewell", "0.2", "--timeout-cancel", "30")
    with draining("finally_app:app", tmp_path / "report", *options, env={"EAGER": "1"}) as server:
        with Streaming(server.url, "/stream") as one:
            server.stop()
            one.read()
        report = server.stopped()
    in_order(server, 1)
    assert report["seconds"] < 15, "nobody waits for what can never end"


def test_a_finally_that_does_not_end_is_given_up_after_timeout_cancel(tmp_path: Path) -> None:
    options = ("--drain-close", "*", "--drain-farewell", "0", "--timeout-cancel", "0.5")
    with (
        draining("finally_app:app", tmp_path / "report", *options) as server,
        Streaming(server.url, "/never-closed") as one,
    ):
        server.stop()
        one.read()
        report = server.stopped(alarms=("Traceback",))
    assert re.search(r"^WARNING: .* no longer waited for: feed$", server.process.stderr, re.MULTILINE)
    assert report["closed_by_policy"] == 1
    assert 0.5 < report["seconds"] < 5
