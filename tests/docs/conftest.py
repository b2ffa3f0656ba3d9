"""Fixtures of the tests of the documentation."""

from __future__ import annotations

from testing.fixtures import bench
from testing.stores import postgres_server, redis_server

__all__ = ["bench", "postgres_server", "redis_server"]
