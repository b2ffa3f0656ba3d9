"""An application that forks, in every way in which the child may come back to the event loop.

``/WAY`` forks, and answers with the child's exit code. The variable ``AT`` (``import``, ``startup``, ``shutdown``,
``notice``) has the way ``WAY`` taken there.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import lastcall

KEPT: list[Any] = []
CHILDREN: list[int] = []
PARENT = os.getpid()


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


def fork() -> bool:
    """Whether this is the child."""
    pid = os.fork()
    if pid:
        CHILDREN.append(pid)
    return pid == 0


async def code_of_child() -> int:
    """Of the one that was forked last; in the child itself there is none, and it goes on."""
    if os.getpid() != PARENT:
        return -1
    pid = CHILDREN[-1]
    while (found := os.waitpid(pid, os.WNOHANG))[0] == 0:
        await asyncio.sleep(0.005)
    return os.waitstatus_to_exitcode(found[1])


async def exits(send: Any) -> None:
    if fork():
        sys.exit(3)


async def returns(send: Any) -> None:
    fork()


async def waits(send: Any) -> None:
    future = asyncio.get_running_loop().create_future()
    if fork():
        await future


async def answers(send: Any) -> None:
    if fork():
        await respond(send, b"from the child")


async def answers_much(send: Any) -> None:
    if fork():
        await respond(send, b"from the child" * 100_000)


async def raises(send: Any) -> None:
    if fork():
        raise ValueError("in the child")


async def runs_a_loop(send: Any) -> None:
    """Of its own, which is its own business."""
    if fork():
        asyncio.run(asyncio.sleep(0.01))
        os._exit(7)


async def collects(send: Any) -> None:
    """In the child a generator is finalized, for which asyncio calls the loop; the child has more to do."""

    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2

    generator = numbers()
    await anext(generator)
    if fork():
        del generator
        gc.collect()
        os._exit(7)


async def calls_the_loop_from_a_thread(send: Any) -> None:
    """In the middle of its work, as a log handler may; then it comes to its end."""
    loop = asyncio.get_running_loop()

    def work() -> None:
        if fork():
            loop.call_soon_threadsafe(say, "the child went on").cancel()
            sys.exit(7)

    await asyncio.to_thread(work)


async def is_asked(send: Any) -> None:
    """By a signal that has a handler again that nobody has replaced."""
    if fork():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1000)


async def exits_in_a_task(send: Any) -> None:
    await asyncio.create_task(exits(send))


async def exits_in_a_group(send: Any) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(exits(send))


async def returns_in_a_task(send: Any) -> None:
    await asyncio.create_task(returns(send))


async def exits_in_a_thread(send: Any) -> None:
    def work() -> None:
        if fork():
            sys.exit(3)

    await asyncio.to_thread(work)


async def returns_in_a_thread(send: Any) -> None:
    await asyncio.to_thread(fork)


async def returns_in_a_callback(send: Any) -> None:
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def callback() -> None:
        fork()
        done.set_result(None)

    loop.call_soon(callback)
    await done


async def ends_the_turn(send: Any) -> None:
    """In a callback that nobody waits for, before others of the same turn."""

    def tell() -> None:
        if os.getpid() != PARENT:
            say("the child went on")

    loop = asyncio.get_running_loop()
    loop.call_soon(fork)
    loop.call_soon(tell)
    await asyncio.sleep(0)
    await asyncio.sleep(0)


WAYS = {
    way.__name__: way
    for way in (
        exits,
        returns,
        waits,
        answers,
        answers_much,
        raises,
        runs_a_loop,
        collects,
        calls_the_loop_from_a_thread,
        is_asked,
        exits_in_a_task,
        exits_in_a_group,
        returns_in_a_task,
        exits_in_a_thread,
        returns_in_a_thread,
        returns_in_a_callback,
        ends_the_turn,
    )
}


async def at(place: str) -> None:
    if os.environ.get("AT") == place:
        await WAYS[os.environ["WAY"]](None)
        say(f"the child's code: {await code_of_child()}")


async def respond(send: Callable[[Any], Awaitable[None]], body: bytes) -> None:
    length = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": body})


async def stream(send: Callable[[Any], Awaitable[None]]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for number in range(50):
        await send({"type": "http.response.body", "body": b"%d:%d\n" % (os.getpid(), number), "more_body": True})
        await asyncio.sleep(0.002)
    await send({"type": "http.response.body", "body": b""})


async def app(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await at("startup")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await at("shutdown")
        await send({"type": "lifespan.shutdown.complete"})
        return
    path = scope["path"].strip("/")
    if path == "stream":
        await stream(send)
        return
    if path == "outlives":
        if fork():
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 1)
            os.dup2(null, 2)
            time.sleep(1000)
        await respond(send, str(CHILDREN[-1]).encode())
        return
    if path == "notice":
        lastcall.drain_notice().add_callback(fork)
    if path in WAYS:
        await WAYS[path](send)
        if os.getpid() != PARENT:
            return
        await respond(send, str(await code_of_child()).encode())
        return
    await respond(send, str(os.getpid()).encode())


if os.environ.get("AT") == "import":
    if fork() and os.environ["WAY"] == "exits":
        sys.exit(3)
    if os.getpid() == PARENT:
        say(f"the child's code: {os.waitstatus_to_exitcode(os.waitpid(CHILDREN[-1], 0)[1])}")
