"""How tests are spread over several processes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest


def group_by_module(items: Sequence[pytest.Item]) -> None:
    """Run the tests that share a module's fixture in one process: it starts servers that would be started in each."""
    for item in items:
        if isinstance(item, pytest.Function) and any(
            fixtures[-1].scope == "module" for fixtures in item._fixtureinfo.name2fixturedefs.values()
        ):
            item.add_marker(pytest.mark.xdist_group(item.module.__name__))
