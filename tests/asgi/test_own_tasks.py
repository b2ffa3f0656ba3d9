"""What an application hands on to others: ``send`` and ``receive`` as functions, and tasks of its own that use them."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from lastcall.base.errors import ClientDisconnected
from lastcall.base.types import Message, Receive, Scope, Send
from testing.memory import GET, Bench, answering, body, start

MakeBench = Callable[..., Bench]


def leaves(bench: MakeBench, app: Any, *, capacity: int | None = None) -> list[dict[str, Any]]:
    """A client asks, and is gone; what the event loop was told of then."""
    one = bench(app)
    client = one.connect(capacity=capacity)
    client.send(GET)
    client.reset()
    one.advance(1)
    gc.collect()
    told = [*one.loop.errors]
    one.loop.errors.clear()
    return told


@pytest.mark.parametrize("waits", [False, True], ids=["sends again", "waits in send"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_task_that_ends_of_a_client_that_left_is_no_error(
    bench: MakeBench, caplog: pytest.LogCaptureFixture, waits: bool, wrapped: bool
) -> None:
    """As a2wsgi sends: in a task of its own, whose end nobody asks for."""
    raised: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def pump() -> None:
            try:
                await send(start())
                while True:
                    await send(body(b"x" * 100_000, more=True))
                    await asyncio.sleep(0.1)
            except ClientDisconnected as exc:
                raised.append(exc)
                if wrapped:
                    raise RuntimeError("the sender has failed") from exc
                raise

        task = asyncio.create_task(pump())
        while (await receive())["type"] != "http.disconnect":
            pass
        await asyncio.wait({task})

    assert leaves(bench, app, capacity=1000 if waits else None) == []
    assert len(raised) == 1
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_another_exception_of_such_a_task_is_told(bench: MakeBench) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def pump() -> None:
            try:
                while True:
                    await send(body(b"x", more=True))
                    await asyncio.sleep(0.1)
            except ClientDisconnected:
                pass
            raise LookupError("mine")

        await send(start())
        task = asyncio.create_task(pump())
        while (await receive())["type"] != "http.disconnect":
            pass
        await asyncio.wait({task})

    (told,) = leaves(bench, app)
    assert isinstance(told["exception"], LookupError)


def test_a_task_that_goes_on_sending_is_watched_once(bench: MakeBench) -> None:
    callbacks: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def pump() -> None:
            task: Any = asyncio.current_task()
            for _ in range(100):
                try:
                    await send(body(b"x", more=True))
                except ClientDisconnected:
                    callbacks.append(len(task._callbacks or ()))
                await asyncio.sleep(0.001)

        await send(start())
        await asyncio.wait({asyncio.create_task(pump())})

    assert leaves(bench, app) == []
    assert len(callbacks) > 50
    assert len(set(callbacks)) == 1


def test_they_are_taken_for_coroutine_functions(bench: MakeBench) -> None:
    """asgiref warns, at each call, of an awaitable that is not marked so; others would call it in a thread."""
    found: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for function in (receive, send):
            found.append(inspect.iscoroutinefunction(function) or is_marked_for_asyncio(function))
        await answering()(scope, receive, send)

    assert bench(app).ask(GET).status == 200
    assert found == [True, True]


def is_marked_for_asyncio(function: object) -> bool:
    """Before 3.12 there is no other mark."""
    if hasattr(inspect, "markcoroutinefunction"):
        return False
    return asyncio.iscoroutinefunction(function)


def test_asgiref_does_not_warn(bench: MakeBench) -> None:
    sync = pytest.importorskip("asgiref.sync")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            sync.async_to_sync(send)
            sync.async_to_sync(receive)
        await answering()(scope, receive, send)

    assert bench(app).ask(GET).status == 200


def test_a_message_may_be_given_by_name(bench: MakeBench) -> None:
    async def app(scope: Scope, receive: Receive, send: Any) -> None:
        messages: list[Message] = [start(), body(b"ok")]
        for message in messages:
            await send(message=message)

    assert bench(app).ask(GET).body == b"ok"


NO_CYCLE = """
from lastcall.asgi.cycle import AppCycle
from lastcall.asgi.http import HTTPCycle

class Another:
    pass

body = {"type": "http.response.body", "body": b""}
raised = 0
for function, arguments in (
    (HTTPCycle.send, (1, body)), (HTTPCycle.send, ("x" * 1000, body)), (HTTPCycle.send, (Another(), body)),
    (HTTPCycle.send, ()), (AppCycle.receive, (1,)), (AppCycle.receive, (Another(),)), (AppCycle.receive, ()),
):
    try:
        function(*arguments)
    except TypeError:
        raised += 1
print(raised)
"""


def test_send_and_receive_of_what_is_no_cycle_is_a_type_error() -> None:
    """In a process of its own: a compiled function that does not look at its ``self`` reads memory that is not its."""
    done = subprocess.run([sys.executable, "-c", NO_CYCLE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "7\n")


def test_the_function_of_a_bound_send_checks_what_it_is_called_on(bench: MakeBench) -> None:
    """And goes on to work for the request that it was taken from."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        bound: Any = send
        own: Any = receive
        with pytest.raises(TypeError):
            bound.__func__(own, body())
        with pytest.raises(TypeError):
            own.__func__(bound)
        await bound.__func__(bound.__self__, start())
        await send(body(b"done"))

    assert bench(app).ask(GET).body == b"done"


def test_send_after_the_client_has_left_where_no_loop_runs(bench: MakeBench) -> None:
    """As at the interpreter's exit, or out of a finalizer: the same exception as elsewhere."""
    kept: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        kept.append(send)
        await send(start())
        while (await receive())["type"] != "http.disconnect":
            pass

    leaves(bench, app)
    with pytest.raises(ClientDisconnected):
        kept[0](body())
