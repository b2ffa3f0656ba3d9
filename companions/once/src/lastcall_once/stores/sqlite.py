"""Records in a file: the default store. Processes of one machine may share it; it needs no server.

Theory of operation
-------------------
All of SQLite happens in one thread per store. What arrives while a transaction runs waits in a queue, and the next
transaction takes all of it ("group commit"): under load, one ``BEGIN IMMEDIATE`` and one ``COMMIT`` for hundreds of
steps. Answers are handed out after the commit, in one call of the loop.

A transaction reads the records of all its keys with one SELECT, applies the functions of ``lastcall_once.records`` to
them, and writes what has changed with one INSERT for each 64. There are so few statements because of the GIL:
``sqlite3`` releases it in each, and has to wait for up to 5 ms to get it back from a loop that is at work all the time;
``gil_handoff`` deals with one that would never give it back.

Each transaction looks whether the file still has its name: one that was removed or replaced can be read and written as
before, but the next process to open the store gets another one, and a key would be carried out in both.

Results, which may be large, have a table of their own, so that counting an attempt does not write them again. Any error
of SQLite undoes the transaction, and all its steps fail.

In WAL mode with ``synchronous=NORMAL`` a commit survives the death of processes, but the last of them may be lost with
the machine's power; with ``FULL`` each one is synced. Results may be private, so the file is made with mode 0600.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar
from urllib.parse import quote

from lastcall_once import records
from lastcall_once.records import Attempt, Event, Outcome, Record, State
from lastcall_once.store import StoreError
from lastcall_once.stores.gil_handoff import GilHandoff
from lastcall_once.stores.sqlite_errors import explained, is_busy
from lastcall_once.stores.sqlite_file import FileInUse
from lastcall_once.stores.sqlite_schema import migrate

T = TypeVar("T")

_LARGEST = 900_000_000  # bytes
_MOST = 500  # steps in one transaction: others want the file too
_PURGE_EVERY = 60.0
_PURGED_AT_ONCE = 500
_PATIENCE = 1.0  # seconds beyond the timeout until a disk that hangs is an error: SQLite's own error says more

_ROWS = 64  # in one INSERT: older releases of SQLite take 999 parameters
_INLINE = 16384  # bytes of a result that is read along with its record
_PUT = "INSERT OR REPLACE INTO once_records VALUES "
_PUT_RESULT = "INSERT OR REPLACE INTO once_results VALUES "
# All rows as one value, in one step. quote() writes a number so that it reads as the same one.
_GET = f"""SELECT json_group_array(json_array(
        r.key, state, token, worker, quote(first_seen_at), quote(updated_at), quote(lease_until), quote(expires_at),
        attempts, executions, fingerprint, meta,
        length(result), CASE WHEN length(result) <= {_INLINE} THEN hex(result) END
    )) FROM once_records AS r LEFT JOIN once_results AS s ON s.key = r.key
    WHERE r.key IN (SELECT value FROM json_each(?))"""
_GET_RESULT = "SELECT result FROM once_results WHERE key = ?"
_SCAN = """SELECT r.*, result FROM once_records AS r LEFT JOIN once_results AS s ON s.key = r.key
    WHERE r.key >= ? AND r.key > ? ORDER BY r.key LIMIT ?"""
_EXPIRED = """SELECT json_group_array(key) FROM (
    SELECT key FROM once_records WHERE expires_at <= ? AND (state <> 'leased' OR lease_until <= ?) LIMIT ?)"""
_DELETE = "DELETE FROM once_records WHERE key IN (SELECT value FROM json_each(?))"
_DELETE_RESULT = "DELETE FROM once_results WHERE key IN (SELECT value FROM json_each(?))"
_DELETE_COUNTERS = """DELETE FROM once_counters WHERE counter IN (
    SELECT counter FROM once_counters WHERE expires_at <= ? LIMIT ?)"""

_STATES = {state.value: state for state in State}

# What happens to a record: the answer, and the record after it, which is the same object if nothing has changed.
Change = Callable[[Record | None, float], tuple[Any, Record | None]]


class _Job:
    """One step on its way to the thread and back. ``since`` is the loop's time when it was asked for.

    It is a change of the record of ``key``, or else any ``work`` in a transaction.
    """

    __slots__ = ("change", "future", "key", "since", "work", "writes")

    def __init__(self, future: asyncio.Future[Any], since: float, *, writes: bool) -> None:
        self.future = future
        self.since = since
        self.writes = writes
        self.key = ""
        self.change: Change | None = None
        self.work: Callable[[sqlite3.Connection, float], Any] | None = None


class _Rows:
    """The records of one transaction's keys: read together, changed here, and written together."""

    def __init__(self, connection: sqlite3.Connection, keys: set[str]) -> None:
        self._connection = connection
        self._changed: set[str] = set()
        self._records: dict[str, Record | None] = dict.fromkeys(keys)
        self._results: dict[str, bytes | None] = {}  # as they are in the file
        if not keys:
            return
        for row in json.loads(connection.execute(_GET, (json.dumps(list(keys)),)).fetchone()[0]):
            key, size, text = row[0], row[12], row[13]
            result = None
            if text is not None:
                result = bytes.fromhex(text)
            elif size is not None:
                result = connection.execute(_GET_RESULT, (key,)).fetchone()[0]
            self._records[key] = _record([*row[:4], *map(float, row[4:8]), *row[8:12]], result)
            self._results[key] = result

    def apply(self, key: str, change: Change, now: float) -> Any:
        """Make a change; return its answer."""
        before = self._records[key]
        answer, after = change(before, now)
        if after is not before:
            self._records[key] = None if after is None or after.state is State.ABSENT else after
            self._changed.add(key)
        return answer

    def flush(self) -> None:
        """Write what has changed."""
        if not self._changed:
            return
        records = [record for key in self._changed if (record := self._records[key]) is not None]
        gone = [key for key in self._changed if self._records[key] is None]
        results, without = [], list(gone)
        for record in records:
            before = self._results.get(record.key)
            if record.result is None:
                without += [record.key] if before is not None else []
            elif record.result is not before:
                results.append((record.key, record.result))
            self._results[record.key] = record.result
        _insert(self._connection, _PUT, [_row(record) for record in records])
        _insert(self._connection, _PUT_RESULT, results)
        if gone:
            self._connection.execute(_DELETE, (json.dumps(gone),))
        if without:
            self._connection.execute(_DELETE_RESULT, (json.dumps(without),))
        self._changed.clear()


Answers = list[tuple[asyncio.Future[Any], Any, BaseException | None]]


class SQLiteStore:
    """The store ``sqlite:///path``.

    ``synchronous`` is ``normal`` or ``full``, ``timeout`` the seconds that a step waits for other processes before
    :class:`StoreError`, ``clock`` gives the time in seconds since 1970. A step whose caller has given up by then, or
    was cancelled, is not carried out if it has not begun.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: str = "normal",
        timeout: float = 5.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if synchronous not in ("normal", "full"):
            raise ValueError(f"synchronous is 'normal' or 'full', not {synchronous!r}")
        self._path = Path(path)
        self._synchronous = synchronous
        self._timeout = timeout
        self._clock = clock
        self._pid = 0
        self._opened_in = Path()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closing: list[asyncio.Future[Any]] = []
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._waiting: deque[_Job] = deque()
        self._watchdog: asyncio.TimerHandle | None = None
        self._handoff: GilHandoff | None = None
        self._purged = time.monotonic()

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def clone(self) -> SQLiteStore:
        """A store on the same file that is not open, for another thread."""
        path = self._opened_in / self._path  # wherever the application has gone since
        return SQLiteStore(path, synchronous=self._synchronous, timeout=self._timeout, clock=self._clock)

    # -- the loop's side -----------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the file, make it or bring its schema up to date.

        Raises StoreError if that cannot be done, or if the schema is newer than this release's.
        """
        if self._thread is not None and self._pid == os.getpid():
            return
        loop = asyncio.get_running_loop()
        self._opened_in = Path.cwd()
        opened: asyncio.Future[Any] = loop.create_future()
        self._loop, self._pid, self._jobs, self._closing = loop, os.getpid(), SimpleQueue(), []
        self._waiting.clear()
        self._handoff = GilHandoff(loop)
        self._thread = threading.Thread(
            target=self._run,
            args=(self._jobs, self._handoff, opened, self._closing),
            name=f"lastcall-once {self._path.name}",
            daemon=True,
        )
        self._thread.start()
        try:
            await opened
        except BaseException:
            # The thread has ended, or will at its next job: what was not opened here is not open.
            self._jobs.put(None)
            self._thread = None
            raise

    async def close(self) -> None:
        """Finish what is queued, and close the file. May be called in another loop than the store was opened in."""
        thread, self._thread = self._thread, None
        if thread is None or self._pid != os.getpid():
            return
        closed = asyncio.get_running_loop().create_future()  # the loop of `open` may not run any more
        self._closing.append(closed)
        self._jobs.put(None)
        await asyncio.wait([closed], timeout=self._timeout + _PATIENCE)  # longer only if the disk hangs
        if closed.done():
            thread.join()
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        if self._handoff is not None:
            self._handoff.close()

    async def acquire(self, attempt: Attempt) -> Outcome:
        """Like :meth:`lastcall_once.store.Store.acquire`."""
        check_texts(attempt.token, attempt.worker, attempt.fingerprint, attempt.meta)

        def change(record: Record | None, now: float) -> tuple[Outcome, Record]:
            outcome = records.acquire(record, attempt, now)
            return outcome, outcome.record

        return await self._change(attempt.key, change)

    async def renew(self, key: str, token: str, *, lease: float, ttl: float) -> bool:
        """Like :meth:`lastcall_once.store.Store.renew`."""

        def change(record: Record | None, now: float) -> tuple[bool, Record | None]:
            after = records.renew(record, token, lease, ttl, now)
            return (False, record) if after is None else (True, after)

        return await self._change(key, change)

    async def finish(self, key: str, token: str, event: Event, *, ttl: float, result: bytes | None = None) -> bool:
        """Like :meth:`lastcall_once.store.Store.finish`."""
        if result is not None and len(result) > _LARGEST:
            raise StoreError(f"a result of {len(result)} bytes is too large: SQLite takes {_LARGEST}")

        def change(record: Record | None, now: float) -> tuple[bool, Record | None]:
            after = records.finish(record, token, event, now, ttl=ttl, result=result)
            return (False, record) if after is None else (True, after)

        return await self._change(key, change)

    async def get(self, key: str) -> Record | None:
        """Like :meth:`lastcall_once.store.Store.get`."""
        return await self._change(key, lambda record, now: (records.at(record, now), record), writes=False)

    async def scan(self, prefix: str = "", *, after: str = "", limit: int = 100) -> Sequence[Record]:
        """Like :meth:`lastcall_once.store.Store.scan`."""

        def work(connection: sqlite3.Connection, now: float) -> list[Record]:
            found: list[Record] = []
            last, rows = after, limit
            while len(found) < limit and rows == limit:
                rows = 0
                for row in connection.execute(_SCAN, (prefix, last, limit)).fetchall():
                    rows, last = rows + 1, row[0]
                    if not last.startswith(prefix):
                        return found
                    record = records.at(_record(row, row[12]), now)
                    if record is not None and len(found) < limit:
                        found.append(record)
            return found

        check_texts(prefix, after)
        return await self.work(work, writes=False)

    async def delete(self, key: str) -> bool:
        """Like :meth:`lastcall_once.store.Store.delete`."""
        return await self._change(key, lambda record, now: (records.at(record, now) is not None, None))

    async def purge(self) -> int:
        """Like :meth:`lastcall_once.store.Store.purge`. Happens by itself, about once a minute of use."""
        total, over = 0, False
        while not over:
            gone, over = await self.work(_purge)
            total += gone
        return total

    def _change(
        self, key: str, change: Callable[[Record | None, float], tuple[T, Record | None]], *, writes: bool = True
    ) -> asyncio.Future[T]:
        """Queue a change of one record; the future has its answer, once it is committed."""
        check_texts(key)
        job = self._job(writes=writes)
        job.key, job.change = key, change
        self._jobs.put(job)
        return job.future

    def work(self, work: Callable[[sqlite3.Connection, float], T], *, writes: bool = True) -> asyncio.Future[T]:
        """Queue any other work for a transaction: ``work(connection, now)``, in the store's thread.

        What it raises fails it alone, except for SQLite's errors, which undo the whole transaction. By then it must
        not have written anything. Raises StoreError for a store that is not open.
        """
        job = self._job(writes=writes)
        job.work = work
        self._jobs.put(job)
        return job.future

    def _job(self, *, writes: bool) -> _Job:
        loop, handoff = self._loop, self._handoff
        if self._thread is None or loop is None or handoff is None:
            raise StoreError(f"the store {self._path} is not open")
        if self._pid != os.getpid():
            raise StoreError(f"the store {self._path} was opened before a fork: open it in each process")
        job = _Job(loop.create_future(), loop.time(), writes=writes)
        waiting = self._waiting
        while waiting and waiting[0].future.done():
            waiting.popleft()
        waiting.append(job)
        handoff.requested()
        if self._watchdog is None:
            self._watchdog = loop.call_later(self._timeout + _PATIENCE, self._watch)
        return job

    def _watch(self) -> None:
        """Give up on steps that the thread has not come back from."""
        self._watchdog = None
        loop = self._loop
        if loop is None:
            return
        waiting, patience = self._waiting, self._timeout + _PATIENCE
        while waiting and (waiting[0].future.done() or waiting[0].since + patience <= loop.time()):
            future = waiting.popleft().future
            if not future.done():
                future.set_exception(
                    StoreError(
                        f"the store {self._path} did not answer within {patience:g} s: its disk hangs, or is slow"
                    )
                )
        if waiting:
            self._watchdog = loop.call_at(waiting[0].since + patience, self._watch)

    # -- the thread's side ---------------------------------------------------------------------------------------------

    def _run(
        self,
        jobs: SimpleQueue[_Job | None],
        handoff: GilHandoff,
        opened: asyncio.Future[Any],
        closing: list[asyncio.Future[Any]],
    ) -> None:
        try:
            connection, file = self._connect()
        except BaseException as exc:
            _tell([(opened, None, explained(exc, self._path))])
            return
        try:
            _tell([(opened, None, None)])
            while (batch := _next_batch(jobs)) is not None:
                todo = [job for job in batch if not job.future.done()]
                if todo:
                    _tell(self._execute(connection, file, todo))
                handoff.answered(len(batch))
        finally:
            connection.close()
            for closed in closing:
                _tell([(closed, None, None)])

    def _execute(self, connection: sqlite3.Connection, file: FileInUse, batch: list[_Job]) -> Answers:
        """Carry out ``batch`` in one transaction."""
        answers: Answers = []
        try:
            if any(job.writes for job in batch):
                connection.execute("BEGIN IMMEDIATE")
                self._purge_sometimes(connection)
            else:
                connection.execute("BEGIN")
            file.check()
            now = self._clock()  # after the wait for other processes
            rows = _Rows(connection, {job.key for job in batch if job.change is not None})
            for job in batch:
                if not job.future.done():  # its caller may have gone since, and would not finish a lease
                    answers.append(_carried_out(job, rows, connection, now))
            rows.flush()
            connection.execute("COMMIT")
        except Exception as exc:  # what SQLite raises, and what a clock may
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            return [(job.future, None, explained(exc, self._path)) for job in batch]
        return answers

    def _purge_sometimes(self, connection: sqlite3.Connection) -> None:
        if time.monotonic() - self._purged > _PURGE_EVERY:
            _, over = _purge(connection, self._clock())
            if over:
                self._purged = time.monotonic()

    def _connect(self) -> tuple[sqlite3.Connection, FileInUse]:
        with suppress(FileExistsError):
            # Only a file that is not there: to close a descriptor of one that SQLite has open would drop its locks.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(
            f"file:{quote(str(self._path))}?mode=rw",
            uri=True,
            isolation_level=None,
            timeout=self._timeout,
            cached_statements=256,
        )
        try:
            file = FileInUse(self._opened_in / self._path)  # the application may go elsewhere
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection, file

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Switch to WAL mode, and bring the schema up to date."""
        patience = time.monotonic() + self._timeout
        while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            try:
                mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            except sqlite3.OperationalError as exc:
                # Two processes that open a new file at once: here SQLite does not always wait by itself.
                if not is_busy(exc) or time.monotonic() > patience:
                    raise
                time.sleep(0.005)
            else:
                if mode != "wal":
                    raise StoreError(
                        f"{self._path} cannot be used in WAL mode (it is in mode {mode}): is it on a network's file "
                        "system?"
                    )
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        migrate(connection, self._path)


def _next_batch(jobs: SimpleQueue[_Job | None]) -> list[_Job] | None:
    """Wait for a job; return it with what else is there, or None for the end, which comes behind all jobs."""
    first = jobs.get()
    if first is None:
        return None
    batch = [first]
    for _ in range(min(jobs.qsize(), _MOST - 1)):
        job = jobs.get()
        if job is None:
            jobs.put(None)
            break
        batch.append(job)
    return batch


def _carried_out(
    job: _Job, rows: _Rows, connection: sqlite3.Connection, now: float
) -> tuple[asyncio.Future[Any], Any, BaseException | None]:
    try:
        if job.change is not None:
            return job.future, rows.apply(job.key, job.change, now), None
        rows.flush()
        return job.future, job.work(connection, now) if job.work is not None else None, None
    except sqlite3.Error:
        raise
    except Exception as exc:  # this job's own: a bug, or a value of the caller's
        return job.future, None, exc


def _tell(answers: Answers) -> None:
    """Hand answers, all for one loop, over to it."""
    loop = answers[0][0].get_loop() if answers else None
    if loop is not None and not loop.is_closed():
        with suppress(RuntimeError):  # it was closed since
            loop.call_soon_threadsafe(_settle, answers)


def _settle(answers: Answers) -> None:
    for future, value, error in answers:
        if not future.done():
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)


def check_texts(*texts: str) -> None:
    """Refuse what would fail the transaction of everybody."""
    for text in texts:
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as exc:
                raise StoreError("a text that is not valid Unicode (a lone surrogate) cannot be stored") from exc
        if "\0" in text:
            raise StoreError("a text with a NUL character cannot be stored")


def _insert(connection: sqlite3.Connection, statement: str, rows: list[tuple[Any, ...]]) -> None:
    """Insert all rows, ``_ROWS`` of them with each statement."""
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        row = f"({', '.join('?' * len(some[0]))})"
        connection.execute(statement + ", ".join([row] * len(some)), [value for row in some for value in row])


def _record(row: Sequence[Any], result: bytes | None) -> Record:
    """The record of a row, without the result, which is not in its table."""
    return Record(
        key=row[0],
        state=_STATES[row[1]],
        token=row[2],
        worker=row[3],
        first_seen_at=row[4],
        updated_at=row[5],
        lease_until=row[6],
        expires_at=row[7],
        attempts=row[8],
        executions=row[9],
        fingerprint=row[10],
        meta=row[11],
        result=result,
    )


def _row(record: Record) -> tuple[Any, ...]:
    # Not `record.__dict__.values()`: they are in the order in which they were given.
    return (
        record.key,
        record.state.value,
        record.token,
        record.worker,
        record.first_seen_at,
        record.updated_at,
        record.lease_until,
        record.expires_at,
        record.attempts,
        record.executions,
        record.fingerprint,
        record.meta,
    )


def _purge(connection: sqlite3.Connection, now: float) -> tuple[int, bool]:
    """Remove some of what has expired; return how many records that were, and whether it was all."""
    keys = connection.execute(_EXPIRED, (now, now, _PURGED_AT_ONCE)).fetchone()
    connection.execute(_DELETE_RESULT, keys)
    gone = connection.execute(_DELETE, keys).rowcount
    counters = connection.execute(_DELETE_COUNTERS, (now, _PURGED_AT_ONCE)).rowcount
    return gone, max(gone, counters) < _PURGED_AT_ONCE
