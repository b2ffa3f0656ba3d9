"""Disconnect, then cancel: by policy, at the end of the grace, or because the client has left."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from lastcall.base.errors import ClientDisconnected
from lastcall.base.types import Receive, Scope, Send
from lastcall.drain.ladder import Budgets, Phase
from lastcall.drain.policy import Policy
from lastcall.drain.report import StopReport
from lastcall.notice.notice import DrainNotice
from testing.draining import StoppableBench
from testing.memory import GET, OLD_GET, Call, Client, Stage, body, get, post, start

MakeStoppable = Callable[..., StoppableBench]
DISCONNECT = {"type": "http.disconnect"}
F = 1.0  # the farewell
M = 2.0  # the margin of the default grace
G = 20.0
C = 2.0

LENGTH = (b"content-length", b"100")


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Everything from a warning on, but for the report; fails if there is a traceback."""
    assert not [record for record in caplog.records if record.exc_info]
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    return [line for line in lines if not line.startswith("Stopped (")]


def notice(call: Call) -> DrainNotice:
    found = call.scope["extensions"]["lastcall.drain"]["notice"]
    assert isinstance(found, DrainNotice)
    return found


def streaming(stage: Stage, client: Client, path: str = "/", *fields: str) -> Call:
    """A response that has started."""
    client.send(get(path, *fields))
    call = stage.last
    call.sends(start(), body(b"some", more=True))
    return call


def still_there(call: Call) -> bool:
    """Whether an application still has its client."""
    before = len(call.results)
    call.sends(body(b".", more=True))
    return call.results[before:] == [None]


class Sleeper:
    """An application that streams and then waits for something that never comes; it counts what reaches its task.

    It swallows the first ``stubborn`` cancellations, and never looks at ``receive()``.
    """

    def __init__(self, *, stubborn: int = 0, begin: bool = True, cleanup: BaseException | None = None) -> None:
        self.cancels = 0
        self.ends = 0
        self._stubborn = stubborn
        self._begin = begin
        self._cleanup = cleanup

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if self._begin:
                await send(start())
                await send(body(b"some", more=True))
            while True:
                try:
                    await asyncio.sleep(1e6)
                except asyncio.CancelledError:
                    self.cancels += 1
                    if self.cancels > self._stubborn:
                        raise
        finally:
            self.ends += 1
            if self._cleanup is not None:
                raise self._cleanup


# -- by policy ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("farewell", [1.0, 0.0, 4.5])
def test_a_response_that_an_option_tells_to_close_is_disconnected_after_the_farewell(
    stoppable: MakeStoppable, caplog: pytest.LogCaptureFixture, farewell: float
) -> None:
    stage = Stage()
    one = stoppable(stage, close=("/events",), budgets=Budgets(farewell=farewell))
    client = one.connect()
    call = streaming(stage, client, "/events")
    call.receives()
    assert call.receives() is None
    assert one.tasks.snapshot()[0].policy == Policy.CLOSE
    one.order()
    if farewell:
        assert notice(call).remaining() == farewell
        one.reach(farewell - 0.001)
        call.results.clear()
        assert not client.stream.closed, "it may say goodbye until then"
    one.reach(farewell)
    assert call.results[-1] == DISCONNECT
    assert not still_there(call)
    assert type(call.results[-1]) is ClientDisconnected
    assert notice(call).remaining() == 0.0
    assert client.stream.closed
    call.ends(call.results[-1])
    report = one.finish()
    assert (report.total, report.closed_by_policy, report.cut) == (1, 1, ())
    assert errors(caplog) == []


def test_what_is_sent_in_the_farewell_arrives(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, close=("*",))
    client = one.connect()
    call = streaming(stage, client)
    one.order()
    one.reach(F - 0.001)
    call.sends(body(b" goodbye", more=True))
    one.reach(F)
    answer = client.answer()
    assert (answer.body, answer.complete) == (b"some goodbye", False)


def test_one_that_ends_in_the_farewell_is_whole(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, close=("*",))
    client = one.connect()
    call = streaming(stage, client)
    one.order()
    call.sends(body(b" goodbye"))
    call.ends()
    answer = client.answer()
    assert (answer.body, answer.complete) == (b"some goodbye", True)
    report = one.finish()
    assert (report.finished, report.closed_by_policy) == (1, 0)


def test_the_default_is_to_finish(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, close=("/events",))
    client = one.connect()
    call = streaming(stage, client, "/llm")
    assert one.tasks.snapshot()[0].policy == Policy.DEFAULT
    one.order()
    assert notice(call).remaining() == G - M
    one.reach(G - M - 0.001)
    assert still_there(call)
    call.sends(body(b"done"))
    assert client.answer().complete


@pytest.mark.parametrize(
    ("path", "closes"),
    [
        ("/caf%C3%A9/a", True),
        ("/caf%c3%a9/%61", True),
        ("/%63af%C3%A9/a", True),
        ("/caf%C3%A9%2Fa", True),
        ("/caf%C3%A9/a?q=/x", True),
        ("/cafe/a", False),
        ("/caf%E9/a", False),  # not UTF-8: a replacement character, as in the scope
        ("/x?/caf%C3%A9/a", False),
        ("http://other/caf%C3%A9/a", True),
    ],
)
def test_globs_see_the_path_that_the_application_sees(stoppable: MakeStoppable, path: str, closes: bool) -> None:
    stage = Stage()
    one = stoppable(stage, close=("/café/a",))
    client = one.connect()
    call = streaming(stage, client, path)
    assert (call.scope["path"] == "/café/a") == closes
    assert one.tasks.snapshot()[0].policy == (Policy.CLOSE if closes else Policy.DEFAULT)


def test_the_application_has_the_last_word(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, close=("/close/*",), finish=("/finish/*",))
    clients, calls = [], []
    for path in ("/close/1", "/close/2", "/finish/1", "/finish/2", "/other"):
        clients.append(one.connect())
        calls.append(streaming(stage, clients[-1], path))
    notice(calls[1]).finish()
    notice(calls[3]).close()
    notice(calls[4]).close()
    one.order()
    one.reach(F)
    assert [client.stream.closed for client in clients] == [True, False, False, True, True]


def test_the_last_word_of_the_application_counts(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    closes, stays = one.connect(), one.connect()
    first, second = streaming(stage, closes), streaming(stage, stays)
    for each, words in ((first, ("close", "finish", "close")), (second, ("finish", "close", "finish"))):
        for word in words:
            getattr(notice(each), word)()
    one.order()
    notice(second).close()
    notice(second).finish()  # after the notice is as good as before
    one.reach(F)
    assert (closes.stream.closed, stays.stream.closed) == (True, False)


@pytest.mark.parametrize("when", [0.0, 0.5, 0.999])
def test_close_within_the_farewell_is_at_its_end(stoppable: MakeStoppable, when: float) -> None:
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    call = streaming(stage, client)
    one.order()
    one.reach(when)
    one.loop.call(notice(call).close)
    assert not client.stream.closed
    assert notice(call).remaining() == pytest.approx(F - when)
    one.reach(F)
    assert client.stream.closed


@pytest.mark.parametrize("thread", [False, True], ids=["in the loop", "in a thread"])
def test_close_after_the_farewell_is_at_once(stoppable: MakeStoppable, thread: bool) -> None:
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    call = streaming(stage, client)
    one.order()
    one.reach(5)
    assert not client.stream.closed
    if thread:
        other = threading.Thread(target=notice(call).close)
        other.start()
        other.join()
        one.settle()
    else:
        one.loop.call(notice(call).close)
    assert client.stream.closed
    assert not still_there(call)
    call.ends()
    assert one.finish().closed_by_policy == 1


def test_finish_after_a_disconnect_does_nothing(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, close=("*",))
    client = one.connect()
    call = streaming(stage, client)
    one.order()
    one.reach(F)
    one.loop.call(notice(call).finish)
    assert not still_there(call)
    one.reach(F + M)
    assert call.cancelled, "the disconnect's own cancel still comes"
    assert one.finish().closed_by_policy == 1


@pytest.mark.parametrize("told", ["option", "application"])
def test_a_response_that_starts_after_the_farewell_is_disconnected_a_turn_later(
    stoppable: MakeStoppable, told: str
) -> None:
    stage = Stage()
    one = stoppable(stage, close=("*",) if told == "option" else ())
    client = one.connect()
    client.send(post(0))
    if told == "application":
        notice(stage.last).close()
    one.order()
    one.reach(5)
    assert not client.gone, "it has not started, and is no GET: it may yet answer"
    stage.last.sends(start(), body(b"some", more=True))
    assert stage.last.results == [None, None], "the send itself succeeds"
    answer = client.answer("POST")
    assert (answer.status, answer.body, answer.complete) == (200, b"some", False)
    assert client.stream.closed
    assert stage.last.receives() == DISCONNECT
    stage.last.ends()
    report = one.finish()
    assert (report.closed_by_policy, report.cut) == (1, ())


def test_a_whole_answer_after_the_farewell_is_an_answer(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, close=("*",))
    client = one.connect()
    client.send(post(0))
    one.order()
    one.reach(5)
    stage.last.sends(start(), body(b"whole"))
    stage.last.ends()
    answer = client.answer("POST")
    assert (answer.body, answer.complete) == (b"whole", True)
    assert one.finish().finished == 1


def test_an_upload_that_is_told_to_close_is_not_disconnected(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, close=("*",))
    client = one.connect()
    client.send(post(4) + b"ab")
    one.order()
    one.reach(G - 0.1)
    client.send(b"cd")
    stage.last.sends(start(), body(b"thanks"))
    assert client.answer("POST").body == b"thanks"


def test_background_work_that_is_told_to_close_goes_on(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, close=("*",))
    client = one.connect()
    call = streaming(stage, client)
    call.sends(body())
    one.order()
    one.reach(10)
    assert not call.cancelled
    call.ends()
    report = one.finish()
    assert (report.finished, report.background_finished) == (1, 1)


def test_ctrl_c_keeps_the_farewell_but_not_beyond_the_margin(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, close=("*",), budgets=Budgets(interrupt=1.0))
    client = one.connect()
    call = streaming(stage, client)
    one.order("SIGINT")
    assert notice(call).remaining() == pytest.approx(0.9)
    one.reach(0.9)
    assert client.stream.closed
    call.ends()
    assert one.finish().closed_by_policy == 1, "its own policy, although all others are disconnected now too"


# -- what the client sees ----------------------------------------------------------------------------------------------

FRAMINGS: dict[str, tuple[bytes, tuple[tuple[bytes, bytes], ...]]] = {
    "chunked": (GET, ()),
    "content-length": (GET, (LENGTH,)),
    "HTTP/1.0": (OLD_GET, ()),
    "HTTP/1.0 with a length": (OLD_GET, (LENGTH,)),
    "HTTP/1.0 keep-alive": (get("/", "Connection: keep-alive", version="1.0"), (LENGTH,)),
}


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("why", ["policy", "margin", "grace", "second signal"])
@pytest.mark.parametrize("ending", ["runs on", "returns", "sends the rest"])
def test_a_cut_response_is_visibly_incomplete(
    stoppable: MakeStoppable, caplog: pytest.LogCaptureFixture, framing: str, why: str, ending: str
) -> None:
    """Without the last chunk; short of its length; by a reset where the close would be the end of the body."""
    request, headers = FRAMINGS[framing]
    stage = Stage()
    one = stoppable(stage, close=("*",) if why == "policy" else ())
    client = one.connect()
    client.send(request)
    call = stage.last
    messages = start(200, *headers), body(b"some", more=True)
    one.order()
    if why == "grace":
        one.reach(G - 0.5)  # what starts in the margin has until the end of it
        call.sends(*messages)
        one.reach(G - 0.001)
        assert not client.gone
        one.reach(G)
    else:
        call.sends(*messages)
        if why == "policy":
            one.reach(F)
        elif why == "margin":
            one.reach(G - M)
        else:
            one.advance(1)
            one.force()
    if ending == "returns":
        call.ends()
    elif ending == "sends the rest":
        call.sends(body(b"x" * 96))
    answer = client.answer()
    assert (answer.status, answer.body, answer.complete) == (200, b"some", framing == "HTTP/1.0")
    assert client.stream.closed
    assert client.stream.was_reset == (framing == "HTTP/1.0"), "h11 takes it for complete; a reset tells"
    report = one.finish()
    assert client.take() == b"", "nothing more is written for it"
    assert report.finished == 0
    assert errors(caplog) == []


def test_what_was_sent_before_is_flushed(stoppable: MakeStoppable) -> None:
    """Sent in the very step in which the response is disconnected."""
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    call = streaming(stage, client)
    one.order()
    one.reach(5)

    def both() -> None:
        call.send(body(b" last words", more=True))
        notice(call).close()

    one.loop.call(both)
    assert client.answer().body == b"some last words"


def test_a_client_that_does_not_read_is_reset(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, close=("*",))
    client = one.connect(capacity=200)
    client.send(GET)
    stage.last.sends(start(), body(b"x" * 1000, more=True))
    one.order()
    one.reach(F)
    assert client.stream.was_reset
    assert len(client.take()) == 200


def test_a_blocked_send_is_woken_by_the_disconnect(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, close=("*",))
    client = one.connect(capacity=100)
    client.send(GET)
    stage.last.sends(start(), body(b"x" * 200_000, more=True), body(b"x", more=True))
    assert stage.last.results == [None, None]
    one.order()
    one.reach(F)
    assert type(stage.last.results[-1]) is ClientDisconnected


def test_requests_behind_a_response_that_is_cut_are_not_started(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, close=("/",))
    client = one.connect()
    call = streaming(stage, client)
    client.send(get("/2"))
    one.order()
    one.reach(F)
    assert client.stream.closed
    assert stage.calls == [call]


# -- what has not started ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_bytes", [GET, OLD_GET, post(10) + b"0123"], ids=["1.1", "1.0", "an upload"])
@pytest.mark.parametrize("how", ["grace", "second signal", "C is over"])
def test_a_request_cancelled_before_its_response_began_gets_a_503(
    stoppable: MakeStoppable, caplog: pytest.LogCaptureFixture, request_bytes: bytes, how: str
) -> None:
    stage = Stage()
    one = stoppable(Sleeper(stubborn=1, begin=False) if how == "C is over" else stage)
    client = one.connect()
    client.send(request_bytes)
    one.order()
    one.reach(5 if how == "second signal" else G - 0.001)
    assert not client.gone, "never disconnected: it may still answer"
    if how == "second signal":
        one.force()
    else:
        one.reach(G + (C if how == "C is over" else 0))
    method = request_bytes.split()[0].decode()
    answer = client.answer(method)
    assert (answer.status, answer["retry-after"], answer.complete) == (503, b"1", True)
    assert answer["connection"] == (None if request_bytes is OLD_GET else b"close")
    assert client.gone
    report = one.finish()
    assert [one.kind for one in report.cut] == ["request"]
    if how == "C is over":
        assert (report.abandoned, report.exit_code) == (1, 5)
        assert len(errors(caplog)) == 1
        assert errors(caplog)[0].startswith("Abandoned, still running 2 s after being cancelled: ")
    else:
        assert (report.cancelled, report.exit_code) == (1, 0)
        assert errors(caplog) == []


def test_a_head_that_is_held_at_the_grace_gives_way_to_the_503(stoppable: MakeStoppable) -> None:
    """Nothing of it is on the wire yet, so the client can be told to come again."""
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    client.send(GET)
    one.order()
    one.reach(G - 0.001)
    stage.last.sends(start(200, LENGTH))
    one.reach(G)
    assert client.answer().status == 503
    assert [one.kind for one in one.finish().cut] == ["stream"]


@pytest.mark.parametrize("framing", ["chunked", "content-length", "HTTP/1.0"])
def test_a_head_that_is_held_when_responses_are_disconnected_goes_out_first(
    stoppable: MakeStoppable, framing: str
) -> None:
    request, headers = FRAMINGS[framing]
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    client.send(request)
    one.order()
    one.reach(G - M - 0.001)
    stage.last.sends(start(200, *headers))
    one.reach(G - M)
    answer = client.answer()
    assert (answer.status, answer.body, answer.complete) == (200, b"", framing == "HTTP/1.0")
    assert client.stream.closed
    assert client.stream.was_reset == (framing == "HTTP/1.0")
    assert stage.last.receives() == DISCONNECT


@pytest.mark.parametrize("request_bytes", [GET, OLD_GET], ids=["1.1", "1.0"])
def test_it_may_answer_while_it_is_cancelled(stoppable: MakeStoppable, request_bytes: bytes) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            await send(start(504, (b"content-length", b"4")))
            await send(body(b"late"))

    one = stoppable(app)
    client = one.connect()
    client.send(request_bytes)
    one.order()
    one.reach(G)
    answer = client.answer()
    assert (answer.status, answer.body, answer.complete) == (504, b"late", True)
    report = one.finish()
    assert (report.cancelled, report.cut) == (1, ()), "nobody's answer was cut"


# -- then cancel -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("grace", "margin"), [(20.0, 2.0), (10.0, 1.0), (float("inf"), 2.0)])
def test_a_response_closed_by_policy_is_cancelled_a_margin_later(
    stoppable: MakeStoppable, caplog: pytest.LogCaptureFixture, grace: float, margin: float
) -> None:
    """Starlette's StreamingResponse reads no receive(), and a quiet generator never sends: it would not notice."""
    app = Sleeper()
    one = stoppable(app, close=("*",), budgets=Budgets(graceful=grace))
    one.connect().send(GET)
    one.order()
    one.reach(F + margin - 0.001)
    assert (app.cancels, app.ends) == (0, 0)
    one.reach(F + margin)
    assert (app.cancels, app.ends) == (1, 1)
    report = one.finish()
    assert report.closed_by_policy == 1
    assert report.seconds < F + margin + 0.1, "there is nothing left to wait for"
    assert errors(caplog) == []


def test_one_that_is_disconnected_at_the_margin_is_cancelled_at_the_grace(
    stoppable: MakeStoppable, caplog: pytest.LogCaptureFixture
) -> None:
    app = Sleeper()
    one = stoppable(app)
    one.connect().send(GET)
    one.order()
    one.reach(G - 0.001)
    assert app.cancels == 0
    one.reach(G)
    assert (app.cancels, app.ends) == (1, 1)
    report = one.finish()
    assert (report.disconnected, [one.outcome for one in report.cut]) == (1, ["disconnected"])
    assert errors(caplog) == []


def test_no_task_is_cancelled_twice(stoppable: MakeStoppable) -> None:
    """Closed by policy, cancelled a margin later, still there at the end of the grace: a second CancelledError would
    hit the cleaning up that the first has begun."""
    app = Sleeper(stubborn=1)
    one = stoppable(app, close=("*",))
    one.connect().send(GET)
    one.order()
    one.reach(F + M)
    assert app.cancels == 1
    report = one.finish()
    assert (app.cancels, report.abandoned, report.exit_code) == (1, 1, 5)
    assert report.seconds == pytest.approx(G + C)


@pytest.mark.parametrize("leave", ["FIN", "RST"])
@pytest.mark.parametrize("draining", [False, True])
@pytest.mark.parametrize("seconds", [3.0, 0.5, 0.0])
def test_a_client_that_has_left_leaves_its_task_some_time(
    stoppable: MakeStoppable, caplog: pytest.LogCaptureFixture, leave: str, draining: bool, seconds: float
) -> None:
    app = Sleeper()
    one = stoppable(app, timeout_disconnect=seconds)
    client = one.connect()
    client.send(GET)
    if draining:
        one.order()
    one.advance(1)
    (client.eof if leave == "FIN" else client.reset)()
    if seconds:
        one.advance(seconds - 0.001)
        assert app.cancels == 0
        one.advance(0.001)
    else:
        one.settle()
    assert (app.cancels, app.ends) == (1, 1)
    assert errors(caplog) == []
    if draining:
        report = one.finish()
        assert (report.finished, report.cut) == (1, ()), "nothing was cut: nobody was there to miss it"


@pytest.mark.parametrize("reads", ["receive", "send"])
def test_an_application_that_notices_is_not_cancelled(stoppable: MakeStoppable, reads: str) -> None:
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    call = streaming(stage, client)
    call.receives()
    if reads == "receive":
        assert call.receives() is None
    if reads == "receive":
        client.eof()
        assert call.results[-1] == DISCONNECT
    else:
        client.reset()
        call.sends(body(b".", more=True))
        assert type(call.results[-1]) is ClientDisconnected
    call.ends()
    one.advance(10)
    assert not call.cancelled


def test_none_lets_it_run_for_ever(stoppable: MakeStoppable) -> None:
    app = Sleeper()
    one = stoppable(app, timeout_disconnect=float("inf"))
    client = one.connect()
    client.send(GET)
    client.eof()
    one.advance(100_000)
    assert app.cancels == 0
    assert one.tasks.count == 1
    one.order()
    assert one.finish().seconds == pytest.approx(G)
    assert app.cancels == 1


@pytest.mark.parametrize("leave", ["FIN", "RST"])
@pytest.mark.parametrize("request_bytes", [GET, post(10) + b"012"], ids=["GET", "an upload"])
def test_a_handler_that_has_not_started_its_response_is_left_alone(
    stoppable: MakeStoppable, leave: str, request_bytes: bytes
) -> None:
    """It may be in the middle of a payment."""
    stage = Stage()
    one = stoppable(stage, timeout_disconnect=1.0)
    client = one.connect()
    client.send(request_bytes)
    (client.eof if leave == "FIN" else client.reset)()
    one.advance(1000)
    assert not stage.last.cancelled
    stage.last.ends()
    assert one.tasks.count == 0


def test_a_head_that_is_held_is_a_response_that_has_started(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, timeout_disconnect=1.0)
    client = one.connect()
    client.send(GET)
    stage.last.sends(start())
    client.reset()
    one.advance(0.999)
    assert not stage.last.cancelled
    one.advance(0.001)
    assert stage.last.cancelled


def test_work_after_the_response_is_left_alone(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, timeout_disconnect=1.0)
    client = one.connect()
    call = streaming(stage, client)
    call.sends(body())
    client.eof()
    one.advance(1000)
    assert not call.cancelled


def test_a_stubborn_task_whose_client_has_left_is_cancelled_once(stoppable: MakeStoppable) -> None:
    app = Sleeper(stubborn=1)
    one = stoppable(app, timeout_disconnect=1.0)
    client = one.connect()
    client.send(GET)
    client.eof()
    one.advance(1000)
    assert app.cancels == 1
    one.order()
    assert one.finish().abandoned == 1
    assert app.cancels == 1


# -- what the log says -------------------------------------------------------------------------------------------------

WAYS: dict[str, Callable[[StoppableBench], Any]] = {
    "policy": lambda one: one.reach(F + M),
    "grace": lambda one: one.reach(G),
    "second signal": lambda one: one.force(),
}


def cleaned_up_badly(stoppable: MakeStoppable, way: str, error: BaseException, *, begin: bool) -> StopReport:
    one = stoppable(Sleeper(cleanup=error, begin=begin), close=("*",) if way == "policy" else ())
    one.connect().send(GET)
    one.order()
    WAYS[way](one)
    return one.finish()


@pytest.mark.parametrize("way", WAYS)
def test_cleaning_up_that_fails_after_an_ordered_cancel_is_one_line(
    stoppable: MakeStoppable, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    cleaned_up_badly(stoppable, way, ValueError("pool is closed"), begin=True)
    assert errors(caplog) == ["GET /: ValueError(pool is closed) while being cancelled"]


@pytest.mark.parametrize("way", ["grace", "second signal"])
def test_also_where_the_response_had_not_begun(
    stoppable: MakeStoppable, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    cleaned_up_badly(stoppable, way, RuntimeError("x"), begin=False)
    assert errors(caplog) == ["GET /: RuntimeError(x) while being cancelled"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("begin", [True, False])
def test_an_application_that_takes_the_cancel_and_returns_is_no_error(
    stoppable: MakeStoppable, caplog: pytest.LogCaptureFixture, way: str, begin: bool
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if begin:
                await send(start())
                await send(body(b"some", more=True))
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            return

    one = stoppable(app, close=("*",) if way == "policy" else ())
    client = one.connect()
    client.send(GET)
    one.order()
    WAYS[way](one)
    report = one.finish()
    assert report.closed_by_policy == (1 if way == "policy" else 0)
    assert report.closed_by_policy + report.disconnected + report.cancelled == 1
    assert errors(caplog) == []
    assert client.answer().status == (200 if begin else 503)


def test_a_response_begun_in_the_margin_whose_application_returns_when_cancelled_is_no_error(
    stoppable: MakeStoppable, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.sleep(G - 1)
            await send(start())
            await send(body(b"some", more=True))
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            return

    one = stoppable(app)
    client = one.connect()
    client.send(GET)
    one.order()
    assert one.finish().cancelled == 1
    assert not client.answer().complete
    assert errors(caplog) == []


def test_an_error_that_has_nothing_to_do_with_the_cancel_keeps_its_traceback(
    stoppable: MakeStoppable, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage()
    one = stoppable(stage)
    one.connect().send(GET)
    one.order()
    one.reach(5)
    stage.last.ends(ValueError("mine"))
    one.finish()
    assert [bool(record.exc_info) for record in caplog.records if record.levelno >= logging.ERROR] == [True]


@pytest.mark.parametrize("raises", ["ours", "another"])
def test_the_disconnect_itself_is_no_error(
    stoppable: MakeStoppable, caplog: pytest.LogCaptureFixture, raises: str
) -> None:
    stage = Stage()
    one = stoppable(stage, close=("*",))
    call = streaming(stage, one.connect())
    one.order()
    one.reach(F)
    call.sends(body(b".", more=True))
    assert isinstance(call.results[-1], ClientDisconnected)
    call.ends(call.results[-1] if raises == "ours" else OSError("own"))
    one.finish()
    found = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert bool(found) == (raises == "another"), "an OSError of its own is its own matter"


def test_the_phase_is_what_it_is_meant_to_be(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    streaming(stage, one.connect())
    one.order()
    for at, phase in ((17.999, Phase.DRAINING), (18.0, Phase.DISCONNECTING), (20.0, Phase.STOPPED)):
        one.reach(at)
        assert one.phase is phase
