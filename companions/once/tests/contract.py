"""The contract of a store: one suite for all of them, and a state machine against a model made of ``records``.

A test is an async function of the backend and the open store; ``contract`` makes a pytest function of it, with the
fixture ``store``. Nothing is asserted about a short span that has *not* passed: on a server's clock it may have.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from companions.once.tests.backends import LONG, Backend
from lastcall_once import records
from lastcall_once._record import replace
from lastcall_once.records import Attempt, Event, Policy, Record, State, Verdict
from lastcall_once.store import Store, StoreError

__all__ = [
    "test_a_claim_is_done_at_once_and_has_no_lease",
    "test_a_closed_store_says_so_and_can_be_opened_again",
    "test_a_lease_that_has_run_out_is_unknown_and_its_holder_may_still_finish",
    "test_a_lease_that_was_renewed_lives_on",
    "test_a_mismatch_is_told_in_every_state",
    "test_a_record_keeps_all_that_it_was_given",
    "test_a_refused_attempt_is_counted_and_changes_nothing_else",
    "test_a_scan_goes_through_the_keys_in_order",
    "test_a_taken_over_lease_is_lost_to_its_first_holder",
    "test_an_operator_may_delete_a_key_in_any_state",
    "test_any_order_of_steps",
    "test_any_order_of_steps_for_long",
    "test_every_cell_of_the_table",
    "test_fifty_attempts_at_once_are_granted_once",
    "test_only_the_token_of_the_lease_counts",
    "test_purge_removes_what_has_expired_and_nothing_else",
    "test_results_come_back_as_they_were",
    "test_what_has_expired_was_never_there",
]

Test = Callable[[Backend, Store], Awaitable[None]]


def contract(test: Test) -> Callable[[Backend], None]:
    """A pytest function from an async test."""

    def run(store: Backend) -> None:
        async def opened() -> None:
            async with store.opened() as instance:
                await test(store, instance)

        asyncio.run(opened())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def wanted(key: str, token: str = "t", *, lease: float = LONG, ttl: float = LONG, **options: Any) -> Attempt:
    return Attempt(key, token, lease=lease, ttl=ttl, **options)


ENDS = {State.DONE: Event.COMPLETE, State.FAILED: Event.FAIL, State.UNKNOWN: Event.ABANDON}


async def prepared(store: Store, key: str, state: State, **options: Any) -> None:
    """Bring ``key`` to ``state``, with the token ``t``."""
    if state is State.ABSENT:
        return
    assert (await store.acquire(wanted(key, **options))).verdict is Verdict.GRANTED
    if state is not State.LEASED:
        assert await store.finish(key, "t", ENDS[state], ttl=LONG, result=b"r")


STEPS = [
    *itertools.product([Event.ACQUIRE, Event.CLAIM], ["new"], Policy),
    *itertools.product(
        [Event.RENEW, Event.COMPLETE, Event.FAIL, Event.ABANDON, Event.RELEASE], ["t", "other"], [Policy.RETRY]
    ),
]


@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
@pytest.mark.parametrize(("event", "token", "policy"), STEPS, ids=lambda value: getattr(value, "name", value))
def test_every_cell_of_the_table(store: Backend, state: State, event: Event, token: str, policy: Policy) -> None:
    """Whatever is asked in whatever state: the answer, and the record after it, are those of ``records``."""

    async def test(backend: Backend, store: Store) -> None:
        key = f"{backend.prefix}cell"
        await prepared(store, key, state)
        before = await store.get(key)
        assert (State.ABSENT if before is None else before.state) is state
        now = 0.0 if before is None else before.updated_at
        after: Record | None
        if event in (Event.ACQUIRE, Event.CLAIM):
            lease = LONG if event is Event.ACQUIRE else 0.0
            attempt = wanted(key, token, lease=lease, on_unknown=policy, on_failed=policy)
            expected = records.acquire(before, attempt, now)
            outcome = await store.acquire(attempt)
            assert outcome.verdict is expected.verdict
            assert timeless(outcome.record) == timeless(expected.record)
            after = expected.record
        elif event is Event.RENEW:
            after = records.renew(before, token, LONG, LONG, now)
            assert await store.renew(key, token, lease=LONG, ttl=LONG) is (after is not None)
        else:
            after = records.finish(before, token, event, now, ttl=LONG, result=b"end")
            assert await store.finish(key, token, event, ttl=LONG, result=b"end") is (after is not None)
        found = await store.get(key)
        if after is None:
            after = before
        assert timeless(found) == timeless(None if after is None or after.state is State.ABSENT else after)

    contract(test)(store)


def timeless(record: Record | None) -> Record | None:
    """The record without its times, which are the server's business."""
    if record is None:
        return None
    return replace(record, first_seen_at=0.0, updated_at=0.0, lease_until=0.0, expires_at=0.0)


@contract
async def test_a_record_keeps_all_that_it_was_given(backend: Backend, store: Store) -> None:
    key = f"{backend.prefix}Schlüssel \U0001f600 %_*[a]?\\'\""
    meta = '{"a": "ü", "b": [1, null]}'
    outcome = await store.acquire(wanted(key, "token", worker="host:17", fingerprint="f" * 64, meta=meta))
    record = await store.get(key)
    assert record == outcome.record
    assert record is not None
    assert (record.key, record.token, record.worker, record.fingerprint, record.meta) == (
        key,
        "token",
        "host:17",
        "f" * 64,
        meta,
    )
    assert (record.attempts, record.executions, record.result) == (1, 1, None)
    assert record.lease_until == pytest.approx(record.first_seen_at + LONG, abs=1e-3)
    assert record.expires_at == pytest.approx(record.first_seen_at + 2 * LONG, abs=1e-3)


@contract
async def test_results_come_back_as_they_were(backend: Backend, store: Store) -> None:
    for number, result in enumerate([None, b"", b"\0", bytes(range(256)), b"x" * 20_000, bytes(1_000_003)]):
        key = f"{backend.prefix}result{number}"
        await store.acquire(wanted(key))
        assert await store.finish(key, "t", Event.COMPLETE, ttl=LONG, result=result)
        for outcome in [await store.acquire(wanted(key, "u")), await store.acquire(wanted(key, "v"))]:
            assert outcome.verdict is Verdict.DONE
            assert outcome.record.result == result
            assert (outcome.record.result is None) == (result is None)
        assert [record.result for record in await store.scan(key)] == [result]


@contract
async def test_a_refused_attempt_is_counted_and_changes_nothing_else(backend: Backend, store: Store) -> None:
    key = f"{backend.prefix}counted"
    await store.acquire(wanted(key, worker="first", meta="1"))
    for attempts in (2, 3, 4):
        outcome = await store.acquire(wanted(key, "u", worker="second", meta="2"))
        assert outcome.verdict is Verdict.IN_FLIGHT
        assert (outcome.record.attempts, outcome.record.executions) == (attempts, 1)
        assert (outcome.record.token, outcome.record.worker, outcome.record.meta) == ("t", "first", "1")
    before = await store.get(key)
    assert before == await store.get(key), "looking does not count"


@contract
async def test_a_claim_is_done_at_once_and_has_no_lease(backend: Backend, store: Store) -> None:
    key = f"{backend.prefix}claim"
    first = await store.acquire(wanted(key, lease=0.0))
    assert (first.verdict, first.record.state) == (Verdict.GRANTED, State.DONE)
    second = await store.acquire(wanted(key, "u", lease=0.0))
    assert (second.verdict, second.record.attempts) == (Verdict.DONE, 2)
    assert second.record.first_seen_at == first.record.first_seen_at
    assert not await store.renew(key, "t", lease=LONG, ttl=LONG)
    assert not await store.finish(key, "t", Event.COMPLETE, ttl=LONG, result=b"x")


@contract
async def test_only_the_token_of_the_lease_counts(backend: Backend, store: Store) -> None:
    key = f"{backend.prefix}token"
    await store.acquire(wanted(key, "mine"))
    for token in ("", "yours", "min", "MINE"):
        assert not await store.renew(key, token, lease=LONG, ttl=LONG)
        for event in (Event.COMPLETE, Event.FAIL, Event.ABANDON, Event.RELEASE):
            assert not await store.finish(key, token, event, ttl=LONG, result=b"x")
    record = await store.get(key)
    assert record is not None
    assert (record.state, record.result) == (State.LEASED, None)
    assert await store.finish(key, "mine", Event.COMPLETE, ttl=LONG)
    assert not await store.finish(key, "mine", Event.FAIL, ttl=LONG), "the first end counts"


@contract
async def test_a_mismatch_is_told_in_every_state(backend: Backend, store: Store) -> None:
    for state in (State.LEASED, State.DONE, State.FAILED, State.UNKNOWN):
        key = f"{backend.prefix}{state.value}"
        await prepared(store, key, state, fingerprint="one")
        outcome = await store.acquire(wanted(key, "u", fingerprint="two"))
        assert (outcome.verdict, outcome.record.state, outcome.record.attempts) == (Verdict.MISMATCH, state, 2)
        for word in ("one", ""):
            outcome = await store.acquire(wanted(key, "u", fingerprint=word))
            assert outcome.verdict is not Verdict.MISMATCH
            assert outcome.record.fingerprint == "one"


@contract
async def test_a_lease_that_has_run_out_is_unknown_and_its_holder_may_still_finish(
    backend: Backend, store: Store
) -> None:
    for event, state in ((Event.COMPLETE, State.DONE), (Event.FAIL, State.FAILED), (Event.ABANDON, State.UNKNOWN)):
        key = f"{backend.prefix}{state.value}"
        await store.acquire(wanted(key, lease=backend.short))
        await backend.pass_(backend.short)
        record = await store.get(key)
        assert record is not None
        assert record.state is State.UNKNOWN
        assert [found.state for found in await store.scan(key)] == [State.UNKNOWN]
        refused = await store.acquire(wanted(key, "u", on_unknown=Policy.REFUSE))
        assert (refused.verdict, refused.record.state) == (Verdict.UNKNOWN, State.UNKNOWN)
        assert await store.finish(key, "t", event, ttl=LONG)
        record = await store.get(key)
        assert record is not None
        assert record.state is state


@contract
async def test_a_taken_over_lease_is_lost_to_its_first_holder(backend: Backend, store: Store) -> None:
    key = f"{backend.prefix}over"
    await store.acquire(wanted(key, "first", lease=backend.short))
    await backend.pass_(backend.short)
    outcome = await store.acquire(wanted(key, "second"))
    assert (outcome.verdict, outcome.record.attempts, outcome.record.executions) == (Verdict.GRANTED, 2, 2)
    assert not await store.renew(key, "first", lease=LONG, ttl=LONG)
    assert not await store.finish(key, "first", Event.COMPLETE, ttl=LONG, result=b"first")
    assert await store.finish(key, "second", Event.COMPLETE, ttl=LONG, result=b"second")
    record = await store.get(key)
    assert record is not None
    assert record.result == b"second"


@contract
async def test_a_lease_that_was_renewed_lives_on(backend: Backend, store: Store) -> None:
    key = f"{backend.prefix}renewed"
    await store.acquire(wanted(key, lease=backend.short))
    assert await store.renew(key, "t", lease=LONG, ttl=LONG)
    await backend.pass_(backend.short)
    assert (await store.acquire(wanted(key, "u"))).verdict is Verdict.IN_FLIGHT
    key = f"{backend.prefix}late"
    await store.acquire(wanted(key, lease=backend.short))
    await backend.pass_(backend.short)
    assert await store.renew(key, "t", lease=LONG, ttl=LONG), "nobody has taken it"
    assert (await store.acquire(wanted(key, "u"))).verdict is Verdict.IN_FLIGHT


@contract
async def test_what_has_expired_was_never_there(backend: Backend, store: Store) -> None:
    keys = [f"{backend.prefix}{name}" for name in ("claim", "done", "failed", "unknown", "lapsed")]
    claim, *ends, lapsed = keys
    await store.acquire(wanted(claim, lease=0.0, ttl=backend.short))
    for key, event in zip(ends, (Event.COMPLETE, Event.FAIL, Event.ABANDON), strict=True):
        await store.acquire(wanted(key))
        await store.finish(key, "t", event, ttl=backend.short, result=b"x")
    await store.acquire(wanted(lapsed, lease=backend.short / 2, ttl=backend.short / 2))
    await backend.pass_(backend.short)
    assert not await store.scan(backend.prefix)
    for key in keys:
        assert await store.get(key) is None
        assert not await store.renew(key, "t", lease=LONG, ttl=LONG)
        assert not await store.finish(key, "t", Event.COMPLETE, ttl=LONG)
        assert not await store.delete(key)
        outcome = await store.acquire(wanted(key, "new", fingerprint="new", on_failed=Policy.REFUSE))
        assert (outcome.verdict, outcome.record.attempts, outcome.record.result) == (Verdict.GRANTED, 1, None)
        assert outcome.record.first_seen_at == outcome.record.updated_at


@contract
async def test_a_scan_goes_through_the_keys_in_order(backend: Backend, store: Store) -> None:
    rest = ["", "*", "[a]", "\\", "%", "_", "a", "b?", "é", "\uffff", "\U0001f600", "Z"]
    keys = [f"{backend.prefix}{word}" for word in rest if word or backend.prefix]
    for key in keys:
        await store.acquire(wanted(key))
    await store.acquire(wanted(f"{backend.prefix}gone", lease=0.0, ttl=backend.short))
    await store.acquire(wanted(f"x{backend.prefix}", ttl=LONG))
    await backend.pass_(backend.short)
    found: list[str] = []
    while page := await store.scan(backend.prefix, after=found[-1] if found else "", limit=5):
        assert len(page) <= 5
        found += [record.key for record in page]
    assert found == sorted(keys)
    assert [record.key for record in await store.scan(f"{backend.prefix}[")] == [f"{backend.prefix}[a]"]
    assert [record.key for record in await store.scan(f"{backend.prefix}%")] == [f"{backend.prefix}%"]
    assert not await store.scan(f"{backend.prefix}?")
    assert not await store.scan(backend.prefix, limit=0)
    assert await store.delete(f"x{backend.prefix}")


@contract
async def test_an_operator_may_delete_a_key_in_any_state(backend: Backend, store: Store) -> None:
    for state in State:
        key = f"{backend.prefix}{state.value}"
        await prepared(store, key, state)
        assert await store.delete(key) is (state is not State.ABSENT)
        assert await store.get(key) is None
        assert not await store.finish(key, "t", Event.COMPLETE, ttl=LONG, result=b"x")
        outcome = await store.acquire(wanted(key, "u"))
        assert (outcome.verdict, outcome.record.attempts, outcome.record.result) == (Verdict.GRANTED, 1, None)


@contract
async def test_purge_removes_what_has_expired_and_nothing_else(backend: Backend, store: Store) -> None:
    for number in range(7):
        await store.acquire(wanted(f"{backend.prefix}gone{number}", lease=0.0, ttl=backend.short))
    for state in (State.LEASED, State.DONE, State.FAILED, State.UNKNOWN):
        await prepared(store, f"{backend.prefix}{state.value}", state)
    await store.acquire(wanted(f"{backend.prefix}lapsed", lease=backend.short))
    await backend.pass_(backend.short)
    gone = await store.purge()
    assert gone == 7 if backend.clock is not None else gone >= 0, "a server may have purged by itself"
    assert await store.purge() == 0
    states = {
        record.key.removeprefix(backend.prefix): record.state.value for record in await store.scan(backend.prefix)
    }
    assert states == {name: name for name in ("leased", "done", "failed", "unknown")} | {"lapsed": "unknown"}


@contract
async def test_fifty_attempts_at_once_are_granted_once(backend: Backend, store: Store) -> None:
    for lease, other in ((LONG, Verdict.IN_FLIGHT), (0.0, Verdict.DONE)):
        key = f"{backend.prefix}{other.value}"
        outcomes = await asyncio.gather(*(store.acquire(wanted(key, f"t{n}", lease=lease)) for n in range(50)))
        granted = [number for number, outcome in enumerate(outcomes) if outcome.verdict is Verdict.GRANTED]
        assert len(granted) == 1
        assert {outcome.verdict for outcome in outcomes} == {Verdict.GRANTED, other}
        assert sorted(outcome.record.attempts for outcome in outcomes) == list(range(1, 51))
        record = await store.get(key)
        assert record is not None
        assert (record.token, record.attempts, record.executions) == (f"t{granted[0]}", 50, 1)
    assert await store.finish(f"{backend.prefix}in_flight", "nobody", Event.RELEASE, ttl=LONG) is False


@contract
async def test_a_closed_store_says_so_and_can_be_opened_again(backend: Backend, store: Store) -> None:
    key = f"{backend.prefix}reopened"
    await store.open()  # once more: nothing to do
    await store.acquire(wanted(key))
    await store.close()
    await store.close()
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: store.get(key),
        store.scan,
        store.purge,
        lambda: store.delete(key),
        lambda: store.acquire(wanted(key)),
        lambda: store.renew(key, "t", lease=LONG, ttl=LONG),
        lambda: store.finish(key, "t", Event.COMPLETE, ttl=LONG),
    ]
    for call in calls:
        with pytest.raises(StoreError):
            await call()
    await store.open()
    assert await store.get(key) is not None


# -- any order of steps ------------------------------------------------------------------------------------------------

# Few, so that steps meet.
KEYS = st.sampled_from(["a", "ab"])
TOKENS = st.sampled_from(["one", "two"])
WORDS = st.sampled_from(["", "x", "y"])
POLICIES = st.sampled_from(list(Policy))
FINISHES = st.sampled_from([Event.COMPLETE, Event.FAIL, Event.ABANDON, Event.RELEASE])
RESULTS = st.sampled_from([None, b"", b"\0\xff", b"x" * 17_000])
TTLS = st.sampled_from([5.0, 50.0, LONG])


class Machine(RuleBasedStateMachine):
    """A store beside a dictionary of records. On a server's clock no time passes, as far as the records know."""

    backend: Backend
    runner: asyncio.Runner
    store: Store

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, Record] = {}
        self.exact = self.backend.clock is not None

    def teardown(self) -> None:
        self.do(self.backend.clear(self.store))
        if self.backend.clock is not None:
            self.backend.clock.now += 10 * LONG
            self.do(self.store.purge())

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    @property
    def now(self) -> float:
        return 0.0 if self.backend.clock is None else self.backend.clock.now

    def span(self, seconds: float) -> float:
        return seconds if self.exact or seconds == 0.0 else LONG

    def same(self, found: Record | None, expected: Record | None) -> None:
        assert (found if self.exact else timeless(found)) == (expected if self.exact else timeless(expected))

    def put(self, record: Record) -> None:
        if record.state is State.ABSENT:
            del self.model[record.key]
        else:
            self.model[record.key] = record

    @rule(
        key=KEYS, token=TOKENS, lease=st.sampled_from([0.0, 5.0, 30.0]), ttl=TTLS, words=st.tuples(WORDS, WORDS, WORDS),
        policies=st.tuples(POLICIES, POLICIES),
    )  # fmt: skip
    def acquire(
        self,
        key: str,
        token: str,
        lease: float,
        ttl: float,
        words: tuple[str, str, str],
        policies: tuple[Policy, Policy],
    ) -> None:
        name = self.backend.prefix + key
        attempt = Attempt(name, token, self.span(lease), self.span(ttl), *words, *policies)
        expected = records.acquire(self.model.get(name), attempt, self.now)
        found = self.do(self.store.acquire(attempt))
        assert found.verdict is expected.verdict
        self.same(found.record, expected.record)
        self.put(expected.record)

    @rule(key=KEYS, token=TOKENS, lease=st.sampled_from([5.0, 30.0]), ttl=TTLS)
    def renew(self, key: str, token: str, lease: float, ttl: float) -> None:
        name, lease, ttl = self.backend.prefix + key, self.span(lease), self.span(ttl)
        after = records.renew(self.model.get(name), token, lease, ttl, self.now)
        assert self.do(self.store.renew(name, token, lease=lease, ttl=ttl)) is (after is not None)
        if after is not None:
            self.put(after)

    @rule(key=KEYS, token=TOKENS, event=FINISHES, ttl=TTLS, result=RESULTS)
    def finish(self, key: str, token: str, event: Event, ttl: float, result: bytes | None) -> None:
        name, ttl = self.backend.prefix + key, self.span(ttl)
        after = records.finish(self.model.get(name), token, event, self.now, ttl=ttl, result=result)
        assert self.do(self.store.finish(name, token, event, ttl=ttl, result=result)) is (after is not None)
        if after is not None:
            self.put(after)

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        name = self.backend.prefix + key
        self.same(self.do(self.store.get(name)), records.at(self.model.get(name), self.now))

    @rule(
        prefix=st.sampled_from(["", "a", "ab"]), after=st.sampled_from(["", "a", "ab", "zz"]), limit=st.integers(1, 5)
    )
    def scan(self, prefix: str, after: str, limit: int) -> None:
        prefix, after = self.backend.prefix + prefix, self.backend.prefix + after
        there = [record for key in sorted(self.model) if (record := records.at(self.model[key], self.now)) is not None]
        expected = [record for record in there if record.key.startswith(prefix) and record.key > after][:limit]
        found = self.do(self.store.scan(prefix, after=after, limit=limit))
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            self.same(one, other)

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        name = self.backend.prefix + key
        there = records.at(self.model.pop(name, None), self.now) is not None
        assert self.do(self.store.delete(name)) is there

    @rule()
    def purge(self) -> None:
        gone = [key for key, record in self.model.items() if records.at(record, self.now) is None]
        for key in gone:
            del self.model[key]
        found = self.do(self.store.purge())
        assert found <= len(gone) or not self.exact  # fewer, if the store has purged by itself

    @rule(seconds=st.sampled_from([1.0, 5.0, 40.0, 5000.0]))
    def wait(self, seconds: float) -> None:
        if self.backend.clock is not None:
            self.backend.clock.now += seconds


def run_machine(chosen: Backend, examples: int) -> None:
    with asyncio.Runner() as runner:
        opened = chosen.make()
        runner.run(opened.open())
        made = type("ThisMachine", (Machine,), {"backend": chosen, "runner": runner, "store": opened})
        try:
            run_state_machine_as_test(
                made,
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=25,
                    deadline=None,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(opened.close())


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_any_order_of_steps(store: Backend) -> None:
    run_machine(store, 200)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_any_order_of_steps_for_long(store: Backend) -> None:
    run_machine(store, 10_000)
