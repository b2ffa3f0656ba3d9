"""Who may finish and who is closed: ``--drain-close``, ``--drain-finish``, and the application's own word.

One stop, made once, with a client for each rule.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from testing.clock import Moment
from testing.process import ServerProcess
from tests.process.conftest import APPS, wait_for_output
from tests.process.witness import Client, Journal, report

GRACE = 4.0
FAREWELL = 0.4
MARGIN = 0.4  # a tenth of the grace
LATE = 0.3  # what a busy machine may add

OPTIONS: Sequence[str] = (
    *("--timeout-graceful-shutdown", f"{GRACE:g}", "--drain-farewell", f"{FAREWELL:g}", "--exit-nonzero-on-cut"),
    *("--drain-close", "/inf/*", "--drain-close", "/mute*"),
    *("--drain-close", "/fin*", "--drain-finish", "/fin/kept*"),  # the longer pattern wins
    *("--drain-close", "/choose/told/*", "--drain-finish", "/choose/calm/*"),
)

CLIENTS = {
    "crosses": "/inf/a/b/c",
    "decoded": "/in%66/x",
    "longer": "/fin/kept?n=10",
    "shorter": "/fin/other?n=100",
    "said-close": "/choose?say=close&s=9",
    "said-finish": "/choose/told/x?say=finish&s=1",
    "said-close-in-calm": "/choose/calm/x?say=close&s=9",
    "default": "/plain?n=10",
    "waits": "/mute?s=100",
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
            self.ordered = Moment.now()
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


def test_a_get_that_waits_for_its_answer_is_told_to_come_again_then(stop: Stop) -> None:
    waiting = stop.clients["waits"]
    assert (waiting.answer.status, waiting.answer.headers["retry-after"]) == (503, "1")
    assert about(waiting.ended_at - stop.ordered, FAREWELL)
    assert stop.said.of("waits")[-2:] == ["http.disconnect", "finally"]


def test_the_longer_pattern_wins(stop: Stop) -> None:
    assert stop.clients["longer"].whole


def test_finish_is_the_default_for_http(stop: Stop) -> None:
    assert stop.clients["default"].whole


def test_the_application_has_the_last_word(stop: Stop) -> None:
    assert stop.clients["said-finish"].whole, "--drain-close fits, the application said finish()"
    assert about(stop.closed("said-close"), FAREWELL)
    assert about(stop.closed("said-close-in-calm"), FAREWELL), "--drain-finish fits, the application said close()"


def test_closed_by_policy_is_no_cut_and_no_reason_for_exit_code_6(stop: Stop) -> None:
    assert stop.code == 0
    assert stop.report["cut"] == []
    assert stop.report["closed_by_policy"] == 6
    assert stop.report["finished"] == len(CLIENTS) - 6
    assert "Traceback" not in stop.server.stderr
