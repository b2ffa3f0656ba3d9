"""lastcall under its own drill: every scenario, with one process and with several."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from lastcall_drill.runner import judge
from lastcall_drill.scenario import scenarios
from lastcall_drill.servers import parse_server, prepare
from lastcall_drill.verdicts import Result, Verdict

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def results() -> Iterator[dict[str, Future[Result]]]:
    """All at once: they wait most of the time."""
    target = prepare(parse_server("lastcall"))
    with ThreadPoolExecutor(6) as pool:
        yield {one.id: pool.submit(judge, target, one) for one in scenarios()}


@pytest.mark.parametrize("name", [one.id for one in scenarios()])
def test_lastcall_passes(results: dict[str, Future[Result]], name: str) -> None:
    result = results[name].result()
    assert result.verdict is Verdict.PASS, f"{result.sentence}\n{result.output}"
