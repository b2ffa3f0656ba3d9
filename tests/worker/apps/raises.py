"""An application that cannot be imported."""

from __future__ import annotations

raise ValueError("the setting X is missing")
