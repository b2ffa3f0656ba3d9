"""The judges of several workers are judged: each must fail a parent with the one fault that it looks for."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from companions.drill.tests.judging import scenario_of, tiny_fleet
from lastcall_drill.runner import judge
from lastcall_drill.verdicts import Result, Verdict

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

FAULTS = [
    ("deaf-restart", "workers-reload", "the new code did not answer everyone; the latest answers were ok"),
    ("restart-gap", "workers-reload", "requests had no answer; the first: a new connection was not made: Connection"),
    (
        "restart-resets",
        "workers-reload-kept-alive",
        (
            "requests had no answer; the first: the connection was closed",
            "requests had no answer; the first: the connection was reset",
            "a kept-alive connection was closed without Connection: close",
        ),
    ),
    ("restart-cuts", "workers-reload-stream", "of 6 streams were complete; of another the connection was"),
    ("restart-dies", "workers-reload-broken", "s after the signal, exit code 3"),
    (
        "recycle-cuts",
        "workers-recycle-kept-alive",
        ("requests had no answer", "a kept-alive connection was closed without Connection: close"),
    ),
    ("own-queues", "workers-crash", "of 20 clients in the queue were answered; of another the connection was reset"),
    ("no-successor", "workers-crash", "all 20 clients were answered; no worker was started within 8 s"),
    ("deaf-upgrade", "workers-upgrade", "the new code did not answer within 15 s"),
    ("upgrade-gap", "workers-upgrade", "requests had no answer; the first: a new connection was not made: Connection"),
    ("upgrade-cuts", "workers-upgrade", ("requests had no answer", "of the stream the connection was")),
    ("deaf-scale", "workers-scale", "no third worker was ready within 8 s of SIGTTIN"),
]
BLAMELESS = sorted({scenario for _, scenario, _ in FAULTS})


@pytest.fixture(scope="module")
def results() -> Iterator[dict[tuple[str, str], Future[Result]]]:
    """Four at once: their clients are at work all the time. One try each, so that a fail is not waited for twice."""
    with ThreadPoolExecutor(4) as pool:
        pairs = [(fault, name) for fault, name, _ in FAULTS] + [("", name) for name in BLAMELESS]
        yield {
            (fault, name): pool.submit(judge, tiny_fleet(fault), scenario_of(name), tries=1) for fault, name in pairs
        }


@pytest.mark.parametrize(("fault", "name", "sentences"), FAULTS, ids=[f"{fault}-{name}" for fault, name, _ in FAULTS])
def test_a_fault_fails(
    results: dict[tuple[str, str], Future[Result]], fault: str, name: str, sentences: str | tuple[str, ...]
) -> None:
    """Where there are several sentences, what the clients see first is a race."""
    result = results[fault, name].result()
    assert result.verdict is Verdict.FAIL, f"{result.sentence}\n{result.output}"
    expected = (sentences,) if isinstance(sentences, str) else sentences
    assert any(one in result.sentence for one in expected), result.sentence


@pytest.mark.parametrize("name", BLAMELESS)
def test_without_it_the_parent_passes(results: dict[tuple[str, str], Future[Result]], name: str) -> None:
    result = results["", name].result()
    assert result.verdict is Verdict.PASS, f"{result.sentence}\n{result.output}"
