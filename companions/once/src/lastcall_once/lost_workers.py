"""Leases of workers that have died: marked as what they are, so that a retry does not wait for their end.

Under lastcall's parent each worker has a name, and hears which ones of the same service have died. A lease is looked at
when it is in the way of an attempt, and never before: nobody goes through the whole store for one death.
"""

from __future__ import annotations

import os
import socket
import sys

from lastcall_once.records import Attempt, Event, Outcome, Verdict
from lastcall_once.store import Store

_name: tuple[int, str | None, str] = (0, None, "")  # the process, its variable, and what it is called


def name_of_this_worker() -> str:
    """What a record says of who has its lease. Processes that a worker has started are not called as it is."""
    global _name  # noqa: PLW0603 - asked for by each request, and the host's name is a system call
    pid, worker_id = os.getpid(), os.environ.get("LASTCALL_WORKER_ID")
    if _name[:2] != (pid, worker_id):
        _name = pid, worker_id, f"{worker_id}/{pid}" if worker_id else f"{socket.gethostname()}:{pid}"
    return _name[2]


def is_lost(worker: str) -> bool:
    """Whether this worker has died, as far as the server of this process knows."""
    # Not imported: once works under any server, and only the one that runs this process knows.
    known = getattr(sys.modules.get("lastcall"), "lost_workers", None)
    return callable(known) and worker in known()


async def marked_unknown(store: Store, attempt: Attempt, outcome: Outcome) -> bool:
    """Whether a dead worker's lease was in the way of ``attempt``. It is UNKNOWN now: make the attempt again.

    The token decides: where somebody has taken the key over meanwhile, nothing is done to it. Raises StoreError.
    """
    record = outcome.record
    if outcome.verdict is not Verdict.IN_FLIGHT or not is_lost(record.worker):
        return False
    await store.finish(record.key, record.token, Event.ABANDON, ttl=attempt.ttl)
    return True
