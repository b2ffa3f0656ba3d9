"""Recording work that is done, though the store has forgotten its lease (an eviction, a restart, an operator)."""

from __future__ import annotations

from lastcall_once._record import replace
from lastcall_once.records import Attempt, Event, Policy, State, Verdict
from lastcall_once.store import Store


async def complete_forgotten(store: Store, attempt: Attempt, *, ttl: float, result: bytes | None) -> bool:
    """Record the result of an attempt that does not hold its key any more, unless somebody else has had the key since.

    Returns whether the record has it. Raises StoreError. The key is taken as by a new attempt, so that nobody can come
    between; one that is there, in whatever state, is left as it is.
    """
    taken = await store.acquire(replace(attempt, on_unknown=Policy.REFUSE, on_failed=Policy.REFUSE))
    if taken.verdict is Verdict.GRANTED:
        return await store.finish(attempt.key, attempt.token, Event.COMPLETE, ttl=ttl, result=result)
    # It may be there already: the answer to an earlier try was lost.
    return taken.record.token == attempt.token and taken.record.state is State.DONE
