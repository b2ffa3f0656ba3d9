"""What the endpoints share: the stores, the request with its caller, and the answer."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from lastcall_once._record import Record
from lastcall_once.documents import Charge, Document, DocumentStore, Entry
from lastcall_once.guard import AsyncOnce
from lastcall_once.own_task import own_task
from lastcall_once.records import Policy
from lastcall_once.service.faults import Fault
from lastcall_once.service.keys import Key
from lastcall_once.service.timestamps import DAY, day_of, iso
from lastcall_once.store import StoreError

LARGEST = 1 << 20  # bytes of a body
LARGEST_KEPT = 64 << 10  # bytes of an event, a policy or a tool: up to a thousand of them are read at once
EVENTS_KEPT = 10_000  # of an account
TIMELINE_KEPT = 2_000  # of all runs that share a stream
TIMELINES = 64  # streams for an account's runs: streams are never removed, so that runs cannot have one each
STATISTICS_DAYS = 400
_FLUSH_SECONDS = 1.0


class Settings(Record):
    """The options of the service; times are seconds.

    ``lease`` is the length of a lease whose request has no ``ttl``, ``ttl`` how long a claim (without a ``ttl``) and
    the end of a lease are kept. ``dedup_window`` is how long a tool call that was allowed is not allowed again with the
    same arguments. ``on_failed``: what a lease for a key gets whose work has failed, the failure or a new lease.
    """

    lease: int = 30
    ttl: int = 86400
    dedup_window: int = 300
    on_failed: Policy = Policy.REFUSE


class Answer(Record):
    """A response: a JSON document, a status, and headers of its own."""

    body: Mapping[str, Any]
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Core:
    """What a process has one of. The store is authoritative: statistics are kept here until it has them."""

    def __init__(self, once: AsyncOnce, documents: DocumentStore, settings: Settings) -> None:
        self.once = once
        self.documents = documents
        self.settings = settings
        self._counted: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def count(self, account: str, what: str, now: float) -> None:
        """Add one to a statistic. It reaches the store within a second; a process that is killed takes that along."""
        name = statistic(account, what, day_of(now))
        self._counted[name] = self._counted.get(name, 0) + 1
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_FLUSH_SECONDS, lambda: self.once.spawn(self.flush()))

    async def flush(self) -> None:
        """Write statistics to the store; they stay here if it fails, for the next time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        counted, self._counted = self._counted, {}
        if not counted:
            return
        try:
            await self.documents.charge(
                [Charge(name, amount, None, float(STATISTICS_DAYS * DAY)) for name, amount in counted.items()]
            )
        except StoreError as exc:
            for name, amount in counted.items():
                self._counted[name] = self._counted.get(name, 0) + amount
            self.once.observer.warn("statistics", "once: statistics could not be stored yet: %s", exc)

    async def sums(self, account: str, what: Sequence[str], days: Sequence[str]) -> dict[str, list[int]]:
        """Statistics by name, one figure for each of the days. Raises StoreError."""
        await self.flush()
        names = [statistic(account, each, day) for each in what for day in days]
        counts = await self.documents.counts(names)
        return {each: list(counts[start : start + len(days)]) for each, start in _starts(what, len(days))}


def _starts(names: Sequence[str], length: int) -> list[tuple[str, int]]:
    return [(name, number * length) for number, name in enumerate(names)]


def statistic(account: str, what: str, day: str) -> str:
    """The counter of a statistic."""
    return f"{account}/statistic/{what}/{day}"


class Call(Record):
    """One request that is good: who asks, what for, and when (seconds since 1970). ``draining``: a stop has begun."""

    core: Core
    key: Key
    path: Mapping[str, str]
    query: Mapping[str, Any]
    body: Any
    now: float
    draining: bool = False

    @property
    def account(self) -> str:
        """Whose things are asked for."""
        return self.key.account

    @property
    def documents(self) -> DocumentStore:
        """The document store."""
        return self.core.documents

    def count(self, what: str) -> None:
        """Add one to a statistic of the account."""
        self.core.count(self.account, what, self.now)

    def scoped_name(self, *parts: str) -> str:
        """The name of a collection, stream or counter of the account."""
        return "/".join((self.account, *parts))

    async def journal(self, kind: str, run_id: str | None, **facts: Any) -> None:
        """Tell what has happened in the account's events, and in the run's timeline.

        What has happened has happened: a store that fails here is logged, and nobody else learns of it.
        """
        event = {"type": kind, "ts": int(self.now), "at": iso(self.now), "run_id": run_id, **facts}
        try:
            await self.note(event)
        except StoreError as exc:
            self.core.once.observer.warn("journal", "once: an event could not be stored: %s", exc)

    async def note(self, event: Mapping[str, Any]) -> Entry:
        """Append an event to the account's, and to its run's timeline. Raises StoreError."""
        text = text_of(event)
        appended = [self.documents.append(self.scoped_name("events"), text, keep=EVENTS_KEPT)]
        if event["run_id"] is not None:
            appended.append(self.documents.append(self.timeline(event["run_id"]), text, keep=TIMELINE_KEPT))
        return (await asyncio.gather(*map(own_task, appended)))[0]

    def timeline(self, run_id: str) -> str:
        """The stream with the events of a run, and of others."""
        return self.scoped_name("runs", str(zlib.crc32(run_id.encode("utf-8", "surrogatepass")) % TIMELINES))


def text_of(value: Mapping[str, Any]) -> str:
    """The JSON text that the document store keeps, in ASCII. Raises Fault where it is too large for it."""
    text = json.dumps(value, separators=(",", ":"))
    if len(text) > LARGEST_KEPT:
        raise Fault("too_large", "As the store has to keep it, in ASCII, this is more than 64 KiB.")
    return text


def content_of(document: Document) -> dict[str, Any]:
    """What a document says, with its version and the time of its last change."""
    found: dict[str, Any] = json.loads(document.data)
    return {**found, "version": document.version, "updated_at": iso(document.updated_at)}
