"""The judges are judged: each must fail a server that has the one fault that it looks for, and pass one without."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from companions.drill.tests.judging import scenario_of, tiny
from lastcall_drill.runner import judge
from lastcall_drill.scenario import scenarios
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
    ("forces", "signal-second-sigterm", "exited 1."),
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
