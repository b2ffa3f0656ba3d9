"""Which leases the running code holds, so that a guard within another one on the same key does not wait for itself.

A guard that finds its key leased by a guard around it passes through. One that is entered again from within, as by a
function that calls itself, does not: that would be a second run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

from lastcall_once.records import Outcome, Verdict

# By the tokens of leases: the guards that were entered under them, around this code. Tasks and threads that it starts
# inherit that; tokens of leases that have ended mean nothing any more: a record that is not leased is judged as ever.
Around = Mapping[str, tuple[object, ...]]

_around: ContextVar[Around] = ContextVar("lastcall_once_around", default=MappingProxyType({}))


def around() -> Around:
    """The leases around the calling code."""
    return _around.get()


def is_nested(outcome: Outcome, leases: Around) -> bool:
    """Whether an attempt was refused because of a lease around it."""
    return outcome.verdict in (Verdict.IN_FLIGHT, Verdict.MISMATCH) and outcome.record.token in leases


def was_entered(guard: object, token: str) -> bool:
    """Whether the calling code is within ``guard``, under this lease."""
    return any(one is guard for one in _around.get().get(token, ()))


@contextmanager
def within(guard: object, token: str) -> Iterator[None]:
    """The block runs within ``guard``, under a lease. For the code of one task."""
    leases = _around.get()
    before = _around.set({**leases, token: (*leases.get(token, ()), guard)})
    try:
        yield
    finally:
        _around.reset(before)
