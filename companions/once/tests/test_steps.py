"""The stores on servers decide as ``lastcall_once.records`` does: the same random steps, on the server's own clock.

No test sleeps: a lease or a time to live of a microsecond is over at the next step, one of an hour is not.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companions.once.tests.parallel import store_of, verdicts_of_processes
from lastcall_once import records
from lastcall_once._record import replace
from lastcall_once.records import Attempt, Event, Policy, Record
from lastcall_once.store import Store
from testing.stores import Server

pytestmark = pytest.mark.slow

ENDS = [Event.COMPLETE, Event.FAIL, Event.ABANDON, Event.RELEASE]
spans = st.sampled_from([1e-6, 3600.0])
tokens = st.sampled_from(["one", "two"])
words = st.sampled_from(["", "a", "b"])
policies = st.sampled_from(list(Policy))
attempts = st.builds(
    Attempt,
    key=st.just("?"),
    token=tokens,
    lease=st.sampled_from([0.0, 1e-6, 3600.0]),
    ttl=st.sampled_from([0.0, 1e-6, 3600.0, float("inf")]),
    worker=words,
    fingerprint=words,
    meta=st.sampled_from(["", '{"ü": "\\u0000"}']),
    on_unknown=policies,
    on_failed=policies,
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("acquire"), attempts),
        st.tuples(st.just("renew"), tokens, spans, spans),
        st.tuples(st.just("finish"), tokens, st.sampled_from(ENDS), spans, st.sampled_from([None, b"", b"\0\xff"])),
    ),
    min_size=1,
    max_size=8,
)


@pytest.fixture(params=["redis", "postgres"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(f"{request.param}_server")
    return found


def in_a_loop(url: str, body: Callable[[Store], Coroutine[Any, Any, None]]) -> None:
    """Run ``body`` with the store of ``url``, open."""

    async def run() -> None:
        store = store_of(url)
        await store.open()
        try:
            await body(store)
        finally:
            await store.close()

    asyncio.run(run())


class Shadow:
    """A key of the store and what ``records`` makes of the same steps, at the times that the store tells."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._key = uuid.uuid4().hex
        self._record: Record | None = None

    async def acquire(self, attempt: Attempt) -> None:
        attempt = replace(attempt, key=self._key)
        found = await self._store.acquire(attempt)
        now = found.record.updated_at
        assert found == records.acquire(self._record, attempt, now)
        self._record = found.record

    async def renew(self, token: str, lease: float, ttl: float) -> None:
        before = self._record
        held = await self._store.renew(self._key, token, lease=lease, ttl=ttl)
        now = await self._look()
        after = records.renew(before, token, lease, ttl, now)
        assert held == (after is not None)
        self._compare(before if after is None else after, now)

    async def finish(self, token: str, event: Event, ttl: float, result: bytes | None) -> None:
        before = self._record
        held = await self._store.finish(self._key, token, event, ttl=ttl, result=result)
        now = await self._look()
        after = records.finish(before, token, event, now, ttl=ttl, result=result)
        assert held == (after is not None)
        if held and event is Event.RELEASE:
            assert self._record is None
        else:
            self._compare(before if after is None else after, now)

    async def _look(self) -> float:
        """The time of the last step, as near as the record tells it."""
        before, self._record = self._record, await self._store.get(self._key)
        shown = self._record or before
        return 0.0 if shown is None else shown.updated_at + (1e-5 if self._record in (None, before) else 0.0)

    def _compare(self, expected: Record | None, now: float) -> None:
        if self._record is None:
            assert records.at(expected, now + 1.0) is None
            return
        assert expected is not None
        # A lease of a microsecond is over when we look.
        assert self._record in (records.at(expected, now), records.at(expected, now + 1.0))


def test_random_steps_come_to_what_the_pure_machine_says(server: Server) -> None:
    async def body(store: Store) -> None:
        loop = asyncio.get_running_loop()

        @settings(max_examples=150)
        @given(steps)
        def examples(chosen: list[Any]) -> None:
            async def run() -> None:
                shadow = Shadow(store)
                for name, *values in chosen:
                    await getattr(shadow, name)(*values)

            asyncio.run_coroutine_threadsafe(run(), loop).result(20)

        await asyncio.to_thread(examples)

    in_a_loop(server.url, body)


def test_fifty_attempts_of_two_processes_are_granted_once(server: Server) -> None:
    found = verdicts_of_processes(server.url, uuid.uuid4().hex, processes=2, times=25)
    assert sorted(found) == ["granted"] + ["in_flight"] * 49
