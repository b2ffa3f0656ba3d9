"""What a worker tells of itself: what it has done since its start, and what it does now."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from lastcall.channel.messages import LATENCY_BUCKETS, Census

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lastcall.connection.stream import Connection
    from lastcall.notice.running import RunningTask
    from lastcall.server.parent import Serving

LISTED_AT_MOST = 200
"""Tasks in a census, the longest first: it has to stay a message."""


def before_serving(number: int) -> Census:
    """The census of a worker that is not ready yet."""
    return Census(number, {}, 0, 0, 0, (0,) * (len(LATENCY_BUCKETS) + 1), resident())


def census_of(
    number: int,
    serving: Serving,
    *,
    private: Iterable[Connection],
    now: float,
    tasks: bool,
    moved: int,
    adopted: int,
) -> Census:
    """Count. ``private`` are the parent's own connections, which are left out like what runs for them.

    ``now`` is on the loop's clock; ``tasks``: list what runs.
    """
    counts = serving.service.counts
    assert counts is not None, "a service of clients is counted"
    running = [task for task in serving.tasks if getattr(task, "runtime", None) is not serving.private]
    in_flight: dict[str, int] = {}
    for task in running:
        in_flight[task.kind] = in_flight.get(task.kind, 0) + 1
    listed = sorted(running, key=lambda task: task.since)[:LISTED_AT_MOST] if tasks else ()
    return Census(
        number,
        in_flight,
        len(serving.driver) - sum(not connection.stream.closed for connection in private),
        counts.served,
        counts.errors,
        counts.latency,
        resident(),
        moved,
        adopted,
        tuple(_described(task, now) for task in listed),
    )


def resident() -> int:
    """Bytes of memory that this process holds; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _described(task: RunningTask, now: float) -> dict[str, Any]:
    details = task.details()
    return {
        "method": details["method"],
        "path": details["path"],
        "kind": task.kind,
        "age": round(now - task.since, 3),
        "client": details["client"],
    }
