"""What applications get: the notice, by the scope and by ``lastcall.drain_notice()``, and ``lastcall.track()``."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from contextlib import ExitStack

import pytest

import lastcall
from testing.clock import Moment
from testing.peer import Peer
from testing.process import ServerProcess
from tests.process.conftest import APPS, Start, wait_for_output
from tests.process.witness import Client, Journal

GRACE = 2.0
MARGIN = 0.2
POLL = 0.6
FAREWELL = 0.5
LATE = 0.3

PATHS = {
    "waiting": "/notice?wait",
    "told-to-close": "/notice/close?wait",
    "farewell": "/farewell?",
    "callback": "/callback?",
    "threads": "/threads?",
    "poller": "/poller?",
    "tracked": "/track?told",
}


class Stop:
    """One stop of applications that are told, each in its own way."""

    def __init__(self) -> None:
        options = ["--timeout-graceful-shutdown", f"{GRACE:g}", "--drain-farewell", f"{FAREWELL:g}"]
        options += ["--drain-close", "/*/close"]
        with ServerProcess(options, "probe:app", cwd=APPS) as server, ExitStack() as stack:
            server.wait_ready()
            with Peer(server.addresses[0]) as peer:
                self.before = json.loads(peer.get("/notice").body)
            self.clients = {}
            for name, path in PATHS.items():
                self.clients[name] = Client(server, f"{path}&id={name}")
                stack.callback(self.clients[name].close)
            for name in PATHS:
                wait_for_output(server, f"{name} began")
            self.ordered = Moment.now()
            server.signal(signal.SIGTERM)
            self.code = server.wait()
            for client in self.clients.values():
                client.wait_ended()
        self.server = server
        self.said = Journal(server)

    def told(self, name: str) -> dict[str, float]:
        """What a client got as JSON."""
        found: dict[str, float] = json.loads(self.clients[name].answer.body)
        return found

    def when(self, words: str) -> float:
        """Seconds from the signal to these words."""
        return self.said.at(words) - self.ordered


@pytest.fixture(scope="module")
def stop() -> Stop:
    """The stop that most of the tests below look at."""
    return Stop()


def test_before_the_stop_the_notice_says_nothing(stop: Stop) -> None:
    assert stop.before == {"stopping": False, "is_set": False, "remaining": None, "same": True}


def test_wait_ends_with_the_notice_and_remaining_is_the_time_until_the_disconnect(stop: Stop) -> None:
    told = stop.told("waiting")
    assert told["is_set"]
    assert told["stopping"]
    assert GRACE - MARGIN - LATE < told["remaining"] <= GRACE - MARGIN


def test_the_remaining_time_of_a_response_that_is_to_close_is_its_farewell(stop: Stop) -> None:
    assert FAREWELL - LATE < stop.told("told-to-close")["remaining"] <= FAREWELL


@pytest.mark.parametrize("name", ["farewell", "callback"])
def test_a_stream_that_was_told_says_farewell_and_ends_long_before_any_deadline(stop: Stop, name: str) -> None:
    client = stop.clients[name]
    assert client.whole
    assert client.answer.body == b"data: hello\n\nevent: bye\n\n"
    assert stop.said.of(name) == ["began", "notice", "finally"]
    assert stop.when(f"{name} finally") < LATE


def test_a_notice_can_be_used_in_a_thread(stop: Stop) -> None:
    told = stop.told("threads")
    assert told["looks"] > 0
    assert 0 < told["remaining"] <= GRACE - MARGIN


def test_a_tracked_task_hears_of_the_drain_and_ends_by_itself(stop: Stop) -> None:
    assert stop.said.of("tracked") == ["began", "done", "finally"]
    assert stop.when("tracked done") < LATE


def test_outside_of_requests_the_notice_is_that_of_the_only_server(stop: Stop) -> None:
    assert 0 < stop.when("the server's notice") < LATE


def test_libraries_that_poll_see_the_stop_before_the_margin_and_their_farewell_gets_out(stop: Stop) -> None:
    assert GRACE - MARGIN - max(MARGIN, POLL) - 0.01 < stop.when("poller should_exit True") < GRACE - MARGIN
    assert stop.clients["poller"].whole
    assert stop.clients["poller"].answer.body.endswith(b"event: bye\n\n")


def test_nobody_was_cut(stop: Stop) -> None:
    assert stop.code == 0
    assert "7 of 7 finished; lifespan complete; exit code 0\n" in stop.server.stderr


def test_a_jump_sets_the_notice_and_shows_the_stop_to_those_who_poll(start: Start) -> None:
    server = start("probe:app", "--timeout-graceful-shutdown", "30")
    with Client(server, "/callback").peer, Client(server, "/poller").peer:
        wait_for_output(server, "callback began")
        wait_for_output(server, "poller began")
        server.signal(signal.SIGQUIT)
        assert server.wait() == 0
    said = Journal(server)
    assert said.of("callback") == ["began", "notice", "CancelledError", "finally"]
    assert said.of("poller") == ["began", "should_exit True", "CancelledError", "finally"]
    assert len(said.all("the server's notice")) == 1


def test_without_a_server_the_notice_is_one_that_is_never_set() -> None:
    async def main() -> None:
        notice = lastcall.drain_notice()
        notice.add_callback(lambda: pytest.fail("called"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(notice.wait(), 0.01)
        assert (notice.is_set(), notice.stopping, notice.remaining()) == (False, False, None)
        task = asyncio.create_task(asyncio.sleep(0))
        assert lastcall.track(task) is task
        await task

    asyncio.run(main())


def test_the_notice_of_a_program_that_runs_a_server_in_a_thread_is_its_servers() -> None:
    script = """
import threading, time, lastcall

async def app(scope, receive, send): ...

server = lastcall.Server(lastcall.Config(app, port=0, lifespan="off"))
thread = threading.Thread(target=server.run)
thread.start()
while not server.started:
    time.sleep(0.01)
notice = lastcall.drain_notice()
print(notice.stopping, notice.is_set())
server.drain()
thread.join()
print(notice.stopping, notice.is_set())
print(lastcall.drain_notice().is_set())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.splitlines() == ["False False", "True True", "False"]
