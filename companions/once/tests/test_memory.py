"""The memory store is for one process, and says so in a second one."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from lastcall_once.records import Attempt
from lastcall_once.store import StoreError
from lastcall_once.stores.memory import MemoryStore

WORKERS = """
import asyncio, os, sys
from lastcall_once.store import StoreError
from lastcall_once.stores.memory import MemoryStore

async def use():
    await MemoryStore().open()
    await MemoryStore().open()  # twice in one process is fine

def work(said, leave):
    try:
        asyncio.run(use())
    except StoreError as exc:
        os.write(said, b"refused " if b"another worker of this server" in str(exc).encode() else b"wrong ")
    else:
        os.write(said, b"open ")
    leave.wait(20)

if __name__ == "__main__":
    import multiprocessing
    context = multiprocessing.get_context("fork")
    leave = context.Event()
    workers = [context.Process(target=work, args=(1, leave)) for _ in range(3)]
    for worker in workers: worker.start()
    asyncio.run(use())  # their parent is no worker
    import time
    time.sleep(1.5)
    leave.set()
    for worker in workers: worker.join()
"""


@pytest.mark.slow
def test_the_second_worker_of_a_server_is_refused() -> None:
    found = subprocess.run([sys.executable, "-c", WORKERS], capture_output=True, text=True, timeout=25, check=True)
    assert sorted(found.stdout.split()) == ["open", "refused", "refused"]


@pytest.mark.parametrize(
    "call", [lambda s: s.get("k"), lambda s: s.open(), lambda s: s.acquire(Attempt("k", "t", 1, 1))]
)
def test_a_store_that_was_forked_is_refused(
    call: Callable[[MemoryStore], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        store = MemoryStore()
        await store.open()
        here = os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: here + 1)
        with pytest.raises(StoreError):
            await call(store)  # type: ignore[misc]

    asyncio.run(run())


def test_it_purges_by_itself() -> None:
    async def run() -> None:
        store = MemoryStore()
        await store.open()
        for number in range(100):
            await store.acquire(Attempt(f"k{number}", "t", lease=0.0, ttl=1e-9))
        store._purged -= 61.0
        await store.acquire(Attempt("last", "t", lease=0.0, ttl=100.0))
        assert len(store._records) == len(store._keys) == 1

    asyncio.run(run())
