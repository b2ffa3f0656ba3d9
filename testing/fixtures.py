"""Fixtures that more than one package's tests use."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from testing.memory import Bench


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    """Make benches, and close them with a look at what went wrong."""
    made: list[Bench] = []

    def make(*args: object, **options: object) -> Bench:
        made.append(Bench(*args, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()
