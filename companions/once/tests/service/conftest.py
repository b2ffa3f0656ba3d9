"""What the tests of the service share: a process that serves a SQLite store, and the SDK in both its modes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from companions.once.tests.service.serving import Sdk, Serving, sdk, serving


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Serving, str]]:
    """One process for a module, with an address."""
    directory: Path = tmp_path_factory.mktemp("served")
    with serving(f"sqlite:///{directory}/once.db") as found:
        yield found


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest, served: tuple[Serving, str]) -> Iterator[Sdk]:
    """The SDK, with an account of its own."""
    service, address = served
    with sdk(address, service.key(), request.param) as found:
        yield found
