"""What the HTTP service keeps beside the records of keys: documents, streams of entries, and counters with limits.

One small contract over the same stores. Collections, streams and counters are named by the service, each name with the
account it belongs to in front: nothing here knows what an account is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lastcall_once._record import Record as _Record


class Document(_Record):
    """One JSON text under a name. ``version`` counts its writes from 1; ``updated_at`` is in seconds since 1970."""

    collection: str
    name: str
    data: str
    version: int
    updated_at: float


class Entry(_Record):
    """One JSON text in a stream. ``number`` rises with each entry of the stream; ``at`` is in seconds since 1970."""

    stream: str
    number: int
    at: float
    data: str


class Charge(_Record):
    """An amount to add to a counter, unless that would take it above ``limit`` (None: there is none).

    Amounts are integers: money is counted in millionths. A counter that does not exist is 0, and is forgotten ``keep``
    seconds after it was first charged.
    """

    counter: str
    amount: int
    limit: int | None
    keep: float


class DocumentStore(Protocol):
    """Where the service keeps its own things. Every method is one atomic step for all processes that share the store.

    Times are on the store's own clock. All raise :class:`lastcall_once.store.StoreError`, and nothing else, where the
    store fails, within its timeout. Names are bounded and checked by the service; data is a JSON text of at most 1 MiB.
    """

    async def read(self, collection: str, name: str) -> Document | None:
        """The document, or None."""

    async def write(self, collection: str, name: str, data: str, *, version: int | None = None) -> Document | None:
        """Write a document; return it.

        ``version`` is what the document must have now: 0 for one that must not exist, None for any. Returns None, and
        writes nothing, if it has another.
        """

    async def remove(self, collection: str, name: str) -> bool:
        """Forget the document. False if there was none."""

    async def list_documents(
        self, collection: str, *, prefix: str = "", after: str = "", limit: int = 100
    ) -> Sequence[Document]:
        """Documents whose names begin with ``prefix`` and sort behind ``after``, in the order of their names."""

    async def append(self, stream: str, data: str, *, keep: int) -> Entry:
        """Append an entry. Those beyond the newest ``keep`` may be forgotten, at once or a little later."""

    async def entries(self, stream: str, *, limit: int = 100, offset: int = 0) -> Sequence[Entry]:
        """The newest entries first, without the first ``offset`` of them."""

    async def charge(self, charges: Sequence[Charge]) -> str | None:
        """Make all charges, or none of them: return the first counter that would go above its limit, or None."""

    async def counts(self, counters: Sequence[str]) -> Sequence[int]:
        """The values of counters, in their order; 0 for one that does not exist."""
