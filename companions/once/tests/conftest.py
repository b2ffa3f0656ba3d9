"""What the tests of once share: the servers that stores talk to, and one backend for each store."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from companions.once.tests.backends import Backend, backend
from testing.stores import Server, postgres_server, redis_server

pytest.register_assert_rewrite("companions.once.tests.contract")

__all__ = ["postgres_server", "redis_server", "store"]


@pytest.fixture(
    params=[
        "memory",
        "sqlite",
        pytest.param("redis", marks=pytest.mark.slow),
        pytest.param("postgres", marks=pytest.mark.slow),
    ]
)
def store(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A store of each kind, to be opened."""
    if request.param in ("redis", "postgres"):
        server: Server = request.getfixturevalue(f"{request.param}_server")
        yield backend(request.param, server.url)
        return
    made = backend(request.param)
    yield made
    if made.directory is not None:
        shutil.rmtree(made.directory)
