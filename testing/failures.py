"""A pytest plugin that adds the names of failed tests to the file ``$FAILED_TESTS``, which several runs share.

``make test`` runs pytest more than once, side by side and on two versions of Python, and ends with this one list.
"""

from __future__ import annotations

import os
import sys

import pytest


def _add(name: str) -> None:
    path = os.environ.get("FAILED_TESTS")
    if path and "PYTEST_XDIST_WORKER" not in os.environ:  # the process that the workers report to tells it, once
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"Python {sys.version_info.major}.{sys.version_info.minor}: {name}\n")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A test, or what it needs, has failed."""
    if report.failed:
        _add(report.nodeid if report.when == "call" else f"{report.nodeid} ({report.when})")


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A file could not be read as tests."""
    if report.failed:
        _add(f"{report.nodeid} (collection)")
