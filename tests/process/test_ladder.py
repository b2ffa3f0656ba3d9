"""The ladder from the first rung to the last: what clients and applications see of each phase, and when.

Most tests here look at one stop, which ``graceful`` makes once: sixteen clients that each want something else of it.
"""

from __future__ import annotations

import json
import math
import re
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from testing.clock import Moment
from testing.peer import Peer, request
from testing.process import ServerProcess
from tests.process.conftest import APPS, Start, Stopwatch, open_stream, wait_for_output
from tests.process.witness import Client, Journal, cuts, report

GRACE = 2.0
MARGIN = 0.2  # a tenth of it, as the linger
LATE = 0.35  # what a busy machine may add to any time below


class Stop:
    """One stop with everything in flight, and what became of it."""

    def __init__(self, directory: Path) -> None:
        file = directory / "report.json"
        options = ["--timeout-graceful-shutdown", f"{GRACE:g}", "--timeout-cancel", "1", "--drain-report", str(file)]
        with ServerProcess(options, "probe:app", cwd=APPS) as server, ExitStack() as stack:
            server.wait_ready()

            def client(path: str | None = None, *, version: str = "1.1", raw: bytes = b"") -> Client:
                made = Client(server, path, version=version, raw=raw)
                stack.callback(made.close)
                return made

            self.inf = client("/inf")
            self.deaf = client("/inf?deaf&id=deaf")
            self.infr = client("/infr")
            self.quiet = client("/quiet")
            self.chunked = client("/returns?id=chunked")
            self.length = client("/returns?id=length&length=100")
            self.old = client("/returns?id=old", version="1.0")
            self.fin = client("/fin?n=8")
            self.slow = client("/slow?s=100&cleanup=0.3")
            self.mute = client("/mute")
            self.upload = client(raw=request("/echo", method="POST", body=b"x" * 10)[:-5])
            self.bg_short = client("/bg?s=1&id=bg-short")
            self.bg_long = client("/bg?s=100&id=bg-long")
            self.track_short = client("/track?s=1&id=track-short")
            self.track_long = client("/track?s=100&id=track-long")
            self.idle = client("/ok")
            self.fresh = client()
            for name in ("deaf", "chunked", "length", "old", "fin", "slow", "mute", "echo", "bg-long", "track-long"):
                wait_for_output(server, f"{name} began")
            self.idle.wait_for(b"\r\n\r\nok")
            self.ordered = Moment.now()
            server.signal(signal.SIGTERM)
            # As long as its response has not begun, an upload goes on although others have been disconnected.
            self.chunked.wait_ended()
            self.upload.peer.send(b"x" * 5)
            self.code = server.wait()
            self.seconds = time.monotonic() - self.ordered
            for made in vars(self).values():
                if isinstance(made, Client):
                    made.wait_ended()
        self.server = server
        self.said = Journal(server)
        self.report = report(file)

    def when(self, words: str) -> float:
        """Seconds from the signal to these words of the application's, which came once."""
        return self.said.at(words) - self.ordered


@pytest.fixture(scope="module")
def stop(tmp_path_factory: pytest.TempPathFactory) -> Stop:
    """The stop that most of the tests below look at."""
    return Stop(tmp_path_factory.mktemp("stop"))


def test_a_finite_stream_that_ends_within_the_grace_is_complete(stop: Stop) -> None:
    assert stop.fin.whole
    assert stop.fin.answer.body == b"".join(b"data: %d\n\n" % number for number in range(8))


def test_http_disconnect_does_not_come_at_the_signal_but_before_the_cancel(stop: Stop) -> None:
    assert GRACE - MARGIN - 0.01 < stop.when("infr http.disconnect") < GRACE - MARGIN + LATE
    assert stop.said.at("infr http.disconnect") < stop.said.at("slow CancelledError")
    for client in (stop.inf, stop.infr, stop.deaf):
        assert client.data.count(b"data: tick") > 10, "send() works as ever until then"


def test_both_ways_in_which_frameworks_notice_a_disconnect_end_the_response(stop: Stop) -> None:
    assert stop.said.of("infr")[:2] == ["began", "http.disconnect"]  # receive(): Starlette below HTTP 2.4
    assert stop.said.of("inf") == ["began", "ClientDisconnected", "finally"]  # send() raises: from 2.4 on
    assert GRACE - MARGIN - 0.01 < stop.when("inf ClientDisconnected") < GRACE + LATE


@pytest.mark.parametrize("name", ["quiet", "deaf"])
def test_a_response_that_does_not_notice_its_disconnect_is_cancelled_a_margin_later(stop: Stop, name: str) -> None:
    assert stop.said.of(name)[-2:] == ["CancelledError", "finally"]
    assert GRACE - 0.01 < stop.when(f"{name} CancelledError") < GRACE + LATE
    client = getattr(stop, name)
    assert not client.whole
    assert client.ended_at - stop.ordered < GRACE - MARGIN + LATE, "its client is not kept waiting that long"


@pytest.mark.parametrize(("name", "ended"), [("chunked", "FIN"), ("length", "FIN"), ("old", "RST")])
def test_a_disconnected_response_is_visibly_incomplete_although_its_task_returns(
    stop: Stop, name: str, ended: str
) -> None:
    assert stop.said.of(name) == ["began", "http.disconnect", "ClientDisconnected", "finally"]
    client = getattr(stop, name)
    assert b"first" in client.data, "what was sent is flushed"
    assert not client.whole, "no last chunk, a short body, or a reset where a FIN would look like the end"
    assert client.ended == ended
    assert GRACE - MARGIN - 0.01 < client.ended_at - stop.ordered < GRACE - MARGIN + LATE


@pytest.mark.parametrize("name", ["mute", "slow"])
def test_a_request_without_a_response_is_never_disconnected_and_gets_503_at_the_end_of_the_grace(
    stop: Stop, name: str
) -> None:
    assert "http.disconnect" not in stop.said.of(name)
    assert GRACE - 0.01 < stop.when(f"{name} CancelledError") < GRACE + LATE
    client = getattr(stop, name)
    assert client.answer.status == 503
    assert (client.answer.headers["retry-after"], client.answer.headers["connection"]) == ("1", "close")
    assert client.ended == "FIN"


def test_the_503_is_written_when_the_cancelled_task_has_ended(stop: Stop) -> None:
    assert stop.slow.ended_at > stop.said.at("slow cleaned up") - 0.001


def test_an_upload_goes_on_until_the_end_of_the_grace_and_is_answered(stop: Stop) -> None:
    assert (stop.upload.answer.status, stop.upload.answer.body) == (200, b"10")
    assert stop.upload.answer.headers["connection"] == "close"
    assert stop.said.at("echo finally") > stop.said.at("chunked http.disconnect")


def test_background_work_is_waited_for(stop: Stop) -> None:
    assert stop.said.of("bg-short") == ["began", "done", "finally"]
    assert stop.bg_short.answer.body == b"bg"


def test_background_work_that_does_not_end_is_cancelled_once_and_its_finally_runs(stop: Stop) -> None:
    assert stop.said.of("bg-long") == ["began", "CancelledError", "finally"]
    assert GRACE - 0.01 < stop.when("bg-long CancelledError") < GRACE + LATE


def test_a_tracked_task_is_drained_like_a_request(stop: Stop) -> None:
    assert stop.said.of("track-short") == ["began", "done", "finally"]
    assert stop.said.of("track-long") == ["began", "CancelledError", "finally"]
    assert GRACE - 0.01 < stop.when("track-long CancelledError") < GRACE + LATE


@pytest.mark.parametrize("name", ["idle", "fresh"])
def test_a_quiet_connection_gets_its_fin_after_the_linger(stop: Stop, name: str) -> None:
    client = getattr(stop, name)
    assert client.ended == "FIN"
    assert MARGIN - 0.01 < client.ended_at - stop.ordered < MARGIN + LATE


def test_lifespan_shutdown_begins_when_the_last_task_has_ended(stop: Stop) -> None:
    assert stop.said.at("slow cleaned up") - stop.said.at("slow CancelledError") > 0.29, "cleaning up takes a while"
    ended = [at for at, words in stop.said.lines if words.endswith(("finally", "cleaned up"))]
    assert max(ended) < stop.said.at("shutdown began")
    assert stop.said.at("shutdown began") - max(ended) < LATE, "and nothing else is waited for"


def test_the_stop_keeps_within_its_budget_and_ends_when_the_last_task_has(stop: Stop) -> None:
    assert GRACE + 0.3 < stop.seconds < GRACE + 0.3 + 1
    assert "Stopping (SIGTERM): 15 requests in flight, done within 9 s." in stop.server.stderr
    assert "A stop takes at most 9 s (after Ctrl-C: 9 s)\n" in stop.server.stderr


def test_no_cancel_and_no_disconnect_that_was_ordered_leaves_a_traceback_or_an_error(stop: Stop) -> None:
    assert "Traceback" not in stop.server.stderr
    assert "ERROR" not in stop.server.stderr
    assert not re.search("^WARNING:  (?!Stopped )", stop.server.stderr, re.MULTILINE)


def test_each_entry_ends_as_exactly_one_thing(stop: Stop) -> None:
    assert stop.report["in_flight"] == {"stream": 8, "request": 3, "background": 2, "app task": 2}
    assert stop.report["arrived"] == 0
    assert stop.report["finished"] == 4  # fin, upload, bg-short, track-short
    assert stop.report["background_finished"] == 1
    assert stop.report["disconnected"] == 7
    assert stop.report["cancelled"] == 4  # slow, mute, bg-long, track-long
    assert (stop.report["closed_by_policy"], stop.report["abandoned"], stop.report["left"]) == (0, 0, [])


def test_every_cut_response_is_named_with_its_phase_and_nothing_else_is(stop: Stop) -> None:
    assert cuts(stop.report, "path", "kind", "outcome", "phase") == [
        ("/inf", "stream", "disconnected", "DISCONNECTING"),
        ("/inf", "stream", "disconnected", "DISCONNECTING"),
        ("/infr", "stream", "disconnected", "DISCONNECTING"),
        ("/mute", "request", "cancelled", "CANCELLING"),
        ("/quiet", "stream", "disconnected", "DISCONNECTING"),
        ("/returns", "stream", "disconnected", "DISCONNECTING"),
        ("/returns", "stream", "disconnected", "DISCONNECTING"),
        ("/returns", "stream", "disconnected", "DISCONNECTING"),
        ("/slow", "request", "cancelled", "CANCELLING"),
    ]


# Other budgets.


def test_during_the_delay_readiness_says_503_while_all_else_is_served_then_connections_are_refused(
    start: Start, tmp_path: Path
) -> None:
    delay, linger = 0.8, 0.2
    file = tmp_path / "report.json"
    options = ("--drain-delay", f"{delay:g}", "--health-path", "/-", "--timeout-graceful-shutdown", f"{linger * 10:g}")
    server = start("probe:app", *options, "--drain-report", str(file))
    address = server.addresses[0]
    with Peer(address) as kept, Peer(address) as fresh, Peer(address) as old, ExitStack() as stack:
        for path in ("/-/ready", "/-/live", "/ok"):
            answer = kept.get(path)
            assert (answer.status, "connection" in answer.headers) == (200, False)
        held = Client(server, "/slow?s=1.6")
        waiting = Client(server, "/notice?wait&id=waiting")
        stack.callback(held.close)
        stack.callback(waiting.close)
        wait_for_output(server, "slow began")
        wait_for_output(server, "waiting began")
        ordered = Moment.now()
        server.signal(signal.SIGTERM)
        server.wait_for("Stopping")
        for peer, path, status in ((fresh, "/-/ready", 503), (kept, "/-/live", 200)):
            answer = peer.get(path)
            assert (answer.status, answer.headers["connection"]) == (status, "close")
            assert peer.ended() == "FIN"
        old.send(b"GET /ok HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert "connection" not in old.answer().headers, "HTTP/1.0: no keep-alive is promised any more"
        with Peer(address) as late:
            told = json.loads(late.get("/notice").body)
            assert told == {"stopping": True, "is_set": False, "remaining": None, "same": True}
        assert time.monotonic() - ordered < delay, "this machine is too busy for this test"
        waiting.wait_ended()
        assert waiting.ended_at - ordered > delay - 0.01, "the notice is set when the delay is over"
        told = json.loads(waiting.answer.body)
        assert told["is_set"]
        assert linger * 9 - LATE < told["remaining"] < linger * 9
        time.sleep(max(0.0, ordered + delay + linger + 0.1 - time.monotonic()))
        with pytest.raises(ConnectionRefusedError):
            Peer(address)
        held.wait_ended()
        assert held.answer.body == b"slow"
    assert server.wait() == 0
    assert "announced: " not in server.stderr, "the delay was shorter than a second"
    phases = report(file)["phases"]
    assert delay - 0.01 < phases["ANNOUNCED"] < delay + LATE
    assert list(phases) == ["ANNOUNCED", "DRAINING", "CLOSING"]


def test_a_grace_without_limit_says_so_and_waits_until_a_second_signal(start: Start) -> None:
    server = start("probe:app", "--timeout-graceful-shutdown", "none")
    server.wait_for("A stop has no limit: one of its timeouts is none\n")
    with Peer(server.addresses[0]) as peer:
        peer.request("/notice?wait")
        wait_for_output(server, "notice began")
        stream = Client(server, "/inf")
        stream.wait_for(b"tick")
        server.signal(signal.SIGTERM)
        assert json.loads(peer.answer().body)["remaining"] == math.inf
        server.wait_for(r"Stopping \(SIGTERM\): 2 requests in flight, no limit to the wait\.")
        server.wait_for(r"draining: 1 left, no limit: GET /inf")
        assert not stream.ended
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        stream.close()
    assert Journal(server).of("inf") == ["began", "CancelledError", "finally"]


def test_no_grace_still_reads_the_backlog_and_what_has_arrived_and_then_cancels(start: Start) -> None:
    server = start("probe:app", "--timeout-graceful-shutdown", "0")
    with Peer(server.addresses[0]) as kept, ExitStack() as stack:
        assert kept.get().status == 200
        stuck = Client(server, "/slow?s=100")
        wait_for_output(server, "slow began")
        blocked = Client(server, "/block?s=0.5")
        wait_for_output(server, "block began")
        kept.request()
        waiting = [Client(server, "/ok") for _ in range(5)]
        for client in (stuck, blocked, *waiting):
            stack.callback(client.close)
        server.signal(signal.SIGTERM)
        assert (answer := kept.answer()).status == 200
        assert answer.headers["connection"] == "close"
        for client in waiting:
            assert client.wait_ended() == "FIN"
            assert (client.answer.status, client.answer.headers["connection"]) == (200, "close")
        blocked.wait_ended()
        assert blocked.answer.body == b"block"
        stuck.wait_ended()
        assert stuck.answer.status == 503
    assert server.wait() == 0


def test_no_time_to_cancel_is_still_one_turn_of_the_loop(start: Start) -> None:
    server = start("probe:app", "--timeout-graceful-shutdown", "0.2", "--timeout-cancel", "0")
    with Client(server, "/mute").peer, Client(server, "/stubborn").peer:
        wait_for_output(server, "mute began")
        wait_for_output(server, "stubborn began")
        watch = Stopwatch()
        assert server.stop() == 5
        assert watch.seconds < 2.2  # the teardown gives the stubborn task its second
    assert Journal(server).of("mute") == ["began", "CancelledError", "finally"]
    assert "1 cancelled, 1 abandoned; lifespan complete; exit code 5" in server.stderr


def test_ctrl_c_has_no_delay_and_no_linger_and_a_short_grace_but_serves_what_has_arrived(start: Start) -> None:
    server = start("probe:app", "--drain-delay", "30", "--timeout-interrupt", "0.5")
    server.wait_for(r"A stop takes at most 58 s \(after Ctrl-C: 8\.5 s\)\n")
    with Peer(server.addresses[0]) as kept, Peer(server.addresses[0]) as idle, ExitStack() as stack:
        assert kept.get().status == idle.get().status == 200
        stream = Client(server, "/inf")
        stream.wait_for(b"tick")
        blocked = Client(server, "/block?s=0.4")
        wait_for_output(server, "block began")
        waiting = Client(server, "/ok")
        for client in (stream, blocked, waiting):
            stack.callback(client.close)
        kept.request()
        watch = Stopwatch()
        server.signal(signal.SIGINT)
        assert idle.ended() == "FIN"
        assert watch.seconds < 0.4 + LATE, "a linger would be 0.05 s of this grace, and a second of the other"
        waiting.wait_ended()
        for answer in (kept.answer(), waiting.answer):
            assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert stream.wait_ended() == "FIN"
        assert not stream.whole
        assert server.wait() == 0
        assert 0.4 + 0.44 < watch.seconds < 0.4 + 0.5 + LATE
    assert "Stopped (SIGINT) after " in server.stderr
    assert server.stderr.count("1 disconnected; lifespan complete; exit code 0") == 1


def test_the_defaults_add_up_to_28_seconds_and_are_logged_at_the_start_and_at_the_order(start: Start) -> None:
    server = start("probe:app")
    server.wait_for(r"A stop takes at most 28 s \(after Ctrl-C: 11 s\)\n")
    watch = Stopwatch()
    assert server.stop() == 0
    assert watch.seconds < 1, "with nothing open a stop is over at once"
    assert "Stopping (SIGTERM): 0 requests in flight, done within 28 s.\n" in server.stderr


def test_a_client_that_leaves_ends_a_generator_that_does_not_look(start: Start) -> None:
    server = start("probe:app", "--timeout-disconnect", "0.3")
    gone = open_stream(server, "/quiet")
    unstarted = Peer(server.addresses[0])
    unstarted.request("/slow?s=0.8")
    wait_for_output(server, "slow began")
    left = Moment.now()
    for peer in (gone, unstarted):
        peer.reset()
    wait_for_output(server, "quiet CancelledError")
    wait_for_output(server, "slow finally")
    assert server.stop() == 0
    said = Journal(server)
    assert 0.29 < said.at("quiet CancelledError") - left < 0.3 + LATE
    assert said.of("slow") == ["began", "finally"], "its response had not begun: it may have done half of its work"
    assert "Traceback" not in server.stderr


def test_without_a_timeout_a_generator_whose_client_has_left_goes_on_until_the_grace_is_over(start: Start) -> None:
    server = start("probe:app", "--timeout-disconnect", "none", "--timeout-graceful-shutdown", "0.5")
    open_stream(server, "/quiet").reset()
    with Peer(server.addresses[0]) as peer:
        for _ in range(5):
            assert peer.get().status == 200
    wait_for_output(server, "quiet began")
    assert Journal(server).of("quiet") == ["began"]
    ordered = Moment.now()
    assert server.stop() == 0
    assert 0.49 < Journal(server).at("quiet CancelledError") - ordered < 0.5 + LATE
