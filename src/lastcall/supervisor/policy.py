"""What the fleet may decide by: the options that matter to it, in one record. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from lastcall.base.options import CanaryOptions, ServerOptions
from lastcall.base.record import Record
from lastcall.drain.ladder import TEARDOWN, Budgets

LATE: Final = 1.0
"""Seconds without a heartbeat after which a neighbour accepts from a worker's slot too."""

EARLY: Final = 5.0
"""A worker that dies before it was ready, or within so many seconds of it, has the back-off of its slot grow."""

BACK_OFF: Final = 0.1
"""Seconds from the first early death to the next try; each further one doubles them."""

BACK_OFF_MOST: Final = 5.0
"""Seconds between two tries at most."""

AFTER_SIGTERM: Final = 5.0
"""Seconds that a stalled worker has to react to SIGTERM."""

KILL_MARGIN: Final = 1.0
"""Seconds behind the longest that a stop can take: the worker's own watchdog (0.5 s) speaks first, with its stacks."""

DRAINING_MOST: Final = 2
"""So many workers may drain at once before another one is replaced."""

ROLLED_AT_ONCE: Final = DRAINING_MOST
"""So many slots does a roll work on at once, from the spawn of a successor to the end of its predecessor."""

AGE_JITTER: Final = 0.1
"""Workers that were started together are replaced apart: by up to this part of their age."""


def no_jitter() -> float:
    """The jitter of tests, and of who wants none."""
    return 0.0


class FleetPolicy(Record):
    """The options of the fleet. Times are seconds, ``math.inf`` is none; ``limit_rss`` is bytes, None is none.

    ``count``: slots to begin with. ``shared``: some listeners are not a slot's but everybody's (unix sockets, ``fd://``,
    systemd's), so ``SHARED`` is in the slots of ``SetAccepting``; ``only_shared``: slots have none of their own at all,
    and who accepts from ``SHARED`` serves. ``development``: one worker, which is replaced when
    files change, and nobody is alarmed. ``jitter`` gives numbers from 0 to 1.
    """

    count: int = 1
    budgets: Budgets = Budgets()
    timeout_boot: float = math.inf
    timeout_stall: float = 60.0
    limit_age: float = math.inf
    limit_rss: int | None = None
    canary: CanaryOptions = CanaryOptions()
    development: bool = False
    shared: bool = False
    only_shared: bool = False
    jitter: Callable[[], float] = no_jitter

    @classmethod
    def of(
        cls, options: ServerOptions, *, jitter: Callable[[], float], shared: bool = False, only_shared: bool = False
    ) -> FleetPolicy:
        """The policy that a server's options amount to."""
        stop, workers = options.stop, options.workers
        return cls(
            1 if options.reload.wanted else workers.count,
            Budgets(stop.graceful, stop.cancel, stop.lifespan_shutdown, stop.interrupt, stop.delay, stop.farewell),
            workers.timeout_boot,
            workers.timeout_stall,
            workers.limit_age,
            workers.limit_rss,
            options.canary,
            options.reload.wanted,
            shared,
            only_shared,
            jitter,
        )

    def kill_after(self, *, interactive: bool = False) -> float:
        """Seconds from an order to drain to SIGKILL; ``math.inf`` where the grace has no limit."""
        return self.budgets.worst_case(interactive=interactive) + KILL_MARGIN

    @property
    def kill_after_force(self) -> float:
        """Seconds from an order to cancel to SIGKILL."""
        return self.budgets.cancel + self.budgets.lifespan_shutdown + TEARDOWN + KILL_MARGIN

    @property
    def kill_after_end(self) -> float:
        """Seconds from SIGTERM to SIGKILL for a worker that is not ready: it has nobody to serve."""
        return self.budgets.cancel + TEARDOWN + KILL_MARGIN


def back_off(failures: int) -> float:
    """Seconds to wait before the next try, after so many early deaths in a row (from 1)."""
    return min(BACK_OFF_MOST, BACK_OFF * 2.0 ** min(failures - 1, 16))
