"""Timestamps as the service writes them, and its windows: hours and days of UTC. Pure."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

HOUR = 3600
DAY = 24 * HOUR


def iso(timestamp: float) -> str:
    """Seconds since 1970 as ISO 8601, in UTC, to the microsecond."""
    return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def hour_of(timestamp: float) -> str:
    """The hour's name, ``2026-11-22T20``."""
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H")


def day_of(timestamp: float) -> str:
    """The day's name, ``2026-11-22``."""
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d")


def days_until(timestamp: float, count: int) -> list[str]:
    """The names of the last ``count`` days, that of ``timestamp`` being the last."""
    last = datetime.fromtimestamp(timestamp, UTC).date()
    return [(last - timedelta(days=back)).isoformat() for back in reversed(range(count))]


def days_of_month(timestamp: float) -> list[str]:
    """The names of the month's days, up to that of ``timestamp``."""
    return days_until(timestamp, datetime.fromtimestamp(timestamp, UTC).day)


def days_between(first: str, last: str, *, most: int) -> list[str]:
    """The names of the days from ``first`` to ``last``; none if they are swapped, or if there are more than ``most``.

    Raises ValueError for what is no day.
    """
    start, end = date.fromisoformat(first), date.fromisoformat(last)
    count = (end - start).days + 1
    return [(start + timedelta(days=number)).isoformat() for number in range(count)] if count <= most else []
