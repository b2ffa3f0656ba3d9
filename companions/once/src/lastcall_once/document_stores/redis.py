"""The document store of the Redis store: one Lua script for each step, with the server's clock.

A collection is the hash ``<prefix>d:<collection>``, each of its fields a document as ``VERSION UPDATED_AT DATA``, and
the sorted set ``<prefix>n:<collection>`` has the names in their order: all scores are 0. A stream is the list
``<prefix>e:<stream>`` of ``NUMBER AT DATA``, the newest first; a counter is the number ``<prefix>c:<counter>``, which
Redis removes when it has expired.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from lastcall_once.document_stores.rules import bounded, check_charges, check_keep, limit_of
from lastcall_once.documents import Charge, Document, Entry
from lastcall_once.store import StoreError
from lastcall_once.stores.redis import RedisStore, Script

_FOR_EVER = 9e12  # seconds from which on a counter has no end: Redis counts milliseconds in 63 bits

_STAMP = """
local time = redis.call('TIME')
local stamp = string.format('%d.%06d', time[1], time[2])
local function number_of(text)
    if not text then return 0 end
    return tonumber(string.match(text, '^%d+')) or error('the value is not one of the document store')
end
"""

# documents; name -> document | nil
_READ = Script("return redis.call('HGET', KEYS[1], ARGV[1])")

# documents, names; name, data, version before it or '' for any -> [version, stamp] | nil
_WRITE = Script(
    _STAMP
    + """
local version = number_of(redis.call('HGET', KEYS[1], ARGV[1]))
if ARGV[3] ~= '' and version ~= tonumber(ARGV[3]) then return false end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s ', version + 1, stamp) .. ARGV[2])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
return {version + 1, stamp}
"""
)

# documents, names; name -> 1 | 0
_REMOVE = Script(
    """
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('HDEL', KEYS[1], ARGV[1])
"""
)

# documents, names; the least name as ZRANGEBYLEX has it, prefix, limit -> [name, document, ...]
_DOCUMENTS = Script(
    """
local most = ARGV[2] == '' and '+' or '(' .. ARGV[2] .. '\\255'  -- no text in UTF-8 has this byte
local answer = {}
for _, name in ipairs(redis.call('ZRANGEBYLEX', KEYS[2], ARGV[1], most, 'LIMIT', 0, ARGV[3])) do
    answer[#answer + 1] = name
    answer[#answer + 1] = redis.call('HGET', KEYS[1], name)
end
return answer
"""
)

# entries; data, keep -> [number, stamp]. The newest entry always stays, and has the last number.
_APPEND = Script(
    _STAMP
    + """
local number = number_of(redis.call('LINDEX', KEYS[1], 0)) + 1
redis.call('LPUSH', KEYS[1], string.format('%.0f %s ', number, stamp) .. ARGV[1])
redis.call('LTRIM', KEYS[1], 0, ARGV[2] - 1)
return {number, stamp}
"""
)

# entries; offset, limit -> [entry, ...]
_ENTRIES = Script(
    """
if ARGV[2] == '0' then return {} end
return redis.call('LRANGE', KEYS[1], ARGV[1], ARGV[1] + ARGV[2] - 1)
"""
)

# counters; of each the amount, the limit, and milliseconds or '' for ever -> 0 | the place of the one that is refused
_CHARGE = Script(
    """
local after = {}
for place, counter in ipairs(KEYS) do
    local value = (after[counter] or redis.call('GET', counter) or 0) + ARGV[3 * place - 2]
    if value > tonumber(ARGV[3 * place - 1]) then return place end
    after[counter] = value
end
for place, counter in ipairs(KEYS) do
    local new = redis.call('EXISTS', counter) == 0
    redis.call('INCRBY', counter, ARGV[3 * place - 2])
    if new and ARGV[3 * place] ~= '' then redis.call('PEXPIRE', counter, ARGV[3 * place]) end
end
return 0
"""
)

# counters -> [value | nil, ...]
_COUNTS = Script(
    """
local answer = {}
for place, counter in ipairs(KEYS) do answer[place] = redis.call('GET', counter) end
return answer
"""
)


class RedisDocumentStore:
    """A ``DocumentStore`` of a :class:`lastcall_once.stores.redis.RedisStore`."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    async def read(self, collection: str, name: str) -> Document | None:
        """Like :meth:`lastcall_once.documents.DocumentStore.read`."""
        found = await self._store.run_script(_READ, self._collection(collection)[:1], name)
        return None if found is None else _document(collection, name, found)

    async def write(self, collection: str, name: str, data: str, *, version: int | None = None) -> Document | None:
        """Like :meth:`lastcall_once.documents.DocumentStore.write`."""
        expected = "" if version is None else str(version)
        found = await self._store.run_script(_WRITE, self._collection(collection), name, data, expected)
        return None if found is None else Document(collection, name, data, found[0], float(found[1]))

    async def remove(self, collection: str, name: str) -> bool:
        """Like :meth:`lastcall_once.documents.DocumentStore.remove`."""
        return bool(await self._store.run_script(_REMOVE, self._collection(collection), name))

    async def list_documents(
        self, collection: str, *, prefix: str = "", after: str = "", limit: int = 100
    ) -> Sequence[Document]:
        """Like :meth:`lastcall_once.documents.DocumentStore.list_documents`."""
        # Python compares texts by code point, which is the order of their bytes in UTF-8.
        least = f"({after}" if after >= prefix else f"[{prefix}"
        keys = self._collection(collection)
        found = await self._store.run_script(_DOCUMENTS, keys, least, prefix, str(bounded(limit)))
        named = zip(found[::2], found[1::2], strict=True)
        return [_document(collection, name.decode(), document) for name, document in named]

    async def append(self, stream: str, data: str, *, keep: int) -> Entry:
        """Like :meth:`lastcall_once.documents.DocumentStore.append`."""
        check_keep(keep)
        number, stamp = await self._store.run_script(_APPEND, self._keys("e", stream), data, str(keep))
        return Entry(stream, number, float(stamp), data)

    async def entries(self, stream: str, *, limit: int = 100, offset: int = 0) -> Sequence[Entry]:
        """Like :meth:`lastcall_once.documents.DocumentStore.entries`."""
        keys = self._keys("e", stream)
        found = await self._store.run_script(_ENTRIES, keys, str(bounded(offset)), str(bounded(limit)))
        return [_entry(stream, entry) for entry in found]

    async def charge(self, charges: Sequence[Charge]) -> str | None:
        """Like :meth:`lastcall_once.documents.DocumentStore.charge`."""
        check_charges(charges)
        arguments: list[str] = []
        for charge in charges:
            end = str(math.ceil(charge.keep * 1000)) if charge.keep < _FOR_EVER else ""
            arguments += [str(charge.amount), str(limit_of(charge)), end]
        keys = self._keys("c", *(charge.counter for charge in charges))
        place = await self._store.run_script(_CHARGE, keys, *arguments)
        return charges[place - 1].counter if place else None

    async def counts(self, counters: Sequence[str]) -> Sequence[int]:
        """Like :meth:`lastcall_once.documents.DocumentStore.counts`."""
        found = await self._store.run_script(_COUNTS, self._keys("c", *counters))
        return [_count(value) for value in found]

    def _keys(self, kind: str, *names: str) -> list[str]:
        return [f"{self._store.prefix}{kind}:{name}" for name in names]

    def _collection(self, collection: str) -> list[str]:
        """The keys of the documents and of their names."""
        return [*self._keys("d", collection), *self._keys("n", collection)]


def _document(collection: str, name: str, found: bytes) -> Document:
    version, updated_at, data = _parts(found)
    return Document(collection, name, data, version, updated_at)


def _entry(stream: str, found: bytes) -> Entry:
    number, at, data = _parts(found)
    return Entry(stream, number, at, data)


def _parts(found: bytes) -> tuple[int, float, str]:
    try:
        number, stamp, data = found.decode().split(" ", 2)
        return int(number), float(stamp), data
    except ValueError as exc:
        raise _not_ours(found) from exc


def _count(found: bytes | None) -> int:
    try:
        return int(found or 0)
    except ValueError as exc:
        raise _not_ours(found) from exc


def _not_ours(found: bytes | None) -> StoreError:
    return StoreError(
        f"Redis has {found[:40] if found else found!r} where the service's data should be: others use the prefix"
    )
