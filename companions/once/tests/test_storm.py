"""Clients that retry through restarts and kills of two servers on one store: one execution per lease, one answer."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from companions.once.tests.storm import Found, Plan, Storm, Work, faults
from testing.stores import Server


def check(plan: Plan, url: str, directory: Path, late: float) -> None:
    """Raise a storm, print its figures, and fail for all that broke the promise."""
    seed = int.from_bytes(os.urandom(4), "big")
    found = asyncio.run(Storm(plan, url, directory, seed).run())
    print(f"\n{url.partition(':')[0]}: {found.table()}")
    wrong = faults(found, late)
    assert not wrong, f"seed {seed}\n" + "\n".join(wrong)
    assert len(found.answers) == plan.keys + len(found.extra)
    assert len(found.killed) == plan.blows.count("kill")
    assert found.cut, "nothing was under way when the servers were killed"
    assert found.waits
    assert sum(sum(answers.values()) for answers in found.answers.values()) >= plan.clients


FIRST = Work("/k", 1, "first", 100.0, 100.5)
CUT = Work("/k", 1, "first", 100.0, None)


@pytest.mark.parametrize(
    ("works", "answers", "fault"),
    [
        ([FIRST], [b"first"], ""),
        ([FIRST], [b"first", b"second"], "2 different answers"),
        ([FIRST, Work("/k", 2, "second", 103.0, 103.1)], [b"second"], ""),  # killed before it was recorded
        ([FIRST, Work("/k", 2, "second", 103.0, 103.1)], [b"first"], "the last execution was second"),
        ([CUT, Work("/k", 2, "second", 101.4, 103.1)], [b"second"], "within the lease"),
        ([CUT, Work("/k", 2, "second", 105.1, 105.2)], [b"second"], "stuck for 4.10 s"),
        ([Work("/k", 3, "first", 100.0, None)], [b"first"], "cut short, but not by a kill"),
        ([Work("/k", 3, "x", 100.0, 101.0), Work("/k", 2, "y", 104.0, 105.0)], [b"y"], "within the lease"),
    ],
)
def test_what_breaks_the_promise_is_found(works: list[Work], answers: list[bytes], fault: str) -> None:
    found = Found(Plan(clients=1, keys=1, span=1.0, lease=2.0), works, killed={1: 101.0})
    for body in answers:
        found.answers["/k"][201, body.decode(), body] += 1
    wrong = faults(found, late=2.0)
    assert len(wrong) == (1 if fault else 0)
    assert not fault or fault in wrong[0]


@pytest.mark.slow
def test_200_clients_retry_20_keys(tmp_path: Path) -> None:
    check(Plan(clients=200, keys=20, span=0.8, lease=1.2), f"sqlite:///{tmp_path}/once.db", tmp_path, late=2.0)


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["sqlite", "redis", "postgres"])
def test_1000_clients_retry_100_keys(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    server: Server | None = None if kind == "sqlite" else request.getfixturevalue(f"{kind}_server")
    url = f"sqlite:///{tmp_path}/once.db" if server is None else server.url
    check(Plan(clients=1000, keys=100, span=6.0, lease=3.0), url, tmp_path, late=3.0)
