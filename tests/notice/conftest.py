"""The benches that this room's tests drive."""

from __future__ import annotations

from tests.support.draining import rig
from tests.support.fixtures import bench

__all__ = ["bench", "rig"]
