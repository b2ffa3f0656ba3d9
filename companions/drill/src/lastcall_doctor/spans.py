"""Times as the files of others write them, in seconds. Pure."""

from __future__ import annotations

import math
import re
from typing import Final

_SYSTEMD_UNITS: Final = {
    **dict.fromkeys(("us", "usec", "µs", "μs"), 1e-6),
    **dict.fromkeys(("ms", "msec"), 1e-3),
    **dict.fromkeys(("", "s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
    **dict.fromkeys(("w", "week", "weeks"), 604800.0),
    **dict.fromkeys(("M", "month", "months"), 2629800.0),
    **dict.fromkeys(("y", "year", "years"), 31557600.0),
}
_GO_UNITS: Final = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_NGINX_UNITS: Final = {
    "ms": 1e-3,
    "": 1.0,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
    "M": 2592000.0,
    "y": 31536000.0,
}
_HAPROXY_UNITS: Final = {"us": 1e-6, "": 1e-3, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_DECIMAL: Final = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_SYSTEMD: Final = re.compile(rf"\s*{_DECIMAL}\s*([^\W\d_]*)")
_GO: Final = re.compile(rf"{_DECIMAL}(us|µs|ms|s|m|h)")
_NGINX: Final = re.compile(r"\s*([0-9]+)(ms|[smhdwMy]?)")
_HAPROXY: Final = re.compile(r"([0-9]+)(us|ms|s|m|h|d|)")


def systemd_span(text: str) -> float:
    """``90``, ``1min 30s``, ``2h`` or ``infinity`` (systemd.time). Raises ValueError for anything else."""
    if text.strip() == "infinity":
        return math.inf
    return _sum(_SYSTEMD, _SYSTEMD_UNITS, text.strip(), "a time span, as in 90, 1min 30s or infinity")


def go_duration(text: str) -> float:
    """``90s``, ``1m30s``: the durations of Docker Compose. Raises ValueError for anything else."""
    return _sum(_GO, _GO_UNITS, text.strip(), "a duration with a unit, as in 30s or 1m30s")


def nginx_time(text: str) -> float:
    """``60``, ``75s``, ``1h30m``. Raises ValueError for anything else."""
    return _sum(_NGINX, _NGINX_UNITS, text.strip(), "a time, as in 60, 75s or 1h")


def haproxy_time(text: str) -> float:
    """``5000`` (milliseconds), ``30s``, ``1h``. Raises ValueError for anything else."""
    match = _HAPROXY.fullmatch(text)
    if match is None:
        raise ValueError("a time, as in 5000 (milliseconds), 30s or 1h")
    return int(match[1]) * _HAPROXY_UNITS[match[2]]


def _sum(part: re.Pattern[str], units: dict[str, float], text: str, expected: str) -> float:
    """Add up the parts that ``text`` consists of. ValueError's text is what was expected."""
    total, end = 0.0, 0
    while end < len(text):
        match = part.match(text, end)
        if match is None or match[2] not in units:
            raise ValueError(expected)
        total += float(match[1]) * units[match[2]]
        end = match.end()
    if not text:
        raise ValueError(expected)
    return total
