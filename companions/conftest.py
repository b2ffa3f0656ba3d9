"""What the tests of all companions share."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# pytest-timeout bounds every test. A deadline per example would fail on a busy machine and prove nothing.
settings.register_profile("companions", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("companions")
