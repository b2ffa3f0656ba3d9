"""A process that takes one key many times at once, for tests that want several of them.

    python -m companions.once.tests.parallel URL KEY TIMES

Opens the store, says ``ready``, and begins when it is told to (a line on stdin). Prints the verdicts, one on each line.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

from lastcall_once.records import Attempt
from lastcall_once.store import Store
from lastcall_once.stores.postgres import PostgresStore
from lastcall_once.stores.redis import RedisStore


def store_of(url: str) -> Store:
    """The store of the URL, patient enough for a busy machine."""
    if url.startswith("redis"):
        return RedisStore(url, timeout=20.0)
    return PostgresStore(url, timeout=20.0)


def verdicts_of_processes(url: str, key: str, *, processes: int, times: int) -> list[str]:
    """What ``processes`` of them were told, all together."""
    command = [sys.executable, "-m", "companions.once.tests.parallel", url, key, str(times)]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [word for process in running for word in process.communicate(timeout=25)[0].split()]


async def _main(url: str, key: str, times: int) -> None:
    store = store_of(url)
    await store.open()
    print("ready", flush=True)
    sys.stdin.readline()
    attempts = (Attempt(key, f"{os.getpid()}-{number}", lease=30.0, ttl=60.0) for number in range(times))
    outcomes = await asyncio.gather(*map(store.acquire, attempts))
    for outcome in outcomes:
        print(outcome.verdict.value)
    await store.close()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
