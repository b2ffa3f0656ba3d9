# length: one contract, which every store has to keep whole.
"""The document store's contract, on every store: documents, streams, and counters with limits.

A test is an async function of the backend and an open document store; ``contract`` makes a pytest function of it.
Names have the backend's prefix: servers are shared by all tests.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from companions.once.tests.backends import LONG, Backend
from lastcall_once.document_stores import document_store_of
from lastcall_once.document_stores.rules import MOST
from lastcall_once.documents import Charge, Document, DocumentStore, Entry
from lastcall_once.records import Attempt, Event, State
from lastcall_once.store import Store, StoreError
from lastcall_once.stores import postgres, sqlite_schema, store_from_url
from lastcall_once.stores.memory import MemoryStore
from lastcall_once.stores.postgres import PostgresStore
from lastcall_once.stores.redis import RedisStore
from lastcall_once.stores.sqlite import SQLiteStore
from testing.stores import PostgresServer, RedisServer, Server

Test = Callable[[Backend, DocumentStore], Awaitable[None]]


def contract(test: Test) -> Callable[[Backend], None]:
    """A pytest function from an async test."""

    def run(store: Backend) -> None:
        async def opened() -> None:
            async with store.opened() as instance:
                await test(store, document_store_of(instance))

        asyncio.run(opened())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@asynccontextmanager
async def two(backend: Backend) -> AsyncIterator[tuple[DocumentStore, DocumentStore]]:
    """Two document stores over the same data: of two stores, or of one store if each has data of its own."""
    first = backend.make()
    second = first if isinstance(first, MemoryStore) else backend.make()
    for each in (first, second):
        each._timeout = 20.0  # type: ignore[attr-defined]  # the machine may be busy
    await first.open()
    await second.open()
    try:
        yield document_store_of(first), document_store_of(second)
    finally:
        await second.close()
        await first.close()


def spend(counter: str, amount: int = 1, limit: int | None = None, keep: float = LONG) -> Charge:
    return Charge(counter, amount, limit, keep)


def odd(text: str) -> str:
    return f"{text} Schlüssel \U0001f600 %_*[a]?\\'\"{{}}"


async def until(condition: Callable[[], Awaitable[bool]], between: Callable[[], Awaitable[None]]) -> None:
    deadline = time.monotonic() + 10.0
    while not await condition():
        assert time.monotonic() < deadline
        await between()


# -- documents ---------------------------------------------------------------------------------------------------------


@contract
async def test_a_document_is_what_was_written(backend: Backend, documents: DocumentStore) -> None:
    collection, name = odd(f"{backend.prefix}c"), odd("name")
    assert await documents.read(collection, name) is None
    large = json.dumps({"ü": "x" * 1_000_000})
    for version, data in enumerate(["{}", '"ü \U0001f600 %s %% {} \\u0000"', "", " 1  2 \n", large], 1):
        written = await documents.write(collection, name, data)
        assert written is not None
        assert (written.collection, written.name, written.data, written.version) == (collection, name, data, version)
        assert await documents.read(collection, name) == written
    assert await documents.read(collection, "name") is None
    assert await documents.read("c", name) is None


@contract
async def test_times_are_those_of_the_stores_clock(backend: Backend, documents: DocumentStore) -> None:
    before = await documents.write(f"{backend.prefix}c", "n", "1")
    first = await documents.append(f"{backend.prefix}s", "1", keep=9)
    await backend.pass_(backend.short)
    after = await documents.write(f"{backend.prefix}c", "n", "2")
    second = await documents.append(f"{backend.prefix}s", "2", keep=9)
    assert before is not None
    assert after is not None
    assert after.updated_at >= before.updated_at + backend.short * 0.9
    assert second.at >= first.at + backend.short * 0.9
    now = time.time() if backend.clock is None else backend.clock.now
    assert (after.updated_at, second.at) == pytest.approx((now, now), abs=5.0)


@contract
async def test_a_version_is_what_must_be_there(backend: Backend, documents: DocumentStore) -> None:
    collection = f"{backend.prefix}c"
    assert await documents.write(collection, "n", "no", version=1) is None, "there is none"
    assert await documents.read(collection, "n") is None
    first = await documents.write(collection, "n", "a", version=0)
    assert first is not None
    assert first.version == 1
    for wrong in (0, 2, -1, 10**15):
        assert await documents.write(collection, "n", "no", version=wrong) is None
        assert await documents.read(collection, "n") == first
    second = await documents.write(collection, "n", "b", version=1)
    assert second is not None
    assert (second.version, second.data) == (2, "b")
    assert await documents.write(collection, "n", "no", version=1) is None
    third = await documents.write(collection, "n", "c", version=None)
    assert third is not None
    assert await documents.read(collection, "n") == third


@contract
async def test_what_was_removed_is_gone_and_may_come_again(backend: Backend, documents: DocumentStore) -> None:
    collection = f"{backend.prefix}c"
    assert await documents.remove(collection, "n") is False
    await documents.write(collection, "n", "1")
    await documents.write(collection, "other", "1")
    await documents.write(collection, "n", "2")
    assert await documents.remove(collection, "n") is True
    assert await documents.remove(collection, "n") is False
    assert await documents.read(collection, "n") is None
    assert [document.name for document in await documents.list_documents(collection)] == ["other"]
    assert await documents.write(collection, "n", "3", version=2) is None
    again = await documents.write(collection, "n", "3", version=0)
    assert again is not None
    assert again.version == 1


@contract
async def test_documents_come_in_the_order_of_their_names(backend: Backend, documents: DocumentStore) -> None:
    collection = f"{backend.prefix}c"
    names = ["B", "a", "a b", "a%", "a\\", "aB", "aa", "ab", "ab/1", "a\u00fc", "a\uffff", "a\U0001f600", "b", "\u00e4"]
    written = {}
    for name in reversed(names):
        written[name] = await documents.write(collection, name, json.dumps(name))
    await documents.write(f"{collection}2", "a", "another collection's")
    names.sort()
    assert await documents.list_documents(collection) == [written[name] for name in names]
    for prefix, after, limit in itertools.product(
        ["", "a", "ab", "a\u00fc", "a\U0001f600", "b", "zz", "a%", "a\\"],
        ["", "A", "a", "aa", "ab/1", "c", "\uffff"],
        [1, 3, 100],
    ):
        expected = [name for name in names if name.startswith(prefix) and name > after][:limit]
        found = await documents.list_documents(collection, prefix=prefix, after=after, limit=limit)
        assert [document.name for document in found] == expected, (prefix, after, limit)
    assert list(await documents.list_documents(collection, limit=0)) == []
    assert list(await documents.list_documents("nobody's")) == []
    pages, after = [], ""
    while page := await documents.list_documents(collection, after=after, limit=4):
        pages += [document.name for document in page]
        after = page[-1].name
    assert pages == names


def test_one_of_those_that_write_the_same_version_wins(store: Backend) -> None:
    async def main() -> None:
        async with two(store) as both:
            collection = f"{store.prefix}c"
            for version in range(5):
                writes = [
                    documents.write(collection, "n", f"{n}", version=version) for n in range(8) for documents in both
                ]
                won = [document for document in await asyncio.gather(*writes) if document is not None]
                assert len(won) == 1
                assert won == [await both[0].read(collection, "n")]
                assert won[0].version == version + 1

    asyncio.run(main())


# -- streams -----------------------------------------------------------------------------------------------------------


@contract
async def test_a_stream_gives_its_newest_entries_first(backend: Backend, documents: DocumentStore) -> None:
    stream = odd(f"{backend.prefix}s")
    assert list(await documents.entries(stream)) == []
    written = [await documents.append(stream, f'{{"ü": "{number} %s"}}', keep=1000) for number in range(1, 13)]
    assert [entry.number for entry in written] == list(range(1, 13))
    assert {entry.stream for entry in written} == {stream}
    assert sorted(written, key=lambda entry: entry.at) == written
    newest = written[::-1]
    assert list(await documents.entries(stream)) == newest
    for limit, offset in itertools.product([0, 1, 5, 12, 100], [0, 1, 7, 11, 12, 50]):
        assert list(await documents.entries(stream, limit=limit, offset=offset)) == newest[offset : offset + limit]
    assert list(await documents.entries(f"{stream}2")) == []


@contract
async def test_a_stream_forgets_its_oldest_entries_and_no_number(backend: Backend, documents: DocumentStore) -> None:
    stream = f"{backend.prefix}s"
    for number in range(1, 31):
        assert (await documents.append(stream, str(number), keep=7)).number == number
    found = await documents.entries(stream)
    assert [entry.data for entry in found[:7]] == [str(number) for number in range(30, 23, -1)]
    assert len(found) <= 14, "a little later at the latest"
    assert (await documents.append(stream, "last", keep=1)).number == 31
    assert (await documents.append(stream, "last", keep=1)).number == 32
    assert [entry.number for entry in await documents.entries(stream, limit=1)] == [32]
    for keep in (0, -1, MOST + 1):
        with pytest.raises(ValueError, match=str(keep)):
            await documents.append(stream, "x", keep=keep)
    assert (await documents.append(stream, "last", keep=MOST)).number == 33


def test_entries_that_are_appended_at_once_have_a_number_each(store: Backend) -> None:
    async def main() -> None:
        async with two(store) as both:
            stream = f"{store.prefix}s"
            appends = [documents.append(stream, f"{n}", keep=1000) for n in range(25) for documents in both]
            entries = await asyncio.gather(*appends)
            assert sorted(entry.number for entry in entries) == list(range(1, 51))
            assert list(await both[0].entries(stream)) == sorted(entries, key=lambda entry: -entry.number)

    asyncio.run(main())


# -- counters ----------------------------------------------------------------------------------------------------------


@contract
async def test_charges_add_up_to_their_limit(backend: Backend, documents: DocumentStore) -> None:
    counter = odd(f"{backend.prefix}n")
    assert list(await documents.counts([counter])) == [0]
    assert await documents.charge([spend(counter, 4, 10)]) is None
    assert await documents.charge([spend(counter, 6, 10)]) is None
    assert await documents.charge([spend(counter, 1, 10)]) == counter
    assert await documents.charge([spend(counter, 0, 10)]) is None
    assert list(await documents.counts([counter])) == [10]
    assert await documents.charge([spend(counter, 0, 9)]) == counter, "the limit was lowered"
    assert await documents.charge([spend(counter, 5)]) is None
    assert list(await documents.counts([counter])) == [15]
    assert await documents.charge([spend(f"{counter}0", 1, 0)]) == f"{counter}0"
    assert await documents.charge([spend(f"{counter}0", 0, -(10**30))]) == f"{counter}0"
    assert await documents.charge([]) is None
    assert list(await documents.counts([])) == []


@contract
async def test_all_charges_are_made_or_none(backend: Backend, documents: DocumentStore) -> None:
    a, b, c = (f"{backend.prefix}{name}" for name in "abc")
    assert await documents.charge([spend(b, 5, 5), spend(a, 1, 9)]) is None
    assert await documents.charge([spend(c, 1), spend(b, 1, 5), spend(a, 100, 9)]) == b, "the first that is refused"
    assert await documents.charge([spend(c, 1), spend(a, 100, 9), spend(b, 1, 5)]) == a
    assert list(await documents.counts([a, b, c])) == [1, 5, 0]
    assert await documents.charge([spend(c, 1), spend(a, 8, 9)]) is None
    assert list(await documents.counts([c, a, b, a, f"{c}x"])) == [1, 9, 5, 9, 0], "in the order that was asked for"


@contract
async def test_a_counter_may_be_charged_twice_at_once(backend: Backend, documents: DocumentStore) -> None:
    a, b = (f"{backend.prefix}{name}" for name in "ab")
    assert await documents.charge([spend(a, 3, 10), spend(b, 1, 1), spend(a, 4, 10)]) is None
    assert list(await documents.counts([a, b])) == [7, 1]
    assert await documents.charge([spend(a, 2, 10), spend(b, 0, 1), spend(a, 2, 10)]) == a
    assert await documents.charge([spend(a, 2, 8), spend(b, 9, 1)]) == a
    assert await documents.charge([spend(a, 2, 9), spend(b, 9, 1), spend(a, 2, 9)]) == b
    assert list(await documents.counts([a, b])) == [7, 1]
    assert await documents.charge([spend(a, 1, 8), spend(a, 1, None), spend(a, 1, 10)]) is None
    assert list(await documents.counts([a])) == [10]


@contract
async def test_large_amounts_are_exact(backend: Backend, documents: DocumentStore) -> None:
    counter = f"{backend.prefix}n"
    assert await documents.charge([spend(counter, MOST - 2, MOST)]) is None
    assert await documents.charge([spend(counter, 1, 10**30)]) is None
    assert list(await documents.counts([counter])) == [MOST - 1]
    assert await documents.charge([spend(counter, 1, MOST - 1)]) == counter
    assert await documents.charge([spend(counter, 2)]) == counter, "no limit ends there too"
    assert await documents.charge([spend(counter, MOST)] * 2000) == counter
    assert await documents.charge([spend(counter, 1, MOST)]) is None
    assert list(await documents.counts([counter])) == [MOST]


@contract
async def test_what_is_no_charge_changes_nothing(backend: Backend, documents: DocumentStore) -> None:
    counter = f"{backend.prefix}n"
    for wrong in (spend(counter, -1), spend(counter, MOST + 1)):
        with pytest.raises(ValueError, match="amount"):
            await documents.charge([spend(counter, 1), wrong])
    for keep in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=str(keep)):
            await documents.charge([spend(counter, 1), spend(counter, 1, keep=keep)])
    assert list(await documents.counts([counter])) == [0]


@contract
async def test_a_counter_ends_a_while_after_its_first_charge(backend: Backend, documents: DocumentStore) -> None:
    keep = max(backend.short, 0.3)
    counters = (f"{backend.prefix}{number}" for number in itertools.count())
    counter = ""

    async def charged_twice() -> bool:
        nonlocal counter
        counter = next(counters)
        assert await documents.charge([spend(counter, 2, 100, keep=keep), spend(counter, 1, keep=LONG)]) is None
        assert await documents.charge([spend(counter, 5, 100, keep=LONG)]) is None
        return list(await documents.counts([counter])) == [8]

    await until(charged_twice, lambda: asyncio.sleep(0))  # a machine that is slow may have let it end in between
    await documents.charge([spend(f"{counter} long", 1, keep=LONG), spend(f"{counter} ever", 1, keep=math.inf)])
    await backend.pass_(keep)
    assert list(await documents.counts([counter, f"{counter} long", f"{counter} ever"])) == [0, 1, 1]
    assert await documents.charge([spend(counter, 4, 5, keep=LONG)]) is None, "a new one"
    assert await documents.charge([spend(counter, 4, 5, keep=LONG)]) == counter
    await backend.pass_(keep)
    assert list(await documents.counts([counter])) == [4]


def test_no_order_of_charges_at_once_goes_above_a_limit(store: Backend) -> None:
    """Nor do they wait for each other in a circle: the counters come in both orders."""

    async def main() -> None:
        async with two(store) as both:
            a, b = f"{store.prefix}a", f"{store.prefix}b"
            orders = [[spend(a, 3, 100), spend(b, 1, 1000)], [spend(b, 1, 1000), spend(a, 3, 100)]]
            charges = [documents.charge(order) for _ in range(15) for documents in both for order in orders]
            found = await asyncio.gather(*charges)
            assert [found.count(None), found.count(a)] == [33, 27]
            assert list(await both[1].counts([a, b])) == [99, 33]

    asyncio.run(main())


# -- all of it ---------------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "ab", "b", "\u00fc"])
STEPS = st.one_of(
    st.tuples(st.just("write"), NAMES, st.sampled_from([None, None, 0, 1, 2])),
    st.tuples(st.just("remove"), NAMES),
    st.tuples(st.just("documents"), st.sampled_from(["", "a", "b"]), NAMES, st.integers(0, 3)),
    st.tuples(st.just("append"), NAMES, st.integers(4, 5)),
    st.tuples(st.just("entries"), NAMES, st.integers(0, 4)),
    st.tuples(
        st.just("charge"),
        st.lists(st.tuples(NAMES, st.integers(0, 4), st.sampled_from([None, 5, 9])), max_size=4),
    ),
    st.tuples(st.just("counts"), st.lists(NAMES, max_size=4)),
)


async def step(documents: DocumentStore, prefix: str, what: str, *values: Any) -> Any:
    """Carry a step out; its answer, without times and the prefix."""

    def bare(found: Any) -> Any:
        if isinstance(found, Document):
            return found.name, found.data, found.version
        return (found.number, found.data) if isinstance(found, Entry) else found

    if what == "write":
        name, version = values
        return bare(await documents.write(f"{prefix}c", name, f"{name} {version}", version=version))
    if what == "remove":
        return await documents.remove(f"{prefix}c", *values)
    if what == "documents":
        start, after, limit = values
        return [
            bare(found)
            for found in await documents.list_documents(f"{prefix}c", prefix=start, after=after, limit=limit)
        ]
    if what == "append":
        return bare(await documents.append(f"{prefix}{values[0]}", values[0], keep=values[1]))
    if what == "entries":
        return [bare(found) for found in await documents.entries(f"{prefix}{values[0]}", limit=values[1])]
    if what == "charge":
        refused = await documents.charge([spend(f"{prefix}{name}", amount, limit) for name, amount, limit in values[0]])
        return None if refused is None else refused.removeprefix(prefix)
    return list(await documents.counts([f"{prefix}{name}" for name in values[0]]))


@pytest.mark.slow
def test_any_order_of_steps_gives_what_the_memory_store_gives(store: Backend) -> None:
    with asyncio.Runner() as runner:
        opened, model = store.make(), MemoryStore()
        runner.run(opened.open())
        runner.run(model.open())

        @given(st.lists(STEPS, max_size=25))
        @settings(
            max_examples=60,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        def compare(steps: list[tuple[Any, ...]]) -> None:
            async def both() -> None:
                prefix = f"{uuid.uuid4().hex}/"
                for each in steps:
                    assert await step(document_store_of(opened), prefix, *each) == await step(
                        document_store_of(model), prefix, *each
                    )

            runner.run(both())

        try:
            compare()
        finally:
            runner.run(opened.close())


@contract
async def test_numbers_that_are_out_of_all_bounds(backend: Backend, documents: DocumentStore) -> None:
    name = f"{backend.prefix}x"
    document, entry = await documents.write(name, "n", "1"), await documents.append(name, "1", keep=1)
    assert list(await documents.list_documents(name, limit=10**30)) == [document]
    assert list(await documents.entries(name, limit=10**30)) == [entry]
    assert list(await documents.entries(name, limit=MOST, offset=-1)) == [entry]
    assert list(await documents.entries(name, limit=1, offset=10**30)) == []
    assert list(await documents.entries(name, limit=-1)) == list(await documents.list_documents(name, limit=-1)) == []


@contract
async def test_records_and_documents_do_not_meet(backend: Backend, documents: DocumentStore) -> None:
    store: Store = documents._store  # type: ignore[attr-defined]
    name = f"{backend.prefix}x"
    await documents.write(name, name, "1")
    await documents.append(name, "1", keep=1)
    await documents.charge([spend(name)])
    assert await store.get(name) is None
    assert list(await store.scan(backend.prefix)) == []
    await store.acquire(Attempt(name, "t", lease=LONG, ttl=LONG))
    assert await store.delete(name)
    document = await documents.read(name, name)
    assert document is not None
    assert document.data == "1"
    assert list(await documents.counts([name])) == [1]
    assert await document_store_of(store).read(name, name) == document, "every document store of the store is the same"


Calls = Sequence[Coroutine[Any, Any, object]]


def writes(documents: DocumentStore, name: str = "n") -> Calls:
    """One call of each method that writes."""
    return [
        documents.write(name, name, "1"),
        documents.remove(name, name),
        documents.append(name, "1", keep=9),
        documents.charge([spend(name)]),
    ]


def reads(documents: DocumentStore, name: str = "n") -> Calls:
    """One call of each that does not."""
    return [
        documents.read(name, name),
        documents.list_documents(name),
        documents.entries(name),
        documents.counts([name]),
    ]


def calls(documents: DocumentStore, name: str = "n") -> Calls:
    return [*writes(documents, name), *reads(documents, name)]


def test_a_closed_store_has_no_documents_until_it_is_opened(store: Backend) -> None:
    async def main() -> None:
        opened = store.make()
        documents = document_store_of(opened)
        for call in calls(documents, store.prefix):
            with pytest.raises(StoreError):
                await call
        for number in (1, 2):
            await opened.open()
            assert (await documents.append(store.prefix, "1", keep=9)).number == number
            await opened.close()
            for call in calls(documents, store.prefix):
                with pytest.raises(StoreError):
                    await call

    asyncio.run(main())


def test_a_store_of_somebody_else_has_none() -> None:
    class Mine(MemoryStore):
        pass

    assert type(document_store_of(Mine())).__name__ == "MemoryDocumentStore"
    other: Any = object()
    with pytest.raises(TypeError):
        document_store_of(other)


# -- trouble -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "once.db"


def with_documents(store: Store, body: Callable[[DocumentStore], Awaitable[None]]) -> None:
    async def main() -> None:
        await store.open()
        try:
            await body(document_store_of(store))
        finally:
            await store.close()

    asyncio.run(main())


def test_a_file_that_another_process_holds(path: Path) -> None:
    async def body(documents: DocumentStore) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for call in writes(documents):
                with pytest.raises(StoreError):
                    await call
            assert [await call for call in reads(documents)] == [None, [], [], [0]], "who reads does not wait"
            other.execute("ROLLBACK")
        assert await documents.charge([spend("n")]) is None
        assert list(await documents.counts(["n"])) == [1]

    with_documents(SQLiteStore(path, timeout=0.1), body)


@pytest.mark.parametrize("text", ["\ud800", "a\0b"])
def test_a_text_that_cannot_be_stored_is_nobody_elses_trouble(path: Path, text: str) -> None:
    async def body(documents: DocumentStore) -> None:
        good = [documents.append("s", "1", keep=9), documents.charge([spend("n")])]
        bad = [*calls(documents, text), documents.write("c", "n", text), documents.append("s", text, keep=9)]
        found = await asyncio.gather(good[0], *bad, good[1], return_exceptions=True)
        assert [type(error) for error in found[1:-1]] == [StoreError] * len(bad)
        assert (type(found[0]), found[-1]) == (Entry, None)

    with_documents(SQLiteStore(path), body)


@pytest.fixture(
    params=[pytest.param("redis", marks=pytest.mark.slow), pytest.param("postgres", marks=pytest.mark.slow)]
)
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(f"{request.param}_server")
    return found


def of(server: Server, timeout: float) -> Store:
    return (PostgresStore if isinstance(server, PostgresServer) else RedisStore)(server.url, timeout=timeout)


def test_a_server_that_is_down_and_comes_back(server: Server) -> None:
    name = uuid.uuid4().hex

    async def body(documents: DocumentStore) -> None:
        await documents.charge([spend(name)])
        with server.down():
            for call in calls(documents):
                with pytest.raises(StoreError):
                    await call
        assert await documents.charge([spend(f"{name}2")]) is None
        assert list(await documents.counts([f"{name}2"])) == [1]

    with_documents(of(server, 5.0), body)


def test_no_answer_is_an_error_in_time(server: Server) -> None:
    name = uuid.uuid4().hex

    async def body(documents: DocumentStore) -> None:
        await documents.charge([spend(name)])
        with server.frozen():
            started = time.monotonic()
            found = await asyncio.gather(*calls(documents, name), return_exceptions=True)
            assert time.monotonic() - started < 3.0
            assert {type(error) for error in found} == {StoreError}
            assert all("no answer within 0.3 s" in str(error) for error in found)

        async def charged() -> bool:
            try:
                return await documents.charge([spend(name)]) is None
            except StoreError:
                return False

        await until(charged, lambda: asyncio.sleep(0.05))  # the server works off what was asked of it
        assert list(await documents.counts([name])) in ([2], [3]), "what had no answer may have had its effect"

    with_documents(of(server, 0.3), body)


@pytest.mark.slow
def test_a_charge_that_is_cancelled_lets_its_counters_go(postgres_server: PostgresServer) -> None:
    name = uuid.uuid4().hex

    async def body(documents: DocumentStore) -> None:
        await documents.charge([spend(f"{name}a"), spend(f"{name}b")])
        with closing(postgres_server.client()) as client, client.transaction():
            client.execute("SELECT * FROM once_records_counters WHERE counter = %s FOR UPDATE", (f"{name}b",))
            task = asyncio.create_task(documents.charge([spend(f"{name}b"), spend(f"{name}a")]))
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            deadline = time.monotonic() + 5.0
            while client.execute(waiting).fetchone() != (1,):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await documents.charge([spend(f"{name}a")]) is None, "while the other one is still held"
        assert list(await documents.counts([f"{name}a", f"{name}b"])) == [2, 1]

    with_documents(PostgresStore(postgres_server.url, timeout=10.0), body)


@pytest.mark.slow
def test_what_it_writes_in_redis_has_the_prefix_and_an_end(redis_server: RedisServer) -> None:
    prefix = f"{uuid.uuid4().hex}:"

    async def body(documents: DocumentStore) -> None:
        for call in calls(documents):
            await call
        await documents.write("n", "n", "1")
        await documents.charge([spend("n", keep=LONG / 2), spend("ever", keep=math.inf)])
        with closing(redis_server.client()) as client:
            names = {name.decode().removeprefix(prefix): client.ttl(name) for name in client.scan_iter(f"{prefix}*")}
            assert names.pop("c:n") == pytest.approx(LONG, abs=9)
            assert names == {"schema": -1, "d:n": -1, "n:n": -1, "e:n": -1, "c:ever": -1}
            await documents.remove("n", "n")
            assert not client.exists(f"{prefix}d:n", f"{prefix}n:n"), "an empty collection is none"

    with_documents(RedisStore(redis_server.url, prefix=prefix, timeout=5.0), body)


@pytest.mark.slow
def test_what_somebody_else_writes_in_redis_is_an_error(redis_server: RedisServer) -> None:
    prefix = f"{uuid.uuid4().hex}:"

    async def body(documents: DocumentStore) -> None:
        with closing(redis_server.client()) as client:
            client.hset(f"{prefix}d:n", "n", "theirs")
            client.zadd(f"{prefix}n:n", {"n": 0})
            client.rpush(f"{prefix}e:n", b"1 x \xff")
            client.set(f"{prefix}c:n", "theirs")
        for call in reads(documents):
            with pytest.raises(StoreError):
                await call
        for call in (
            documents.write("n", "n", "1"),
            documents.charge([spend("n")]),
            documents.charge([spend("m"), spend("n")]),
        ):
            with pytest.raises(StoreError):
                await call
        assert list(await documents.counts(["m"])) == [0]

    with_documents(RedisStore(redis_server.url, prefix=prefix, timeout=5.0), body)


# -- the schema, and what has expired ----------------------------------------------------------------------------------


def test_a_file_of_the_first_version_is_brought_up_to_date(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def first() -> None:
        store = SQLiteStore(path)
        await store.open()
        await store.acquire(Attempt("k", "t", lease=LONG, ttl=LONG))
        await store.finish("k", "t", Event.COMPLETE, ttl=LONG, result=b"r")
        await store.close()

    async def body(documents: DocumentStore) -> None:
        record = await documents._store.get("k")  # type: ignore[attr-defined]
        assert (record.state, record.result) == (State.DONE, b"r")
        assert (await documents.append("s", "1", keep=1)).number == 1
        assert await documents.charge([spend("n", 1, 1)]) is None

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_schema, "MIGRATIONS", sqlite_schema.MIGRATIONS[:1])
        asyncio.run(first())
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (1,)
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            assert sorted(tables) == [("once_records",), ("once_results",)]
    with_documents(SQLiteStore(path), body)
    with monkeypatch.context() as patch:  # the older release, afterwards
        patch.setattr(sqlite_schema, "MIGRATIONS", sqlite_schema.MIGRATIONS[:1])
        with pytest.raises(StoreError, match="schema 2"):
            asyncio.run(first())


@pytest.mark.slow
def test_a_table_of_the_first_version_is_brought_up_to_date(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = f"once_{uuid.uuid4().hex}"[:48]
    table += "x" * (48 - len(table))  # as long as may be: so are the names of the others

    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(postgres, "MIGRATIONS", postgres.MIGRATIONS[:1])
            old = PostgresStore(postgres_server.url, table=table, timeout=5.0)
            await old.open()
            await old.acquire(Attempt("k", "t", lease=LONG, ttl=LONG))
        stores = [PostgresStore(postgres_server.url, table=table, timeout=5.0) for _ in range(3)]
        await asyncio.gather(*(store.open() for store in stores))
        assert await stores[0].get("k") == await old.get("k"), "a process of the older release goes on"
        assert (await document_store_of(stores[0]).append("s", "1", keep=1)).number == 1
        assert (await document_store_of(stores[1]).append("s", "1", keep=1)).number == 2
        assert await document_store_of(stores[2]).charge([spend("n", 1, 1)]) is None
        for store in (old, *stores):
            await store.close()
        with monkeypatch.context() as patch:
            patch.setattr(postgres, "MIGRATIONS", postgres.MIGRATIONS[:1])
            with pytest.raises(StoreError, match="schema 2"):
                await old.open()

    asyncio.run(main())


def test_purge_removes_the_counters_that_have_expired(store: Backend) -> None:
    if store.name == "redis":
        return  # removes them by itself: see above

    async def main() -> None:
        opened = store.make()
        await opened.open()
        documents = document_store_of(opened)
        await documents.charge([spend(f"{store.prefix}{number}", keep=store.short) for number in range(1200)])
        await documents.charge([spend(f"{store.prefix}long", 7)])
        await store.pass_(store.short)
        assert await opened.purge() == 0, "only records are counted"
        assert await counters(opened, store.prefix) == [f"{store.prefix}long"]
        assert list(await documents.counts([f"{store.prefix}long"])) == [7]
        await opened.close()

    async def counters(opened: Store, prefix: str) -> list[str]:
        """Those that are really there."""
        if isinstance(opened, MemoryStore):
            return list(opened.service_data.counters)
        if isinstance(opened, SQLiteStore):
            rows = await opened.work(lambda c, _: c.execute("SELECT counter FROM once_counters").fetchall())
        else:
            assert isinstance(opened, PostgresStore)
            query = "SELECT counter FROM once_records_counters WHERE starts_with(counter, %s)"
            rows = await opened.run(lambda c: fetched(c, query, prefix))
        return [name for (name,) in rows]

    async def fetched(connection: Any, query: str, value: str) -> Any:
        return await (await connection.execute(query, (value,))).fetchall()

    asyncio.run(main())


def test_counters_are_purged_by_themselves(path: Path) -> None:
    async def main() -> None:
        now = 1000.0
        store = SQLiteStore(path, clock=lambda: now)
        await store.open()
        await document_store_of(store).charge([spend("old", keep=1.0)])
        now += 1.0
        store._purged -= 61.0
        await document_store_of(store).charge([spend("new")])
        assert await store.work(lambda c, _: c.execute("SELECT counter FROM once_counters").fetchall()) == [("new",)]
        await store.close()

    asyncio.run(main())


# -- several processes -------------------------------------------------------------------------------------------------

PROCESS = """
import asyncio, json, sys
from lastcall_once.documents import Charge
from lastcall_once.document_stores import document_store_of
from lastcall_once.stores import store_from_url

async def main(url, prefix):
    store = store_from_url(url)
    store._timeout = 20.0  # the machine may be busy
    await store.open()
    documents = document_store_of(store)
    print("ready", flush=True)
    sys.stdin.readline()
    a, b, tries = prefix + "a", prefix + "b", 0

    async def spend(number):
        charges = [Charge(a, 7, 1000, 3600.0), Charge(b, 1, 1000, 3600.0)]
        return await documents.charge(charges if number % 2 else charges[::-1])

    async def count():
        nonlocal tries
        while True:
            tries += 1
            found = await documents.read(prefix, "n")
            value, version = (0, 0) if found is None else (int(found.data), found.version)
            if await documents.write(prefix, "n", str(value + 1), version=version):
                return

    charged, numbers = [], []
    for start in range(0, 80, 10):
        charged += await asyncio.gather(*(spend(number) for number in range(start, start + 10)))
        appends = [documents.append(prefix, "x", keep=9) for _ in "123"]
        numbers += [entry.number for entry in await asyncio.gather(*appends)]
        await asyncio.gather(*(count() for _ in "12"))
    print(json.dumps({"made": charged.count(None), "refused": charged.count(a), "numbers": numbers, "tries": tries}))
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sqlite", "redis", "postgres"])
def test_processes_share_documents(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = f"sqlite:///{tmp_path}/once.db" if name == "sqlite" else ""
    url = url or request.getfixturevalue(f"{name}_server").url
    prefix = uuid.uuid4().hex
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, url, prefix], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    found = [json.loads(process.communicate(timeout=25)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0] * 3
    assert sum(each["made"] for each in found) == 142
    assert sum(each["refused"] for each in found) == 240 - 142
    assert sorted(number for each in found for number in each["numbers"]) == list(range(1, 73))

    async def body(documents: DocumentStore) -> None:
        assert list(await documents.counts([f"{prefix}a", f"{prefix}b"])) == [994, 142]
        document = await documents.read(prefix, "n")
        assert document is not None
        assert (document.data, document.version) == ("48", 48), "no increment was lost"
        newest = [entry.number for entry in await documents.entries(prefix)]
        assert newest[:9] == list(range(72, 63, -1))

    with_documents(store_from_url(url), body)
