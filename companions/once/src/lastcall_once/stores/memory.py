"""Records in this process's memory: for tests, and for an application that is one process and may forget."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence

from lastcall_once import records
from lastcall_once._record import Record as _Record
from lastcall_once.documents import Document, Entry
from lastcall_once.records import Attempt, Event, Outcome, Record, State
from lastcall_once.store import StoreError

_PURGE_EVERY = 60.0

_REFUSED = (
    "the memory store is for one process, and {why}: each would have records of its own, and run what another has "
    "run. Use sqlite:///once.db, which processes of one machine share."
)


class Counter(_Record):
    """A counter of the document store; it does not exist any more from ``expires_at`` on."""

    value: int
    expires_at: float


class ServiceData:
    """What the document store keeps here (``lastcall_once.document_stores.memory``)."""

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Document]] = {}  # by collection and name
        self.streams: dict[str, list[Entry]] = {}  # the oldest first
        self.counters: dict[str, Counter] = {}

    def purge(self, now: float) -> None:
        """Forget the counters that have expired."""
        self.counters = {name: counter for name, counter in self.counters.items() if now < counter.expires_at}


class MemoryStore:
    """The store ``memory:``. ``clock`` gives the time, in seconds since 1970.

    It is refused (:class:`StoreError`) in a process that was forked after it was opened, and in every worker but the
    first of a server with several (lastcall, gunicorn, or one that makes its workers with ``multiprocessing``).
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # for clones in other threads
        self._records: dict[str, Record] = {}
        self._keys: list[str] = []  # sorted
        self.service_data = ServiceData()
        self._pid = 0
        self._purged = 0.0

    def clone(self) -> MemoryStore:
        """A store on the same records that is not open, for another thread."""
        made = MemoryStore(clock=self._clock)
        made.__dict__ |= self.__dict__ | {"_pid": 0}
        return made

    async def open(self) -> None:
        """Start, or go on with what is there. Raises StoreError in a second process."""
        if self._pid not in (0, os.getpid()):
            self.now()
        _claim_for_this_process()
        self._pid = os.getpid()
        self._purged = time.monotonic()

    async def close(self) -> None:
        """Nothing is lost: records stay as long as the store does."""
        self._pid = 0

    def now(self) -> float:
        """The time, if this store may be used here. Raises StoreError if not."""
        if self._pid != os.getpid():
            if self._pid == 0:
                raise StoreError("the memory store is not open")
            raise StoreError(_REFUSED.format(why=f"this one was opened by process {self._pid}, before a fork"))
        return self._clock()

    async def acquire(self, attempt: Attempt) -> Outcome:
        """Like :meth:`lastcall_once.store.Store.acquire`."""
        now = self.now()
        if time.monotonic() - self._purged > _PURGE_EVERY:
            await self.purge()
        with self._lock:
            outcome = records.acquire(self._records.get(attempt.key), attempt, now)
            self._put(outcome.record)
        return outcome

    async def renew(self, key: str, token: str, *, lease: float, ttl: float) -> bool:
        """Like :meth:`lastcall_once.store.Store.renew`."""
        now = self.now()
        with self._lock:
            return self._put(records.renew(self._records.get(key), token, lease, ttl, now))

    async def finish(self, key: str, token: str, event: Event, *, ttl: float, result: bytes | None = None) -> bool:
        """Like :meth:`lastcall_once.store.Store.finish`."""
        now = self.now()
        with self._lock:
            return self._put(records.finish(self._records.get(key), token, event, now, ttl=ttl, result=result))

    async def get(self, key: str) -> Record | None:
        """Like :meth:`lastcall_once.store.Store.get`."""
        return records.at(self._records.get(key), self.now())

    async def scan(self, prefix: str = "", *, after: str = "", limit: int = 100) -> Sequence[Record]:
        """Like :meth:`lastcall_once.store.Store.scan`."""
        now = self.now()
        place = max(bisect_left(self._keys, prefix), bisect_right(self._keys, after) if after else 0)
        found: list[Record] = []
        while place < len(self._keys) and len(found) < limit and self._keys[place].startswith(prefix):
            record = records.at(self._records[self._keys[place]], now)
            if record is not None:
                found.append(record)
            place += 1
        return found

    async def delete(self, key: str) -> bool:
        """Like :meth:`lastcall_once.store.Store.delete`."""
        now = self.now()
        with self._lock:
            there = records.at(self._records.get(key), now) is not None
            self._drop(key)
        return there

    async def purge(self) -> int:
        """Like :meth:`lastcall_once.store.Store.purge`. Happens by itself, about once a minute of use."""
        now = self.now()
        self._purged = time.monotonic()
        with self._lock:
            gone = [key for key, record in self._records.items() if records.at(record, now) is None]
            for key in gone:
                del self._records[key]
            if gone:
                self._keys = sorted(self._records)
        self.service_data.purge(now)
        return len(gone)

    def _put(self, record: Record | None) -> bool:
        if record is None:
            return False
        if record.state is State.ABSENT:
            self._drop(record.key)
            return True
        if record.key not in self._records:
            insort(self._keys, record.key)
        self._records[record.key] = record
        return True

    def _drop(self, key: str) -> None:
        if self._records.pop(key, None) is not None:
            del self._keys[bisect_left(self._keys, key)]


class _Claim:
    """The name that marks this process as the one with the memory store, among its parent's workers."""

    held: tuple[int, socket.socket] | None = None


def _claim_for_this_process() -> None:
    """Refuse to be the second worker of one server.

    The name is a socket's in Linux's abstract namespace: it takes no file, and goes with the process.
    """
    if not _is_a_worker() or (_Claim.held is not None and _Claim.held[0] == os.getpid()):
        return
    name = f"\0lastcall-once-memory-{os.getuid()}-{os.getppid()}"
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(name)
    except OSError as exc:
        claim.close()
        raise StoreError(_REFUSED.format(why="another worker of this server has one")) from exc
    _Claim.held = (os.getpid(), claim)


def _is_a_worker() -> bool:
    """Whether this process looks like one of several that serve the same application."""
    if os.environ.get("LASTCALL_WORKER_ID") or "gunicorn.arbiter" in sys.modules:
        return True
    multiprocessing = sys.modules.get("multiprocessing.process")
    return multiprocessing is not None and multiprocessing.parent_process() is not None
