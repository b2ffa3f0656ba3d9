"""The life of one worker, as the parent sees it: states, cues and one transition table. Pure.

Theory of operation
-------------------
A worker is spawned, says that it is ready, is checked (``--smoke``), is told to accept from its slot, and serves from
its word that it does. It leaves by being told to drain, or it dies. *Orders* are cues that the fleet gives itself when
it tells a worker something: one that is not in the table is a bug of ours. *Reports* come from the worker, and may have
crossed an order on their way: one that is not in the table means nothing any more.

Two ways out are not the drain. ``ENDING``: not ready yet, so it has nobody to serve, and SIGTERM interrupts its start
(if it had become ready meanwhile it asks to retire, and is told to). ``STALLED``: its event loop gives no sign of life;
if SIGTERM brings it round it asks to retire as well, and may drain.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Final

from lastcall.channel.messages import SHARED
from lastcall.supervisor.policy import AGE_JITTER, LATE, FleetPolicy


class Life(Enum):
    """Where a worker stands."""

    BOOTING = "booting"
    CHECKING = "checking"
    STANDBY = "standby"
    SERVING = "serving"
    RETIRING = "retiring"
    DRAINING = "draining"
    STALLED = "stalled"
    ENDING = "ending"
    KILLED = "killed"
    GONE = "gone"


class Cue(Enum):
    """What moves a worker on."""

    READY = "is ready"
    CLEAN = "passes the smoke checks"
    ACCEPTS = "accepts from its slot"
    RETIRE = "told to drain"
    STOPPED = "accepts no more"
    STALL = "no heartbeat (SIGTERM)"
    END = "not wanted any more (SIGTERM)"
    KILL = "SIGKILL"
    EXIT = "the process is gone"


REPORTS: Final = frozenset({Cue.READY, Cue.CLEAN, Cue.ACCEPTS, Cue.STOPPED})
"""Cues that may have crossed an order on their way."""

TRANSITIONS: Final[dict[tuple[Life, Cue], Life]] = {
    (Life.BOOTING, Cue.READY): Life.CHECKING,
    (Life.BOOTING, Cue.END): Life.ENDING,
    (Life.CHECKING, Cue.CLEAN): Life.STANDBY,
    (Life.CHECKING, Cue.RETIRE): Life.RETIRING,
    (Life.CHECKING, Cue.STALL): Life.STALLED,
    (Life.STANDBY, Cue.ACCEPTS): Life.SERVING,
    (Life.STANDBY, Cue.RETIRE): Life.RETIRING,
    (Life.STANDBY, Cue.STALL): Life.STALLED,
    (Life.SERVING, Cue.ACCEPTS): Life.SERVING,
    (Life.SERVING, Cue.RETIRE): Life.RETIRING,
    (Life.SERVING, Cue.STALL): Life.STALLED,
    (Life.RETIRING, Cue.RETIRE): Life.RETIRING,
    (Life.RETIRING, Cue.STOPPED): Life.DRAINING,
    (Life.DRAINING, Cue.RETIRE): Life.DRAINING,
    (Life.STALLED, Cue.RETIRE): Life.RETIRING,
    (Life.ENDING, Cue.RETIRE): Life.RETIRING,
    **{(life, Cue.KILL): Life.KILLED for life in Life if life not in (Life.KILLED, Life.GONE)},
    **{(life, Cue.EXIT): Life.GONE for life in Life if life is not Life.GONE},
}

COMING: Final = frozenset({Life.BOOTING, Life.CHECKING, Life.STANDBY})
"""A worker here is about to serve."""

ABLE: Final = frozenset({Life.STANDBY, Life.SERVING})
"""A worker here may be told what to accept from."""

GOING: Final = frozenset({Life.RETIRING, Life.DRAINING})
"""A worker here drains."""


class Worker:
    """One worker: what it is, and what is known of it. Times are the fleet's clock; ``math.inf`` is never.

    ``ordered`` are the slots that it was told to accept from, ``accepts`` those that it says it does. ``wants`` is the
    cause for which it is to be replaced, empty if it is not. ``kill_at`` is when SIGKILL is due, ``end_at`` when its
    boot has taken too long, ``old_at`` when it has served for long enough.
    """

    __slots__ = (
        "accepts",
        "beat_age",
        "emptied",
        "end_at",
        "generation",
        "kill_at",
        "late_since",
        "life",
        "number",
        "old_at",
        "ordered",
        "pid",
        "policy",
        "ready_at",
        "rss",
        "slot",
        "spawned_at",
        "taking_shared",
        "wants",
        "was_killed",
    )

    def __init__(self, number: int, slot: int, generation: int, policy: FleetPolicy, now: float) -> None:
        self.number = number
        self.slot = slot
        self.generation = generation
        self.policy = policy
        self.life = Life.BOOTING
        self.spawned_at = now
        self.pid = 0
        self.ready_at = math.inf
        self.accepts: frozenset[int] = frozenset()
        self.ordered: frozenset[int] = frozenset()
        self.beat_age = 0.0
        self.late_since = math.inf
        self.rss = 0
        self.wants = ""
        self.kill_at = math.inf
        self.end_at = now + policy.timeout_boot
        self.old_at = now + policy.limit_age * (1.0 + AGE_JITTER * policy.jitter())
        self.emptied = False
        self.was_killed = False
        self.taking_shared = policy.shared

    def take(self, cue: Cue) -> bool:
        """Take a step; False for a report that means nothing any more. Raises KeyError for an order that cannot be."""
        after = TRANSITIONS.get((self.life, cue)) if cue in REPORTS else TRANSITIONS[self.life, cue]
        if after is None:
            return False
        self.life = after
        return True

    @property
    def was_ready(self) -> bool:
        """Whether its lifespan has started."""
        return self.ready_at < math.inf

    @property
    def on_time(self) -> bool:
        """Whether its event loop has lately turned."""
        return self.beat_age <= LATE

    def accepts_from(self, slot: int) -> bool:
        """Whether it has said that it accepts those who come to the slot."""
        return slot in self.accepts or (self.policy.only_shared and SHARED in self.accepts)

    def measure(self, beat_age: float, rss: int, now: float) -> None:
        """Take a regular look at it."""
        self.beat_age, self.rss = beat_age, rss
        if beat_age <= min(LATE, self.policy.timeout_stall):
            self.late_since = math.inf
        else:
            self.late_since = min(self.late_since, now)

    def has_stalled(self, now: float) -> bool:
        """Whether it must be replaced. One look decides nothing: after a pause of the whole machine all are late."""
        stall = self.policy.timeout_stall
        return self.beat_age >= stall and now - self.late_since >= min(LATE, stall / 2)

    def __str__(self) -> str:
        return f"worker {self.number} (process {self.pid})" if self.pid else f"worker {self.number}"
