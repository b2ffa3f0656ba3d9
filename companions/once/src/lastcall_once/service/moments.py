"""Points of time as the service tells them, and its windows: hours and days of UTC. Pure."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

HOUR = 3600
DAY = 24 * HOUR


def iso(moment: float) -> str:
    """Seconds since 1970 as ISO 8601, in UTC, to the microsecond."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def hour_of(moment: float) -> str:
    """The hour's name, ``2026-11-22T20``."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H")


def day_of(moment: float) -> str:
    """The day's name, ``2026-11-22``."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")


def days_until(moment: float, count: int) -> list[str]:
    """The names of the last ``count`` days, that of ``moment`` being the last."""
    last = datetime.fromtimestamp(moment, UTC).date()
    return [(last - timedelta(days=back)).isoformat() for back in reversed(range(count))]


def days_of_month(moment: float) -> list[str]:
    """The names of the month's days, up to that of ``moment``."""
    return days_until(moment, datetime.fromtimestamp(moment, UTC).day)


def days_between(first: str, last: str, *, most: int) -> list[str]:
    """The names of the days from ``first`` to ``last``; none if they are swapped, or if there are more than ``most``.

    Raises ValueError for what is no day.
    """
    start, end = date.fromisoformat(first), date.fromisoformat(last)
    count = (end - start).days + 1
    return [(start + timedelta(days=number)).isoformat() for number in range(count)] if count <= most else []
