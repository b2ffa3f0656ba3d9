"""Fixtures of the tests of the documentation."""

from __future__ import annotations

from tests.once.servers import postgres_server, redis_server
from tests.support.fixtures import bench

__all__ = ["bench", "postgres_server", "redis_server"]
