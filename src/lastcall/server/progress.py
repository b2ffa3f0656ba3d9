"""How far a stop has come, in words and in rows."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING

from lastcall.base.progress import Progress, Remaining
from lastcall.drain.ladder import Budgets, Phase, State, next_cut

if TYPE_CHECKING:
    from lastcall.notice.running import RunningTask

LISTED_AT_MOST = 10


def progress_of(
    state: State, budgets: Budgets, running: Collection[RunningTask], connections: int, now: float
) -> Progress:
    """What is left of a stop in ``state`` at ``now`` (seconds, the ladder's clock), the oldest task first."""
    if state.phase is Phase.ANNOUNCED:
        left = max(0.0, state.ordered + state.delay - now)
        summary = f"announced: still accepting for {left:.0f} s, {len(running)} in flight"
        return Progress(summary, phase=state.phase.name, left=left)
    at, what = next_cut(state, budgets)
    when = f"{max(0.0, at - now):.0f} s until {what}" if at < math.inf else "no limit"
    doing = state.phase.name.lower()
    if not running:  # nothing that could be cancelled
        summary = f"{doing}: {connections} connection{' is' if connections == 1 else 's are'} still closing"
        return Progress(summary, phase=state.phase.name, left=at - now)
    oldest = sorted(running, key=lambda task: task.since)[:LISTED_AT_MOST]
    return Progress(
        f"{doing}: {len(running)} left, {when}",
        tuple(Remaining(task.describe(), task.kind, now - task.since) for task in oldest),
        len(running),
        state.phase.name,
        at - now,
    )
