"""``/v1/me``, ``/v1/usage``, ``/v1/events``, ``/v1/runs`` and ``/v1/metrics``: the account, and what happened in it."""

from __future__ import annotations

import json
from typing import Any

from lastcall_once.documents import Document
from lastcall_once.metrics import MemoryCounters
from lastcall_once.service.core import STATISTICS_DAYS, TIMELINE_KEPT, Answer, Call, text_of
from lastcall_once.service.timestamps import day_of, days_between, days_of_month, iso
from lastcall_once.service.validators import Invalid

STATISTICS = (
    "make",
    "make_duplicates",
    "ai",
    "ai_repeated",
    "ai_completed",
    "ai_failed",
    "ai_cancelled",
    "tool_allowed",
    "tool_blocked",
    "tool_dedup",
    "events",
)
"""What is counted by day: claims and their duplicates, leases and what became of them, calls of tools, own events."""

KINDS = {"make": ("make",), "ai": ("ai",), "tool": ("tool_allowed", "tool_blocked", "tool_dedup")}
"""What a kind of usage is the sum of."""

PREFERENCES = {
    "email_notifications_enabled": False,
    "tool_error_notifications_enabled": False,
    "run_failure_notifications_enabled": False,
}


async def me(call: Call) -> Answer:
    """Whose key this is."""
    document = await call.documents.read(call.scoped_name("settings"), "notifications")
    return Answer(
        {
            "account": call.account,
            "plan": "self-hosted",
            "key": {"id": call.key.id, "name": call.key.name, "created_at": call.key.created_at},
            **_preferences(document),
        }
    )


async def put_notifications(call: Call) -> Answer:
    """Change preferences, those that are given. They are kept for programs that ask for them; nothing is sent."""
    while True:
        document = await call.documents.read(call.scoped_name("settings"), "notifications")
        preferences = {**_preferences(document), **call.body}
        version = 0 if document is None else document.version
        data = text_of(preferences)
        if await call.documents.write(call.scoped_name("settings"), "notifications", data, version=version) is not None:
            return Answer(preferences)


def _preferences(document: Document | None) -> dict[str, Any]:
    return PREFERENCES if document is None else {**PREFERENCES, **json.loads(document.data)}


async def usage(call: Call) -> Answer:
    """How often one kind of call was made this month (UTC). There is no limit."""
    found = await _usage(call)
    return Answer(found[call.query["kind"]])


async def usage_all(call: Call) -> Answer:
    """The same, of all kinds."""
    return Answer(dict(await _usage(call)))


async def _usage(call: Call) -> dict[str, dict[str, Any]]:
    days = days_of_month(call.now)
    sums = await call.core.sums(call.account, [name for names in KINDS.values() for name in names], days)
    return {
        kind: {
            "kind": kind,
            "period": days[-1][:7],
            "usage": sum(sum(sums[name]) for name in names),
            "limit": None,
            "remaining": None,
        }
        for kind, names in KINDS.items()
    }


async def post_event(call: Call) -> Answer:
    """Tell what happened in a run. ``ts`` is what the client says; without one it is now, in seconds since 1970."""
    event = {**call.body, "ts": call.body.get("ts", int(call.now)), "at": iso(call.now)}
    entry = await call.note(event)
    call.count("events")
    return Answer({"ok": True, "number": entry.number, "run_id": event["run_id"], "type": event["type"]})


async def list_events(call: Call) -> Answer:
    """What happened in the account, the newest first: own events, and what became of leases."""
    limit, offset = call.query["limit"], call.query["offset"]
    found = await call.documents.entries(call.scoped_name("events"), limit=limit, offset=offset)
    items = [{**json.loads(entry.data), "number": entry.number} for entry in found]
    return Answer({"items": items, "limit": limit, "offset": offset})


async def run_timeline(call: Call) -> Answer:
    """What happened in a run, the oldest first. A run that nobody has heard of has no events."""
    run_id, limit, offset = call.path["run_id"], call.query["limit"], call.query["offset"]
    entries = await call.documents.entries(call.timeline(run_id), limit=TIMELINE_KEPT)
    events = [event for entry in reversed(entries) if (event := json.loads(entry.data))["run_id"] == run_id]
    items = events[offset : offset + limit]
    return Answer({"run_id": run_id, "items": items, "total": len(events), "limit": limit, "offset": offset})


async def metrics(call: Call) -> Answer:
    """Statistics by day, from ``from_day`` to ``to_day`` (UTC, default today), and this process's counters.

    Those of the process are what all accounts did with it since its start.
    """
    today = day_of(call.now)
    first, last = call.query.get("from_day", today), call.query.get("to_day", today)
    try:
        days = days_between(first, last, most=STATISTICS_DAYS)
    except ValueError:
        raise Invalid("from_day", "days like 2026-11-22, here and in to_day") from None
    if not days:
        raise Invalid("to_day", f"a day that is not before from_day, and at most {STATISTICS_DAYS - 1} days after it")
    sums = await call.core.sums(call.account, STATISTICS, days)
    by_day = [
        {"day": day, **{name: sums[name][number] for name in STATISTICS}}
        for number, day in enumerate(days)
        if any(sums[name][number] for name in STATISTICS) or len(days) == 1
    ]
    counters = call.core.once.metrics
    process = counters.snapshot() if isinstance(counters, MemoryCounters) else {}
    process.setdefault("once_retry_spike", 0.0)
    return Answer({"from_day": first, "to_day": last, "days": by_day, "process": process})
