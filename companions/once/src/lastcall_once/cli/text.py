"""How ``lastcall once`` writes a record: in a row, as JSON, and without what a terminal would obey."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final

from lastcall_once.answers import decode
from lastcall_once.records import Record, State

_SHOWN: Final = 512  # bytes of a result
_ROW: Final = "{:<7}  {:<20}  {:>6}  {:>9}  {:>8}  {:>4}  {}"
_SPANS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def escaped(text: str) -> str:
    """``text`` in one line of printable characters; the others, and the backslash, as Python writes them."""
    return legible(text.replace("\\", "\\\\"))


def legible(text: str) -> str:
    """The same for what has backslashes of its own, as JSON does: those stay as they are.

    A byte that was no UTF-8 (``surrogateescape``) is written as a byte.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in text)


def _escape(letter: str) -> str:
    if 0xDC80 <= ord(letter) <= 0xDCFF:
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode("ascii")


def iso(seconds: float) -> str | None:
    """A point in time (Unix time) as ISO 8601 in UTC; None for never, and for what no calendar has."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return None


def span(seconds: float) -> str:
    """``in 5 min``, or ``5 min ago``, in the largest unit that fits."""
    length = abs(seconds)
    size, unit = next((one for one in _SPANS if length >= one[0]), _SPANS[-1])
    text = f"{int(length // size)} {unit}"
    return f"in {text}" if seconds > 0 else f"{text} ago"


def headline() -> str:
    """The titles of ``row_of``."""
    return _ROW.format("STATE", "UPDATED", "AGE", "ENDS", "ATTEMPTS", "RUNS", "KEY")


def row_of(record: Record, now: float) -> str:
    """One line for a record: ``ENDS`` is the end of its lease, or of the record. ``now`` is Unix time."""
    end = record.lease_until if record.state is State.LEASED else record.expires_at
    return _ROW.format(
        record.state.value,
        iso(record.updated_at) or "?",
        span(min(0.0, record.updated_at - now)).removesuffix(" ago"),
        "never" if iso(end) is None else span(end - now),
        record.attempts,
        record.executions,
        escaped(record.key),
    )


def facts_of(record: Record) -> dict[str, Any]:
    """The record for JSON. Times are ISO 8601, or null for never; ``lease_until`` only while there is a lease.

    ``answer`` is null unless the result is one that the middleware has stored.
    """
    leased = record.state is State.LEASED
    return {
        "key": record.key,
        "state": record.state.value,
        "first_seen_at": iso(record.first_seen_at),
        "updated_at": iso(record.updated_at),
        "lease_until": iso(record.lease_until) if leased else None,
        "expires_at": iso(record.expires_at),
        "attempts": record.attempts,
        "executions": record.executions,
        "worker": record.worker,
        "fingerprint": record.fingerprint,
        "meta": _meta(record.meta),
        "result_bytes": None if record.result is None else len(record.result),
        "answer": _answer(record),
    }


def _meta(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text


def _answer(record: Record) -> dict[str, Any] | None:
    answer = decode(record.result)
    if answer is None:
        return None
    kinds = [value.decode("latin-1") for name, value in answer.headers if name.lower() == b"content-type"]
    return {
        "status": answer.status,
        "content_type": kinds[0] if kinds else None,
        "body_bytes": len(answer.body or b""),
        "kept": answer.body is not None,
    }


def preview(record: Record) -> str:
    """The beginning of the result, or of the stored answer's body, legible; empty if there is none."""
    answer = decode(record.result)
    content = record.result if answer is None else answer.body
    if not content:
        return ""
    text = legible(content[:_SHOWN].decode("utf-8", "surrogateescape"))
    return f"{text} …" if len(content) > _SHOWN else text
