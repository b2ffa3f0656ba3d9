"""The judges are judged: each must fail a server that has the one fault that it looks for, and pass one without."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from companions.drill.tests.judging import scenario_of, tiny
from lastcall_drill.harness import Harness
from lastcall_drill.runner import drill, judge
from lastcall_drill.scenario import Failed, Scenario, scenarios
from lastcall_drill.verdicts import Result, Verdict

SCALE = 0.6

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

FAULTS = [
    ("waits-for-ever", "stream-endless", "still running 1.5 s after its grace of 2 s"),
    ("waits-for-ever", "connection-slow-reader", "still running 1.5 s after its grace of 2 s"),
    ("no-grace", "stream-finite", "of 10 chunks arrived; the connection was closed before its end"),
    ("no-grace", "request-finishes", "the connection was closed without a response"),
    ("no-grace", "request-upload", "the connection was closed without a response"),
    ("no-grace", "work-within-grace", "the work was not finished: its task cancelled"),
    ("no-grace", "signal-doubled", "the connection was closed before its end"),
    ("ends-cleanly", "stream-cut-visible", "the stream got a proper end"),
    ("early-disconnect", "stream-no-early-disconnect", "http.disconnect came 0."),
    ("cancels-only", "stream-disconnect-first", "no http.disconnect; the application was cancelled"),
    ("no-close", "request-says-close", "answered with 200 and no Connection: close; the connection was then closed"),
    ("resets", "connection-idle", "of 20 idle connections were reset"),
    ("waits-for-idle", "connection-silent", "still running 2.5 s after the signal, with one silent connection only"),
    ("serves-on", "connection-kept-alive", "it was answered without Connection: close"),
    ("keeps-listener", "connection-refused", "while the application shut down"),
    ("no-lifespan", "lifespan-runs", "lifespan.shutdown was not run"),
    ("no-lifespan", "lifespan-after-grace", "lifespan.shutdown was not run"),
    ("no-lifespan", "lifespan-failed", "the message is not in the output"),
    ("no-lifespan", "exit-within-budget", "without a complete lifespan.shutdown"),
    ("lifespan-first", "lifespan-after-tasks", "before the task ended"),
    ("lifespan-unbounded", "lifespan-hang", "still running 10.0 s after the signal"),
    ("forces", "signal-second-sigterm", "s after the first signal; lifespan.shutdown was not run"),
    ("forces", "signal-second-sigint", "lifespan.shutdown was not run"),
    ("drops-work", "work-past-grace", "the work's finally block did not run"),
    ("exit-code", "exit-code-sigterm", "exit code 1 after a clean stop"),
    ("start-code", "exit-code-startup", "exit code 0"),
    ("no-atexit", "exit-atexit", "atexit functions did not run; exit code 0"),
    ("traceback", "log-quiet", "1 traceback in the output"),
    ("leaves-file", "unix-socket-removed", "the file is still there; exit code 0"),
    ("stubborn-file", "unix-socket-stale", "the start ended"),
    ("deaf-start", "signal-startup-sigterm", "still running 3.0 s after the signal, in lifespan.startup"),
    ("half-head", "request-half-head", "the connection was closed without a response"),
    ("deaf", "exit-idle", "still running 2.0 s after the signal, with nothing to do"),
]
BLAMELESS = sorted({scenario for _, scenario, _ in FAULTS} - {"work-past-grace", "connection-slow-reader"})


@pytest.fixture(scope="module")
def results() -> Iterator[dict[tuple[str, str], Future[Result]]]:
    """All of them at once: they wait most of the time. One try each, so that a fail is not waited for twice."""
    with ThreadPoolExecutor(12) as pool:
        pairs = [(fault, name) for fault, name, _ in FAULTS] + [("", name) for name in BLAMELESS]
        yield {
            (fault, name): pool.submit(judge, tiny(fault), scenario_of(name), scale=SCALE, tries=1)
            for fault, name in pairs
        }


@pytest.mark.parametrize(("fault", "name", "sentence"), FAULTS, ids=lambda value: value.replace(" ", "_")[:30])
def test_a_fault_fails(results: dict[tuple[str, str], Future[Result]], fault: str, name: str, sentence: str) -> None:
    result = results[fault, name].result()
    assert (result.verdict, result.tries) == (Verdict.FAIL, 1), result.sentence
    assert sentence in result.sentence
    assert any(moment.what == "start" for moment in result.moments)


@pytest.mark.parametrize("name", BLAMELESS)
def test_without_it_the_server_passes(results: dict[tuple[str, str], Future[Result]], name: str) -> None:
    result = results["", name].result()
    assert result.verdict is Verdict.PASS, result.sentence


def test_a_fail_is_tried_twice_and_says_so() -> None:
    result = judge(tiny("exit-code"), scenario_of("exit-code-sigterm"))
    assert (result.verdict, result.tries, result.exit_code) == (Verdict.FAIL, 2, 1)


def test_a_server_that_cannot_be_started_is_an_error_with_its_output() -> None:
    result = judge(tiny("crash"), scenario_of("exit-idle"), tries=1)
    assert result.verdict is Verdict.ERROR
    assert "the server exited with code 1 before it listened" in result.sentence
    assert "the port is not to my liking" in result.sentence


def test_a_failure_before_the_signal_is_no_verdict_on_the_stop() -> None:
    """The server ends by itself as soon as it has answered: what follows is not its answer to a signal."""

    def steps(harness: Harness) -> str:
        harness.serve()
        harness.server.wait(10.0)
        harness.signal()
        return f"exited {harness.must_exit(1.0)} s after the signal"

    result = judge(tiny("quits"), Scenario(scenario_of("exit-idle").info, steps), tries=1)
    assert result.verdict is Verdict.ERROR, result.sentence
    assert result.sentence.startswith("the server ended before the signal, exit code 7")


def test_a_scenario_that_fails_before_its_signal_is_an_error() -> None:
    def steps(harness: Harness) -> str:
        harness.serve()
        raise Failed("there was no answer")

    about_signals = Scenario(scenario_of("exit-idle").info, steps)
    result = judge(tiny(), about_signals, tries=1)
    assert (result.verdict, result.sentence) == (Verdict.ERROR, "before the signal: there was no answer")
    without = Scenario(scenario_of("exit-idle").info, steps, signals=False)
    assert judge(tiny(), without, tries=1).verdict is Verdict.FAIL


def test_a_server_that_the_drill_has_ended_has_no_exit_code() -> None:
    result = judge(tiny(), scenario_of("unix-socket-stale"), tries=1)
    assert (result.verdict, result.exit_code) == (Verdict.PASS, None)
    assert not any(one.what == "killed" for one in result.moments)


def test_what_does_not_start_is_said_once_and_the_rest_is_not_reached() -> None:
    asked = [scenario_of(name) for name in ("exit-idle", "lifespan-runs", "stream-endless")]
    run = drill([tiny("crash"), tiny()], asked, scale=2)
    verdicts = [one.verdict for one in run.results if one.server == "crash"]
    assert sorted(one.value for one in verdicts) == ["error", "unreached", "unreached"]
    assert {one.verdict for one in run.results if one.server == "good"} == {Verdict.PASS}
    (error,) = [one for one in run.results if one.verdict is Verdict.ERROR]
    assert "the port is not to my liking" in error.sentence


def test_what_a_server_does_not_have_is_unsupported_without_being_started() -> None:
    result = judge(tiny(), scenario_of("workers-drain"))
    assert (result.verdict, result.sentence, result.moments) == (Verdict.UNSUPPORTED, "needs several workers", ())


def test_every_scenario_for_one_process_has_a_fault_that_it_finds() -> None:
    """Apart from those whose fault is a race, or that needs more than this server has."""
    others = {
        "app-blocks-loop": "no server over one loop passes without a watchdog",
        "app-swallows-cancel": "as lifespan-hang: a bound",
        "request-at-signal": "a race",
        "request-backlog": "a race",
        "request-pipelined": "a race",
        "signal-burst": "as stream-endless: a bound",
        "signal-sigint": "as signal-second-sigint",
        "signal-startup-sigint": "as signal-startup-sigterm",
        "stream-heeds-disconnect": "as stream-endless",
        "stream-mute": "as stream-endless",
    }
    found = {one.id for one in scenarios() if one.needs <= {"lifespan", "unix"}}
    assert found - {name for _, name, _ in FAULTS} == set(others)
