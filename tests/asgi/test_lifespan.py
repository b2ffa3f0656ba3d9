"""The lifespan's table, every way an application can behave, and the bounds of every wait."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import logging
import math
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from lastcall.asgi.interfaces import ASGI2Adapter
from lastcall.asgi.lifespan import FINAL, MESSAGES, TRANSITIONS, Event, Lifespan, LifespanOutcome, State, step
from lastcall.base.errors import LocalProtocolError, StartupError
from lastcall.base.types import Message, Receive, Scope, Send
from testing.loop import VirtualLoop

STARTED: Message = {"type": "lifespan.startup.complete"}
STOPPED: Message = {"type": "lifespan.shutdown.complete"}
BUDGET = 5.0


def now() -> float:
    return asyncio.get_running_loop().time()


async def good_app(scope: Scope, receive: Receive, send: Send) -> None:
    assert (await receive())["type"] == "lifespan.startup"
    await send(STARTED)
    assert (await receive())["type"] == "lifespan.shutdown"
    await send(STOPPED)


async def stubborn(forever: asyncio.Event) -> None:
    """Swallow every cancellation, until the test itself is over."""
    while not forever.is_set():
        try:
            await forever.wait()
        except asyncio.CancelledError:
            continue


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def run(coro: Coroutine[Any, Any, None]) -> None:
    """Run a test; what nobody else has handled, in the loop, fails it."""
    unhandled: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(0.0)) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        runner.run(coro)
    assert unhandled == []


def records(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


@pytest.fixture(autouse=True)
def _log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="lastcall.error")


# The table.


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_state_and_event_is_a_row_or_a_protocol_error(state: State, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        after = step(state, event)
        assert after is state or state not in FINAL, "a final state stays"
    else:
        with pytest.raises(LocalProtocolError):
            step(state, event)


def test_the_server_can_always_cancel() -> None:
    assert all((state, Event.CANCEL) in TRANSITIONS for state in State)
    assert all(step(state, Event.CANCEL) in FINAL | {State.INTERRUPTED} for state in State)


def test_a_task_can_end_in_every_state_in_which_it_runs() -> None:
    without_task = {State.IDLE, State.OFF, State.UNSUPPORTED, State.RETURNED}
    for state in set(State) - without_task:
        assert (state, Event.RETURNED) in TRANSITIONS
        assert (state, Event.RAISED) in TRANSITIONS


def test_no_path_leads_to_serving_or_complete_without_the_order() -> None:
    assert [key for key, after in TRANSITIONS.items() if after is State.SERVING] == [
        (State.STARTING, Event.STARTUP_COMPLETE),
        (State.INTERRUPTED, Event.STARTUP_COMPLETE),
    ]
    assert {key for key, after in TRANSITIONS.items() if after is State.COMPLETE and key[0] is not State.COMPLETE} == {
        (State.STOPPING, Event.SHUTDOWN_COMPLETE),
        (State.STOPPING, Event.RETURNED),
    }


def test_messages_are_the_four_of_the_specification() -> None:
    parts = itertools.product(("startup", "shutdown"), ("complete", "failed"))
    assert set(MESSAGES) == {f"lifespan.{phase}.{end}" for phase, end in parts}


# The plain way.


def test_startup_state_and_shutdown(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append({**scope, "state": dict(scope["state"])})
        scope["state"]["pool"] = seen
        seen.append(await receive())
        await send(STARTED)
        seen.append(await receive())
        await send(STOPPED)
        seen.append("cleaned up")

    async def main() -> None:
        lifespan = Lifespan(app)
        assert lifespan.state is None
        assert lifespan.task is None
        assert await lifespan.startup() is True
        assert lifespan.state == {"pool": seen}
        assert lifespan.task is not None
        assert not lifespan.task.done()
        assert len(seen) == 2, "shutdown is not sent before it is ordered"
        assert await lifespan.shutdown(BUDGET) is LifespanOutcome.COMPLETE
        assert lifespan.task.done()

    run(main())
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    assert seen == [scope, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}, "cleaned up"]
    assert records(caplog, logging.WARNING) == []


def test_off_never_calls_the_application() -> None:
    async def main() -> None:
        lifespan = Lifespan(good_app, "off")
        assert await lifespan.startup() is True
        assert lifespan.task is None
        assert lifespan.state is None
        assert await lifespan.shutdown(BUDGET) is LifespanOutcome.OFF

    run(main())


def test_shutdown_without_startup_returns_at_once() -> None:
    async def main() -> None:
        assert await Lifespan(good_app).shutdown(BUDGET) is LifespanOutcome.NOT_STARTED

    run(main())


def test_the_seeds_asgi2_application() -> None:
    heard: list[str] = []

    class App:
        def __call__(self, scope: Scope) -> Callable[[Receive, Send], Coroutine[Any, Any, None]]:
            assert scope["type"] == "lifespan"
            return self.lifespan

        async def lifespan(self, receive: Receive, send: Send) -> None:
            heard.append((await receive())["type"])
            await send(STARTED)
            heard.append((await receive())["type"])
            await send(STOPPED)

    async def main() -> None:
        lifespan = Lifespan(ASGI2Adapter(App()))
        await lifespan.startup()
        assert lifespan.state == {}
        assert await lifespan.shutdown(BUDGET) is LifespanOutcome.COMPLETE

    run(main())
    assert heard == ["lifespan.startup", "lifespan.shutdown"]


def test_context_variables_do_not_leak() -> None:
    variable = contextvars.ContextVar("variable", default="outside")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        variable.set("inside")
        await good_app(scope, receive, send)

    async def main() -> None:
        lifespan = Lifespan(app)
        await lifespan.startup()
        assert variable.get() == "outside"
        await lifespan.shutdown(BUDGET)
        assert variable.get() == "outside"

    run(main())


def test_a_cancelled_receive_loses_no_message() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(STARTED)
        for _ in range(3):
            polling = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            polling.cancel()
            await asyncio.wait({polling})
        # Cancelled in the very turn in which the message arrives.
        polling = asyncio.ensure_future(receive())
        scope["state"]["polling"] = polling
        try:
            message = await polling
        except asyncio.CancelledError:
            message = await receive()
        assert message == {"type": "lifespan.shutdown"}
        await send(STOPPED)

    async def main() -> None:
        lifespan = Lifespan(app)
        await lifespan.startup()
        assert lifespan.state is not None
        await turns(20)
        stopping = asyncio.ensure_future(lifespan.shutdown(BUDGET))
        await asyncio.sleep(0)
        lifespan.state["polling"].cancel()
        assert await stopping is LifespanOutcome.COMPLETE

    run(main())


# Support, and what is none.


async def http_only(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"


async def does_not_look(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def returns_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    return None


@pytest.mark.parametrize("app", [http_only, does_not_look, returns_at_once])
def test_auto_serves_without_lifespan(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        lifespan = Lifespan(app, "auto")
        assert await lifespan.startup() is True
        assert lifespan.state is None
        assert not lifespan.failed_while_serving
        assert await lifespan.shutdown(BUDGET) is LifespanOutcome.UNSUPPORTED

    run(main())
    assert records(caplog, logging.INFO)[-1] == "The application does not support lifespan: serving without."
    assert records(caplog, logging.WARNING) == []


async def fails_quietly(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    raise RuntimeError("no database")


def test_auto_warns_when_the_application_took_part_before_it_raised(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        assert await Lifespan(fails_quietly).startup() is True

    run(main())
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], RuntimeError)


def test_on_makes_an_exception_a_failed_startup(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        with pytest.raises(StartupError, match="RuntimeError: no database"):
            await Lifespan(fails_quietly, "on").startup()

    run(main())
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], RuntimeError)


def test_on_refuses_an_application_that_only_returns() -> None:
    async def main() -> None:
        with pytest.raises(StartupError):
            await Lifespan(returns_at_once, "on").startup()

    run(main())


# Start-up that fails.


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_startup_failed_raises_with_the_applications_message(mode: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    async def main() -> None:
        lifespan = Lifespan(app, mode)
        with pytest.raises(StartupError, match="no database") as caught:
            await lifespan.startup()
        assert caught.value.exit_code == 3
        assert lifespan.state is None
        assert await lifespan.shutdown(BUDGET) is LifespanOutcome.NOT_STARTED

    run(main())


def test_startup_failed_as_starlette_sends_it(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        try:
            raise RuntimeError("no database")
        except RuntimeError:
            await send({"type": "lifespan.startup.failed", "message": "Traceback\n  RuntimeError: no database\n"})
            raise

    async def main() -> None:
        lifespan = Lifespan(app)
        with pytest.raises(StartupError, match=r"Traceback\n  RuntimeError: no database"):
            await lifespan.startup()
        assert lifespan.task is not None
        assert lifespan.task.done()

    run(main())
    assert records(caplog, logging.WARNING) == [], "the message has the traceback already"


def test_startup_failed_without_a_message_shows_the_exception(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.failed"})
        raise RuntimeError("no database")

    async def main() -> None:
        with pytest.raises(StartupError, match="RuntimeError: no database"):
            await Lifespan(app).startup()

    run(main())
    assert any(record.exc_info for record in caplog.records if record.levelno == logging.ERROR)


def test_startup_failed_lets_the_application_clean_up() -> None:
    cleaned: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.failed", "message": "no"})
        await asyncio.sleep(0.01)
        cleaned.append(True)
        await receive()  # startup
        await receive()  # nothing comes any more: this ends the task

    async def main() -> None:
        lifespan = Lifespan(app)
        with pytest.raises(StartupError):
            await lifespan.startup()
        assert lifespan.task is not None
        assert lifespan.task.done()

    run(main())
    assert cleaned == [True]


@pytest.mark.parametrize("mode", ["auto", "on"])
@pytest.mark.parametrize("grouped", [False, True])
def test_sys_exit_in_startup_is_a_failed_startup(mode: str, grouped: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise BaseExceptionGroup("tasks", [SystemExit(7)]) if grouped else SystemExit(7)

    async def main() -> None:
        with pytest.raises(StartupError, match="7"):
            await Lifespan(app, mode).startup()

    run(main())


def test_keyboard_interrupt_in_startup_stays_out_of_the_loop() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        with pytest.raises(StartupError, match="KeyboardInterrupt"):
            await Lifespan(app).startup()

    run(main())


def test_a_startup_that_takes_too_long(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        lifespan = Lifespan(app, timeout_startup=35)
        with pytest.raises(StartupError, match="--timeout-lifespan-startup"):
            await lifespan.startup()
        assert now() == pytest.approx(35)
        await turns()
        assert lifespan.task is not None
        assert lifespan.task.done(), "it was cancelled"
        assert await lifespan.cancel(BUDGET) is True

    run(main())
    lines = [line for line in records(caplog, logging.INFO) if line.startswith("Still starting")]
    assert [line.split()[-2] for line in lines] == ["10", "20", "30"]


def test_a_startup_may_take_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(86400)
        await good_app(scope, receive, send)

    async def main() -> None:
        lifespan = Lifespan(app, still_starting_interval=20000)
        assert await lifespan.startup() is True
        assert now() == pytest.approx(86400)
        assert await lifespan.shutdown(BUDGET) is LifespanOutcome.COMPLETE

    run(main())
    assert len([line for line in records(caplog, logging.INFO) if "Still starting" in line]) == 4


# Start-up that is interrupted.


def test_interrupt_ends_a_hung_startup_at_once(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await asyncio.Event().wait()
        except BaseException as exc:
            # As Starlette does; the server must accept it although it has given up on the start-up.
            await send({"type": "lifespan.startup.failed", "message": "cancelled"})
            ended.append(type(exc).__name__)
            raise

    async def main() -> None:
        lifespan = Lifespan(app)
        asyncio.get_running_loop().call_later(0.01, lifespan.interrupt)
        assert await lifespan.startup() is False
        assert await lifespan.cancel(BUDGET) is True
        assert lifespan.task is not None
        assert lifespan.task.done()
        assert await lifespan.shutdown(BUDGET) is LifespanOutcome.NOT_STARTED

    run(main())
    assert ended == ["CancelledError"]
    assert records(caplog, logging.WARNING) == []


def test_interrupt_before_startup_means_no_start() -> None:
    async def main() -> None:
        lifespan = Lifespan(good_app)
        lifespan.interrupt()
        assert await lifespan.startup() is False
        assert lifespan.task is None
        assert await lifespan.cancel(0) is True

    run(main())


def test_cancelling_startup_cancels_the_task() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        lifespan = Lifespan(app)
        starting = asyncio.ensure_future(lifespan.startup())
        await turns()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await turns()
        assert lifespan.task is not None
        assert lifespan.task.done()
        assert await lifespan.cancel(BUDGET) is True

    run(main())


def test_a_startup_that_swallows_cancellation_is_abandoned_and_named(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        forever = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await stubborn(forever)

        lifespan = Lifespan(app)
        asyncio.get_running_loop().call_later(0.01, lifespan.interrupt)
        assert await lifespan.startup() is False
        begun = now()
        assert await lifespan.cancel(2) is False
        assert now() - begun == pytest.approx(2)
        forever.set()
        assert lifespan.task is not None
        await lifespan.task

    run(main())
    assert any("lastcall-lifespan" in line and "abandoned" in line for line in records(caplog, logging.ERROR))


def test_no_time_to_cancel_is_still_a_loop_turn() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await turns(10)
            cleaned.append(True)

    cleaned: list[bool] = []

    async def main() -> None:
        lifespan = Lifespan(app)
        asyncio.get_running_loop().call_later(1, lifespan.interrupt)
        assert await lifespan.startup() is False
        assert await lifespan.cancel(0) is True
        assert now() < 1.1

    run(main())
    assert cleaned == [True]


@pytest.mark.parametrize("how", ["interrupted", "timed out", "cancelled"])
def test_the_clean_up_of_a_cancelled_startup_is_not_cancelled(how: str) -> None:
    cleaned: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)
            cleaned.append(True)

    async def main() -> None:
        lifespan = Lifespan(app, timeout_startup=5 if how == "timed out" else math.inf)
        starting = asyncio.ensure_future(lifespan.startup())
        if how != "timed out":
            asyncio.get_running_loop().call_later(3, lifespan.interrupt if how == "interrupted" else starting.cancel)
        await asyncio.wait({starting})
        assert starting.cancelled() or starting.exception() is not None or starting.result() is False
        lifespan.interrupt()
        assert await lifespan.cancel(2) is True

    run(main())
    assert cleaned == [True]


@pytest.mark.parametrize("how", ["interrupted", "timed out", "cancelled"])
@pytest.mark.parametrize("when", ["at once", "later"])
@pytest.mark.parametrize("at_shutdown", [False, True])
def test_who_completes_the_start_up_is_shut_down_whenever_it_was_interrupted(
    how: str, when: str, at_shutdown: bool
) -> None:
    heard: list[object] = []

    async def main() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            if when == "later":
                await asyncio.sleep(1)
            await send({"type": "lifespan.startup.complete"})
            heard.append((await receive())["type"])
            await asyncio.sleep(1)
            await send({"type": "lifespan.shutdown.complete"})

        lifespan = Lifespan(app, timeout_startup=5 if how == "timed out" else math.inf)
        starting = asyncio.ensure_future(lifespan.startup())
        if how != "timed out":
            asyncio.get_running_loop().call_later(3, lifespan.interrupt if how == "interrupted" else starting.cancel)
        await asyncio.wait({starting})
        assert starting.cancelled() or (starting.exception() is not None) is (how == "timed out")
        if not lifespan.ready and not at_shutdown:
            assert await lifespan.cancel(2) is True
            assert lifespan.ready
        assert await lifespan.shutdown(BUDGET) is LifespanOutcome.COMPLETE

    run(main())
    assert heard == ["lifespan.shutdown"]


def test_an_interruption_after_the_applications_last_word_comes_too_late() -> None:
    """It blocked, and what was ordered meanwhile is done before ``startup()`` goes on."""

    async def main() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            asyncio.get_running_loop().call_soon(lifespan.interrupt)
            await send({"type": "lifespan.startup.complete"})
            assert (await receive())["type"] == "lifespan.shutdown"
            await send({"type": "lifespan.shutdown.complete"})

        lifespan = Lifespan(app)
        assert await lifespan.startup() is True
        assert await lifespan.shutdown(BUDGET) is LifespanOutcome.COMPLETE

    run(main())


# While serving.


def test_a_return_while_serving_counts_as_complete(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["kept"] = True
        await send(STARTED)

    async def main() -> None:
        lifespan = Lifespan(app, "on")
        assert await lifespan.startup() is True
        assert lifespan.task is not None
        await lifespan.task
        assert lifespan.state == {"kept": True}
        assert not lifespan.failed_while_serving
        assert await lifespan.shutdown(BUDGET) is LifespanOutcome.COMPLETE

    run(main())
    assert len([line for line in records(caplog, logging.INFO) if "returned while serving" in line]) == 1
    assert records(caplog, logging.WARNING) == []


@pytest.mark.parametrize("error", [RuntimeError("lost"), SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError()])
@pytest.mark.parametrize("mode", ["auto", "on"])
def test_an_exception_while_serving_is_logged_and_kept(
    error: BaseException, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(STARTED)
        raise error

    async def main() -> None:
        lifespan = Lifespan(app, mode)
        assert await lifespan.startup() is True
        assert lifespan.task is not None
        await asyncio.wait({lifespan.task})
        assert lifespan.failed_while_serving
        assert lifespan.state == {}, "serving goes on with the state it had"
        outcome = await lifespan.shutdown(BUDGET)
        assert outcome is LifespanOutcome.DIED_WHILE_SERVING
        assert outcome.exit_code == 4

    run(main())
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.exc_info is not None
    assert record.exc_info[1] is error


@pytest.mark.parametrize("lingers", [False, True])
def test_shutdown_failed_while_serving_as_starlette_sends_it(lingers: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(STARTED)
        await send({"type": "lifespan.shutdown.failed", "message": "a background task was lost"})
        if lingers:
            await asyncio.Event().wait()
        raise RuntimeError("a background task was lost")

    async def main() -> None:
        lifespan = Lifespan(app)
        await lifespan.startup()
        assert await lifespan.shutdown(BUDGET) is LifespanOutcome.DIED_WHILE_SERVING
        assert lifespan.failed_while_serving
        assert lifespan.task is not None
        assert lifespan.task.done()

    run(main())
    [line] = records(caplog, logging.WARNING)
    assert "a background task was lost" in line


# Shutdown that goes wrong.


def test_shutdown_failed_is_logged_with_its_message(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(STARTED)
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "queue not flushed"})

    async def main() -> None:
        lifespan = Lifespan(app)
        await lifespan.startup()
        outcome = await lifespan.shutdown(BUDGET)
        assert outcome is LifespanOutcome.FAILED
        assert outcome.exit_code == 4
        assert await lifespan.shutdown(BUDGET) is outcome, "asking again changes nothing"

    run(main())
    assert records(caplog, logging.WARNING) == ["Application shutdown failed: queue not flushed"]


def test_an_exception_in_shutdown_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(STARTED)
        await receive()
        raise RuntimeError("queue not flushed")

    async def main() -> None:
        lifespan = Lifespan(app)
        await lifespan.startup()
        assert await lifespan.shutdown(BUDGET) is LifespanOutcome.FAILED
        assert not lifespan.failed_while_serving

    run(main())
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.exc_info is not None


def test_a_return_in_shutdown_counts_as_complete() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(STARTED)
        await receive()

    async def main() -> None:
        lifespan = Lifespan(app)
        await lifespan.startup()
        assert await lifespan.shutdown(BUDGET) is LifespanOutcome.COMPLETE

    run(main())


def test_a_hung_shutdown_is_cancelled_in_time(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(STARTED)
        await receive()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.2)
            await send({"type": "lifespan.shutdown.failed", "message": "cancelled"})

    async def main() -> None:
        lifespan = Lifespan(app)
        await lifespan.startup()
        begun = now()
        outcome = await lifespan.shutdown(BUDGET)
        assert BUDGET - 0.3 < now() - begun <= BUDGET
        assert outcome is LifespanOutcome.TIMED_OUT
        assert outcome.exit_code == 4
        assert lifespan.task is not None
        assert lifespan.task.done()

    run(main())
    [line] = records(caplog, logging.WARNING)
    assert "within 5 s" in line


@pytest.mark.parametrize(("answers", "budget"), [(False, 5.0), (True, 5.0), (True, math.inf), (False, 0.5)])
def test_a_shutdown_that_swallows_cancellation_is_bounded(
    answers: bool, budget: float, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        forever = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(STARTED)
            await receive()
            if answers:
                await send(STOPPED)
            await stubborn(forever)

        lifespan = Lifespan(app)
        await lifespan.startup()
        begun = now()
        outcome = await lifespan.shutdown(budget)
        assert now() - begun <= min(budget, 5) + 1e-6
        assert outcome is LifespanOutcome.ABANDONED
        assert outcome.exit_code == 5
        forever.set()
        assert lifespan.task is not None
        await lifespan.task

    run(main())
    assert any("lastcall-lifespan" in line for line in records(caplog, logging.ERROR))


def test_cancelling_shutdown_cancels_the_task() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(STARTED)
        await asyncio.Event().wait()

    async def main() -> None:
        lifespan = Lifespan(app)
        await lifespan.startup()
        stopping = asyncio.ensure_future(lifespan.shutdown(math.inf))
        await asyncio.sleep(0)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        assert lifespan.task is not None
        await asyncio.wait({lifespan.task}, timeout=BUDGET)
        assert lifespan.task.done()

    run(main())


def test_an_application_that_receives_for_ever_ends_with_its_last_answer() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})

    async def main() -> None:
        lifespan = Lifespan(app)
        await lifespan.startup()
        begun = now()
        assert await lifespan.shutdown(math.inf) is LifespanOutcome.COMPLETE
        assert now() == begun
        assert lifespan.task is not None
        assert lifespan.task.done()

    run(main())


def test_receiving_after_the_end_does_not_spin() -> None:
    asked = 0
    over = False

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal asked
        await receive()
        await send(STARTED)
        await receive()
        await send(STOPPED)
        while not over:
            asked += 1
            try:
                await receive()
            except asyncio.CancelledError:
                continue

    async def main() -> None:
        nonlocal over
        lifespan = Lifespan(app)
        await lifespan.startup()
        assert await lifespan.shutdown(BUDGET) is LifespanOutcome.ABANDONED
        over = True
        assert lifespan.task is not None
        lifespan.task.cancel()
        await asyncio.wait({lifespan.task})

    run(main())
    assert asked == 3, "ended by the first receive(), and by shutdown()"


def test_words_after_the_answer_are_waited_for_but_not_long() -> None:
    ended: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await good_app(scope, receive, send)
        try:
            await asyncio.sleep(scope["state"]["seconds"])
        finally:
            ended.append(now())

    async def main(seconds: float) -> None:
        lifespan = Lifespan(app)
        await lifespan.startup()
        assert lifespan.state is not None
        lifespan.state["seconds"] = seconds
        assert await lifespan.shutdown(BUDGET) is LifespanOutcome.COMPLETE

    run(main(0.5))
    run(main(60))
    assert ended == [pytest.approx(0.5), pytest.approx(1)]


def test_a_loop_that_is_closed_on_the_application_is_no_failure_of_it(caplog: pytest.LogCaptureFixture) -> None:
    loop = VirtualLoop(0.0)
    lifespan = Lifespan(good_app)
    loop.run_until_complete(lifespan.startup())
    assert lifespan.task is not None
    coro = lifespan.task.get_coro()
    assert coro is not None
    coro.close()
    lifespan.task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    assert not lifespan.failed_while_serving
    assert records(caplog, logging.WARNING) == []


# Messages that break the protocol: the error is raised where it was caused.


@pytest.mark.parametrize(
    "message",
    [
        STOPPED,
        {"type": "lifespan.shutdown.failed"},
        {"type": "lifespan.startup.completed"},
        {"type": "lifespan.startup"},
        {"type": "http.response.start"},
        {"type": None},
        {},
        "lifespan.startup.complete",
    ],
)
def test_a_wrong_message_before_startup_raises_from_send(message: Any) -> None:
    raised: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send(message)
        except LocalProtocolError as exc:
            raised.append(exc)
        await good_app(scope, receive, send)

    async def main() -> None:
        lifespan = Lifespan(app, "on")
        assert await lifespan.startup() is True
        assert await lifespan.shutdown(BUDGET) is LifespanOutcome.COMPLETE

    run(main())
    assert len(raised) == 1


@pytest.mark.parametrize("message", [STARTED, STOPPED, {"type": "lifespan.startup.failed"}])
def test_a_message_out_of_order_while_serving_raises_from_send(message: Message) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(STARTED)
        with pytest.raises(LocalProtocolError):
            await send(message)
        await receive()
        await send(STOPPED)
        with pytest.raises(LocalProtocolError):
            await send(STOPPED)

    async def main() -> None:
        lifespan = Lifespan(app)
        await lifespan.startup()
        assert await lifespan.shutdown(BUDGET) is LifespanOutcome.COMPLETE
        assert lifespan.task is not None
        assert lifespan.task.exception() is None

    run(main())


def test_exit_codes_follow_the_outcome() -> None:
    codes = {outcome: outcome.exit_code for outcome in LifespanOutcome}
    assert {outcome for outcome, code in codes.items() if code == 4} == {
        LifespanOutcome.FAILED,
        LifespanOutcome.TIMED_OUT,
        LifespanOutcome.DIED_WHILE_SERVING,
    }
    assert {outcome for outcome, code in codes.items() if code == 5} == {LifespanOutcome.ABANDONED}
    assert set(codes.values()) == {0, 4, 5}
