"""What the tests of all companions share."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, settings

from testing.collection import group_by_module

# pytest-timeout bounds every test. A deadline per example would fail on a busy machine and prove nothing.
settings.register_profile("companions", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("companions")


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Keep together what shares something."""
    group_by_module(items)
