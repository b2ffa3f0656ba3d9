"""The sample applications in server processes, and what every one of these processes must do at its end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testing.process import ServerProcess
from tests.frameworks.apps import common

FRAMEWORKS = ("fastapi", "starlette", "django", "litestar", "quart")
ROOT = Path(__file__).parents[2]
# What is not awaited or not closed is reported from a destructor: as an error it becomes a traceback on stderr.
WARNINGS = {"PYTHONWARNINGS": "error::RuntimeWarning,error::ResourceWarning"}


@dataclass(frozen=True)
class Served:
    """A running sample application. ``url`` has no slash at its end."""

    framework: str
    url: str
    process: ServerProcess


@contextmanager
def serving(framework: str, *options: str) -> Iterator[Served]:
    """Serve the sample application of a framework; at the end stop it with SIGTERM, if it still runs, and check how."""
    with ServerProcess(options, f"tests.frameworks.apps.{framework}_app:app", env=WARNINGS, cwd=ROOT) as process:
        yield Served(framework, process.wait_ready()[0], process)
        code = process.stop() if process.returncode is None else process.wait()
        assert code == 0, process.stderr
        assert_stopped_well(process.stderr)


def assert_stopped_well(stderr: str) -> None:
    """A stop as asked: everything finished, then the lifespan; no traceback but those of ``GET /fail``."""
    milestones = [common.OPENED, "lastcall running on", "Stopping (SIGTERM)", common.CLOSED, "Stopped (SIGTERM)"]
    found = [milestone for line in stderr.splitlines() for milestone in milestones if milestone in line]
    assert found == milestones, stderr
    assert re.search(r": (\d+) of \1 finished; lifespan complete; exit code 0$", stderr, re.MULTILINE), stderr
    assert stderr.count("Traceback (most recent call last)") == stderr.count(f"RuntimeError: {common.FAILURE}"), stderr
