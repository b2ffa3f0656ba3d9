"""How log lines look: level prefixes, reason phrases and colours, for the formatters and the compiled access log."""

from __future__ import annotations

import os
from http import HTTPStatus

RESET = "\x1b[0m"
BOLD = "1"
TRACE = 5  # below logging.DEBUG; uvicorn's number

LEVEL_COLORS = {5: "34", 10: "36", 20: "32", 30: "33", 40: "31", 50: "91"}
STATUS_COLORS = {1: "97", 2: "32", 3: "33", 4: "31", 5: "91"}


def paint(text: str, code: str | None, colors: bool) -> str:
    """Wrap ``text`` in the SGR (colour) code ``code``, if ``colors`` is true and there is a code."""
    return f"\x1b[{code}m{text}{RESET}" if colors and code else text


def level_prefix(name: str, number: int, colors: bool) -> str:
    """``INFO:    ``: nine columns, so that what follows one space later starts in column eleven for every level."""
    return paint(name, LEVEL_COLORS.get(number), colors) + ":" + " " * (8 - len(name))


def status_text(status: int, colors: bool) -> str:
    """``200 OK``; the number alone where HTTP has no phrase for it."""
    try:
        text = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        text = str(status)
    return paint(text, STATUS_COLORS.get(status // 100), colors)


def mark_text(mark: str | None, bytes_sent: int) -> str:
    """What an access line says behind the status of a response that is not what the status says; "" for any other."""
    if mark is None:
        return ""
    return f" ({mark} after {bytes_sent} bytes)" if mark == "cut" else f" ({mark})"


def wants_colors(stream: object, use_colors: bool | None) -> bool:
    """Whether lines for ``stream`` are coloured: as told, else only on a terminal, and never under NO_COLOR.

    ``NO_COLOR`` (no-color.org) counts when it is not empty; so does ``TERM=dumb``.
    """
    if use_colors is not None:
        return use_colors
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return is_terminal(stream)


def moves_cursor() -> bool:
    """Whether the terminals of this process obey more than carriage returns, by what ``TERM`` says of them."""
    return os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def is_terminal(stream: object) -> bool:
    """Whether ``stream`` is a terminal; False for what cannot say."""
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):  # no such method, or a closed stream
        return False
