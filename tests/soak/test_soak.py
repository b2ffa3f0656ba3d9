"""The server under mixed traffic for a long time: memory is flat, no descriptor or task stays, all answers are right.

``make soak DURATION=600`` runs the long one. ``LASTCALL_SOAK_REPORT`` names a file for its figures as JSON,
``LASTCALL_SOAK_SEED`` repeats the scenarios of an earlier run, ``LASTCALL_SOAK_OPTIONS`` are other server options
than ``--driver native``.
"""

from __future__ import annotations

import dataclasses
import os
import random
from pathlib import Path

import pytest

from tests.soak.app import ON_PURPOSE
from tests.soak.load import Outcome
from tests.soak.report import GROWTH_BYTES, MIB, Report, Sample, unexpected
from tests.soak.run import DRIVER, ROOT, soak
from tests.soak.scenarios import FAST, SLOW

PAGE = ROOT / "docs" / "explanation" / "performance.md"
SECONDS = float(os.environ.get("LASTCALL_SOAK_SECONDS", "600"))
OPTIONS = tuple(os.environ.get("LASTCALL_SOAK_OPTIONS", "").split()) or DRIVER
SMOKE_SECONDS = 15.0  # a client that stalls in a download needs most of it
SMOKE_TOLERANCE = 12 * MIB  # in so short a time the allocator's arenas are still filling


def seed() -> str:
    """Where the clients' chance begins; printed, so that a failure can be repeated."""
    chosen = os.environ.get("LASTCALL_SOAK_SEED") or f"{random.SystemRandom().getrandbits(32):08x}"
    print(f"\nLASTCALL_SOAK_SEED={chosen}")
    return chosen


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 120)
def test_soak() -> None:
    report = soak(SECONDS, seed(), GROWTH_BYTES, options=OPTIONS)
    print(report.table())
    if path := os.environ.get("LASTCALL_SOAK_REPORT"):
        report.write(Path(path))
    failures = report.failures()
    assert not failures, "\n".join(failures)
    if SECONDS >= 600 and OPTIONS == DRIVER and PAGE.exists():
        report.publish(PAGE)


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_smoke() -> None:
    report = soak(SMOKE_SECONDS, seed(), SMOKE_TOLERANCE)
    print(report.table())
    failures = report.failures()
    assert not failures, "\n".join(failures)
    assert report.load.requests > 1000
    assert set(report.load.connections) == {one.__name__ for one in (*FAST, *SLOW)}


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_faults_of_every_kind_are_found() -> None:
    failures = "\n".join(soak(5, seed(), GROWTH_BYTES, faults="memory,tasks,descriptors,answers").failures())
    for sign in (
        "bytes, not the 2 that were asked for",
        "RSS grows by",
        "RSS is",
        "descriptors at the end",
        " tasks at the end",
    ):
        assert sign in failures


# -- the judgement -----------------------------------------------------------------------------------------------------

QUIET = Sample(0, 50 * MIB, 10, 3, 9000, 9000, 0.0, {"Scheduler": 1}, {"/stats": 1}, {})
LOG = "INFO:     ready\nsoak: the application has shut down\nINFO:     Stopped\n"


def report(*, slope: float = 0.0, noise: int = 0, **changes: object) -> Report:
    """A soak of 600 s whose RSS grows by ``slope`` bytes a second."""
    rng = random.Random(1)
    during = [
        dataclasses.replace(QUIET, at=at, rss=int(50 * MIB + slope * at + rng.randint(-noise, noise)))
        for at in range(5, 600, 5)
    ]
    values = {"end": QUIET, "load": Outcome(requests=1), "stderr": LOG, "exit_code": 0, "stop_seconds": 0.1, **changes}
    return Report(600, "0", QUIET, during, **values)  # type: ignore[arg-type]


def test_noise_is_not_growth() -> None:
    assert report(noise=MIB).failures() == []
    assert report(slope=-10_000).growth < -4 * MIB


def test_growth_above_the_bound_is_found() -> None:
    assert report(slope=3_000, noise=MIB).failures() == []
    (failure,) = report(slope=6_000, noise=MIB).failures()
    assert failure.startswith("RSS grows by 2.")
    assert failure.endswith("2.0 MiB is the bound")


def test_the_warm_up_does_not_count() -> None:
    steep = report()
    early = [dataclasses.replace(one, rss=int(one.at / 120 * one.rss)) if one.at < 120 else one for one in steep.during]
    assert dataclasses.replace(steep, during=early).failures() == []


@pytest.mark.parametrize(
    ("changes", "sign"),
    [
        ({"end": dataclasses.replace(QUIET, rss=53 * MIB)}, "RSS is 53.0 MiB"),
        ({"end": dataclasses.replace(QUIET, fds=11)}, "11 descriptors"),
        ({"end": dataclasses.replace(QUIET, tasks=4)}, "4 tasks"),
        ({"end": dataclasses.replace(QUIET, objects=9500)}, "9500 objects"),
        ({"end": dataclasses.replace(QUIET, ours={"Scheduler": 2})}, "objects of lastcall"),
        ({"end": dataclasses.replace(QUIET, active={"/stats": 1, "/sleep": 1})}, "never ended"),
        ({"end": dataclasses.replace(QUIET, ended={"raised": 1})}, "1 handlers raised, 0 are logged"),
        ({"load": Outcome(requests=0)}, "no request"),
        ({"stop_seconds": 3.5}, "SIGTERM"),
        ({"exit_code": 5}, "SIGTERM"),
        ({"stderr": "INFO:     Stopped\n"}, "SIGTERM"),
        ({"stderr": LOG + "ERROR:    lastcall: internal error while serving a stream\n"}, "unexpected"),
    ],
)
def test_each_check_finds_its_failure(changes: dict[str, object], sign: str) -> None:
    (failure,) = report(**changes).failures()  # type: ignore[arg-type]
    assert sign in failure


def test_the_log() -> None:
    raised = 'Traceback (most recent call last):\n  File "a.py", line 1, in a\n    raise\n'
    expected = f"ERROR:    Exception in ASGI application: GET /raises\n{raised}RuntimeError: {ON_PURPOSE}\n"
    assert unexpected(LOG + expected + LOG) == []
    for wrong in (
        f"ERROR:    Exception in ASGI application: GET /plain\n{raised}RuntimeError: {ON_PURPOSE}",
        f"ERROR:    Exception in ASGI application: GET /raises\n{raised}ValueError: {ON_PURPOSE}",
        f"{expected}{raised}ValueError: 1",
        "INFO:     ready\nTask was destroyed but it is pending!",
        "WARNING:  anything",
    ):
        assert unexpected(f"{LOG}{wrong}\n{LOG}") == [wrong]


def test_the_table_goes_between_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("before\n<!-- bench:soak -->\nold\n<!-- /bench:soak -->\nafter\n")
    soaked = report()
    soaked.publish(page)
    assert page.read_text() == f"before\n<!-- bench:soak -->\n\n{soaked.table()}\n<!-- /bench:soak -->\nafter\n"
