# length: one store and its file; the processes, full disks and threads that it meets are set up once for all.
"""The SQLite store: what several processes, full disks, foreign files and time-outs come to, and the group commit."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from lastcall_once.document_stores import document_store_of
from lastcall_once.records import Attempt, Event, State, Verdict
from lastcall_once.store import StoreError
from lastcall_once.stores import sqlite, sqlite_schema
from lastcall_once.stores.sqlite import SQLiteStore
from lastcall_once.stores.sqlite_schema import MIGRATIONS

LONG = 3600.0


def wanted(key: str, token: str = "t", **options: Any) -> Attempt:
    return Attempt(key, token, **{"lease": LONG, "ttl": LONG, **options})


def run(path: Path, body: Callable[[SQLiteStore], Awaitable[None]], **options: Any) -> None:
    async def opened() -> None:
        store = SQLiteStore(path, **options)
        await store.open()
        try:
            await body(store)
        finally:
            await store.close()

    asyncio.run(opened())


async def holding(store: SQLiteStore) -> tuple[asyncio.Future[bool], threading.Event]:
    """Hold the store's thread up until the event is set."""
    gate, begun = threading.Event(), threading.Event()

    def work(_connection: sqlite3.Connection, _now: float) -> bool:
        begun.set()
        return gate.wait(20)

    held = store.work(work, writes=False)
    await asyncio.to_thread(begun.wait, 20)
    return held, gate


def fails_to_open(path: Path, **options: Any) -> str:
    async def body(_store: SQLiteStore) -> None:
        raise AssertionError("it was opened")

    with pytest.raises(StoreError) as caught:
        run(path, body, **options)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "once ü?#%.db"


# -- the file ----------------------------------------------------------------------------------------------------------


def test_the_file_is_private_and_in_wal_mode(path: Path) -> None:
    async def body(store: SQLiteStore) -> None:
        await store.acquire(wanted("k"))
        assert {name.name for name in path.parent.iterdir()} == {path.name, f"{path.name}-wal", f"{path.name}-shm"}

    run(path, body)
    assert [name.name for name in path.parent.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    connection.close()


@pytest.mark.parametrize(("synchronous", "number"), [("normal", 1), ("full", 2)])
def test_synchronous(path: Path, synchronous: str, number: int) -> None:
    async def body(store: SQLiteStore) -> None:
        found = await store.work(lambda connection, _: connection.execute("PRAGMA synchronous").fetchone())
        assert found == (number,)

    run(path, body, synchronous=synchronous)


def test_synchronous_is_one_of_two() -> None:
    with pytest.raises(ValueError, match="off"):
        SQLiteStore("x", synchronous="off")


def test_records_survive_a_restart(path: Path) -> None:
    async def first(store: SQLiteStore) -> None:
        await store.acquire(wanted("done"))
        await store.finish("done", "t", Event.COMPLETE, ttl=LONG, result=b"r")
        await store.acquire(wanted("leased"))

    async def second(store: SQLiteStore) -> None:
        assert (await store.acquire(wanted("done", "u"))).record.result == b"r"
        assert (await store.acquire(wanted("leased", "u"))).verdict is Verdict.IN_FLIGHT
        assert await store.finish("leased", "t", Event.COMPLETE, ttl=LONG), "tokens outlive a process"

    run(path, first)
    run(path, second)


def test_an_older_schema_is_brought_up_to_date(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def first(store: SQLiteStore) -> None:
        await store.acquire(wanted("k"))

    async def second(store: SQLiteStore) -> None:
        assert await store.get("k") is not None
        assert await store.work(lambda c, _: c.execute("PRAGMA user_version").fetchone()) == (len(MIGRATIONS) + 1,)
        assert await store.work(lambda c, _: c.execute("SELECT count(*) FROM added").fetchone()) == (0,)

    run(path, first)
    monkeypatch.setattr(sqlite_schema, "MIGRATIONS", (*MIGRATIONS, ("CREATE TABLE added (x)",)))
    run(path, second)
    monkeypatch.undo()
    said = fails_to_open(path)
    assert f"schema {len(MIGRATIONS) + 1}" in said
    assert "upgrade lastcall" in said


def test_a_migration_that_fails_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def first(store: SQLiteStore) -> None:
        await store.acquire(wanted("k"))

    async def again(store: SQLiteStore) -> None:
        assert await store.get("k") is not None
        assert await store.work(lambda c, _: c.execute("PRAGMA user_version").fetchone()) == (len(MIGRATIONS),)

    run(path, first)
    monkeypatch.setattr(
        sqlite_schema, "MIGRATIONS", (*MIGRATIONS, ("CREATE TABLE added (x)", "CREATE TABLE added (x)"))
    )
    fails_to_open(path)
    monkeypatch.undo()
    run(path, again)


def test_the_database_of_something_else_is_left_alone(path: Path) -> None:
    for version in (0, 1):
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS users (x)")
            connection.execute(f"PRAGMA user_version = {version}")
        connection.close()
        assert "database of something else" in fails_to_open(path)


def test_no_database_and_a_damaged_one(path: Path) -> None:
    path.write_bytes(b"not a database, but long enough to be asked" * 100)
    assert "is no SQLite database, or is damaged" in fails_to_open(path)

    path.unlink()

    async def body(store: SQLiteStore) -> None:
        for number in range(300):
            await store.acquire(wanted(f"k{number}"))

    run(path, body)
    content = bytearray(path.read_bytes())
    content[4096 * 2 :] = b"\xa5" * (len(content) - 4096 * 2)
    path.write_bytes(content)

    async def damaged(store: SQLiteStore) -> None:
        with pytest.raises(StoreError, match="damaged"):
            await store.scan()

    run(path, damaged)


def test_a_directory_that_is_not_there(path: Path) -> None:
    assert "cannot be made (No such file or directory)" in fails_to_open(path / "x" / "y.db")
    assert "Is a directory" in fails_to_open(path.parent) or "cannot be opened" in fails_to_open(path.parent)


@pytest.mark.slow
def test_a_file_that_cannot_be_written(path: Path) -> None:
    async def body(store: SQLiteStore) -> None:
        await store.acquire(wanted("k"))

    run(path, body)
    path.chmod(0o444)
    script = (
        "import asyncio, os, sys\n"
        "from lastcall_once.stores.sqlite import SQLiteStore\n"
        "import sqlite3\n"
        "os.chdir(sys.argv[1])\n"
        "if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: asyncio.run(SQLiteStore(sys.argv[2]).open())\n"
        "except Exception as exc: print(type(exc).__name__, exc)\n"
    )
    for parent in (path.parent, path.parent.parent, path.parent.parent.parent):
        parent.chmod(parent.stat().st_mode | 0o055)
    found = subprocess.run(
        [sys.executable, "-c", script, str(path.parent), path.name], capture_output=True, text=True, check=True
    )
    assert found.stdout.startswith("StoreError "), found.stderr
    assert "read-only for this user" in found.stdout or "may this user write" in found.stdout


def test_a_full_disk_and_one_that_has_space_again(path: Path) -> None:
    async def body(store: SQLiteStore) -> None:
        await store.acquire(wanted("k"))
        await store.work(lambda c, _: c.execute("PRAGMA max_page_count = 8").fetchone(), writes=False)
        with pytest.raises(StoreError, match="no space left"):
            await store.finish("k", "t", Event.COMPLETE, ttl=LONG, result=bytes(100_000))
        record = await store.get("k")
        assert record is not None
        assert record.state is State.LEASED, "nothing of it was written"
        await store.work(lambda c, _: c.execute("PRAGMA max_page_count = 100000").fetchone(), writes=False)
        assert await store.finish("k", "t", Event.COMPLETE, ttl=LONG, result=bytes(100_000))

    run(path, body)


@pytest.mark.parametrize("running", [False, True], ids=["over", "running"])
def test_it_may_be_closed_in_another_loop(path: Path, running: bool) -> None:
    """At once, although the loop that it was opened in does not run any more, or is another thread's."""
    store = SQLiteStore(path, timeout=20.0)

    async def opened() -> None:
        await store.open()
        await store.acquire(wanted("k"))

    async def closed() -> None:
        async with asyncio.timeout(5.0):
            await store.close()
        assert not [thread for thread in threading.enumerate() if thread.name == f"lastcall-once {path.name}"]

    async def outer() -> None:
        await opened()
        await asyncio.to_thread(asyncio.run, closed())

    async def again() -> None:
        await store.open()
        assert await store.get("k") is not None
        await store.close()

    if running:
        asyncio.run(outer())
    else:
        asyncio.run(opened())
        asyncio.run(closed())
    asyncio.run(again())


def _remove(path: Path, _other: Path) -> None:
    path.unlink()


def _replace(path: Path, other: Path) -> None:
    other.replace(path)


def _remove_directory(path: Path, _other: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


def _lead_elsewhere(path: Path, other: Path) -> None:
    path.unlink()
    path.symlink_to(other)


@pytest.mark.parametrize("change", [_remove, _replace, _remove_directory, _lead_elsewhere])
def test_a_file_that_is_another_one_now(tmp_path: Path, change: Callable[[Path, Path], None]) -> None:
    """Whoever opens the store next would not see what is written here, nor the other way round."""
    path, other, kept = tmp_path / "d" / "once.db", tmp_path / "other.db", tmp_path / "kept.db"
    path.parent.mkdir()

    async def nothing(_store: SQLiteStore) -> None:
        pass

    async def body(store: SQLiteStore) -> None:
        await store.acquire(wanted("k"))
        kept.hardlink_to(path)
        change(path, other)
        documents = document_store_of(store)
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: store.acquire(wanted("new")),
            lambda: store.get("k"),
            lambda: store.finish("k", "t", Event.COMPLETE, ttl=LONG),
            lambda: documents.write("c", "n", "d"),
            store.scan,
            store.purge,
        ]
        for call in calls:
            with pytest.raises(StoreError, match=r"once\.db was (removed|replaced)"):
                await call()
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        kept.rename(path)
        assert await store.get("new") is None
        assert await store.finish("k", "t", Event.COMPLETE, ttl=LONG)

    run(other, nothing)
    run(path, body)


def test_a_store_whose_file_was_removed_may_be_opened_again(path: Path) -> None:
    async def body(store: SQLiteStore) -> None:
        await store.acquire(wanted("k"))
        path.unlink()
        with pytest.raises(StoreError):
            await store.acquire(wanted("k"))
        await store.close()
        await store.open()
        assert (await store.acquire(wanted("k"))).verdict is Verdict.GRANTED

    run(path, body)


def test_a_process_that_changes_its_directory_has_the_same_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(store: SQLiteStore) -> None:
        await store.acquire(wanted("k"))
        monkeypatch.chdir("/")
        assert (await store.acquire(wanted("k"))).verdict is Verdict.IN_FLIGHT

    monkeypatch.chdir(path.parent)
    run(Path(path.name), body)


# -- time-outs and bad input -------------------------------------------------------------------------------------------


def test_a_file_that_another_process_holds(path: Path) -> None:
    async def body(store: SQLiteStore) -> None:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        answers = await asyncio.gather(
            *(store.acquire(wanted(f"k{number}")) for number in range(20)), return_exceptions=True
        )
        assert time.monotonic() - started < 5.0
        assert {type(answer) for answer in answers} == {StoreError}
        assert "for longer than the timeout" in str(answers[0])
        assert await store.get("k0") is None, "who reads does not wait"
        other.execute("ROLLBACK")
        other.close()
        assert (await store.acquire(wanted("k0"))).verdict is Verdict.GRANTED

    run(path, body, timeout=0.2)


def test_a_disk_that_hangs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_PATIENCE", 0.1)
    gate, hanging = threading.Event(), threading.Event()

    def hang(_connection: sqlite3.Connection, _now: float) -> None:
        hanging.set()
        gate.wait(20)

    async def body(store: SQLiteStore) -> None:
        try:
            first = store.work(hang)
            await asyncio.to_thread(hanging.wait)
            with pytest.raises(StoreError, match="disk"):
                await store.acquire(wanted("k"))
            with pytest.raises(StoreError, match="disk"):
                await first
        finally:
            gate.set()
        assert await store.get("k") is None, "whoever gave up holds no lease"

    run(path, body, timeout=0.1)


def test_whoever_was_cancelled_while_waiting_holds_no_lease(path: Path) -> None:
    async def body(store: SQLiteStore) -> None:
        held, gate = await holding(store)
        task = asyncio.create_task(store.acquire(wanted("k")))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()
        await held
        assert await store.get("k") is None

    run(path, body)


def test_whoever_was_cancelled_in_a_transaction_holds_no_lease(path: Path) -> None:
    gate, begun = threading.Event(), threading.Event()

    def work(_connection: sqlite3.Connection, _now: float) -> None:
        begun.set()
        gate.wait(20)

    async def body(store: SQLiteStore) -> None:
        held, first = await holding(store)
        working = store.work(work)
        task = asyncio.create_task(store.acquire(wanted("k")))
        await asyncio.sleep(0)
        first.set()
        await asyncio.to_thread(begun.wait, 20)
        task.cancel()
        await asyncio.sleep(0)
        gate.set()
        await held
        await working
        assert await store.get("k") is None

    run(path, body)


def test_an_error_undoes_the_transaction_and_fails_all_its_steps(path: Path) -> None:
    def work(connection: sqlite3.Connection, _now: float) -> None:
        connection.execute("SELECT nothing")

    async def body(store: SQLiteStore) -> None:
        held, gate = await holding(store)
        steps: list[asyncio.Future[Any]] = [asyncio.ensure_future(store.acquire(wanted("a"))), store.work(work)]
        steps.append(asyncio.ensure_future(store.acquire(wanted("b"))))
        await asyncio.sleep(0)
        gate.set()
        await held
        answers = await asyncio.gather(*steps, return_exceptions=True)
        assert [type(answer) for answer in answers] == [StoreError] * 3
        assert not await store.scan()
        assert (await store.acquire(wanted("a"))).verdict is Verdict.GRANTED

    run(path, body)


@pytest.mark.parametrize("text", ["\ud800", "a\0b"])
def test_a_text_that_cannot_be_stored_is_nobody_elses_trouble(path: Path, text: str) -> None:
    async def body(store: SQLiteStore) -> None:
        answers = await asyncio.gather(
            store.acquire(wanted("a")),
            store.acquire(wanted(text)),
            store.acquire(wanted("b", meta=text)),
            store.acquire(wanted("c")),
            return_exceptions=True,
        )
        assert [isinstance(answer, StoreError) for answer in answers] == [False, True, True, False]

    run(path, body)


def test_a_step_that_raises_fails_alone(path: Path) -> None:
    async def body(store: SQLiteStore) -> None:
        broken: Any = wanted("b", lease="x")
        answers = await asyncio.gather(
            store.acquire(wanted("a")), store.acquire(broken), store.acquire(wanted("c")), return_exceptions=True
        )
        assert [type(answer).__name__ for answer in answers] == ["Outcome", "TypeError", "Outcome"]

    run(path, body)


# -- the group commit --------------------------------------------------------------------------------------------------


def test_what_arrives_together_is_committed_together(path: Path) -> None:
    statements: list[str] = []

    async def body(store: SQLiteStore) -> None:
        await store.work(lambda connection, _: connection.set_trace_callback(statements.append), writes=False)
        statements.clear()  # its own COMMIT
        held, gate = await holding(store)
        keys = [f"k{number % 50}" for number in range(200)]
        pending = [asyncio.ensure_future(store.acquire(wanted(key, f"t{n}"))) for n, key in enumerate(keys)]
        await asyncio.sleep(0)
        gate.set()
        verdicts = Counter(outcome.verdict for outcome in await asyncio.gather(*pending))
        await held
        assert verdicts == {Verdict.GRANTED: 50, Verdict.IN_FLIGHT: 150}
        assert Counter(statement.split()[0] for statement in statements) == {
            "BEGIN": 2,  # the work that held the others up, and all of them
            "SELECT": 1,
            "INSERT": 1,
            "COMMIT": 2,
        }

    run(path, body)


def test_counting_an_attempt_does_not_write_its_result_again(path: Path) -> None:
    statements: list[str] = []

    async def body(store: SQLiteStore) -> None:
        await store.acquire(wanted("k"))
        await store.finish("k", "t", Event.COMPLETE, ttl=LONG, result=bytes(1_000_000))
        await store.work(lambda connection, _: connection.set_trace_callback(statements.append), writes=False)
        statements.clear()  # its own COMMIT
        assert (await store.acquire(wanted("k", "u"))).record.result == bytes(1_000_000)
        assert not [s for s in statements if s.startswith("INSERT") and "once_results" in s]

    run(path, body)


def test_it_purges_by_itself(path: Path) -> None:
    async def body(store: SQLiteStore) -> None:
        for number in range(20):
            await store.acquire(wanted(f"k{number}", lease=0.0, ttl=1e-6))
        store._purged -= 61.0
        await store.acquire(wanted("last"))
        assert await store.work(lambda c, _: c.execute("SELECT key FROM once_records").fetchall()) == [("last",)]

    run(path, body)


# -- several processes -------------------------------------------------------------------------------------------------

PROCESS = """
import asyncio, sys
from lastcall_once.records import Attempt, Event
from lastcall_once.stores.sqlite import SQLiteStore

async def main(path, me, keys):
    store = SQLiteStore(path, timeout=20)
    await store.open()
    print("ready", flush=True)
    sys.stdin.readline()
    async def one(key):
        outcome = await store.acquire(Attempt(key, me, 3600, 3600))
        if outcome.verdict.name == "GRANTED":
            print(key, flush=True)
            await store.finish(key, me, Event.COMPLETE, ttl=3600, result=me.encode())
    for start in range(0, keys, 20):
        await asyncio.gather(*(one(f"k{n}") for n in range(start, start + 20) for _ in range(3)))
    await store.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


@pytest.mark.slow
def test_processes_share_a_file_that_they_make_at_once(path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(path), f"p{number}", "600"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    granted = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert sorted(key for keys in granted for key in keys) == sorted(f"k{number}" for number in range(600))

    async def body(store: SQLiteStore) -> None:
        found = await store.scan(limit=5000)
        assert {(record.state, record.attempts, record.executions) for record in found} == {(State.DONE, 12, 1)}

    run(path, body)


@pytest.mark.slow
def test_what_was_committed_survives_kill_9(path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(path), "p", "100000"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    granted = [process.stdout.readline().strip() for _ in range(500)]
    process.send_signal(signal.SIGKILL)
    granted += process.communicate(timeout=20)[0].split("\n")[:-1]

    async def body(store: SQLiteStore) -> None:
        for key in granted:
            assert (await store.acquire(wanted(key, "u"))).verdict in (Verdict.IN_FLIGHT, Verdict.DONE)
        assert await store.work(lambda c, _: c.execute("PRAGMA integrity_check").fetchone()) == ("ok",)

    run(path, body)


def test_a_store_that_was_forked_is_refused_until_it_is_opened(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(store: SQLiteStore) -> None:
        here = os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: here + 1)
        with pytest.raises(StoreError):
            await store.get("k")
        monkeypatch.undo()

    run(path, body)


def test_a_loop_that_never_rests_does_not_starve_the_store(path: Path) -> None:
    """The thread needs the GIL for each statement: there are few of them, however many steps there are.

    Counted in CPU time, which passes for this process alone: a machine may have little of it to give.
    """

    async def body(store: SQLiteStore) -> None:
        over = False

        async def burn() -> None:
            while not over:
                until = time.thread_time() + 0.0005
                while time.thread_time() < until:
                    pass
                await asyncio.sleep(0)

        burning = asyncio.create_task(burn())
        began = time.process_time()
        for start in range(0, 600, 200):
            await asyncio.gather(*(store.acquire(wanted(f"k{n}")) for n in range(start, start + 200)))
        used = time.process_time() - began
        over = True
        await burning
        assert used < 1.5, "seconds; if each of the steps waited for 5 ms of the loop it would be 3 and more"

    run(path, body, timeout=20.0)
