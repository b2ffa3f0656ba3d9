"""The benches that these tests drive."""

from __future__ import annotations

from testing.draining import stoppable
from testing.fixtures import bench

__all__ = ["bench", "stoppable"]
