"""Fixtures of the tests of the documentation."""

from __future__ import annotations

from tests.support.fixtures import bench

__all__ = ["bench"]
