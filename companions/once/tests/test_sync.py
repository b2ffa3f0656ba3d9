"""``Once``: the same for code that blocks, from any thread, and for async functions in other loops."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lastcall_once import InFlight, LeaseLost, Once, Policy, StoreError
from lastcall_once.metrics import OnceEvent
from lastcall_once.records import Attempt, State, Verdict


@pytest.fixture
def once(tmp_path: Path) -> Iterator[Once]:
    with Once(f"sqlite:///{tmp_path}/once.db") as made:
        yield made


def state(once: Once, key: str = "k") -> State | None:
    record = once.run(once.store.get(key))
    return None if record is None else record.state


def test_check_lock(once: Once) -> None:
    assert once.check_lock("k", ttl=60, meta=[1]).locked
    again = once.check_lock("k")
    assert (again.duplicate, again.attempts) == (True, 2)


def test_a_lease(once: Once) -> None:
    with once.lease("k", fingerprint="f") as lease:
        assert (lease.granted, lease.unguarded, lease.lost, lease.key) == (True, False, False, "k")
        with once.lease("k") as other:
            assert (other.verdict, other.granted) == (Verdict.IN_FLIGHT, False)
            assert other.retry_after == pytest.approx(30.0, abs=1.0)
        lease.complete({"a": 1})
        assert state(once) is State.DONE, "stored when it is said"
    with once.lease("k") as lease:
        assert (lease.verdict, lease.result, lease.json(), lease.replay()) == (
            Verdict.DONE,
            b'{"a":1}',
            {"a": 1},
            {"a": 1},
        )
        assert lease.record is not None
        assert lease.record.attempts == 3


def test_the_ends_of_a_lease(once: Once) -> None:
    with pytest.raises(ZeroDivisionError), once.lease("k"):
        raise ZeroDivisionError
    assert state(once) is State.FAILED
    with pytest.raises(KeyboardInterrupt), once.lease("k"):
        raise KeyboardInterrupt
    assert state(once) is State.UNKNOWN
    with once.lease("k") as lease:
        lease.fail("why")
    with once.lease("k", on_failed=Policy.REFUSE) as lease:
        assert (lease.verdict, lease.result) == (Verdict.FAILED, b"why")
    with once.lease("k") as lease:
        lease.abandon()
    assert state(once) is State.UNKNOWN
    with once.lease("k") as lease:
        lease.release()
    assert state(once) is None
    with pytest.raises(LeaseLost), once.lease("k"):  # noqa: PT012 - the block is what raises
        once.run(once.store.delete("k"))
        once.run(once.store.acquire(Attempt("k", "other", 60.0, 60.0)))


def test_the_heartbeat_goes_on_while_the_block_blocks(once: Once) -> None:
    with once.lease("k", lease=0.3) as lease:
        first = lease.record
        assert first is not None
        until = time.monotonic() + 20
        while time.monotonic() < until:
            time.sleep(0.02)
            record = once.run(once.store.get("k"))
            assert record is not None
            if record.lease_until > first.lease_until + 0.15:
                break
        assert record is not None
        assert record.lease_until > first.lease_until + 0.15


def test_fifty_threads_run_once(once: Once) -> None:
    ran: list[int] = []

    @once.guard(key="pay:{order}", wait=20)
    def pay(order: int) -> list[int]:
        """Pays."""
        ran.append(order)
        time.sleep(0.02)
        return [order]

    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(pay, [7] * 50)) == [[7]] * 50
    assert ran == [7]
    assert pay.__doc__ == "Pays."


def test_a_guarded_function_that_is_async_runs_in_its_own_loop(once: Once) -> None:
    threads = set()

    @once.guard(key="{name}")
    async def work(name: str) -> str:
        threads.add(threading.current_thread())
        if name == "runs":
            with pytest.raises(InFlight):
                await work(name)
        if name == "cut":
            await asyncio.sleep(20)
        return name

    async def body() -> None:
        assert await work("runs") == "runs"
        assert await work("runs") == "runs"
        task = asyncio.create_task(work("cut"))
        while await asyncio.to_thread(state, once, "cut") is None:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(body())
    assert threads == {threading.current_thread()}
    assert state(once, "cut") is State.UNKNOWN


def test_a_generator_has_no_one_result(once: Once) -> None:
    with pytest.raises(TypeError):

        @once.guard(key="k")
        def numbers() -> Iterator[int]:
            yield 1


def test_it_cannot_be_called_from_its_own_thread(tmp_path: Path) -> None:
    said: list[str] = []

    def ask(_event: OnceEvent) -> None:
        try:
            made.check_lock("other")
        except RuntimeError as exc:
            said.append(str(exc))

    with Once(f"sqlite:///{tmp_path}/once.db", on_event=ask) as made:
        made.check_lock("k")
    assert said == ["Once was called from its own thread (on_event?): it would wait for itself"]


def test_it_can_be_opened_again(tmp_path: Path) -> None:
    once = Once(f"sqlite:///{tmp_path}/once.db")
    threads = threading.active_count()
    for locked in (True, False):
        assert once.check_lock("k").locked is locked
        once.close()
        once.close()
        assert threading.active_count() == threads


def test_a_thread_that_waits_is_told_of_the_close(tmp_path: Path) -> None:
    waits = threading.Event()
    once = Once(f"sqlite:///{tmp_path}/once.db", on_event=lambda event: waits.set() if event.attempts == 2 else None)

    def wait() -> None:
        with once.lease("k", wait=60):
            raise AssertionError("the lease is another's")

    with ThreadPoolExecutor(1) as threads:
        assert once.lease("k").__enter__().granted
        waiting = threads.submit(wait)
        assert waits.wait(10)
        once.close()
        with pytest.raises(StoreError):
            waiting.result(10)


def test_it_does_not_survive_a_fork(once: Once) -> None:
    once._pid += 1
    with pytest.raises(StoreError):
        once.check_lock("k")
    once._pid -= 1


def test_a_store_that_fails(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/nowhere/once.db"
    closed = Once(url)
    with pytest.raises(StoreError):
        closed.check_lock("k")
    opened: Any = Once(url, fail_open=True)
    with opened.lease("k") as lease:
        assert (lease.granted, lease.unguarded) == (True, True)
        lease.complete("x")
    assert opened.metrics.value("once_fail_open_total", operation="acquire") == 1
    closed.close()
    opened.close()
