"""What the tests of the drill share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def spared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drill that is run within pytest does not kill the servers of other tests. Tests of that run it as a process."""
    monkeypatch.setattr("lastcall_drill.runner.end_children", lambda: None)
