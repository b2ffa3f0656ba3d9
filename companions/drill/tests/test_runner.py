"""What the runner makes of many moments, of errors in a scenario, and of the features that a server has not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from companions.drill.tests.judging import scenario_of, tiny
from lastcall_drill.client import HTTPClient
from lastcall_drill.harness import Harness
from lastcall_drill.record import replace
from lastcall_drill.runner import MOMENTS, drill, few, judge
from lastcall_drill.scenario import Failed, NotOffered, Scenario
from lastcall_drill.verdicts import Moment, Result, Source, Verdict


def moments(number: int, what: str) -> list[Moment]:
    return [Moment(float(at), Source.CLIENT, what) for at in range(number)]


def test_few_moments_are_all_kept() -> None:
    assert len(few(moments(MOMENTS, "bytes"))) == MOMENTS


def test_of_many_moments_the_middle_of_the_traffic_is_left_out_and_nothing_else() -> None:
    many = [*moments(1000, "bytes"), Moment(0, Source.DRILL, "signal"), *moments(1000, "request")]
    kept = few(many)
    assert len(kept) == MOMENTS + 2
    assert [one.what for one in kept].count("signal") == 1
    (note,) = [one for one in kept if one.what == "note"]
    assert note.detail == f"{2001 - MOMENTS - 1} moments of ordinary traffic left out"


class Steps:
    """Steps that come to a different end each time."""

    def __init__(self, *ends: Exception | str) -> None:
        self.ends = list(ends)

    def __call__(self, harness: Harness) -> str:
        end = self.ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return end


def of(*ends: Exception | str) -> Scenario:
    return replace(scenario_of("exit-idle"), steps=Steps(*ends), signals=False)


@pytest.mark.parametrize(
    ("ends", "verdict", "tries", "sentence"),
    [
        (["seen"], Verdict.PASS, 1, "seen"),
        ([Failed("not seen"), "seen"], Verdict.PASS, 2, "seen (at the second try; at the first: not seen)"),
        ([Failed("one"), Failed("two")], Verdict.FAIL, 2, "two"),
        ([NotOffered("no such thing")], Verdict.UNSUPPORTED, 1, "no such thing"),
        ([OSError("gone"), OSError("gone")], Verdict.ERROR, 2, "a client had no connection: gone"),
        ([KeyError("x"), KeyError("x")], Verdict.ERROR, 2, "the drill itself failed: KeyError: 'x'"),
    ],
)
def test_ends_of_a_scenario(ends: list[Exception | str], verdict: Verdict, tries: int, sentence: str) -> None:
    result = judge(tiny(), of(*ends))
    assert (result.verdict, result.tries, result.sentence, result.exit_code) == (verdict, tries, sentence, None)


class Told:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def begun(self, server: str, scenario: str, attempt: int) -> None:
        self.lines.append(f"{server} {scenario} {attempt}")

    def done(self, result: Result) -> None:
        self.lines.append(f"{result.server} {result.scenario} {result.verdict.value}")


def test_results_are_in_the_order_of_servers_and_scenarios_and_the_watcher_is_told() -> None:
    told = Told()
    scenarios = [replace(of("seen", "seen"), info=replace(of().info, id=name)) for name in ("b", "a")]
    run = drill([tiny("deaf"), tiny()], scenarios, jobs=1, watcher=told)
    order = [("deaf", "b"), ("deaf", "a"), ("good", "b"), ("good", "a")]
    assert [(one.server, one.scenario) for one in run.results] == order
    assert sorted(told.lines) == sorted(f"{a} {b} {c}" for a, b in order for c in ("1", "pass"))


@pytest.mark.slow
def test_the_scale_makes_all_times_longer(tmp_path: Path) -> None:
    with Harness(tiny(), tmp_path, scale=0.5) as harness:
        harness.serve(grace=3)
        assert harness.server.argv[-1] == "1.5"
        client, response = harness.open("/slow?s=1")
        begin = time.monotonic()
        harness.signal()
        assert client.wait(response, 5.0)
        assert 0.4 < time.monotonic() - begin < 0.9
        assert 0.8 < harness.since_signal(response.ended) < 1.8


@pytest.mark.slow
def test_a_second_server_of_a_scenario_has_a_zero_and_events_of_its_own(tmp_path: Path) -> None:
    with Harness(tiny(), tmp_path) as harness:
        harness.serve()
        first = harness.port
        harness.open("/inf")
        harness.must_see("request", "/inf")
        harness.signal()
        harness.serve()
        assert harness.port != first
        assert harness.events("request", "/inf") == []
        with HTTPClient(harness.port, harness.timeline, "second") as client:
            assert client.get("/ok").body == b"ok"
        harness.signal()
        harness.must_exit(3.0)
    starts = [one for one in harness.timeline.moments if one.what == "start"]
    assert [one.at < 0 for one in starts] == [True, True]
    assert [one.who for one in harness.timeline.moments if one.what == "request" and one.source is Source.APP].count(
        "/inf"
    ) == 1
