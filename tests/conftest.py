"""What every test shares. Fixtures live beside the tests that use them."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# pytest-timeout bounds every test. A deadline per example would fail on a busy machine and prove nothing.
settings.register_profile("lastcall", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lastcall")
