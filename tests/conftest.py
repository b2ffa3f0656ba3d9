"""What every test shares. Fixtures live beside the tests that use them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, settings

# pytest-timeout bounds every test. A deadline per example would fail on a busy machine and prove nothing.
settings.register_profile("lastcall", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lastcall")


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Where the tests run in several processes, those that share something run in the same one."""
    for item in items:
        if isinstance(item, pytest.Function) and any(
            fixtures[-1].scope == "module" for fixtures in item._fixtureinfo.name2fixturedefs.values()
        ):
            item.add_marker(pytest.mark.xdist_group(item.module.__name__))
