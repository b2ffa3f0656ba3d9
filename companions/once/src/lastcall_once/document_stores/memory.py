"""The document store of the memory store."""

from __future__ import annotations

from collections.abc import Sequence

from lastcall_once.document_stores.rules import bounded, check_charges, check_keep, first_refused, sums
from lastcall_once.documents import Charge, Document, Entry
from lastcall_once.stores.memory import Counter, MemoryStore


class MemoryDocumentStore:
    """A ``DocumentStore`` of a :class:`lastcall_once.stores.memory.MemoryStore`.

    A step has no ``await`` in it: nothing comes in between.
    """

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def read(self, collection: str, name: str) -> Document | None:
        """Like :meth:`lastcall_once.documents.DocumentStore.read`."""
        self._store.now()
        return self._store.service_data.documents.get(collection, {}).get(name)

    async def write(self, collection: str, name: str, data: str, *, version: int | None = None) -> Document | None:
        """Like :meth:`lastcall_once.documents.DocumentStore.write`."""
        now = self._store.now()
        before = self._store.service_data.documents.get(collection, {}).get(name)
        current = 0 if before is None else before.version
        if version is not None and version != current:
            return None
        document = Document(collection, name, data, current + 1, now)
        self._store.service_data.documents.setdefault(collection, {})[name] = document
        return document

    async def remove(self, collection: str, name: str) -> bool:
        """Like :meth:`lastcall_once.documents.DocumentStore.remove`."""
        self._store.now()
        documents = self._store.service_data.documents.get(collection, {})
        there = documents.pop(name, None) is not None
        if there and not documents:
            del self._store.service_data.documents[collection]
        return there

    async def list_documents(
        self, collection: str, *, prefix: str = "", after: str = "", limit: int = 100
    ) -> Sequence[Document]:
        """Like :meth:`lastcall_once.documents.DocumentStore.list_documents`."""
        self._store.now()
        documents = self._store.service_data.documents.get(collection, {})
        names = sorted(name for name in documents if name.startswith(prefix) and name > after)
        return [documents[name] for name in names[: bounded(limit)]]

    async def append(self, stream: str, data: str, *, keep: int) -> Entry:
        """Like :meth:`lastcall_once.documents.DocumentStore.append`."""
        check_keep(keep)
        now = self._store.now()
        entries = self._store.service_data.streams.setdefault(stream, [])
        entry = Entry(stream, entries[-1].number + 1 if entries else 1, now, data)
        entries.append(entry)
        del entries[:-keep]
        return entry

    async def entries(self, stream: str, *, limit: int = 100, offset: int = 0) -> Sequence[Entry]:
        """Like :meth:`lastcall_once.documents.DocumentStore.entries`."""
        self._store.now()
        entries = self._store.service_data.streams.get(stream, [])
        return entries[::-1][bounded(offset) :][: bounded(limit)]

    async def charge(self, charges: Sequence[Charge]) -> str | None:
        """Like :meth:`lastcall_once.documents.DocumentStore.charge`."""
        check_charges(charges)
        now = self._store.now()
        counters = self._store.service_data.counters
        there = {name: found for name in {c.counter for c in charges} if (found := self._live(name, now)) is not None}
        refused = first_refused(charges, {name: counter.value for name, counter in there.items()})
        if refused is None:
            for each in sums(charges):
                before = there.get(each.counter, Counter(0, now + each.keep))
                counters[each.counter] = Counter(before.value + each.amount, before.expires_at)
        return refused

    async def counts(self, counters: Sequence[str]) -> Sequence[int]:
        """Like :meth:`lastcall_once.documents.DocumentStore.counts`."""
        now = self._store.now()
        found = [self._live(name, now) for name in counters]
        return [0 if counter is None else counter.value for counter in found]

    def _live(self, name: str, now: float) -> Counter | None:
        counter = self._store.service_data.counters.get(name)
        return None if counter is None or now >= counter.expires_at else counter
