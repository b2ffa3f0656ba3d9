"""Workers for the tests: real processes, which are gone at the end of each test."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testing.worker import WorkerProcess

APPS = Path(__file__).parent / "apps"


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., WorkerProcess]]:
    """Makes workers that run and have their orders; ``env`` are variables that they have."""
    with contextlib.ExitStack() as stack:

        def start(app: str = "app:app", *, env: dict[str, str] | None = None, **options: Any) -> WorkerProcess:
            for name, value in (env or {}).items():
                monkeypatch.setenv(name, value)
            return stack.enter_context(WorkerProcess(app, path=APPS, **options))

        yield start
