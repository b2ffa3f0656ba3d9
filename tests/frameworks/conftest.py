"""One server process per framework and test module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.frameworks.serving import FRAMEWORKS, Served, serving


@pytest.fixture(scope="module", params=FRAMEWORKS)
def server(request: pytest.FixtureRequest) -> Iterator[Served]:
    with serving(request.param) as served:
        yield served
