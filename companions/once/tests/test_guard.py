# length: one class and its promises; its clock and store are set up once for all of them.
"""``AsyncOnce``: leases and their ends, the heartbeat, ``check_lock``, the decorator, and a store that fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

import lastcall_once
from companions.once.tests.backends import Clock
from lastcall_once import AsyncOnce, InFlight, LeaseLost, NotReplayable, Policy, Refused, StoreError
from lastcall_once.guard import check_key
from lastcall_once.metrics import MemoryCounters, OnceEvent
from lastcall_once.records import Attempt, Event, Outcome, Record, State, Verdict
from lastcall_once.store import Store
from lastcall_once.stores.memory import MemoryStore

Body = Callable[["Kit"], Awaitable[None]]


class Failing(MemoryStore):
    """A store that can be told to fail, or to be slow: ``down`` names the operations that do."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.down: set[str] = set()
        self.calls: list[str] = []
        self.gate: asyncio.Event | None = None

    async def _may(self, operation: str) -> None:
        self.calls.append(operation)
        if self.gate is not None:
            await self.gate.wait()
        if operation in self.down:
            raise StoreError(f"{operation} is down")

    async def open(self) -> None:
        await self._may("open")
        await super().open()

    async def acquire(self, attempt: Attempt) -> Outcome:
        outcome = None if "acquire" in self.down else await super().acquire(attempt)
        await self._may("acquire")
        assert outcome is not None
        return outcome

    async def renew(self, key: str, token: str, *, lease: float, ttl: float) -> bool:
        await self._may("renew")
        return await super().renew(key, token, lease=lease, ttl=ttl)

    async def finish(self, key: str, token: str, event: Event, *, ttl: float, result: bytes | None = None) -> bool:
        await self._may("finish")
        return await super().finish(key, token, event, ttl=ttl, result=result)


class Kit:
    """A clock, a store, an ``AsyncOnce`` over it, and what it has told."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.store = Failing(self.clock)
        self.told: list[OnceEvent] = []
        self.counters = MemoryCounters()
        self.once = AsyncOnce(self.store, on_event=self.told.append, metrics=self.counters, **options)

    @property
    def names(self) -> list[str]:
        return [event.outcome or event.name for event in self.told]

    async def record(self, key: str = "k") -> Record:
        found = await self.store.get(key)
        assert found is not None
        return found


def run(body: Body, **options: Any) -> Kit:
    made: list[Kit] = []

    async def opened() -> None:
        kit = Kit(**options)
        made.append(kit)
        async with kit.once:
            await body(kit)

    asyncio.run(opened())
    return made[0]


def test_what_is_exported() -> None:
    assert [name for name in lastcall_once.__all__ if not hasattr(lastcall_once, name)] == []
    with pytest.raises(AttributeError):
        _ = lastcall_once.nothing


# -- keys and options --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["k", "x" * 255, "a b", "Schlüssel", "\u00a0", "\U0001f600", "a:b/c?d"])
def test_keys_that_are_fine(key: str) -> None:
    assert check_key(key) == key
    assert check_key(key, "scope") == f"scope:{key}"


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb", "\0", "\x7f", "\x85", "\ud800"])
def test_keys_that_are_not(key: str) -> None:
    once = AsyncOnce("memory:")
    with pytest.raises(ValueError, match="a key has"):
        once.lease(key)
    with pytest.raises(ValueError, match="a key has"):
        asyncio.run(once.check_lock(key))


def test_a_key_is_a_string_and_a_scope_has_no_colon() -> None:
    not_text: Any = b"k"
    with pytest.raises(TypeError):
        check_key(not_text)
    with pytest.raises(ValueError, match="a:b"):
        check_key("k", "a:b")


@pytest.mark.parametrize(
    "options", [{"lease": 0}, {"lease": -1.0}, {"lease": float("inf")}, {"ttl": 0}, {"ttl": float("nan")}]
)
def test_times_that_cannot_be(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="|".join(options)):
        AsyncOnce("memory:", **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="|".join(options)):
        AsyncOnce("memory:").lease("k", **options)  # type: ignore[arg-type]


# -- check_lock --------------------------------------------------------------------------------------------------------


def test_check_lock() -> None:
    async def body(kit: Kit) -> None:
        first = await kit.once.check_lock("k", ttl=60, meta={"order": 7})
        assert (first.locked, first.duplicate, first.key, first.attempts) == (True, False, "k", 1)
        assert first.first_seen_at == kit.clock.now
        kit.clock.now += 59
        second = await kit.once.check_lock("k")
        assert (second.locked, second.duplicate, second.attempts) == (False, True, 2)
        assert second.first_seen_at == first.first_seen_at
        assert (await kit.record()).meta == '{"order":7}'
        assert (await kit.once.check_lock("k", scope="other")).locked
        kit.clock.now += 1
        assert (await kit.once.check_lock("k")).locked

    assert run(body).names == ["executed", "replayed", "executed", "executed"]


# -- leases ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "stored"),
    [(b"\0\xff", b"\0\xff"), ("ü", "ü".encode()), ({"a": [1, None]}, b'{"a":[1,null]}'), (7, b"7"), (None, None)],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_result_is_stored_and_replayed(result: object, stored: bytes | None, at_once: bool) -> None:
    async def body(kit: Kit) -> None:
        async with kit.once.lease("k") as lease:
            assert lease.granted
            ending = lease.complete(result)
            assert (await kit.record()).state is State.LEASED
            if at_once:
                await ending
                assert (await kit.record()).state is State.DONE
        async with kit.once.lease("k") as lease:
            assert (lease.granted, lease.verdict, lease.result) == (False, Verdict.DONE, stored)

    assert run(body).names == ["executed", "completed", "replayed"]


def test_a_block_that_ends_is_done() -> None:
    async def body(kit: Kit) -> None:
        async with kit.once.lease("k", ttl=60):
            pass
        record = await kit.record()
        assert (record.state, record.result, record.expires_at) == (State.DONE, None, kit.clock.now + 60)
        async with kit.once.lease("k") as lease:
            with pytest.raises(NotReplayable):
                lease.json()

    run(body)


@pytest.mark.parametrize(
    ("options", "error", "state"),
    [
        ({}, RuntimeError(), State.FAILED),
        ({"on_exception": Event.ABANDON}, RuntimeError(), State.UNKNOWN),
        ({"on_exception": Event.RELEASE}, RuntimeError(), None),
        ({}, asyncio.CancelledError(), State.UNKNOWN),
        ({}, KeyboardInterrupt(), State.UNKNOWN),
        ({"on_exception": Event.RELEASE}, asyncio.CancelledError(), State.UNKNOWN),
    ],
)
def test_a_block_that_is_cut_short(options: dict[str, Any], error: BaseException, state: State | None) -> None:
    async def body(kit: Kit) -> None:
        with pytest.raises(type(error)):
            async with kit.once.lease("k", **options):
                raise error
        record = await kit.store.get("k")
        assert (None if record is None else record.state) is state

    run(body)


def test_what_was_said_before_an_exception_counts() -> None:
    async def body(kit: Kit) -> None:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is what raises
            async with kit.once.lease("k") as lease:
                lease.complete("done")
                raise ZeroDivisionError
        assert (await kit.record()).result == b"done"

    run(body)


def test_fail_abandon_and_release() -> None:
    async def body(kit: Kit) -> None:
        async with kit.once.lease("k") as lease:
            await lease.fail({"code": 1})
        async with kit.once.lease("k", on_failed=Policy.REFUSE) as lease:
            assert (lease.verdict, lease.result) == (Verdict.FAILED, b'{"code":1}')
        async with kit.once.lease("k") as lease:
            assert lease.granted
            lease.abandon()
        async with kit.once.lease("k", on_unknown=Policy.REFUSE) as lease:
            assert lease.verdict is Verdict.UNKNOWN
        async with kit.once.lease("k") as lease:
            lease.release()
        assert await kit.store.get("k") is None

    names = run(body).names
    assert [name for name in names if name not in ("executed", "replayed", "unknown")] == [
        "failed",
        "abandoned",
        "released",
    ]


def test_the_policies_of_the_class_are_those_of_its_leases() -> None:
    async def body(kit: Kit) -> None:
        async with kit.once.lease("k") as lease:
            lease.fail()
        async with kit.once.lease("k") as lease:
            assert lease.verdict is Verdict.FAILED
        async with kit.once.lease("k", on_failed=Policy.RETRY) as lease:
            assert lease.granted

    run(body, on_failed=Policy.REFUSE)


def test_a_lease_is_ended_once_and_by_its_holder() -> None:
    async def body(kit: Kit) -> None:
        async with kit.once.lease("k") as lease:
            await lease.complete("x")
            with pytest.raises(RuntimeError):
                lease.fail()
            with pytest.raises(RuntimeError):
                await lease.__aenter__()
        async with kit.once.lease("k") as lease:
            with pytest.raises(RuntimeError):
                lease.complete("y")
        with pytest.raises(ValueError, match="on_exception"):
            kit.once.lease("k", on_exception=Event.COMPLETE)

    run(body)


def test_another_fingerprint_is_a_mismatch() -> None:
    async def body(kit: Kit) -> None:
        async with kit.once.lease("k", fingerprint="one"):
            async with kit.once.lease("k", fingerprint="two") as lease:
                assert lease.verdict is Verdict.MISMATCH
                with pytest.raises(Refused, match="something else"):
                    lease.replay()
            async with kit.once.lease("k", fingerprint="one") as lease:
                assert lease.verdict is Verdict.IN_FLIGHT
                assert lease.retry_after == 30.0
                with pytest.raises(InFlight) as caught:
                    lease.replay()
                assert (caught.value.key, caught.value.retry_after) == ("k", 30.0)

    run(body)


def test_waiting_for_another() -> None:
    async def body(kit: Kit) -> None:
        async def holder() -> None:
            async with kit.once.lease("k") as lease:
                await asyncio.sleep(0.05)
                lease.complete("done")

        holding = asyncio.create_task(holder())
        await asyncio.sleep(0)
        async with kit.once.lease("k", wait=0.01) as lease:
            assert lease.verdict is Verdict.IN_FLIGHT
        async with kit.once.lease("k", wait=20) as lease:
            assert (lease.verdict, lease.result) == (Verdict.DONE, b"done")
        await holding
        assert (await kit.record()).attempts == 4, "looking is no attempt"

    run(body)


def test_fifty_at_once_run_once() -> None:
    async def body(kit: Kit) -> None:
        runs = 0

        @kit.once.guard(key="pay:{order}", wait=20)
        async def pay(order: int) -> dict[str, int]:
            nonlocal runs
            runs += 1
            await asyncio.sleep(0.01)
            return {"order": order}

        assert await asyncio.gather(*(pay(7) for _ in range(50))) == [{"order": 7}] * 50
        assert runs == 1

    kit = run(body)
    assert kit.counters.value("once_executions_total") == 1
    assert kit.counters.value("once_replays_total") == 49


# -- the heartbeat -----------------------------------------------------------------------------------------------------


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.002)


def test_a_lease_is_renewed_while_its_block_runs() -> None:
    async def body(kit: Kit) -> None:
        async with kit.once.lease("k", lease=0.03) as lease:
            first = (await kit.record()).lease_until
            kit.clock.now += 100
            await until(lambda: kit.store.calls.count("renew") >= 3)
            assert (await kit.record()).lease_until >= first + 100
            assert not lease.lost
        calls = len(kit.store.calls)
        await asyncio.sleep(0.05)
        assert len(kit.store.calls) == calls, "it ends with the block"

    run(body)


def test_a_renewal_that_fails_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async def body(kit: Kit) -> None:
        async with kit.once.lease("k", lease=0.03) as lease:
            kit.store.down = {"renew"}
            await until(lambda: kit.store.calls.count("renew") >= 3)
            kit.store.down = set()
            await until(lambda: kit.store.calls.count("renew") >= 5)
            assert not lease.lost
        assert (await kit.record()).state is State.DONE

    with caplog.at_level(logging.WARNING, "lastcall.once"):
        run(body)
    assert "renew is down" in caplog.text


def test_no_renewal_follows_an_end() -> None:
    """A server carries out what it was sent, whether or not the caller still waits: an unknown end would be undone."""

    async def body(kit: Kit) -> None:
        renew, answer = kit.store.renew, asyncio.Event()
        sent: list[asyncio.Task[bool]] = []

        async def slow(*arguments: Any, **options: Any) -> bool:
            async def carried_out() -> bool:
                await answer.wait()
                return await renew(*arguments, **options)

            sent.append(asyncio.create_task(carried_out()))
            return await asyncio.shield(sent[-1])

        kit.store.renew = slow  # type: ignore[method-assign]
        async with kit.once.lease("k", lease=0.3) as lease:
            await until(lambda: bool(sent))
            asyncio.get_running_loop().call_later(0.05, answer.set)
            lease.abandon()
        await asyncio.wait(sent)
        assert (await kit.record()).state is State.UNKNOWN

    run(body)


@pytest.mark.parametrize("fail_open", [False, True])
def test_a_store_that_takes_nothing_any_more_still_gives(fail_open: bool) -> None:
    """One that is full, or read-only."""

    class Full(MemoryStore):
        full = False

        async def acquire(self, attempt: Attempt) -> Outcome:
            if self.full:
                raise StoreError("it is full")
            return await super().acquire(attempt)

    async def body() -> None:
        store, figures = Full(), MemoryCounters()
        async with AsyncOnce(store, fail_open=fail_open, lease=60.0, metrics=figures) as once:
            runs = []

            @once.guard(key="{name}")
            async def work(name: str) -> str:
                runs.append(name)
                return name

            await work("done")
            async with once.lease("running"):
                store.full = True
                assert await work("done") == "done"
                assert figures.value("once_fail_open_total", operation="acquire") == 0
                with pytest.raises(InFlight) as caught:
                    await work("running")
                assert caught.value.retry_after == pytest.approx(60.0)
                assert (await once.check_lock("done")).duplicate
                if fail_open:
                    assert await work("new") == "new"
                else:
                    with pytest.raises(StoreError):
                        await work("new")
            assert runs == ["done", "new"][: 1 + fail_open]

    asyncio.run(body())


async def taken_by_another(store: Store) -> None:
    """As when an operator has released the key."""
    await store.delete("k")
    await store.acquire(Attempt("k", "other", 60.0, 60.0))


def test_a_lost_lease_is_told() -> None:
    async def body(kit: Kit) -> None:
        with pytest.raises(LeaseLost):  # noqa: PT012 - the block is what raises
            async with kit.once.lease("k", lease=0.03) as lease:
                await taken_by_another(kit.store)
                await until(lambda: lease.lost)
                await lease.complete("x")
        await kit.store.delete("k")
        with pytest.raises(LeaseLost):
            async with kit.once.lease("k"):
                await taken_by_another(kit.store)
        await kit.store.delete("k")
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is what raises
            async with kit.once.lease("k"):
                await kit.store.delete("k")
                raise ZeroDivisionError

    kit = run(body)
    assert kit.names.count("lease_lost") == 3
    assert kit.counters.value("once_leases_lost_total") == 3


# -- cancellation ------------------------------------------------------------------------------------------------------


def test_whoever_is_cancelled_while_asking_holds_no_lease() -> None:
    async def body(kit: Kit) -> None:
        for state in (None, State.UNKNOWN):
            kit.store.gate = asyncio.Event()
            task = asyncio.create_task(kit.once.lease("k").__aenter__())
            await until(lambda: kit.store.calls[-1] == "acquire")
            assert (await kit.record()).state is State.LEASED, "it was granted, and the answer is on its way"
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            kit.store.gate.set()
            await until(lambda: kit.store.calls[-1] == "finish")
            await asyncio.sleep(0)
            record = await kit.store.get("k")
            assert (None if record is None else record.state) is state
            kit.store.gate, kit.store.calls = None, [""]
            async with kit.once.lease("k") as lease:  # the second time round there is something to keep
                lease.abandon()

    run(body)


def test_an_end_is_stored_even_if_whoever_waits_is_cancelled() -> None:
    async def body(kit: Kit) -> None:
        async def work() -> None:
            async with kit.once.lease("k") as lease:
                kit.store.gate = asyncio.Event()
                await lease.complete("paid")

        task = asyncio.create_task(work())
        await until(lambda: kit.store.calls[-1] == "finish")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert kit.store.gate is not None
        kit.store.gate.set()
        await asyncio.sleep(0.01)
        assert (await kit.record()).result == b"paid"

    run(body)


# -- a store that fails ------------------------------------------------------------------------------------------------


def test_fail_closed() -> None:
    async def body(kit: Kit) -> None:
        kit.store.down = {"acquire"}
        with pytest.raises(StoreError):
            await kit.once.check_lock("k")
        with pytest.raises(StoreError):
            async with kit.once.lease("k"):
                raise AssertionError("it ran")
        kit.store.down = {"finish"}
        with pytest.raises(StoreError):
            async with kit.once.lease("k") as lease:
                await lease.complete("x")
        assert (await kit.record()).state is State.LEASED, "done work is not said to have failed"

    kit = run(body)
    assert kit.counters.value("once_attempts_total", outcome="store_error") == 2
    assert kit.counters.value("once_fail_open_total", operation="acquire") == 0


def test_fail_open(caplog: pytest.LogCaptureFixture) -> None:
    async def body(kit: Kit) -> None:
        kit.store.down = {"acquire"}
        claim = await kit.once.check_lock("k")
        assert (claim.locked, claim.duplicate, claim.unguarded) == (True, False, True)
        async with kit.once.lease("k") as lease:
            assert (lease.granted, lease.unguarded, lease.record) == (True, True, None)
            await lease.complete("x")
        assert await kit.store.get("k") is None
        kit.store.down = {"finish"}
        async with kit.once.lease("k") as lease:
            await lease.complete("x")

    with caplog.at_level(logging.WARNING, "lastcall.once"):
        kit = run(body, fail_open=True)
    assert kit.counters.value("once_fail_open_total", operation="acquire") == 2
    assert kit.counters.value("once_fail_open_total", operation="finish") == 1
    assert "acquire is down" in caplog.text
    assert [event.name for event in kit.told if event.outcome == "store_error"] == ["fail_open"] * 3


@pytest.mark.parametrize("fail_open", [True, False])
def test_a_store_that_cannot_be_opened_is_asked_once_a_second(fail_open: bool) -> None:
    async def body() -> None:
        kit = Kit(fail_open=fail_open)
        kit.store.down = {"open"}
        answers: Sequence[object] = await asyncio.gather(
            *(kit.once.check_lock(f"k{n}") for n in range(20)), return_exceptions=True
        )
        answers = [*answers, *await asyncio.gather(kit.once.check_lock("k"), return_exceptions=True)]
        assert kit.store.calls == ["open"]
        assert {isinstance(answer, StoreError) for answer in answers} == {not fail_open}
        kit.store.down = set()
        kit.once._failed = None  # a second later
        assert not (await kit.once.check_lock("k")).unguarded
        await kit.once.close()

    asyncio.run(body())


def test_one_loop_at_a_time() -> None:
    once = AsyncOnce("memory:")

    async def use() -> None:
        await once.check_lock("k")

    async def close() -> None:
        await use()
        await once.close()

    asyncio.run(close())
    asyncio.run(use())
    with pytest.raises(RuntimeError):
        asyncio.run(use())


# -- the decorator -----------------------------------------------------------------------------------------------------


def test_the_key_of_a_call() -> None:
    async def body(kit: Kit) -> None:
        class Order:
            number = 7

        @kit.once.guard(key="{order.number}:{currency}:{note}")
        async def by_template(order: Order, currency: str = "EUR", **more: str) -> str:
            return "ran"

        @kit.once.guard(key=lambda a, b: f"{a}+{b}")
        async def by_function(a: int, b: int) -> int:
            return a + b

        await by_template(Order(), note="x")
        await by_function(1, b=2)
        assert [record.key for record in await kit.store.scan()] == ["1+2", "7:EUR:x"]
        with pytest.raises(ValueError, match="key"):
            await by_template(Order())

    run(body)


@pytest.mark.parametrize("template", ["{order}", "{}", "{0}", "a{b"])
def test_a_template_that_does_not_fit(template: str) -> None:
    async def pay(_amount: int) -> None: ...

    with pytest.raises(ValueError, match=r"pay|'}'"):
        AsyncOnce("memory:").guard(key=template)(pay)


def test_a_function_that_is_not_async() -> None:
    function: Any = print
    with pytest.raises(TypeError):
        AsyncOnce("memory:").guard(key="k")(function)


def test_what_a_second_call_gets() -> None:
    async def body(kit: Kit) -> None:
        failing = True

        @kit.once.guard(key="{name}", on_failed=Policy.REFUSE)
        async def work(name: str) -> Any:
            """Does the work."""
            if name == "fails" and failing:
                raise ZeroDivisionError
            if name == "no json":
                return {1, 2}
            if name == "runs":
                with pytest.raises(InFlight):
                    await work("runs")
            return (name, None)

        assert work.__name__ == "work"
        assert work.__doc__ == "Does the work."
        assert await work("fine") == ("fine", None)
        assert await work("fine") == ["fine", None], "what JSON makes of it"
        with pytest.raises(ZeroDivisionError):
            await work("fails")
        with pytest.raises(Refused, match="its last run failed") as caught:
            await work("fails")
        assert caught.value.verdict is Verdict.FAILED
        await work("runs")
        with pytest.raises(TypeError):
            await work("no json")
        assert (await kit.record("no json")).state is State.DONE
        with pytest.raises(NotReplayable):
            await work("no json")

    run(body)


def test_a_call_whose_lease_was_lost_returns_its_own_result() -> None:
    async def body(kit: Kit) -> None:
        @kit.once.guard(key="k")
        async def work() -> str:
            await taken_by_another(kit.store)
            return "mine"

        assert await work() == "mine"

    assert run(body).counters.value("once_leases_lost_total") == 1


def test_stores_are_stores() -> None:
    """The classes have the shape of the protocol (mypy says so too)."""
    store: Store = MemoryStore()
    assert AsyncOnce(store).store is store
