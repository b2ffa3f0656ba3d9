"""The record of one key: its states, one transition table, and the decision on each attempt. Pure; time is an argument.

Theory of operation
-------------------
A key is ``ABSENT`` until somebody acquires it. Work runs under a *lease* (``LEASED``), short and renewed by a
heartbeat; only the holder of the lease's token may renew or finish it. Finished work is ``DONE`` with its result, or
``FAILED``, for a *time to live* of its own, much longer than a lease. A lease that runs out, or whose holder was
cancelled, is ``UNKNOWN``: the work may or may not have had its effect, and ``Policy`` says what the next attempt gets.
``check_lock`` needs no lease: its first attempt makes the key ``DONE`` at once (``CLAIM``).

``at`` applies the clock to a record, ``acquire``, ``renew`` and ``finish`` apply a step to it; a store does nothing but
run them atomically, or their like in its own language, and the contract tests hold all stores to this module.

All times are seconds: points on the store's wall clock (Unix time), spans otherwise.
"""

from __future__ import annotations

import math
from enum import Enum

from lastcall_once._record import Record as _Record
from lastcall_once._record import replace


class State(Enum):
    """Where a key stands."""

    ABSENT = "absent"
    LEASED = "leased"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Event(Enum):
    """What can happen to a key."""

    ACQUIRE = "a lease is taken"
    CLAIM = "the key is claimed without a lease"
    RENEW = "the lease is renewed"
    COMPLETE = "the work is done"
    FAIL = "the work has failed"
    ABANDON = "the work was cut short"
    RELEASE = "the key is given back"
    LEASE_OVER = "the lease has run out"
    EXPIRE = "the record has expired"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.ABSENT, Event.ACQUIRE): State.LEASED,
    (State.ABSENT, Event.CLAIM): State.DONE,
    (State.LEASED, Event.RENEW): State.LEASED,
    (State.LEASED, Event.COMPLETE): State.DONE,
    (State.LEASED, Event.FAIL): State.FAILED,
    (State.LEASED, Event.ABANDON): State.UNKNOWN,
    (State.LEASED, Event.RELEASE): State.ABSENT,
    (State.LEASED, Event.LEASE_OVER): State.UNKNOWN,
    (State.DONE, Event.RELEASE): State.ABSENT,
    (State.DONE, Event.EXPIRE): State.ABSENT,
    (State.FAILED, Event.ACQUIRE): State.LEASED,
    (State.FAILED, Event.CLAIM): State.DONE,
    (State.FAILED, Event.RELEASE): State.ABSENT,
    (State.FAILED, Event.EXPIRE): State.ABSENT,
    (State.UNKNOWN, Event.ACQUIRE): State.LEASED,
    (State.UNKNOWN, Event.CLAIM): State.DONE,
    # The holder of a lease that has run out may still be at work, and knows best how it ended, as long as nobody else
    # has taken the key over: its token is then another's.
    (State.UNKNOWN, Event.RENEW): State.LEASED,
    (State.UNKNOWN, Event.COMPLETE): State.DONE,
    (State.UNKNOWN, Event.FAIL): State.FAILED,
    (State.UNKNOWN, Event.ABANDON): State.UNKNOWN,
    (State.UNKNOWN, Event.RELEASE): State.ABSENT,
    (State.UNKNOWN, Event.EXPIRE): State.ABSENT,
}


class Verdict(Enum):
    """What an attempt is told."""

    GRANTED = "granted"  # the caller holds the lease, or the claim: it executes
    IN_FLIGHT = "in_flight"  # somebody else holds it
    DONE = "done"  # the result is in the record
    FAILED = "failed"  # and is to be replayed, as the caller wished
    UNKNOWN = "unknown"  # refused, as the caller wished
    MISMATCH = "mismatch"  # the key was used for something else


class Policy(Enum):
    """What an attempt on a key gets whose last work failed, or has an unknown end."""

    RETRY = "retry"
    REFUSE = "refuse"


class Record(_Record):
    """One key. ``lease_until`` counts while ``LEASED``, ``expires_at`` in the other states.

    ``token`` names the lease, ``worker`` the process that took it. ``attempts`` counts all that asked, ``executions``
    those that were granted. ``fingerprint`` is what the key was first used for (empty: not said), ``result`` the answer
    that was stored, ``meta`` the caller's JSON.
    """

    key: str
    state: State
    token: str = ""
    worker: str = ""
    first_seen_at: float = 0.0
    updated_at: float = 0.0
    lease_until: float = 0.0
    expires_at: float = math.inf
    attempts: int = 0
    executions: int = 0
    fingerprint: str = ""
    result: bytes | None = None
    meta: str = ""


class Attempt(_Record):
    """One attempt to acquire a key.

    ``lease`` is the lease's length in seconds, 0 for a claim without one. ``ttl`` is how long the record lives that
    comes of it without being finished properly: a claim, or a lease that runs out.
    """

    key: str
    token: str
    lease: float
    ttl: float
    worker: str = ""
    fingerprint: str = ""
    meta: str = ""
    on_unknown: Policy = Policy.RETRY
    on_failed: Policy = Policy.RETRY


class Outcome(_Record):
    """What an attempt came to: the verdict, and the record after it."""

    verdict: Verdict
    record: Record


def at(record: Record | None, now: float) -> Record | None:
    """The record as the clock has it: a lease may have run out, a record may have expired (None)."""
    if record is None:
        return None
    if record.state is State.LEASED and now >= record.lease_until:
        record = replace(record, state=TRANSITIONS[State.LEASED, Event.LEASE_OVER])
    if record.state is not State.LEASED and now >= record.expires_at:
        return None
    return record


def acquire(record: Record | None, attempt: Attempt, now: float) -> Outcome:
    """Apply an attempt to the record of its key (None: there is none), at ``now``."""
    record = at(record, now)
    if record is None:
        return Outcome(Verdict.GRANTED, _granted(None, attempt, now))
    seen = replace(record, attempts=record.attempts + 1, updated_at=now)
    if attempt.fingerprint and record.fingerprint and attempt.fingerprint != record.fingerprint:
        return Outcome(Verdict.MISMATCH, seen)
    if record.state is State.LEASED:
        return Outcome(Verdict.IN_FLIGHT, seen)
    if record.state is State.DONE:
        return Outcome(Verdict.DONE, seen)
    if record.state is State.FAILED and attempt.on_failed is Policy.REFUSE:
        return Outcome(Verdict.FAILED, seen)
    if record.state is State.UNKNOWN and attempt.on_unknown is Policy.REFUSE:
        return Outcome(Verdict.UNKNOWN, seen)
    return Outcome(Verdict.GRANTED, _granted(record, attempt, now))


def _granted(record: Record | None, attempt: Attempt, now: float) -> Record:
    event = Event.ACQUIRE if attempt.lease > 0 else Event.CLAIM
    before = State.ABSENT if record is None else record.state
    return Record(
        key=attempt.key,
        state=TRANSITIONS[before, event],
        token=attempt.token,
        worker=attempt.worker,
        first_seen_at=now if record is None else record.first_seen_at,
        updated_at=now,
        lease_until=now + attempt.lease,
        expires_at=now + attempt.lease + attempt.ttl,
        attempts=1 if record is None else record.attempts + 1,
        executions=1 if record is None else record.executions + 1,
        fingerprint=attempt.fingerprint or ("" if record is None else record.fingerprint),
        meta=attempt.meta,
    )


def renew(record: Record | None, token: str, lease: float, ttl: float, now: float) -> Record | None:
    """The record with its lease renewed for ``lease`` seconds from ``now``; None if ``token`` does not hold it."""
    record = at(record, now)
    if record is None or record.token != token or (record.state, Event.RENEW) not in TRANSITIONS:
        return None
    return replace(
        record,
        state=TRANSITIONS[record.state, Event.RENEW],
        updated_at=now,
        lease_until=now + lease,
        expires_at=now + lease + ttl,
    )


def finish(
    record: Record | None, token: str, event: Event, now: float, *, ttl: float, result: bytes | None = None
) -> Record | None:
    """The record after ``COMPLETE``, ``FAIL``, ``ABANDON`` or ``RELEASE``; None if ``token`` does not hold it.

    After ``RELEASE`` the state is ``ABSENT``: the store deletes the record.
    """
    record = at(record, now)
    if record is None or record.token != token or (record.state, event) not in TRANSITIONS:
        return None
    if record.state not in (State.LEASED, State.UNKNOWN):
        return None  # finished already: the first end counts
    return replace(record, state=TRANSITIONS[record.state, event], updated_at=now, expires_at=now + ttl, result=result)
