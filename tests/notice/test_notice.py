"""``lastcall.drain_notice()`` and ``DrainNotice``: whose notice is found where, and what it says and takes."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import gc
import math
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lastcall
from lastcall.base.types import Receive, Scope, Send
from lastcall.drain.ladder import Budgets, Phase
from lastcall.notice.notice import DrainNotice, drain_notice, register, signal_of, the_only_server, unregister, view
from lastcall.notice.signal import DrainSignal
from testing.draining import StoppableBench
from testing.memory import GET, Call, Stage, body, get, start

MakeStoppable = Callable[..., StoppableBench]
ROOT = Path(__file__).parents[2]


def of(call: Call) -> DrainNotice:
    """The notice in a request's scope."""
    found = call.scope["extensions"]["lastcall.drain"]["notice"]
    assert isinstance(found, DrainNotice)
    return found


@pytest.fixture
def servers() -> Iterator[Callable[[], DrainSignal]]:
    """Pretend that this process runs servers."""
    made: list[DrainSignal] = []

    def make() -> DrainSignal:
        made.append(DrainSignal())
        register(made[-1])
        return made[-1]

    yield make
    for signal in made:
        unregister(signal)
    assert the_only_server() is None


# -- whose notice ------------------------------------------------------------------------------------------------------


def test_the_names_are_lastcalls() -> None:
    assert lastcall.drain_notice is drain_notice
    assert lastcall.DrainNotice is DrainNotice


def test_in_a_request_it_is_the_requests_own(stoppable: MakeStoppable) -> None:
    found: list[DrainNotice] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(2):
            assert drain_notice() == scope["extensions"]["lastcall.drain"]["notice"]
            await asyncio.sleep(0.1)
        found.append(drain_notice())
        await send(start())
        await send(body())

    one = stoppable(app)
    for _ in range(3):
        one.connect().send(GET)
    one.advance(1)
    assert len(set(found)) == 3


@pytest.mark.parametrize("depth", [1, 3])
def test_in_a_child_task_it_is_the_requests(stoppable: MakeStoppable, depth: int) -> None:
    found: list[tuple[object, object]] = []

    async def child(levels: int, expected: object) -> None:
        await asyncio.sleep(0)
        if levels > 1:
            await asyncio.create_task(child(levels - 1, expected))
        found.append((drain_notice(), expected))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.gather(child(depth, drain_notice()), asyncio.create_task(child(depth, drain_notice())))
        await send(start())
        await send(body())

    one = stoppable(app)
    one.connect().send(GET)
    one.connect().send(GET)
    assert len(found) == 4 * depth
    assert all(notice == expected for notice, expected in found)


def test_in_a_thread_with_the_requests_context_it_is_the_requests(stoppable: MakeStoppable) -> None:
    """As asyncio.to_thread() and frameworks' pools run sync handlers; a bare thread has no context."""
    found: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for target in (lambda: found.append(drain_notice()),):
            with_context = threading.Thread(target=contextvars.copy_context().run, args=(target,))
            # Python 3.14's threads inherit a context where an option says so; this one is empty for sure.
            bare = threading.Thread(target=contextvars.Context().run, args=(target,))
            for thread in (with_context, bare):
                thread.start()
                thread.join()
        found.append(drain_notice())
        await send(start())
        await send(body())

    stoppable(app).connect().send(GET)
    with_context, bare, own = found
    assert with_context == own
    assert bare != own
    assert isinstance(bare, DrainNotice)
    assert not bare.is_set()


def test_a_request_does_not_leave_its_notice_behind(stoppable: MakeStoppable) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        drain_notice()
        await send(start())
        await send(body())

    one = stoppable(app)
    outside = drain_notice()
    one.connect().send(GET)
    assert drain_notice() is outside
    seen: list[DrainNotice] = []
    one.loop.call(lambda: seen.append(drain_notice()))
    assert seen == [outside]


def test_outside_of_requests_it_is_that_of_the_only_server(servers: Callable[[], DrainSignal]) -> None:
    signal = servers()
    notice = drain_notice()
    assert signal_of(notice) is signal
    assert (notice.is_set(), notice.stopping, notice.remaining()) == (False, False, None)
    signal.state.phase = Phase.DRAINING
    signal.give(math.inf, math.inf)
    assert notice.is_set()
    assert notice.stopping
    assert drain_notice().is_set()
    assert drain_notice() == notice


def test_two_servers_are_no_only_server(servers: Callable[[], DrainSignal]) -> None:
    first, second = servers(), servers()
    for signal in (first, second):
        signal.give(math.inf, math.inf)
    assert not drain_notice().is_set(), "whose would it be?"
    unregister(first)
    assert signal_of(drain_notice()) is second
    unregister(first)  # twice is nothing


def test_without_a_server_it_is_never_set() -> None:
    """The same code runs under any server, or none."""
    notice = drain_notice()
    assert (notice.is_set(), notice.stopping, notice.remaining()) == (False, False, None)
    notice.finish()
    notice.close()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(notice.wait(), 0.01)

    asyncio.run(main())


def test_a_notice_that_is_never_set_keeps_no_callback() -> None:
    """Under another server each stream would leave one behind, and what it refers to."""

    def callback() -> None:
        raise AssertionError("it is never set")

    kept = weakref.ref(callback)
    drain_notice().add_callback(callback)
    del callback
    gc.collect()
    assert kept() is None


def run_apart(*lines: str) -> None:
    """Run a stop of an application that ``lines`` define, in a process where nobody has asked for a notice yet."""
    code = "\n".join(
        (
            "import asyncio, contextvars, sys",
            "from testing.draining import StoppableBench",
            "from testing.memory import GET, start, body",
            "found = []",
            "def told():",
            "    return [variable.name for variable in contextvars.copy_context()]",
            *lines,
        )
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=25, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_request_that_began_before_anybody_asked_finds_its_notice() -> None:
    """Requests make theirs known only in a process that has asked, which importing the name from lastcall does."""
    run_apart(
        "async def app(scope, receive, send):",
        "    assert 'lastcall' in sys.modules",
        "    await asyncio.sleep(1)",
        "    from lastcall import drain_notice",
        "    found.append(drain_notice() == scope['extensions']['lastcall.drain']['notice'])",
        "    await send(start())",
        "    await send(body())",
        "stoppable = StoppableBench(app)",
        "for _ in range(2):",
        "    stoppable.connect().send(GET)",
        "stoppable.advance(2)",
        "stoppable.connect().send(GET)",
        "stoppable.advance(2)",
        "stoppable.close()",
        "assert found == [True] * 3, found",
    )


@pytest.mark.parametrize(
    ("asks", "told"),
    [
        ("import lastcall", False),
        ("from lastcall import DrainNotice, Server, run", False),
        ("import lastcall.notice.notice", False),
        ("from lastcall import drain_notice", True),
        ("from lastcall import track", True),
        ("import lastcall; lastcall.drain_notice", True),
    ],
)
def test_a_process_asks_by_taking_the_function_out_of_the_package(asks: str, told: bool) -> None:
    """Setting a context variable is a twentieth of a plain request: who only imports the package does not pay it."""
    run_apart(
        asks,
        "async def app(scope, receive, send):",
        "    found.append('lastcall.drain_notice' in told())",
        "    found.append('lastcall.drain_notice' in await asyncio.to_thread(told))",
        "    await send(start())",
        "    await send(body())",
        "stoppable = StoppableBench(app)",
        "stoppable.connect().send(GET)",
        "stoppable.loop.run(stoppable.loop.shutdown_default_executor())",
        "stoppable.settle()",
        "stoppable.close()",
        f"assert found == [{told}] * 2, found",
    )


# -- what it is --------------------------------------------------------------------------------------------------------


def test_nothing_but_what_the_documentation_names_is_in_reach(stoppable: MakeStoppable) -> None:
    stage = Stage()
    stoppable(stage).connect().send(GET)
    public = {name for name in dir(of(stage.last)) if not name.startswith("_")}
    assert public == {"add_callback", "close", "finish", "is_set", "remaining", "stopping", "track", "wait"}


def test_two_notices_of_one_request_are_equal(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    for _ in range(2):
        one.connect().send(GET)
    newer, older = one.tasks.snapshot()
    assert view(newer) == view(newer) == of(stage.calls[1])
    assert hash(view(newer)) == hash(of(stage.calls[1]))
    assert view(newer) != view(older)
    assert view(newer) != DrainNotice(one.signal)
    assert DrainNotice(one.signal) == DrainNotice(one.signal) != DrainNotice(DrainSignal())
    something: object = "a notice"
    assert view(newer) != something


def test_a_scope_can_be_copied_but_its_notice_belongs_to_its_process(stoppable: MakeStoppable) -> None:
    stage = Stage()
    stoppable(stage).connect().send(GET)
    notice = of(stage.last)
    assert copy.copy(notice) is notice
    assert copy.deepcopy({"notice": notice})["notice"] is notice
    with pytest.raises(TypeError):
        pickle.dumps(notice)


# -- what it says ------------------------------------------------------------------------------------------------------


def test_stopping_from_the_order_on_and_set_with_the_drain(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, budgets=Budgets(delay=5.0))
    one.connect().send(GET)
    notice = of(stage.last)
    assert (notice.stopping, notice.is_set(), notice.remaining()) == (False, False, None)
    one.order()
    assert (notice.stopping, notice.is_set(), notice.remaining()) == (True, False, None)
    one.reach(4.999)
    assert not notice.is_set()
    one.reach(5)
    assert (notice.stopping, notice.is_set(), notice.remaining()) == (True, True, 18.0)


def test_remaining_counts_down_to_the_disconnect_of_this_response(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, close=("/events",))
    for path in ("/events", "/llm"):
        one.connect().send(get(path))
    closes, stays = (of(call) for call in stage.calls)
    one.order()
    assert (closes.remaining(), stays.remaining()) == (1.0, 18.0)
    one.reach(0.75)
    assert (closes.remaining(), stays.remaining()) == (0.25, 17.25)
    stays.close()
    assert stays.remaining() == 0.25
    closes.finish()
    assert closes.remaining() == 17.25
    one.reach(10)
    assert (closes.remaining(), stays.remaining()) == (8.0, 0.0)


def test_remaining_without_a_limit(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, budgets=Budgets(graceful=math.inf))
    one.connect().send(GET)
    one.order()
    assert of(stage.last).remaining() == math.inf


def test_wait_in_a_request(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    client.send(GET)
    stage.last.do(of(stage.last).wait)
    one.advance(100)
    assert stage.last.results == []
    one.order()
    assert stage.last.results == [None]
    stage.last.sends(start(), body(b"goodbye"))
    assert client.answer().body == b"goodbye", "telling is not disconnecting"


def test_receive_and_send_work_as_ever_between_the_notice_and_the_disconnect(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    client.send(GET)
    call = stage.last
    call.sends(start(), body(b"some", more=True))
    one.order()
    one.reach(17.9)
    call.sends(body(b" more", more=True))
    call.receives()
    assert call.receives() is None, "no http.disconnect: the client is there"
    one.reach(18)
    assert call.results[-1] == {"type": "http.disconnect"}
    assert client.answer().body == b"some more"


# -- callbacks ---------------------------------------------------------------------------------------------------------


def test_a_callback_is_called_once_in_the_loops_thread(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    one.connect().send(GET)
    calls: list[tuple[str, int, bool]] = []

    def note(name: str) -> Callable[[], None]:
        return lambda: calls.append((name, threading.get_ident(), of(stage.last).is_set()))

    thread = threading.Thread(target=of(stage.last).add_callback, args=(note("from a thread"),))
    thread.start()
    thread.join()
    one.loop.call(of(stage.last).add_callback, note("from the loop"))
    assert calls == []
    one.order()
    one.order("SIGINT")
    here = threading.get_ident()
    assert calls == [("from a thread", here, True), ("from the loop", here, True)]
    of(stage.last).add_callback(note("late"))
    assert calls[-1] == ("late", here, True)


def test_a_callback_is_forgotten_when_its_request_ends(stoppable: MakeStoppable) -> None:
    class Resource:
        """Something that a callback holds."""

    stage = Stage()
    one = stoppable(stage)
    one.connect().send(GET)
    calls: list[str] = []
    resource = Resource()
    known = weakref.ref(resource)

    def tell(resource: Resource = resource) -> None:
        calls.append("told")

    of(stage.last).add_callback(tell)
    stage.last.sends(start(), body())
    stage.last.ends()
    del resource, tell
    stage.calls.clear()
    gc.collect()
    assert known() is None, "a server that runs for months must not collect them"
    one.order()
    assert calls == []


def test_a_callback_while_background_work_runs_is_called(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    one.connect().send(GET)
    calls: list[str] = []
    of(stage.last).add_callback(lambda: calls.append("told"))
    stage.last.sends(start(), body())
    one.order()
    assert calls == ["told"]


def test_a_callback_may_say_what_becomes_of_the_response(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, close=("*",))
    clients = [one.connect() for _ in range(2)]
    for client in clients:
        client.send(GET)
        stage.last.sends(start(), body(b"some", more=True))
    of(stage.calls[0]).add_callback(of(stage.calls[0]).finish)
    of(stage.calls[1]).add_callback(of(stage.calls[1]).close)
    one.order()
    one.reach(1)
    assert [client.stream.closed for client in clients] == [False, True]


def test_a_callback_that_raises_harms_nobody(stoppable: MakeStoppable, caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    one = stoppable(stage)
    calls: list[int] = []

    def broken() -> None:
        raise ValueError("mine")

    for number in range(2):
        one.connect().send(GET)
        of(stage.last).add_callback(broken)
        of(stage.last).add_callback(lambda number=number: calls.append(number))  # type: ignore[misc]
    one.order()
    assert sorted(calls) == [0, 1]
    assert [record.getMessage() for record in caplog.records if record.exc_info] == [
        "Exception in a callback of the drain notice"
    ] * 2


def test_a_callback_outside_of_requests_is_the_servers(servers: Callable[[], DrainSignal]) -> None:
    signal = servers()
    calls: list[str] = []
    drain_notice().add_callback(lambda: calls.append("told"))
    signal.give(math.inf, math.inf)
    assert calls == ["told"]


@pytest.mark.parametrize("wrong", [None, 3, "function"])
def test_what_is_no_function_is_refused_when_it_is_given(wrong: Any) -> None:
    with pytest.raises(TypeError):
        drain_notice().add_callback(wrong)


def test_a_callback_of_a_request_that_is_over_is_the_servers(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    one.connect().send(GET)
    notice = of(stage.last)
    stage.last.sends(start(), body())
    stage.last.ends()
    calls: list[str] = []
    notice.add_callback(lambda: calls.append("told"))
    one.order()
    assert calls == ["told"]
