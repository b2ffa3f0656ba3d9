"""Workers of this service that have died: whatever they held, nobody holds any more."""

from __future__ import annotations

import os
from collections.abc import Iterable, Set

KEPT = 1024
"""So many are remembered, the latest: leases are short, and a service that loses more has other worries."""

_lost: dict[str, None] = {}


def lost_workers() -> Set[str]:
    """The names (``worker_name()``) of workers of this service that ended without having stopped. A live view.

    Empty in a service of one process: its successor knows nothing of it.
    """
    return _lost.keys()


def worker_name(worker_id: str, pid: int) -> str:
    """What a worker is called: ``LASTCALL_WORKER_ID``, a stroke, its process number.

    The number tells it from the processes that it has started, which inherit the variable, and may outlive it.
    """
    return f"{worker_id}/{pid}"


def own_name() -> str:
    """This process's name; empty where it is no worker, nor started by one."""
    worker_id = os.environ.get("LASTCALL_WORKER_ID", "")
    return worker_name(worker_id, os.getpid()) if worker_id else ""


def add_lost(names: Iterable[str]) -> None:
    """These have died."""
    for name in names:
        _lost.pop(name, None)
        _lost[name] = None
    while len(_lost) > KEPT:
        del _lost[next(iter(_lost))]
