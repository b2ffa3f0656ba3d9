"""``POST /v1/check-lock`` and ``/v1/ai/…``: keys, and the leases of work that the clients do.

Claims (``check-lock``) and leases are two sets of keys: the same key may be in both. A lease is its holder's by the
``lease_id``, which is told to nobody else. A lease that runs out may be taken over (``version`` rises); its holder may
still complete it as long as nobody has.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
from typing import Any

from lastcall_once import records
from lastcall_once._record import replace
from lastcall_once.guard import check_key
from lastcall_once.records import Attempt, Event, Outcome, Policy, Record, State, Verdict
from lastcall_once.service.core import Answer, Call
from lastcall_once.service.faults import Fault
from lastcall_once.service.timestamps import iso
from lastcall_once.store import StoreError

RETRY_AFTER = 1  # seconds until a client looks again

_STATUS = {
    State.ABSENT: "not_found",
    State.LEASED: "in_progress",
    State.DONE: "completed",
    State.FAILED: "failed",
    State.UNKNOWN: "expired",
}
_OK = frozenset(("acquired", "in_progress", "completed"))
_ENDED = {Event.COMPLETE: State.DONE, Event.FAIL: State.FAILED}


async def check_lock(call: Call) -> Answer:
    """Claim a key: the first gets 200 ``locked``, everybody else 409 ``duplicate``."""
    key, ttl = call.body["key"], call.body.get("ttl") or call.core.settings.ttl
    outcome = await attempt(
        call, Attempt(_name(call, "lock", key), secrets.token_hex(16), 0.0, ttl, _worker(call), meta=_meta(call.body))
    )
    locked = outcome.verdict is Verdict.GRANTED
    status, first = "locked" if locked else "duplicate", iso(outcome.record.first_seen_at)
    call.count("make")
    body: dict[str, Any] = {"success": locked, "status": status, "key": key, "ttl": ttl, "first_seen_at": first}
    if not locked:
        call.count("make_duplicates")
        body |= Fault("duplicate", first_seen_at=first, key=key, attempts=outcome.record.attempts).body
    return Answer(body, 200 if locked else 409, ((b"x-onceonly-status", status.encode()),))


async def lease(call: Call) -> Answer:
    """Take the lease of a key, or learn how its work stands."""
    key = call.body["key"]
    seconds = call.body.get("ttl") or call.core.settings.lease
    asked = Attempt(
        _name(call, "run", key),
        secrets.token_hex(16),
        float(seconds),
        float(call.core.settings.ttl),
        _worker(call),
        meta=_meta(call.body, seconds=seconds),
        on_failed=call.core.settings.on_failed,
    )
    outcome = await attempt(call, asked)
    record = outcome.record
    view = _view(call, key, record)
    granted = outcome.verdict is Verdict.GRANTED
    if granted:
        call.count("ai")
        view |= {"status": "acquired", "lease_id": asked.token, "ttl_left": seconds, "retry_after_sec": None}
        await _tell(call, "lease_acquired", key, record)
    else:
        call.count("ai_repeated")
    return Answer({**view, "ttl": seconds, "charged": int(granted), "result": _end(record).get("result")})


async def extend(call: Call) -> Answer:
    """Renew a lease, from now on: for ``ttl`` seconds, or as many as it was taken for."""
    key, lease_id, seconds = call.body["key"], call.body["lease_id"], call.body.get("ttl")
    once, name = call.core.once, _name(call, "run", key)
    if not seconds:
        record = await once.timed("get", once.store.get(name))
        seconds = _noted(record).get("ttl") or call.core.settings.lease
    renewed = once.store.renew(name, lease_id, lease=float(seconds), ttl=float(call.core.settings.ttl))
    if not await once.timed("renew", renewed):
        raise await _lost(call, key)
    return Answer(
        {"ok": True, "status": "extended", "key": key, "lease_id": lease_id, "ttl": seconds, "ttl_left": seconds}
    )


async def complete(call: Call) -> Answer:
    """End a lease with a result. Asked again by its holder, the answer is the same, and the first result counts."""
    result = call.body.get("result")
    digest = call.body.get("result_hash") or hash_of(result)
    return await _finish(call, Event.COMPLETE, "lease_completed", result=result, result_hash=digest)


async def fail(call: Call) -> Answer:
    """End a lease with an error, to be told to all who ask."""
    return await _finish(
        call,
        Event.FAIL,
        "lease_failed",
        error_code=call.body["error_code"],
        error_hash=call.body.get("error_hash"),
    )


async def cancel(call: Call) -> Answer:
    """Give a lease back, the work not having been done: the key is as if nobody had asked for it."""
    key, lease_id = call.body["key"], call.body["lease_id"]
    once, name = call.core.once, _name(call, "run", key)
    record = await once.timed("get", once.store.get(name))
    released = once.store.finish(name, lease_id, Event.RELEASE, ttl=1.0)
    if not await once.shielded(once.timed("finish", released)):
        raise await _lost(call, key)
    call.count("ai_cancelled")
    await _tell(call, "lease_cancelled", key, record, reason=call.body.get("reason"))
    return Answer({"ok": True, "status": "cancelled", "key": key, "lease_id": lease_id})


async def status(call: Call) -> Answer:
    """How the work of a key stands. A key that nobody has asked for is ``not_found``, with 200: it may come yet."""
    key = call.query["key"]
    return Answer(_view(call, key, await _record(call, key)))


async def result(call: Call) -> Answer:
    """How the work of a key has ended; ``ok`` only if it was completed."""
    key = call.query["key"]
    record = await _record(call, key)
    view, end = _view(call, key, record), _end(record)
    found = {name: view[name] for name in ("status", "key", "result_hash", "error_code", "done_at")}
    return Answer({"ok": view["status"] == "completed", "result": end.get("result"), **found})


async def attempt(call: Call, asked: Attempt) -> Outcome:
    """Make an attempt. During a drain only look: keys that have a record are answered, others get a Fault.

    A lease is held by a client, not by this process, which a stop would not harm; but a server that is about to go
    should begin nothing that another one can.
    """
    once = call.core.once
    if call.draining:
        found = await once.timed("get", once.store.get(asked.key))
        # The record is as the store's clock has it, and no clock that is behind it changes that.
        outcome = records.acquire(found, replace(asked, token=""), -math.inf)
        if outcome.verdict is Verdict.GRANTED:
            raise Fault("draining")
        return outcome
    made = await once.attempt(asked)
    if made is None:  # pragma: no cover - fail_open is never set here
        raise StoreError("the store failed")
    return made


async def _finish(call: Call, event: Event, kind: str, **end: Any) -> Answer:
    """End the lease of the request's key; ``end`` is what is stored of it."""
    key, lease_id = call.body["key"], call.body["lease_id"]
    once, name = call.core.once, _name(call, "run", key)
    stored = json.dumps({**end, "done_at": iso(call.now)}).encode()
    held = await once.shielded(
        once.timed("finish", once.store.finish(name, lease_id, event, ttl=float(call.core.settings.ttl), result=stored))
    )
    record = await once.timed("get", once.store.get(name))
    if not held and (record is None or record.token != lease_id or record.state is not _ENDED[event]):
        raise await _lost(call, key, record)
    if held:
        call.count(kind.replace("lease", "ai"))
        await _tell(call, kind, key, record, error_code=end.get("error_code"))
    view = _view(call, key, record)
    return Answer({**view, "ok": True, "lease_id": lease_id})


async def _lost(call: Call, key: str, record: Record | None = None) -> Fault:
    if record is None:
        record = await _record(call, key)
    if record is None:
        return Fault("not_found", "There is no lease of this key: it was cancelled, or has expired.", key=key)
    return Fault("lease_lost", key=key, status=_STATUS[record.state])


async def _record(call: Call, key: str) -> Record | None:
    once = call.core.once
    return await once.timed("get", once.store.get(_name(call, "run", key)))


def _name(call: Call, what: str, key: str) -> str:
    return check_key(key, f"api/{call.account}/{what}")


def _worker(call: Call) -> str:
    """Who holds a lease: a client, and not this worker of the server, with whose end it must not be taken for dead."""
    return f"key/{call.key.id}"


def _meta(body: dict[str, Any], *, seconds: int | None = None) -> str:
    """What is noted in the record: the client's metadata, and how long the lease is when it is renewed."""
    noted = {"metadata": body.get("metadata"), "ttl": seconds}
    return json.dumps({name: value for name, value in noted.items() if value is not None})


def _noted(record: Record | None) -> dict[str, Any]:
    return json.loads(record.meta) if record is not None and record.meta else {}


def _end(record: Record | None) -> dict[str, Any]:
    return json.loads(record.result) if record is not None and record.result else {}


def _view(call: Call, key: str, record: Record | None) -> dict[str, Any]:
    """What everybody may know of a key."""
    state = State.ABSENT if record is None else record.state
    leased = record is not None and state is State.LEASED
    end = _end(record)
    word = _STATUS[state]
    return {
        "ok": word in _OK,
        "status": word,
        "key": key,
        "lease_id": None,
        "version": 0 if record is None else record.executions,
        "ttl_left": max(0, math.ceil(record.lease_until - call.now)) if record is not None and leased else None,
        "first_seen_at": None if record is None else iso(record.first_seen_at),
        "done_at": end.get("done_at"),
        "result_hash": end.get("result_hash"),
        "error_code": end.get("error_code"),
        "retry_after_sec": RETRY_AFTER if leased else None,
    }


async def _tell(call: Call, kind: str, key: str, record: Record | None, **facts: Any) -> None:
    metadata = _noted(record).get("metadata") or {}
    run_id = metadata.get("run_id")
    known = {name: value for name, value in facts.items() if value is not None}
    await call.journal(kind, run_id if isinstance(run_id, str) else None, key=key, **known)


def hash_of(value: Any) -> str:
    """The SHA-256 of JSON in one spelling: sorted members, no white space."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def policy_named(word: str) -> Policy:
    """The policy for failed keys by its name in options: ``replay`` or ``retry``. Raises ValueError."""
    found = {"replay": Policy.REFUSE, "retry": Policy.RETRY}.get(word)
    if found is None:
        raise ValueError(f"a failed key is for replay or for retry, not {word!r}")
    return found
