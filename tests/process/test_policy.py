"""Who may finish and who is closed: ``--drain-close``, ``--drain-finish``, and the application's own word.

One stop, made once, with a client for each rule.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from testing.process import ServerProcess
from tests.process.conftest import APPS, Start, wait_for_output
from tests.process.witness import Client, Journal, report

GRACE = 4.0
FAREWELL = 0.4
MARGIN = 0.4  # a tenth of the grace
LATE = 0.3  # what a busy machine may add

OPTIONS: Sequence[str] = (
    *("--timeout-graceful-shutdown", f"{GRACE:g}", "--drain-farewell", f"{FAREWELL:g}", "--exit-nonzero-on-cut"),
    *("--drain-close", "/inf/*", "--drain-close", "/quiet/*", "--drain-close", "/farewell*", "--drain-close", "/slow*"),
    *("--drain-close", "/fin*", "--drain-finish", "/fin/kept*"),  # the longer pattern wins
    *("--drain-close", "/choose/told/*", "--drain-finish", "/choose/calm/*"),
)

CLIENTS = {
    "crosses": "/inf/a/b/c",
    "decoded": "/in%66/x",
    "quiet": "/quiet/x",
    "farewell": "/farewell",
    "unstarted": "/slow/x?s=1",
    "longer": "/fin/kept?n=10",
    "shorter": "/fin/other?n=100",
    "late-start": "/inf/x?delay=0.8",
    "said-close": "/choose?say=close&s=9",
    "said-finish": "/choose/told/x?say=finish&s=1",
    "said-close-in-calm": "/choose/calm/x?say=close&s=9",
    "said-late": "/choose?say=close&s=9&late=0.9",
    "said-finish-too-late": "/choose/told/y?say=finish&s=9&late=0.6",
    "default": "/plain?n=10",
}


class Stop:
    """The stop, and what became of everybody."""

    def __init__(self, directory: Path) -> None:
        file = directory / "report.json"
        with (
            ServerProcess([*OPTIONS, "--drain-report", str(file)], "probe:app", cwd=APPS) as server,
            ExitStack() as stack,
        ):
            server.wait_ready()
            self.clients: dict[str, Client] = {}
            for name, path in CLIENTS.items():
                client = Client(server, f"{path}{'&' if '?' in path else '?'}id={name}")
                stack.callback(client.close)
                self.clients[name] = client
            for name in CLIENTS:
                wait_for_output(server, f"{name} began")
            self.ordered = time.monotonic()
            server.signal(signal.SIGTERM)
            self.code = server.wait()
            for client in self.clients.values():
                client.wait_ended()
        self.server = server
        self.said = Journal(server)
        self.report = report(file)

    def closed(self, name: str) -> float:
        """Seconds from the signal to the cut of this response; it fails where the response is whole."""
        client = self.clients[name]
        assert not client.whole
        assert client.ended == "FIN"
        return client.ended_at - self.ordered


@pytest.fixture(scope="module")
def stop(tmp_path_factory: pytest.TempPathFactory) -> Stop:
    """The stop that the tests below look at."""
    return Stop(tmp_path_factory.mktemp("policy"))


def about(seconds: float, expected: float) -> bool:
    """Whether something came when it should have, and not earlier."""
    return expected - 0.01 < seconds < expected + LATE


@pytest.mark.parametrize("name", ["crosses", "decoded", "shorter"])
def test_a_response_whose_path_fits_drain_close_is_disconnected_a_farewell_after_the_notice(
    stop: Stop, name: str
) -> None:
    """``*`` crosses ``/``, and the path is the decoded one."""
    assert about(stop.closed(name), FAREWELL)
    assert stop.said.of(name)[-2:] == ["ClientDisconnected", "finally"]


def test_one_that_does_not_notice_is_cancelled_a_margin_later_and_not_at_the_end_of_the_grace(stop: Stop) -> None:
    assert about(stop.closed("quiet"), FAREWELL)
    assert about(stop.said.at("quiet CancelledError") - stop.ordered, FAREWELL + MARGIN)


def test_what_is_sent_between_the_notice_and_the_disconnect_arrives(stop: Stop) -> None:
    client = stop.clients["farewell"]
    assert client.whole
    assert client.answer.body == b"data: hello\n\nevent: bye\n\n"
    assert stop.said.at("farewell finally") - stop.ordered < FAREWELL


def test_a_request_whose_response_has_not_begun_is_not_disconnected_by_a_policy(stop: Stop) -> None:
    assert stop.clients["unstarted"].answer.body == b"slow"


def test_a_response_that_begins_when_the_farewell_is_over_is_disconnected_at_once(stop: Stop) -> None:
    assert 0.7 < stop.closed("late-start") < 0.8 + LATE
    assert stop.said.of("late-start")[-2:] == ["ClientDisconnected", "finally"]


def test_the_longer_pattern_wins(stop: Stop) -> None:
    assert stop.clients["longer"].whole


def test_finish_is_the_default_for_http(stop: Stop) -> None:
    assert stop.clients["default"].whole


def test_the_application_has_the_last_word(stop: Stop) -> None:
    assert stop.clients["said-finish"].whole, "--drain-close fits, the application said finish()"
    assert about(stop.closed("said-close"), FAREWELL)
    assert about(stop.closed("said-close-in-calm"), FAREWELL), "--drain-finish fits, the application said close()"


def test_close_that_is_said_when_the_farewell_is_over_disconnects_at_once(stop: Stop) -> None:
    assert about(stop.closed("said-late"), 0.9)
    assert stop.said.at("said-late chooses") <= stop.clients["said-late"].ended_at


def test_finish_that_is_said_after_the_disconnect_does_nothing(stop: Stop) -> None:
    assert about(stop.closed("said-finish-too-late"), FAREWELL)
    assert stop.said.of("said-finish-too-late") == ["began", "chooses", "ClientDisconnected", "finally"]


def test_closed_by_policy_is_no_cut_and_no_reason_for_exit_code_6(stop: Stop) -> None:
    assert stop.code == 0
    assert stop.report["cut"] == []
    assert stop.report["closed_by_policy"] == 9
    assert stop.report["finished"] == len(CLIENTS) - 9
    assert "Traceback" not in stop.server.stderr


@pytest.mark.parametrize(
    ("close", "finish", "whole"),
    [("/fin/*", "/*in/x", False), ("/fin/*", "/*fin/x", True), ("/f*", "/fin/[!a]", True)],
    ids=["equal", "longer", "longer with a class"],
)
def test_of_two_patterns_that_are_equally_long_close_wins(start: Start, close: str, finish: str, whole: bool) -> None:
    options = ("--drain-close", close, "--drain-finish", finish, "--drain-farewell", "0")
    server = start("probe:app", "--timeout-graceful-shutdown", "2", *options)
    client = Client(server, "/fin/x?n=3")
    client.wait_for(b"data: 0")
    assert server.stop() == 0
    client.wait_ended()
    assert client.whole is whole
    client.close()


def test_a_farewell_is_never_longer_than_the_time_until_all_are_disconnected(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    options = ("--timeout-graceful-shutdown", "0.5", "--drain-farewell", "10", "--drain-close", "*")
    server = start("probe:app", *options, "--drain-report", str(file))
    client = Client(server, "/infr")
    client.wait_for(b"tick")
    ordered = time.monotonic()
    assert server.stop() == 0
    client.wait_ended()
    client.close()
    assert about(client.ended_at - ordered, 0.45)
    assert (report(file)["closed_by_policy"], report(file)["disconnected"]) == (1, 0)
