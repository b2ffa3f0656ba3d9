"""Records in Redis, or what speaks its protocol and its Lua (5.0 or newer), for a fleet. Needs the extra ``redis``.

Theory of operation
-------------------
A key's record is the hash ``<prefix>k:<key>``; its fields are those of ``records.Record``, times in seconds. Each step
is one Lua script, which Redis runs alone, with the server's own clock (``TIME``) as now. The times in the hash decide;
``PEXPIREAT`` only lets Redis clean up by itself what has expired, so that ``purge`` has nothing to do. A first attempt,
by far the most frequent call, is answered with the time alone: the record follows from it.

``<prefix>schema`` holds the version of all this. There is no index of the keys: ``scan`` walks the database
(``SCAN``, in as many round trips as it has thousands of keys, each within the timeout) for every page, and is meant
for operators, not for requests. The other keys with the prefix belong to ``lastcall_once.document_stores.redis``.

What Redis forgets, ``once`` forgets: run it with ``appendonly yes`` and ``maxmemory-policy noeviction``. A failover to
a replica loses what had not been copied.

An answer that only a server gives which is not the primary (any more) closes all connections, since Redis does not: the
call fails, and the next one connects anew, to whatever the name leads to by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import heapq
import logging
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio.connection import ConnectionPool, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    BusyLoadingError,
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from lastcall_once.records import Attempt, Event, Outcome, Policy, Record, State, Verdict, acquire, at
from lastcall_once.store import StoreError

logger = logging.getLogger("lastcall.once")

SCHEMA = 1
_SCAN_COUNT = 1000  # keys that one round trip of a scan looks at

_CLOCK = """
local key = KEYS[1]
local time = redis.call('TIME')
local stamp = string.format('%d.%06d', time[1], time[2])
local now = tonumber(stamp)

local function exact(number) return string.format('%.17g', number) end

-- Redis removes the record when it has expired; ceil, since it may live too long there but not too short.
local function expire(lease_until, expires_at)
    local ms = math.ceil(math.max(lease_until, expires_at) * 1000)
    if ms < 9e15 then
        redis.call('PEXPIREAT', key, string.format('%.0f', ms))
    else
        redis.call('PERSIST', key)
    end
end

-- records.at: the state as the clock has it, false for none
local function at(state, lease_until, expires_at)
    if state == 'leased' and now >= tonumber(lease_until) then state = 'unknown' end
    if state and state ~= 'leased' and now >= tonumber(expires_at) then return false end
    return state
end
"""

_HELD = (
    _CLOCK
    + """
local found = redis.call('HMGET', key, 'state', 'lease_until', 'expires_at', 'token')
local state = at(found[1], found[2], found[3])
if found[4] ~= ARGV[1] or (state ~= 'leased' and state ~= 'unknown') then return 0 end
"""
)


class Script:
    """A script, and the name that Redis knows it by."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


# token, lease, ttl, worker, fingerprint, meta, refuse unknown, refuse failed -> stamp | [verdict, fields and values]
_ACQUIRE = Script(
    _CLOCK
    + """
local found = redis.call('HMGET', key, 'state', 'lease_until', 'expires_at', 'attempts', 'executions', 'fingerprint')
local state = found[1] and at(found[1], found[2], found[3])
local lease = tonumber(ARGV[2])
local lease_until = now + lease
local expires_at = now + lease + tonumber(ARGV[3])
local goal = lease > 0 and 'leased' or 'done'

if not state then
    if found[1] then redis.call('DEL', key) end
    redis.call('HSET', key, 'state', goal, 'token', ARGV[1], 'worker', ARGV[4], 'first_seen_at', stamp,
        'updated_at', stamp, 'lease_until', exact(lease_until), 'expires_at', exact(expires_at),
        'attempts', 1, 'executions', 1, 'fingerprint', ARGV[5], 'meta', ARGV[6])
    expire(lease_until, expires_at)
    return stamp
end

local verdict = 'granted'
if ARGV[5] ~= '' and found[6] ~= '' and ARGV[5] ~= found[6] then verdict = 'mismatch'
elseif state == 'leased' then verdict = 'in_flight'
elseif state == 'done' then verdict = 'done'
elseif state == 'failed' and ARGV[8] == '1' then verdict = 'failed'
elseif state == 'unknown' and ARGV[7] == '1' then verdict = 'unknown'
end

if verdict == 'granted' then
    local fingerprint = ARGV[5] ~= '' and ARGV[5] or found[6]
    redis.call('HSET', key, 'state', goal, 'token', ARGV[1], 'worker', ARGV[4],
        'updated_at', stamp, 'lease_until', exact(lease_until), 'expires_at', exact(expires_at),
        'attempts', found[4] + 1, 'executions', found[5] + 1, 'fingerprint', fingerprint, 'meta', ARGV[6])
    redis.call('HDEL', key, 'result')
    local answer = redis.call('HGETALL', key)
    expire(lease_until, expires_at)
    return {verdict, answer}
end
redis.call('HSET', key, 'state', state, 'attempts', found[4] + 1, 'updated_at', stamp)
return {verdict, redis.call('HGETALL', key)}
"""
)

# token, lease, ttl -> 1 | 0
_RENEW = Script(
    _HELD
    + """
local lease_until = now + ARGV[2]
local expires_at = now + ARGV[2] + ARGV[3]
redis.call('HSET', key, 'state', 'leased', 'updated_at', stamp,
    'lease_until', exact(lease_until), 'expires_at', exact(expires_at))
expire(lease_until, expires_at)
return 1
"""
)

# token, state after it, ttl, the result if there is one -> 1 | 0
_FINISH = Script(
    _HELD
    + """
if ARGV[2] == 'absent' then
    redis.call('DEL', key)
    return 1
end
local expires_at = now + ARGV[3]
redis.call('HSET', key, 'state', ARGV[2], 'updated_at', stamp, 'expires_at', exact(expires_at))
if ARGV[4] then redis.call('HSET', key, 'result', ARGV[4]) else redis.call('HDEL', key, 'result') end
expire(now, expires_at)
return 1
"""
)

# -> stamp, fields and values
_GET = Script(_CLOCK + "return {stamp, redis.call('HGETALL', key)}")

# -> 1 | 0. What has expired by the clock counts as absent already.
_DELETE = Script(
    _CLOCK
    + """
local found = redis.call('HMGET', key, 'state', 'lease_until', 'expires_at')
local there = found[1] and at(found[1], found[2], found[3])
redis.call('DEL', key)
return there and 1 or 0
"""
)

_ENDS = {
    Event.COMPLETE: State.DONE,
    Event.FAIL: State.FAILED,
    Event.ABANDON: State.UNKNOWN,
    Event.RELEASE: State.ABSENT,
}
_STATES = {state.value.encode(): state for state in State}
_VERDICTS = {verdict.value.encode(): verdict for verdict in Verdict}


class RedisStore:
    """A store (``lastcall_once.store.Store``) at ``redis://[[user]:password@]host[:port][/database]``.

    ``rediss://`` is the same over TLS, ``unix://`` over a socket. What follows ``?`` is handed to redis-py, such as
    ``ssl_ca_certs=/path``, except for what decides how answers look and what is repeated. ``prefix`` begins the names
    of all that is written. ``timeout`` (seconds) bounds every call, the wait for one of the ``connections`` included.
    Nothing is retried: whether a call that failed had its effect is not known. Raises ValueError for a URL that cannot
    be read.
    """

    def __init__(self, url: str, *, prefix: str = "once:", timeout: float = 2.0, connections: int = 32) -> None:
        try:
            parse_url(url)
            place = urlsplit(url)
            self._place = f"{place.hostname}:{place.port or 6379}" if place.hostname else place.path or "localhost:6379"
        except ValueError:  # may quote it, and it may have a password
            raise ValueError("a Redis store's URL is redis://[[user]:password@]host[:port][/database]") from None
        self._url = url
        self.prefix = prefix
        self._keys = f"{prefix}k:"
        self._schema = f"{prefix}schema"
        self._timeout = timeout
        self._connections = connections
        self._pool: ConnectionPool | None = None
        self._idle: list[Any] = []  # connections; the one used last is used next
        self._slots = asyncio.Semaphore(connections)
        self._warns = True

    def clone(self) -> RedisStore:
        """A store on the same records that is not open, for another thread."""
        made = RedisStore(self._url, prefix=self.prefix, timeout=self._timeout, connections=1)
        made._warns = False  # this one has, or will
        return made

    async def open(self) -> None:
        """Connect and compare the schemas. Raises StoreError, also for an option in the URL that is none."""
        if self._pool is not None:
            return
        self._slots = asyncio.Semaphore(self._connections)
        self._pool = self._new_pool()
        try:
            await self._check_schema()
            if self._warns:
                await self._warn_of_eviction()
        except (TypeError, ValueError):
            await self.close()
            raise self._error("the URL has an option that redis-py does not know, or a value that is none") from None
        except BaseException:
            await self.close()
            raise

    def _new_pool(self) -> ConnectionPool:
        options: dict[str, Any] = {
            "socket_timeout": None,  # _run bounds whole calls
            "socket_connect_timeout": None,
            **parse_url(self._url),
            # What the URL has no say in: how answers look, which are read here, and that no command is repeated.
            "protocol": 2,
            "decode_responses": False,
            "retry": Retry(NoBackoff(), 0),  # a second acquire would find the first one's lease
            "retry_on_timeout": False,
        }
        return ConnectionPool(**options)

    async def close(self) -> None:
        """Close the connections; those in use close when their call ends."""
        self._pool = None
        idle, self._idle = self._idle, []
        for connection in idle:
            with contextlib.suppress(Exception):  # whatever state it is in, it is gone
                async with asyncio.timeout(self._timeout):
                    await connection.disconnect()

    async def _warn_of_eviction(self) -> None:
        try:
            about: bytes = await self._run("INFO", "memory")
        except StoreError as exc:
            if isinstance(exc.__cause__, ResponseError):  # not every user may ask
                return
            raise
        found = re.search(rb"^maxmemory_policy:([\w-]+)", about, re.MULTILINE)
        if found and found[1] != b"noeviction":
            logger.warning(
                "Redis at %s may forget records that still count, whose work would be done again: its "
                "maxmemory-policy is %s, and should be noeviction",
                self._place,
                found[1].decode(),
            )

    async def _leave(self) -> None:
        """Use none of the connections any more: the next call asks anew where the name of the server leads to.

        Redis keeps its connections when it changes its role, so that nothing else would ever end them.
        """
        idle = self._idle
        self._idle, self._pool = [], self._new_pool()  # those in use are closed when their call ends
        for connection in idle:
            await connection.disconnect(nowait=True)

    async def _check_schema(self) -> None:
        found = await self._run("GET", self._schema)
        if found is None:
            await self._run("SET", self._schema, str(SCHEMA), "NX")
            found = await self._run("GET", self._schema)
        if found is None or not found.isdigit() or int(found) != SCHEMA:
            text = "nothing" if found is None else found.decode(errors="replace")
            raise self._error(f"{self._schema} says schema {text}, this release of lastcall knows {SCHEMA}: upgrade it")

    async def acquire(self, attempt: Attempt) -> Outcome:
        """As the protocol says."""
        found = await self._script(
            _ACQUIRE,
            attempt.key,
            attempt.token,
            repr(attempt.lease),
            repr(attempt.ttl),
            attempt.worker,
            attempt.fingerprint,
            attempt.meta,
            "1" if attempt.on_unknown is Policy.REFUSE else "0",
            "1" if attempt.on_failed is Policy.REFUSE else "0",
        )
        if isinstance(found, bytes):
            return acquire(None, attempt, float(found))
        return Outcome(_VERDICTS[found[0]], _record(attempt.key, found[1]))

    async def renew(self, key: str, token: str, *, lease: float, ttl: float) -> bool:
        """As the protocol says."""
        return bool(await self._script(_RENEW, key, token, repr(lease), repr(ttl)))

    async def finish(self, key: str, token: str, event: Event, *, ttl: float, result: bytes | None = None) -> bool:
        """As the protocol says."""
        if event not in _ENDS:
            return False
        given = () if result is None else (result,)
        return bool(await self._script(_FINISH, key, token, _ENDS[event].value, repr(ttl), *given))

    async def get(self, key: str) -> Record | None:
        """As the protocol says."""
        stamp, fields = await self._script(_GET, key)
        return at(_record(key, fields), float(stamp)) if fields else None

    async def scan(self, prefix: str = "", *, after: str = "", limit: int = 100) -> Sequence[Record]:
        """As the protocol says. Walks the whole database: see the module's docstring."""
        records: list[Record] = []
        while len(records) < limit:
            wanted = limit - len(records)
            keys = await self._page(prefix, after, wanted)
            for key in keys:
                record = await self.get(key)
                if record is not None:  # it may have expired since
                    records.append(record)
            if len(keys) < wanted:
                break
            after = keys[-1]
        return records

    async def _page(self, prefix: str, after: str, limit: int) -> list[str]:
        pattern = _literal(self._keys + prefix) + "*"
        page: set[str] = set()  # SCAN may name a key twice
        cursor = b"0"
        while True:
            cursor, names = await self._run("SCAN", cursor, "MATCH", pattern, "COUNT", str(_SCAN_COUNT))
            page.update(key for key in self._keys_of(names) if key > after)
            if len(page) > 10 * limit:
                page = set(heapq.nsmallest(limit, page))
            if not int(cursor):
                return heapq.nsmallest(limit, page)

    def _keys_of(self, names: Iterable[bytes]) -> Iterable[str]:
        return (name.decode()[len(self._keys) :] for name in names)

    async def delete(self, key: str) -> bool:
        """As the protocol says."""
        return bool(await self._script(_DELETE, key))

    async def purge(self) -> int:
        """0: Redis removes by itself what has expired."""
        if self._pool is None:
            raise self._error("it is not open")
        return 0

    async def _script(self, script: Script, key: str, *arguments: str | bytes) -> Any:
        return await self.run_script(script, (self._keys + key,), *arguments)

    async def run_script(self, script: Script, keys: Sequence[str], *arguments: str | bytes) -> Any:
        """Run a script on keys, all of which begin with ``prefix``; return its answer, texts as bytes.

        Raises StoreError like any step, within the timeout.
        """
        return await self._run("EVALSHA", script.sha, str(len(keys)), *keys, *arguments, otherwise=script.text)

    async def _run(self, *command: str | bytes, otherwise: str = "") -> Any:
        """One command; ``otherwise`` is the script's text, for a server that does not know it yet."""
        pool = self._pool
        if pool is None:
            raise self._error("it is not open")
        try:
            async with asyncio.timeout(self._timeout), self._slots:
                try:
                    return await self._exchange(pool, _packed(command))
                except NoScriptError:
                    return await self._exchange(pool, _packed(("EVAL", otherwise, *command[2:])))
        except (RedisError, OSError, UnicodeError) as exc:
            if pool is self._pool and _is_of_the_wrong_server(exc):
                await self._leave()
            raise self._error(self._reason(exc)) from exc

    async def _exchange(self, pool: ConnectionPool, packed: bytes) -> Any:
        """Send a command over a free connection, and read its answer.

        This is what ``Redis.execute_command`` does, without its retries, events and metrics, which take longer.
        """
        connection = self._idle.pop() if self._idle else self._new_connection(pool)
        try:
            if connection.is_connected and await self._has_died(connection):
                await connection.disconnect(nowait=True)
            await connection.connect()  # does nothing if it is
            await connection.send_packed_command(packed, check_health=False)
            return await connection.read_response()
        except ResponseError:
            raise  # an answer too
        except BaseException:
            await connection.disconnect(nowait=True)  # an answer may come, to a question that nobody asks any more
            raise
        finally:
            if pool is self._pool:
                self._idle.append(connection)
            else:
                await connection.disconnect(nowait=True)  # closed meanwhile

    @staticmethod
    def _new_connection(pool: Any) -> Any:
        return pool.make_connection()  # which redis-py has no types for

    @staticmethod
    async def _has_died(connection: Any) -> bool:
        """Whether an idle connection has something to read: its end, in all likelihood."""
        try:
            if hasattr(connection, "can_read"):  # redis-py 8
                return bool(await connection.can_read())
            return bool(await connection.can_read_destructive())
        except (RedisError, OSError):
            return True

    def _reason(self, exc: Exception) -> str:
        if isinstance(exc, TimeoutError):
            return f"no answer within {self._timeout:g} s"
        if isinstance(exc, ReadOnlyError) or "READONLY" in str(exc):
            return f"it is read-only, a replica perhaps ({exc})"
        if isinstance(exc, OutOfMemoryError) or "OOM" in str(exc):
            return f"it is full ({exc})"
        return str(exc) or type(exc).__name__

    def _error(self, reason: str) -> StoreError:
        return StoreError(f"Redis at {self._place}: {reason}")


def _is_of_the_wrong_server(exc: Exception) -> bool:
    """Whether the answer is that of a server which does nothing for us at present, while another one may.

    The words may stand behind others, where it was a script that met them.
    """
    if isinstance(exc, (ReadOnlyError, MasterDownError, BusyLoadingError)):  # redis-py took the word away
        return True
    return isinstance(exc, ResponseError) and any(
        word in str(exc) for word in ("READONLY ", "MASTERDOWN ", "LOADING ", "NOREPLICAS ")
    )


def _packed(command: Sequence[str | bytes]) -> bytes:
    """The command as the protocol has it: an array of strings with their lengths."""
    parts = [b"*%d\r\n" % len(command)]
    for word in command:
        data = word.encode() if isinstance(word, str) else word
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def _literal(text: str) -> str:
    """``text`` as a pattern of Redis that matches nothing else."""
    return "".join(f"\\{letter}" if letter in "*?[]\\" else letter for letter in text)


def _record(key: str, fields: Sequence[bytes]) -> Record:
    """The record of ``HGETALL``'s answer: names and values in turn."""
    found = dict(zip(fields[::2], fields[1::2], strict=True))
    return Record(
        key=key,
        state=_STATES[found[b"state"]],
        token=found[b"token"].decode(),
        worker=found[b"worker"].decode(),
        first_seen_at=float(found[b"first_seen_at"]),
        updated_at=float(found[b"updated_at"]),
        lease_until=float(found[b"lease_until"]),
        expires_at=float(found.get(b"expires_at", math.inf)),
        attempts=int(found[b"attempts"]),
        executions=int(found[b"executions"]),
        fingerprint=found[b"fingerprint"].decode(),
        result=found.get(b"result"),
        meta=found[b"meta"].decode(),
    )
