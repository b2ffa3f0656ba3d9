# length: what a client sees of each rule of the middleware, one test a rule; its parts are tested beside their modules.
from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest

from companions.once.tests.calls import Call, Setting, call, until
from lastcall.drain.ladder import Phase
from lastcall.notice.notice import DrainNotice
from lastcall_once._types import Message, Receive, Scope, Send
from lastcall_once.metrics import MemoryCounters, OnceEvent
from lastcall_once.middleware import IdempotencyMiddleware
from lastcall_once.records import State
from lastcall_once.store import StoreError
from testing.loop import VirtualLoop

Run = Callable[[Callable[[Setting], Coroutine[Any, Any, None]]], None]


def task_of_a_test(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> Any:
    """A task factory, as applications set them. What it makes of our own tasks must not matter: it is given none."""
    caller = sys._getframe(1)
    while "asyncio" in caller.f_code.co_filename and caller.f_back is not None:
        caller = caller.f_back
    assert "lastcall_once" not in caller.f_code.co_filename
    return asyncio.Task(work, loop=loop, **options)


@pytest.fixture
def run() -> Iterator[Run]:
    """Run a test's body with a setting; nothing may be left behind."""
    loop = VirtualLoop()
    loop.set_task_factory(task_of_a_test)

    async def begin(body: Callable[[Setting], Coroutine[Any, Any, None]]) -> None:
        await body(Setting(loop))
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left

    yield lambda body: loop.run(begin(body))
    assert loop.errors == []
    loop.finish()


def app_of(*messages: Message) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """An application that sends these."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def piece(body: bytes = b"", more: bool = False) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


# -- once, and then from the record ------------------------------------------------------------------------------------


def test_a_retry_gets_the_first_answer(run: Run) -> None:
    async def body(at: Setting) -> None:
        app = at.guard()
        first, second = await call(app), await call(app)
        assert at.handler.runs == 1
        assert not first.replayed
        assert second.replayed
        assert (second.status, second.body) == (first.status, first.body) == (200, b"run 1")
        assert second.headers == [*first.headers, (b"idempotent-replayed", b"true")]
        quoted = await call(app, '"k"')
        assert quoted.replayed
        assert (await call(app, "other")).body == b"run 2"
        assert at.handler.bodies == [b"{}", b"{}"]

    run(body)


def test_fifty_at_once_are_one_execution_and_49_replays(run: Run) -> None:
    async def body(at: Setting) -> None:
        app = at.guard(wait=10)
        at.handler.go.clear()
        calls = [Call(app) for _ in range(50)]
        await asyncio.sleep(3)
        at.handler.go.set()
        await asyncio.gather(*(made.task for made in calls))
        assert at.handler.runs == 1
        assert [made.status for made in calls] == [200] * 50
        assert sum(made.replayed for made in calls) == 49
        assert {made.body for made in calls} == {b"run 1"}

    run(body)


def test_without_wait_they_are_told_to_come_again(run: Run) -> None:
    async def body(at: Setting) -> None:
        app = at.guard()
        at.handler.go.clear()
        calls = [Call(app) for _ in range(50)]
        await asyncio.gather(*(made.task for made in calls[1:]))
        assert {(made.status, made.code) for made in calls[1:]} == {(409, "once_in_flight")}
        assert dict(calls[1].headers)[b"retry-after"] == b"1"
        at.handler.go.set()
        await calls[0].task
        assert at.handler.runs == 1

    run(body)


def test_the_hint_grows_with_the_work(run: Run) -> None:
    """Three tries that obey it come when work has run for one, two and four times as long; nobody is told minutes."""

    async def body(at: Setting) -> None:
        app = at.guard()
        at.handler.go.clear()
        first = Call(app)
        hints = []
        for after in (0.1, 1.0, 2.0, 10.0, 1000.0):
            await asyncio.sleep(after)
            hints.append(int(dict((await call(app)).headers)[b"retry-after"]))
        assert hints == [1, 2, 4, 14, 30]
        waiting = at.guard(wait=0.5)
        assert dict((await call(waiting)).headers)[b"retry-after"] == b"30"
        at.handler.go.set()
        await first.task

    run(body)


def test_a_409_that_is_final_says_so(run: Run) -> None:
    async def body(at: Setting) -> None:
        app = at.guard(on_unknown="refuse", mismatch_status=409, max_stored=1)
        final = (b"x-should-retry", b"false")
        at.handler.go.clear()
        first = Call(app)
        await until(lambda: at.handler.runs)
        running = await call(app)
        assert running.code == "once_in_flight"
        assert final not in running.headers
        at.handler.go.set()
        await first.task
        for other in ({"path": "/x"}, {"headers": [(b"host", b"elsewhere")]}, {}):
            made = await call(app, **other)
            assert made.status == 409
            assert final in made.headers
            assert b"retry-after" not in dict(made.headers)
        assert final not in (await call(app, "a b")).headers

    run(body)


def test_a_wait_has_an_end(run: Run) -> None:
    async def body(at: Setting) -> None:
        app = at.guard(wait=3.0)
        at.handler.go.clear()
        first = Call(app)
        began = at.loop.time()
        assert (await call(app)).code == "once_in_flight"
        assert at.loop.time() - began == pytest.approx(3.0)
        at.handler.go.set()
        await first.task

    run(body)


def test_who_waited_for_work_that_failed_runs_itself(run: Run) -> None:
    async def body(at: Setting) -> None:
        app = at.guard(wait=10)
        at.handler.go.clear()
        at.handler.status = 503
        calls = [Call(app) for _ in range(5)]
        await until(lambda: at.handler.runs)
        at.handler.go.set()
        await asyncio.gather(*(made.task for made in calls))
        assert [made.status for made in calls] == [503] * 5
        assert at.handler.runs == 5

    run(body)


def test_a_wait_for_another_process(run: Run) -> None:
    """Nobody wakes the waiter there: it has to look."""

    async def body(at: Setting) -> None:
        here, there = at.guard(wait=10), at.guard(lease=5.0)
        at.handler.go.clear()
        first = Call(there)
        await until(lambda: at.handler.runs)
        second = Call(here)
        await asyncio.sleep(2)
        at.handler.go.set()
        ended = at.loop.time()
        await second.task
        assert at.loop.time() - ended <= 1.0
        assert second.replayed
        await first.task

    run(body)


def test_two_callers_are_two_executions(run: Run) -> None:
    async def body(at: Setting) -> None:
        app = at.guard()
        calls = [await call(app, authorization=word) for word in ("Bearer one", "Bearer two", "Bearer one")]
        assert [made.body for made in calls] == [b"run 1", b"run 2", b"run 1"]
        assert (await call(app)).body == b"run 3"
        assert not any("Bearer" in record.key or "one" in record.key for record in await at.store.scan())

    run(body)


def test_a_caller_of_the_applications_own(run: Run) -> None:
    async def body(at: Setting) -> None:
        def sync(scope: Scope) -> str | None:
            return dict(scope["headers"]).get(b"cookie", b"").decode() or None

        async def later(scope: Scope) -> str | None:
            await asyncio.sleep(1)
            return sync(scope)

        for caller in (sync, later):
            app = at.guard(caller=caller)
            assert (await call(app, headers=[(b"cookie", b"a")])).body == b"run 1"
            assert (await call(app, headers=[(b"cookie", b"b")])).body == b"run 2"
            assert (await call(app, authorization="Bearer")).code == "once_caller_unknown"

    run(body)


def test_a_megabyte_comes_back_byte_for_byte(run: Run) -> None:
    async def body(at: Setting) -> None:
        content = random.Random(1).randbytes(1 << 20)
        length = (b"content-length", str(len(content)).encode())
        app = at.guard(app_of(start(200, length), piece(content)))
        assert (await call(app)).body == content
        again = await call(app)
        assert again.replayed
        assert again.body == content

    run(body)


def test_a_stream_comes_back_byte_for_byte(run: Run) -> None:
    async def body(at: Setting) -> None:
        rng = random.Random(1)
        pieces = [rng.randbytes(rng.randrange(5000)) for _ in range(200)]

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(start(201, (b"x-y", b"\xe9"), (b"set-cookie", b"a"), (b"set-cookie", b"b")))
            for one in pieces:
                await send(piece(one, True))
                assert first.messages[-1]["body"] == one  # nothing is kept from the client meanwhile
            await send(piece())

        guarded = at.guard(app)
        first = Call(guarded, authorization="Bearer t")
        await first.task
        again = await call(guarded, authorization="Bearer t")
        assert again.body == first.body == b"".join(pieces)
        assert again.status == 201
        assert again.headers == [*first.headers, (b"idempotent-replayed", b"true")]

    run(body)


def test_connection_headers_are_not_replayed(run: Run) -> None:
    async def body(at: Setting) -> None:
        app = at.guard(app_of(start(200, (b"Connection", b"close"), (b"a", b"b")), piece()))
        await call(app)
        assert (await call(app)).headers == [(b"a", b"b"), (b"idempotent-replayed", b"true")]

    run(body)


@pytest.mark.parametrize("store_5xx", [False, True])
def test_an_answer_over_the_cap_is_not_replayable(run: Run, store_5xx: bool) -> None:
    async def body(at: Setting) -> None:
        app = at.guard(app_of(start(), piece(b"123456", True), piece(b"78901")), max_stored=10, store_5xx=store_5xx)
        assert (await call(app)).body == b"12345678901"
        again = await call(app)
        assert (again.status, again.code) == (409, "once_not_replayable")
        assert (await at.record()).state is State.DONE
        assert (await at.record()).executions == 1
        exact = at.guard(app_of(start(), piece(b"123456", True), piece(b"7890")), max_stored=10)
        assert [(await call(exact, "2")).body for _ in range(2)] == [b"1234567890"] * 2

    run(body)


@pytest.mark.parametrize(
    ("messages", "last"),
    [
        ([start(200, (b"content-length", b"2")), piece(b"ok")], 0),
        ([start(200, (b"content-length", b"2")), piece(b"o", True), piece(b"k", True), piece()], 2),
        ([start(), piece(b"o", True), piece(b"k")], 2),
        ([start(), piece(b"o", True), piece()], 2),
        ([start(204), piece()], 0),
        ([start(304, (b"content-length", b"9")), piece()], 0),
        ([start(201, (b"content-length", b"0")), piece(b"", True), piece()], 0),
    ],
)
def test_the_record_is_done_before_the_client_has_it_all(run: Run, messages: list[Message], last: int) -> None:
    """``last`` is the number of the message with which the client has the whole answer."""

    async def body(at: Setting) -> None:
        states = []

        async def look(message: Message) -> None:
            states.append((await at.record()).state)

        made = Call(at.guard(app_of(*messages)), on_message=look)
        await made.task
        assert made.messages == messages
        assert states[last:] == [State.DONE] * (len(messages) - last)
        assert states[:last] == [State.LEASED] * last

    run(body)


# -- what is not wanted ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", '"', "a b", "k" * 256, '"ä"', "a\x01"])
def test_malformed_keys(run: Run, key: str) -> None:
    async def body(at: Setting) -> None:
        made = await call(at.guard(), key)
        assert (made.status, made.code) == (400, "once_key_invalid")
        assert at.handler.runs == 0

    run(body)


def test_two_keys(run: Run) -> None:
    async def body(at: Setting) -> None:
        assert (await call(at.guard(), headers=[(b"idempotency-key", b"k")])).code == "once_key_invalid"

    run(body)


def test_required_and_optional_paths(run: Run) -> None:
    async def body(at: Setting) -> None:
        app = at.guard(required=["/pay", "/v?/charges*"], optional=["/maybe/*"])
        for path in ("/pay", "/v1/charges", "/v2/charges/7"):
            made = await call(app, None, path=path)
            assert (made.status, made.code) == (400, "once_key_required")
        assert at.handler.runs == 0
        for path in ("/other", "/maybe/x", "/v10/charges"):
            assert (await call(app, None, path=path)).status == 200
        assert (await call(app, None, path="/pay", method="GET")).status == 200
        assert at.handler.runs == 4
        for path, again in (("/pay", True), ("/maybe/a/b", True), ("/other", False)):
            await call(app, path, path=path)
            assert (await call(app, path, path=path)).replayed is again

    run(body)


def test_methods(run: Run) -> None:
    async def body(at: Setting) -> None:
        app = at.guard()
        for method in ("GET", "PUT", "DELETE", "OPTIONS"):
            assert [(await call(app, method=method)).replayed for _ in range(2)] == [False, False]
        for method in ("POST", "PATCH"):
            assert [(await call(app, method, method=method)).replayed for _ in range(2)] == [False, True]
        put = at.guard(methods=["put"])
        assert [(await call(put, "p", method="PUT")).replayed for _ in range(2)] == [False, True]
        assert [(await call(put, "p", method="POST")).replayed for _ in range(2)] == [False, False]

    run(body)


@pytest.mark.parametrize(
    "other", [{"body": b"[]"}, {"path": "/x"}, {"query": b"a"}, {"method": "PATCH"}, {"body": [b"{", b"}", b"x"]}]
)
def test_another_request_under_the_same_key(run: Run, other: dict[str, Any]) -> None:
    async def body(at: Setting) -> None:
        app = at.guard()
        await call(app)
        made = await call(app, **other)
        assert (made.status, made.code) == (422, "once_mismatch")
        assert at.handler.runs == 1
        made = await call(at.guard(mismatch_status=409), **other)
        assert (made.status, made.code) == (409, "once_mismatch")

    run(body)


def test_canonical_json(run: Run) -> None:
    async def body(at: Setting) -> None:
        app = at.guard(canonical_json=True)
        headers = [(b"content-type", b"application/json")]
        await call(app, body=b'{"a": 1, "b": 2}', headers=headers)
        assert (await call(app, body=b'{"b":2,"a":1}', headers=headers)).replayed
        assert (await call(app, body=b'{"b":2,"a":2}', headers=headers)).code == "once_mismatch"

    run(body)


def test_a_cookie_alone_does_not_say_who_it_is(run: Run) -> None:
    async def body(at: Setting) -> None:
        app, cookie = at.guard(), [(b"cookie", b"session=1")]
        made = await call(app, headers=cookie)
        assert (made.status, made.code) == (400, "once_caller_unknown")
        assert (await call(app, headers=cookie, authorization="Bearer")).status == 200
        assert (await call(app, None, headers=cookie)).status == 200

    run(body)


@pytest.mark.parametrize(
    "options",
    [
        {"lease": 0},
        {"lease": float("inf")},
        {"lease": float("nan")},
        {"ttl": 0},
        {"ttl": float("nan")},
        {"wait": -1},
        {"wait": float("inf")},
        {"mismatch_status": 500},
        {"max_stored": -1},
        {"max_body": -1},
        {"methods": "POST"},
        {"methods": ()},
        {"methods": ("POST, PATCH",)},
        {"methods": ("",)},
        {"required": "/pay"},
        {"optional": "*"},
        {"on_unknown": "perhaps"},
    ],
)
def test_options_that_cannot_be_used(run: Run, options: dict[str, Any]) -> None:
    async def body(at: Setting) -> None:
        with pytest.raises(ValueError, match=r"\w"):
            at.guard(**options)

    run(body)


# -- how a run may end -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "stored", "state"),
    [
        (200, False, State.DONE),
        (302, False, State.DONE),
        (400, False, State.DONE),
        (422, False, State.DONE),
        (401, False, State.FAILED),
        (408, False, State.FAILED),
        (429, False, State.FAILED),
        (503, False, State.FAILED),
        (500, False, State.UNKNOWN),
        (502, False, State.UNKNOWN),
        (504, False, State.UNKNOWN),
        (504, True, State.DONE),
        (500, True, State.DONE),
        (503, True, State.DONE),
        (429, True, State.FAILED),
    ],
)
def test_which_answers_are_kept(run: Run, status: int, stored: bool, state: State) -> None:
    async def body(at: Setting) -> None:
        app = at.guard(store_5xx=stored)
        at.handler.status = status
        first, second = await call(app), await call(app)
        assert first.status == second.status == status
        assert second.replayed is (state is State.DONE)
        assert (await at.record()).state is state

    run(body)


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_that_is_to_be_repeated_leaves_no_record(run: Run, status: int) -> None:
    """The client sends the same key to another address, and would be sent there for ever."""

    async def body(at: Setting) -> None:
        app = at.guard(wait=10, store_5xx=True)
        at.handler.status = status
        at.handler.go.clear()
        calls = [Call(app) for _ in range(3)]
        await until(lambda: at.handler.runs)
        at.handler.go.set()
        await asyncio.gather(*(made.task for made in calls))
        assert [made.status for made in calls] == [status] * 3  # none is a replay
        assert await at.store.scan() == []
        at.handler.status = 200
        followed = [await call(app, path="/there", headers=[(b"host", b"www.example")]) for _ in range(2)]
        assert [made.replayed for made in followed] == [False, True]

    run(body)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("status", [200, 202, 301, 400, 404, 409, 413, 422, 500, 502, 503])
def test_who_says_when_to_come_again_means_it(run: Run, status: int, stored: bool) -> None:
    async def body(at: Setting) -> None:
        app = at.guard(
            app_of(start(status, (b"Retry-After", b"2")), piece(b"x")), store_5xx=stored, on_unknown="refuse"
        )
        first, second = await call(app), await call(app)
        assert first.status == second.status == status
        assert second.replayed is (status < 400)
        kept = [record.state for record in await at.store.scan()]
        assert kept == ([State.DONE] if status < 400 else [])
        corrected = await call(app, body=b"corrected")  # runs, where nothing is kept
        if status < 400:
            assert (corrected.status, corrected.code) == (422, "once_mismatch")
        else:
            assert (corrected.status, corrected.body) == (status, b"x")

    run(body)


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_a_handler_that_raises_after_its_side_effect(run: Run, error: type[BaseException]) -> None:
    async def body(at: Setting) -> None:
        effects = 0

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal effects
            effects += 1
            await asyncio.sleep(0.1)
            raise error("after")

        for policy, expected in (("retry", 2), ("refuse", 1)):
            effects = 0
            caught: list[BaseException] = []
            guarded = at.guard(app, on_unknown=policy, store_5xx=True)

            async def server(scope: Scope, receive: Receive, send: Send, guarded: Any = guarded) -> None:
                try:
                    await guarded(scope, receive, send)
                except BaseException as exc:
                    caught.append(exc)  # noqa: B023

            await Call(server, policy).task
            assert (await at.record(policy)).state is State.UNKNOWN
            again = Call(server, policy)
            await again.task
            assert [type(exc) for exc in caught] == [error] * expected
            assert effects == expected
            if policy == "refuse":
                assert (again.status, again.code) == (409, "once_unknown")

    run(body)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [start()],
        [start(), piece(b"a", True)],
        [start(200, (b"content-length", b"3")), piece(b"a")],
        [start(200, (b"content-length", b"1")), piece(b"a", True)],
    ],
)
def test_an_answer_left_unfinished_is_no_answer(run: Run, messages: list[Message]) -> None:
    async def body(at: Setting) -> None:
        await Call(at.guard(app_of(*messages))).task
        assert (await at.record()).state is State.UNKNOWN

    run(body)


def test_work_after_the_answer_does_not_change_it(run: Run) -> None:
    async def body(at: Setting) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(start())
            await send(piece(b"ok"))
            await asyncio.sleep(100)
            raise ValueError("background")

        guarded = at.guard(app, lease=1.0)
        first = Call(guarded)
        await until(lambda: first.complete)
        assert (await call(guarded)).replayed
        with pytest.raises(ValueError, match="background"):
            await first.task
        assert (await call(guarded)).replayed

    run(body)


def test_the_lease_is_renewed_while_the_work_runs(run: Run) -> None:
    async def body(at: Setting) -> None:
        app = at.guard(lease=3.0)
        at.handler.go.clear()
        first = Call(app)
        for _ in range(10):
            await asyncio.sleep(2.9)
            assert (await call(app)).code == "once_in_flight"
        at.store.down = {"renew"}  # one that fails is not the end
        await asyncio.sleep(1.1)
        at.store.down = set()
        await asyncio.sleep(2.9)
        assert (await call(app)).code == "once_in_flight"
        at.handler.go.set()
        await first.task
        assert (await call(app)).replayed
        assert at.handler.runs == 1

    run(body)


def test_the_record_expires(run: Run) -> None:
    async def body(at: Setting) -> None:
        app = at.guard(ttl=60.0)
        await call(app)
        await asyncio.sleep(59.9)
        assert (await call(app)).replayed
        await asyncio.sleep(0.2)
        assert not (await call(app)).replayed

    run(body)


def test_a_lease_that_was_lost_is_told(run: Run) -> None:
    async def body(at: Setting) -> None:
        events: list[OnceEvent] = []
        app = at.guard(lease=3.0, on_event=events.append)
        at.handler.go.clear()
        first = Call(app)
        await until(lambda: at.handler.runs)
        await at.store.delete((await at.record()).key)
        await asyncio.sleep(2)
        assert [event.name for event in events] == ["attempt", "lease_lost"]
        at.handler.go.set()
        await first.task
        assert first.body == b"run 1"
        assert (await at.record()).state is State.DONE  # nobody has taken the key meanwhile

    run(body)


# -- the request -------------------------------------------------------------------------------------------------------


def test_the_application_gets_the_body_as_it_came(run: Run) -> None:
    async def body(at: Setting) -> None:
        pieces = [b"a" * 10, b"", b"b" * 60, b"c" * 50, b"d"]
        for key, cap in (("1", 1000), ("2", 121), ("3", 120), ("4", 10), ("5", 0)):
            app = at.guard(max_body=cap)
            await call(app, key, body=pieces)
            assert at.handler.bodies[-1] == b"".join(pieces)
            assert (await call(app, key, body=pieces)).replayed
            assert (await call(app, key, body=[b"x", *pieces])).replayed is (cap == 0)

    run(body)


def test_then_it_learns_that_the_client_has_left(run: Run) -> None:
    async def body(at: Setting) -> None:
        received: list[Message] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            received.extend([await receive(), await receive()])

        made = Call(at.guard(app))
        await until(lambda: len(received) == 0)
        await asyncio.sleep(1)
        made.leave()
        await made.task
        assert [message["type"] for message in received] == ["http.request", "http.disconnect"]

    run(body)


def test_a_client_that_leaves_within_its_body_has_asked_for_nothing(run: Run) -> None:
    async def body(at: Setting) -> None:
        made = Call(at.guard(), body=[b"a", b"b"])
        made._body[-1] = {"type": "http.disconnect"}
        await made.task
        assert made.messages == []
        assert at.handler.runs == 0
        assert at.store.opened == 0

    run(body)


def test_answers_cannot_go_past_the_record(run: Run) -> None:
    async def body(at: Setting) -> None:
        seen = {}

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            seen.update(scope["extensions"])
            await send({"type": "http.response.early_hint", "links": []})
            await send(start())
            await send(piece())

        made = Call(at.guard(app))
        made.scope["extensions"] |= {"http.response.pathsend": {}, "http.response.early_hint": {}}
        await made.task
        assert set(seen) == {"http.response.early_hint"}
        assert made.messages[0]["type"] == "http.response.early_hint"

    run(body)


def test_other_protocols_pass_untouched(run: Run) -> None:
    async def body(at: Setting) -> None:
        seen: list[tuple[Any, ...]] = []

        async def app(*arguments: Any) -> None:
            seen.append(arguments)

        async def receive() -> Message:
            raise AssertionError

        async def send(message: Message) -> None:
            raise AssertionError

        scope = {"type": "websocket", "headers": [(b"idempotency-key", b"k")]}
        await at.guard(app)(scope, receive, send)
        assert seen == [(scope, receive, send)]
        assert at.store.opened == 0

    run(body)


# -- clients that leave, and stops -------------------------------------------------------------------------------------


def streamer(at: Setting, count: int = 5, size: int = 2) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """An application whose answer takes ``count`` seconds, and which never looks at ``receive()``."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        at.handler.runs += 1
        await send(start())
        for _ in range(count):
            await asyncio.sleep(1)
            await send(piece(b"x" * size, True))
        await send(piece())
        at.handler.ended += 1

    return app


def test_a_client_that_leaves_does_not_end_the_work(run: Run) -> None:
    async def body(at: Setting) -> None:
        figures = MemoryCounters()
        told: list[OnceEvent] = []
        app = at.guard(streamer(at), metrics=figures, on_event=told.append)
        made = Call(app)
        await asyncio.sleep(1.5)
        made.leave()
        await made.task
        assert at.handler.ended == 1
        assert [event.name for event in told] == ["attempt", "completed", "undelivered"]
        again = await call(app)
        assert again.replayed
        assert again.body == b"x" * 10
        assert figures.value("once_undelivered_total") == 1

    run(body)


@pytest.mark.parametrize("other_server", [False, True])
def test_nor_does_the_servers_cancel_for_it(run: Run, other_server: bool) -> None:
    async def body(at: Setting) -> None:
        app = at.guard(streamer(at))
        made = Call(app, notice=None if other_server else at.notice)
        await asyncio.sleep(1.5)
        made.leave()
        await asyncio.sleep(1.0)
        made.task.cancel()
        await asyncio.sleep(0.1)
        assert made.task.done() is other_server
        await until(lambda: at.handler.ended)
        await asyncio.sleep(0.3)
        assert made.task.cancelled() is other_server
        assert (await call(app)).replayed

    run(body)


class OlderNotice:
    """That of a lastcall which cannot track a task by it."""

    def __init__(self, notice: DrainNotice) -> None:
        self.is_set, self.remaining, self.add_callback = notice.is_set, notice.remaining, notice.add_callback


@pytest.mark.parametrize("older", [False, True])
def test_a_cancel_that_insists_leaves_the_work_to_itself(run: Run, older: bool) -> None:
    """As anyio's cancel scopes do: they cancel until the task has ended."""

    async def body(at: Setting) -> None:
        app = at.guard(streamer(at))
        notice: Any = OlderNotice(at.notice) if older else at.notice
        made = Call(app, notice=notice)
        await asyncio.sleep(1.5)
        made.leave()
        for _ in range(2):
            made.task.cancel()
            await asyncio.sleep(0.01)
        assert made.task.cancelled()
        await asyncio.sleep(5)
        assert (await call(app)).replayed

    run(body)


def test_what_fails_without_a_client_is_logged(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def body(at: Setting) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await asyncio.sleep(1)
            raise ArithmeticError("a bug")

        made = Call(at.guard(app))
        await asyncio.sleep(0.5)
        made.leave()
        made.task.cancel()
        await asyncio.sleep(1)
        assert made.task.cancelled()
        assert (await at.record()).state is State.UNKNOWN

    run(body)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ArithmeticError]


def test_the_applications_shutdown_ends_what_was_left_to_itself(run: Run) -> None:
    async def body(at: Setting) -> None:
        app = at.guard(streamer(at, 1000))
        made = Call(app)
        await asyncio.sleep(1.5)
        made.leave()
        await asyncio.sleep(1)
        made.task.cancel()
        await asyncio.wait({made.task})
        assert (await at.record()).state is State.LEASED
        await app.aclose()
        await at.store.open()
        assert (await at.record()).state is State.UNKNOWN

    run(body)


def test_a_stop_ends_work_without_a_client_in_the_end(run: Run) -> None:
    async def body(at: Setting) -> None:
        app = at.guard(streamer(at, 1000))
        made = Call(app, notice=at.notice)
        await asyncio.sleep(1.5)
        made.leave()
        await asyncio.sleep(1)
        made.task.cancel()  # the server does so once; there will be no other cancel
        await asyncio.sleep(1)
        at.drain(grace=10)
        await asyncio.sleep(9)
        assert not made.task.done()
        assert (await at.record()).state is State.LEASED
        await asyncio.sleep(1.5)
        assert made.task.cancelled()
        assert (await at.record()).state is State.UNKNOWN

    run(body)


def test_a_stream_without_end_may_end_when_nobody_listens(run: Run) -> None:
    async def body(at: Setting) -> None:
        app = at.guard(streamer(at, 10**6, size=10), max_stored=100)
        made = Call(app)
        await asyncio.sleep(1.5)
        made.leave()
        with pytest.raises(OSError, match="too large"):
            await made.task
        assert (await at.record()).state is State.UNKNOWN

    run(body)


def test_a_cancel_by_the_server_is_passed_on(run: Run) -> None:
    async def body(at: Setting) -> None:
        at.handler.go.clear()
        for key, notice in (("1", at.notice), ("2", None)):
            made = Call(at.guard(), key, notice=notice)
            await until(lambda key=key: at.handler.runs == int(key))  # type: ignore[misc]
            made.task.cancel()
            await asyncio.wait({made.task})
            assert made.task.cancelled()
            assert (await at.record(key)).state is State.UNKNOWN

    run(body)


def test_a_stubborn_handler_is_unknown_at_once_and_may_still_end_well(run: Run) -> None:
    async def body(at: Setting) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            with_cancel = asyncio.sleep(1000)
            try:
                await with_cancel
            except asyncio.CancelledError:
                await asyncio.sleep(5)
            await send(start())
            await send(piece(b"after all"))

        guarded = at.guard(app, on_unknown="refuse", lease=2.0)
        made = Call(guarded, notice=at.notice)
        await asyncio.sleep(1)
        at.drain(grace=0)
        made.task.cancel()
        await asyncio.sleep(0.01)
        assert (await at.record()).state is State.UNKNOWN
        assert not made.task.done()  # the server sees that it still runs
        await asyncio.sleep(4)
        assert (await at.record()).state is State.UNKNOWN
        await asyncio.wait({made.task})
        assert (await call(guarded)).body == b"after all"

    run(body)


def test_a_cancel_while_the_answer_is_being_recorded(run: Run) -> None:
    async def body(at: Setting) -> None:
        app = at.guard()
        finish = at.store.finish

        async def slow(*arguments: Any, **named: Any) -> bool:
            await asyncio.sleep(2)
            return await finish(*arguments, **named)

        at.store.finish = slow  # type: ignore[method-assign]
        made = Call(app)
        await asyncio.sleep(1)
        made.task.cancel()
        await asyncio.wait({made.task})
        assert made.task.cancelled()
        assert (await call(app)).replayed

    run(body)


def test_a_cancel_while_the_key_is_being_acquired_gives_it_back(run: Run) -> None:
    async def body(at: Setting) -> None:
        app = at.guard()
        acquire = at.store.acquire

        async def slow(*arguments: Any, **named: Any) -> Any:
            outcome = await acquire(*arguments, **named)
            await asyncio.sleep(2)
            return outcome

        at.store.acquire = slow  # type: ignore[method-assign]
        made = Call(app)
        await asyncio.sleep(1)
        made.task.cancel()
        await asyncio.wait({made.task})
        assert made.task.cancelled()
        assert at.handler.runs == 0
        assert await at.store.scan() == []

    run(body)


def test_new_keys_are_refused_from_draining_on(run: Run) -> None:
    async def body(at: Setting) -> None:
        app = at.guard(wait=None, on_unknown="refuse")
        await call(app, "done", notice=at.notice)
        at.handler.status = 503
        await call(app, "failed", notice=at.notice)
        at.handler.status = 500
        await call(app, "unknown", notice=at.notice)
        at.handler.status = 200
        at.handler.go.clear()
        running = Call(app, "running", notice=at.notice)
        at.signal.state.phase = Phase.ANNOUNCED  # the server still accepts
        late = Call(app, "late", notice=at.notice)
        await until(lambda: at.handler.runs == 5)
        at.drain()
        made = await call(app, "new", notice=at.notice)
        assert (made.status, made.code, dict(made.headers)[b"retry-after"]) == (503, "once_draining", b"1")
        assert (await call(app, "failed", notice=at.notice)).code == "once_draining"
        assert (await call(app, "unknown", notice=at.notice)).code == "once_unknown"
        assert (await call(app, "done", notice=at.notice)).replayed
        assert (await call(app, "done", notice=at.notice, path="/x")).code == "once_mismatch"
        assert (await call(app, "running", notice=at.notice)).code == "once_in_flight"
        unguarded = Call(app, None, notice=at.notice)
        at.handler.go.set()
        await asyncio.gather(running.task, late.task, unguarded.task)
        assert running.body
        assert late.body
        assert unguarded.body
        assert (await call(app, "running", notice=at.notice)).replayed
        assert "new" not in [record.key.rpartition(":")[2] for record in await at.store.scan()]

    run(body)


def test_who_waits_is_woken_by_the_drain(run: Run) -> None:
    async def body(at: Setting) -> None:
        app = at.guard(wait=1000)
        at.handler.go.clear()
        first = Call(app, notice=at.notice)
        await until(lambda: at.handler.runs)
        waiting = [Call(app, notice=at.notice) for _ in range(3)]
        await asyncio.sleep(100)
        began = at.loop.time()
        at.drain()
        await asyncio.gather(*(made.task for made in waiting))
        assert at.loop.time() == began
        assert [made.code for made in waiting] == ["once_draining"] * 3
        assert (await call(app, notice=at.notice)).code == "once_draining"
        at.handler.go.set()
        await first.task
        assert (await call(app, notice=at.notice)).replayed

    run(body)


# -- the store ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["acquire", "open"])
def test_a_store_that_is_down_before_the_work(run: Run, operation: str, caplog: pytest.LogCaptureFixture) -> None:
    async def body(at: Setting) -> None:
        at.store.down = {operation}
        figures = MemoryCounters()
        closed, opened = at.guard(metrics=figures), at.guard(fail_open=True, metrics=figures)
        made = await call(closed)
        assert (made.status, made.code, dict(made.headers)[b"retry-after"]) == (503, "once_store_down", b"1")
        assert at.handler.runs == 0
        assert [(await call(opened)).body for _ in range(2)] == [b"run 1", b"run 2"]
        assert figures.value("once_attempts_total", outcome="store_error") == 3
        assert figures.value("once_fail_open_total", operation="acquire") == 2
        at.store.down = set()
        assert (await call(closed)).body == b"run 3"
        assert (await call(opened)).replayed
        await closed.aclose()

    with caplog.at_level(logging.WARNING, "lastcall.once"):
        run(body)
    assert len(caplog.records) == 2  # one for each, not one for each request
    assert "fail_open" in caplog.text
    assert f"down: {operation}" in caplog.text


@pytest.mark.parametrize("fail_open", [False, True])
def test_a_store_that_takes_nothing_any_more_still_gives(run: Run, fail_open: bool) -> None:
    """One that is full, or read-only."""

    async def body(at: Setting) -> None:
        app = at.guard(fail_open=fail_open, wait=1.0)
        await call(app)
        at.handler.go.clear()
        running = Call(app, "running")
        await until(lambda: at.handler.runs == 2)
        at.store.down = {"acquire"}
        assert (await call(app)).replayed
        assert (await call(app, path="/x")).code == "once_mismatch"
        assert (await call(app, "running")).code == "once_in_flight"
        at.handler.go.set()
        await running.task
        assert (await call(app, "running")).replayed
        new = await call(app, "new")
        assert new.body == b"run 3" if fail_open else new.code == "once_store_down"
        await app.aclose()

    run(body)


def test_a_store_that_does_not_answer_is_not_waited_for_twice(run: Run) -> None:
    async def body(at: Setting) -> None:
        async def silent(*arguments: Any, **named: Any) -> Any:
            await asyncio.sleep(2)
            raise StoreError("no answer within 2 s")

        at.store.acquire = at.store.get = silent  # type: ignore[method-assign]
        began = at.loop.time()
        assert (await call(at.guard(fail_open=True))).body == b"run 1"
        assert at.loop.time() - began == pytest.approx(2.5)

    run(body)


@pytest.mark.parametrize(
    ("messages", "replaced"),
    [
        ([start(200, (b"content-length", b"2")), piece(b"ok")], True),
        ([start(204), piece()], True),
        ([start(200, (b"content-length", b"2")), piece(b"o", True), piece(b"k")], False),
        ([start(), piece(b"ok")], False),
    ],
)
def test_a_store_that_is_down_after_the_work(run: Run, messages: list[Message], replaced: bool) -> None:
    async def body(at: Setting) -> None:
        app = app_of(*messages)
        at.store.down = {"finish"}
        made = await call(at.guard(app, fail_open=True), "1")
        assert made.messages == messages
        refused = Call(at.guard(app), "2")
        if replaced:
            await refused.task
            assert (refused.status, refused.code) == (503, "once_store_down")
        else:
            with pytest.raises(StoreError):
                await refused.task
            assert not refused.complete
        assert (await at.record("2")).state is State.LEASED
        await asyncio.sleep(30)
        assert (await at.record("2")).state is State.UNKNOWN
        at.store.down = set()
        assert (await call(at.guard(app), "2")).messages == messages

    run(body)


def test_a_store_that_comes_back_in_time(run: Run) -> None:
    async def body(at: Setting) -> None:
        at.store.down = {"finish"}
        made = Call(at.guard())
        await asyncio.sleep(0.15)
        at.store.down = set()
        await made.task
        assert made.body == b"run 1"
        assert (await call(at.guard())).replayed

    run(body)


def test_a_result_that_is_none_of_ours(run: Run) -> None:
    async def body(at: Setting) -> None:
        app = at.guard()
        await call(app)
        record = await at.record()
        for junk in (
            None,
            b"",
            b"text",
            b"http1\n",
            b"http1\n{}\n",
            b'http1\n{"status":"x","headers":[],"kept":true}\n',
        ):
            at.store._records[record.key] = type(record)(**{**record.__dict__, "result": junk})
            assert (await call(app)).code == "once_not_replayable"

    run(body)


class Server:
    """The lifespan's other side."""

    def __init__(self, app: IdempotencyMiddleware) -> None:
        self.sent: list[str] = []
        self.told: asyncio.Queue[str] = asyncio.Queue()
        self.scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}}
        self.task = asyncio.ensure_future(app(self.scope, self.receive, self.send))

    async def receive(self) -> Message:
        return {"type": await self.told.get()}

    async def send(self, message: Message) -> None:
        self.sent.append(message["type"])

    async def say(self, word: str) -> None:
        self.told.put_nowait(word)
        await until(lambda: f"{word}.complete" in self.sent)


async def with_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    while True:
        word = (await receive())["type"]
        await send({"type": f"{word}.complete"})
        if word == "lifespan.shutdown":
            return


def test_the_store_opens_and_closes_with_the_application(run: Run) -> None:
    async def body(at: Setting) -> None:
        server = Server(at.guard(with_lifespan))
        assert at.store.opened == 0
        await server.say("lifespan.startup")
        assert (at.store.opened, at.store.closed) == (1, 0)
        await server.say("lifespan.shutdown")
        await server.task
        assert (at.store.opened, at.store.closed) == (1, 1)

    run(body)


def test_an_application_starts_without_its_store(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def body(at: Setting) -> None:
        at.store.down = {"open"}
        server = Server(at.guard(with_lifespan))
        await server.say("lifespan.startup")
        await server.say("lifespan.shutdown")
        await server.task
        assert at.store.closed == 0

    run(body)
    assert "is not ready" in caplog.text


def test_without_lifespan_the_first_request_opens_it(run: Run) -> None:
    async def body(at: Setting) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                raise NotImplementedError
            await at.handler(scope, receive, send)

        guarded = at.guard(app)
        with pytest.raises(NotImplementedError):
            await Server(guarded).task
        await call(guarded, None)
        assert at.store.opened == 0
        await asyncio.gather(*(call(guarded, str(number)) for number in range(10)))
        assert at.store.opened == 1

    run(body)


def test_a_store_by_its_url() -> None:
    async def body() -> None:
        assert isinstance(guarded.metrics, MemoryCounters)
        assert (await call(guarded)).status == 200

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(piece())

    guarded = IdempotencyMiddleware(app, "memory:")
    for _ in range(2):  # each in a loop of its own, as test clients have it
        asyncio.run(body())


# -- what is counted ---------------------------------------------------------------------------------------------------


def test_attempts_are_told_with_their_outcomes(run: Run) -> None:
    async def body(at: Setting) -> None:
        events: list[OnceEvent] = []
        app = at.guard(on_event=events.append, on_unknown="refuse", lease=10.0)
        at.handler.go.clear()
        first = Call(app)
        await until(lambda: at.handler.runs)
        await call(app)
        await asyncio.sleep(1)
        at.handler.go.set()
        await first.task
        await call(app)
        await call(app, path="/x")
        at.handler.status = 500
        await call(app, "2")
        await call(app, "2")
        at.store.down = {"acquire"}
        await call(app, "3")
        told = [
            (event.key.rpartition(":")[2], event.outcome, event.attempts) for event in events if event.name == "attempt"
        ]
        assert told == [
            ("k", "executed", 1),
            ("k", "in_flight", 2),
            ("k", "replayed", 3),
            ("k", "mismatch", 4),
            ("2", "executed", 1),
            ("2", "unknown", 2),
            ("3", "store_error", 0),
        ]
        ends = [(event.name, event.seconds) for event in events if event.name in ("completed", "abandoned")]
        assert [name for name, _ in ends] == ["completed", "abandoned"]
        assert [seconds for _, seconds in ends] == pytest.approx([1.0, 0.0], abs=0.1)
        assert isinstance(app.metrics, MemoryCounters)
        assert app.metrics.value("once_executions_total") == 2
        await app.aclose()

    run(body)


def test_the_worker_is_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(at: Setting) -> None:
        monkeypatch.setattr(sys.modules["lastcall_once.stores.memory"], "_is_a_worker", lambda: False)
        monkeypatch.setenv("LASTCALL_WORKER_ID", "w7")
        await call(at.guard())
        assert (await at.record()).worker == f"w7/{os.getpid()}"

    run(body)
