"""The awaitables behind ``send()`` and ``receive()``: what every library that awaits or wraps them relies on."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, cast

import anyio
import pytest

from lastcall.asgi import cycle
from lastcall.asgi.awaitables import Done
from lastcall.base.errors import LocalProtocolError
from lastcall.base.types import Message, Receive, Scope, Send
from testing.memory import GET, Bench, Client, Stage, body, post, start

MakeBench = Callable[..., Bench]
REQUEST = {"type": "http.request", "body": b"", "more_body": False}
DISCONNECT = {"type": "http.disconnect"}


def step(awaitable: Any) -> Any:
    """One step as an event loop makes it; ``("done", value)`` or ``("waits", what it yielded)``."""
    try:
        return ("waits", awaitable.send(None))
    except StopIteration as end:
        return ("done", end.value)


class Scene:
    """A request whose ``receive`` and ``send`` the test calls itself."""

    def __init__(self, bench: MakeBench, request_bytes: bytes = GET, **stream: Any) -> None:
        self.stage = Stage()
        self.bench = bench(self.stage)
        self.client: Client = self.bench.connect(**stream)
        self.client.send(request_bytes)
        self.receive = self.stage.last.receive
        self.send = self.stage.last.send


# -- by hand: no event loop knows of it --------------------------------------------------------------------------------


def test_receive_does_not_suspend_when_a_message_is_there(bench: MakeBench) -> None:
    scene = Scene(bench, post(4) + b"body")
    assert step(scene.receive()) == ("done", {"type": "http.request", "body": b"body", "more_body": False})
    pending: Any = scene.receive()
    waits, future = step(pending)
    assert (waits, asyncio.isfuture(future)) == ("waits", True)
    pending.close()
    scene.client.reset()
    assert step(scene.receive()) == ("done", DISCONNECT)
    assert step(scene.receive()) == ("done", DISCONNECT)


def test_send_does_not_suspend_while_the_buffer_has_space(bench: MakeBench) -> None:
    scene = Scene(bench)
    for message in (start(), body(b"x" * 60_000, more=True), body(b"end"), body(b"ignored")):
        assert step(scene.send(message)) == ("done", None)


def test_send_acts_when_it_is_called(bench: MakeBench) -> None:
    """ASGI servers have always done so; some applications never await it (and get no warning)."""
    scene = Scene(bench)
    scene.send(start())
    scene.send(body(b"ok"))
    scene.bench.settle()
    assert scene.client.answer().body == b"ok"


def test_receive_takes_a_message_only_when_it_is_stepped(bench: MakeBench) -> None:
    scene = Scene(bench)
    scene.receive()
    dropped = scene.receive()
    dropped.close()  # type: ignore[attr-defined]
    with pytest.raises(KeyError):
        scene.receive().throw(KeyError())  # type: ignore[attr-defined]
    assert step(scene.receive()) == ("done", REQUEST)


@pytest.mark.parametrize("form", ["await", "iterate", "send"])
def test_the_forms_of_the_protocol(bench: MakeBench, form: str) -> None:
    scene = Scene(bench)
    for awaitable, value in ((scene.receive(), REQUEST), (scene.send(start()), None)):
        if form == "await":

            async def outer(awaitable: Awaitable[object] = awaitable) -> object:
                return await awaitable

            assert step(outer()) == ("done", value)
        elif form == "iterate":
            with pytest.raises(StopIteration) as end:
                next(iter(awaitable.__await__()))
            assert end.value.value == value
        else:
            assert step(awaitable) == ("done", value)


def test_a_receive_serves_once(bench: MakeBench) -> None:
    scene = Scene(bench)
    receive = scene.receive()
    assert step(receive) == ("done", REQUEST)
    with pytest.raises(RuntimeError):
        step(receive)


def all_kinds(bench: MakeBench) -> list[Any]:
    """One awaitable of each kind: done, waiting for a message, waiting for the client, waiting for a turn, waiting for
    one to send, and waiting for one to fail."""
    quiet, slow, busy, over, wrong = Scene(bench, post(5)), Scene(bench, capacity=0), *(Scene(bench) for _ in range(3))
    for scene in (slow, busy, over):
        scene.send(start())
    slow.send(body(b"x" * 100_000, more=True))
    over.send(body())

    def late(send: Callable[[], Any]) -> Any:
        for _ in range(200):
            with suppress(LocalProtocolError):
                awaitable = send()
                if not isinstance(awaitable, Done):
                    return awaitable
        raise AssertionError("never gives the loop a turn")

    kinds = [
        quiet.send(start()),
        quiet.receive(),
        slow.send(body(b"x", more=True)),
        late(lambda: over.send(body())),
        late(lambda: busy.send(body(b"x", more=True))),
        late(lambda: wrong.send(body())),
    ]
    assert [type(kind).__name__ for kind in kinds] == ["Done", "Receive", "Sending", "OneTurn", "Sending", "Failing"]
    return kinds


def test_each_kind_is_a_coroutine_to_those_who_ask(bench: MakeBench) -> None:
    for kind in all_kinds(bench):
        assert isinstance(kind, Coroutine)
        assert asyncio.iscoroutine(kind)
        assert inspect.isawaitable(kind)


@pytest.mark.parametrize("stepped", [False, True])
def test_whatever_is_thrown_in_comes_out(bench: MakeBench, stepped: bool) -> None:
    for kind in all_kinds(bench):
        if stepped:
            step(kind)
        with pytest.raises(ZeroDivisionError, match="here"):
            kind.throw(ZeroDivisionError("here"))
    for form in ((KeyError,), (KeyError, "x"), (KeyError, KeyError("x")), (KeyError, KeyError("x"), None)):
        for kind in all_kinds(bench):
            with pytest.raises(KeyError):
                kind.throw(*form)


def test_each_kind_can_be_closed_at_any_time(bench: MakeBench) -> None:
    for stepped in (False, True):
        for kind in all_kinds(bench):
            if stepped:
                step(kind)
            kind.close()
            kind.close()


def test_done_is_one_for_all_and_stays_done(bench: MakeBench) -> None:
    scene = Scene(bench)
    first, second = scene.send(start()), scene.send(body(b"x"))
    assert first is second
    assert isinstance(first, Done)
    for _ in range(3):
        assert step(first) == ("done", None)


def test_a_send_that_waits_serves_once(bench: MakeBench) -> None:
    for how in ("sends", "closes", "fails"):
        turn = all_kinds(bench)[5 if how == "fails" else 4]
        assert step(turn) == ("waits", None)
        if how == "sends":
            assert step(turn) == ("done", None)
        elif how == "closes":
            turn.close()
        else:
            with pytest.raises(LocalProtocolError):
                step(turn)
        with pytest.raises(RuntimeError, match="cannot reuse"):
            step(turn)


def test_a_send_that_waits_is_stepped_in_the_loops_thread(bench: MakeBench) -> None:
    """To be queued from elsewhere it has to be called there: a stream belongs to one thread."""
    waiting = all_kinds(bench)[2]
    with pytest.raises(RuntimeError, match="in the thread of the server's event loop"):
        in_another_thread(waiting.send, None)


def test_one_turn_suspends_once(bench: MakeBench) -> None:
    for how in (lambda turn: turn.send(None), next):
        turn = all_kinds(bench)[3]
        assert how(turn) is None
        with pytest.raises(StopIteration):
            how(turn)


def in_another_thread(function: Callable[..., Any], *args: Any) -> Any:
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(function, *args).result(10)


def test_a_send_called_in_another_thread_acts_where_it_is_awaited(bench: MakeBench) -> None:
    """A stream, a codec and a loop belong to one thread; ``run_coroutine_threadsafe`` steps in that of the loop."""
    scene = Scene(bench, capacity=0)
    first, filling, second = (
        in_another_thread(scene.send, message)
        for message in (start(), body(b"x" * 100_000, more=True), body(b"x", more=True))
    )
    third, fourth = (in_another_thread(scene.send, start()) for _ in range(2))
    assert isinstance(first, Coroutine)
    assert step(first) == ("done", None)
    assert step(filling) == ("done", None)
    assert step(second) == ("waits", None), "the loop's turn"
    waits, future = step(second)
    assert (waits, asyncio.isfuture(future)) == ("waits", True)
    with pytest.raises(LocalProtocolError):
        step(third)
    fourth.close()
    with pytest.raises(KeyError):
        fourth.throw(KeyError())
    with pytest.raises(ZeroDivisionError):
        second.throw(ZeroDivisionError())
    second.close()


def test_a_send_awaited_in_another_thread_is_refused_there(bench: MakeBench) -> None:
    """``asyncio.run(send(message))`` in a worker thread: an error for that thread, and nothing worse."""
    scene = Scene(bench)

    async def wrong(awaitable: Any) -> None:
        await awaitable

    for awaitable in (lambda: scene.send(start()), scene.receive):
        with pytest.raises(RuntimeError):
            in_another_thread(lambda make: asyncio.run(wrong(make())), awaitable)
    step(scene.send(start()))
    step(scene.send(body(b"ok")))


def test_a_coroutine_that_has_ended_does_not_call_the_application_again(bench: MakeBench) -> None:
    calls: list[Scope] = []
    coroutines: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append(scope)
        coroutines.append(cast("asyncio.Task[None]", asyncio.current_task()).get_coro())
        await send(start(200, (b"content-length", b"0")))
        await send(body())

    bench(app).ask(GET)
    with pytest.raises(RuntimeError):
        coroutines[0].send(None)
    assert len(calls) == 1


def test_nobody_else_makes_them() -> None:
    for kind in (cycle.AppCoroutine, cycle.Receive, cycle.Sending):
        with pytest.raises(TypeError):
            kind()


# -- by the libraries --------------------------------------------------------------------------------------------------

Play = Callable[[Receive, Send], Coroutine[Any, Any, Any]]


async def by_tasks(receive: Receive, send: Send) -> Message:
    message: Message = await asyncio.create_task(receive())  # type: ignore[arg-type]
    await asyncio.create_task(send(start()))  # type: ignore[arg-type]
    await asyncio.create_task(send(body(b"ok")))  # type: ignore[arg-type]
    return message


async def by_gather(receive: Receive, send: Send) -> Message:
    message, _ = await asyncio.gather(receive(), send(start()))
    await asyncio.gather(send(body(b"ok")), receive(), receive())
    return message


async def by_ensure_future_and_wait(receive: Receive, send: Send) -> Message:
    tasks = [asyncio.ensure_future(receive()), asyncio.ensure_future(send(start()))]
    await asyncio.wait(tasks)
    await asyncio.wait_for(send(body(b"ok")), 1)
    return tasks[0].result()  # type: ignore[return-value]


async def by_shield_and_timeout(receive: Receive, send: Send) -> Message:
    async with asyncio.timeout(1):
        message = await asyncio.shield(receive())
        await asyncio.shield(send(start()))
    await asyncio.shield(send(body(b"ok")))
    return message


async def by_task_group(receive: Receive, send: Send) -> Message:
    async with asyncio.TaskGroup() as group:
        message = group.create_task(receive())  # type: ignore[arg-type, var-annotated]
        group.create_task(send(start()))  # type: ignore[arg-type]
    async with asyncio.TaskGroup() as group:
        group.create_task(receive())  # type: ignore[arg-type]
        group.create_task(send(body(b"ok")))  # type: ignore[arg-type]
    return message.result()


async def by_anyio(receive: Receive, send: Send) -> Message:
    found: list[Message] = []

    async def listen() -> None:
        found.append(await receive())

    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        group.start_soon(send, start())  # type: ignore[arg-type]
    async with anyio.create_task_group() as group:
        group.start_soon(receive)  # type: ignore[arg-type]
        group.start_soon(send, body(b"ok"))  # type: ignore[arg-type]
    return found[0]


async def by_another_thread(receive: Receive, send: Send) -> Message:
    loop = asyncio.get_running_loop()

    def work() -> Message:
        message = asyncio.run_coroutine_threadsafe(receive(), loop).result(10)  # type: ignore[arg-type, var-annotated]
        asyncio.run_coroutine_threadsafe(send(start()), loop).result(10)  # type: ignore[arg-type]
        asyncio.run_coroutine_threadsafe(send(body(b"ok")), loop).result(10)  # type: ignore[arg-type]
        return message

    return await loop.run_in_executor(None, work)


async def by_anyio_from_a_thread(receive: Receive, send: Send) -> Message:
    def work() -> Message:
        message: Message = anyio.from_thread.run(receive)  # type: ignore[arg-type]
        anyio.from_thread.run(send, start())  # type: ignore[arg-type]
        anyio.from_thread.run(send, body(b"ok"))  # type: ignore[arg-type]
        return message

    return await anyio.to_thread.run_sync(work)


PLAYS: list[Play] = [
    by_tasks, by_gather, by_ensure_future_and_wait, by_shield_and_timeout, by_task_group, by_anyio, by_another_thread,
    by_anyio_from_a_thread,
]  # fmt: skip


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("play", PLAYS, ids=lambda play: play.__name__)
def test_all_that_take_coroutines_take_these(bench: MakeBench, play: Play, debug: bool) -> None:
    results: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        results.append(await play(receive, send))
        ended.set()

    ended = asyncio.Event()
    one = bench(app)
    one.loop.set_debug(debug)
    client = one.connect()
    client.send(GET)
    one.loop.run(ended.wait())
    one.settle()
    assert results == [REQUEST]
    assert client.answer().body == b"ok"


@pytest.mark.parametrize("play", PLAYS, ids=lambda play: play.__name__)
def test_the_same_where_each_has_to_wait(bench: MakeBench, play: Play) -> None:
    """The body has not come yet, and the client does not read."""
    results: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def wide(message: Message) -> None:
            if message["type"] == "http.response.body":
                await send({**message, "body": b"x" * 100_000, "more_body": True})
                await send({**message, "body": b"x", "more_body": True})
                message = body()
            await send(message)

        results.append(await play(receive, wide))
        ended.set()

    ended = asyncio.Event()
    one = bench(app)
    client = one.connect(capacity=0)
    client.send(post(2))
    one.loop.call_later(0.3, client.connection.feed, b"ok")
    one.loop.call_later(0.6, client.stream.drain)
    one.loop.run(ended.wait())
    one.settle()
    assert results == [{"type": "http.request", "body": b"ok", "more_body": False}]
    assert len(client.answer("POST").body) == 100_001


def test_a_request_can_be_looked_at_by_debuggers(bench: MakeBench) -> None:
    """``repr(task)``, its stack and its coroutine's names are those of the application."""
    seen: list[Any] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        seen.append((repr(task), task.get_coro().__qualname__))  # type: ignore[union-attr]
        await asyncio.sleep(1)
        await send(start())
        await send(body())

    one = bench(application)
    client = one.connect()
    client.send(GET)
    [task] = asyncio.all_tasks(one.loop)
    assert "application" in seen[0][1]
    assert "application" in repr(task)
    assert [frame.f_code.co_name for frame in task.get_stack()] == ["application"]
    one.advance(2)
    assert client.answer().complete
    repr(task)
