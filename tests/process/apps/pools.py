"""An application that has used pools at some time, and child processes of multiprocessing's, each by its path.

The variable ``STARTUP`` has such a path taken in lifespan.startup; then lifespan.shutdown terminates and joins all.
"""

from __future__ import annotations

import asyncio
import atexit
import multiprocessing
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

from asgiref.sync import sync_to_async

FORK = multiprocessing.get_context("fork")
SPAWN = multiprocessing.get_context("spawn")
POOLS: dict[str, Executor] = {}
KEPT: list[Any] = []


def say(text: str) -> None:
    os.write(1, f"@{time.monotonic():.3f} {text}\n".encode())


def pid() -> str:
    return str(os.getpid())


def sleep_quietly(seconds: float) -> None:
    """In a child: it may outlive its parent, whose output would else seem not to have ended."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        os.dup2(null, descriptor)
    time.sleep(seconds)


def thread_pool() -> Executor:
    return POOLS.setdefault("threads", ThreadPoolExecutor(2))


def process_pool() -> Executor:
    return POOLS.setdefault("processes", ProcessPoolExecutor(2, mp_context=FORK))


async def in_pool(pool: Executor, work: Callable[..., Any], *args: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(pool, work, *args)


async def begin(pool: Executor, work: Callable[..., Any], *args: Any) -> str:
    """Have a pool begin something that it does not end."""
    KEPT.append(pool.submit(work, *args))
    while not KEPT[-1].running():
        await asyncio.sleep(0.001)
    return "began"


async def thread() -> str:
    return str(await in_pool(thread_pool(), pid))


async def asgiref() -> str:
    return str(await sync_to_async(pid)())


async def process() -> str:
    return str(await in_pool(process_pool(), pid))


async def busy_thread() -> str:
    return await begin(thread_pool(), time.sleep, 1000)


async def both() -> str:
    """A pool of processes that is idle, and one of threads that is not."""
    return await process() + await busy_thread()


async def busy_process() -> str:
    child = await process()
    await begin(process_pool(), sleep_quietly, 1000)
    return child


async def pool() -> str:
    made = FORK.Pool(2)
    KEPT.append(made)
    made.apply_async(time.sleep, (1000,))
    return str(made.apply_async(pid).get(10))


async def start_child(context: Any, *, daemon: bool, seconds: float = 1000) -> str:
    child = context.Process(target=sleep_quietly, args=(seconds,), daemon=daemon, name="a-child")
    child.start()
    KEPT.append(child)
    return str(child.pid)


async def daemon() -> str:
    return await start_child(FORK, daemon=True)


async def spawned() -> str:
    return await start_child(SPAWN, daemon=False)


async def forked() -> str:
    return await start_child(FORK, daemon=False)


async def short() -> str:
    return await start_child(FORK, daemon=False, seconds=0.3)


async def at_once() -> str:
    """What a child's exit code is that is told to end as soon as it has begun."""
    child = FORK.Process(target=sleep_quietly, args=(1000,))
    child.start()
    child.terminate()
    child.join()
    return str(child.exitcode)


async def ended_by_atexit() -> str:
    found = await forked()
    atexit.register(KEPT[-1].terminate)
    return found


async def unread_queue() -> str:
    """A queue whose feeder thread waits for a reader that never comes."""
    queue: Any = FORK.Queue()
    queue.put(b"x" * 1_000_000)
    KEPT.append(queue)
    return "began"


async def hello() -> str:
    return "ok"


HANDLERS = {
    f"/{handler.__name__}": handler
    for handler in (
        thread,
        asgiref,
        process,
        busy_thread,
        both,
        busy_process,
        pool,
        daemon,
        spawned,
        forked,
        short,
        at_once,
        ended_by_atexit,
        unread_queue,
    )
}


async def app(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    if scope["type"] == "lifespan":
        await receive()
        if "STARTUP" in os.environ:
            say(f"child {await HANDLERS[os.environ['STARTUP']]()}")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        say("shutdown")
        if "STARTUP" in os.environ:
            for made in KEPT:
                made.terminate()
                made.join()
            say("joined")
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = (await HANDLERS.get(scope["path"], hello)()).encode()
    length = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": body})


if __name__ != "__mp_main__":
    atexit.register(say, "atexit")
