"""Policy *close* for requests whose response has not begun: long polls, which would hold a stop for the whole grace."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lastcall.base.errors import ClientDisconnected
from lastcall.drain.ladder import Budgets
from lastcall.drain.report import StopReport
from testing.draining import StoppableBench
from testing.memory import Call, Client, Stage, body, get, post, start

MakeStoppable = Callable[..., StoppableBench]

DISCONNECT = {"type": "http.disconnect"}
F = 1.0  # the farewell
M = 2.0  # the margin of the default grace
G = 20.0


def ask(stage: Stage, client: Client, request: bytes) -> Call:
    """A request that waits for its answer."""
    client.send(request)
    return stage.last


def by_policy(report: StopReport) -> bool:
    """Whether the one entry was closed by policy, and nothing was cut."""
    return (report.total, report.closed_by_policy, report.cut, report.exit_code) == (1, 1, (), 0)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("told", ["option", "application"])
def test_one_that_waits_is_answered_503_after_the_farewell(
    stoppable: MakeStoppable, caplog: pytest.LogCaptureFixture, method: str, told: str
) -> None:
    stage = Stage()
    one = stoppable(stage, close=("/poll",) if told == "option" else (), nonzero_on_cut=True)
    client = one.connect()
    call = ask(stage, client, get("/poll", method=method))
    if told == "application":
        call.scope["extensions"]["lastcall.drain"]["notice"].close()
    call.receives()
    assert call.receives() is None
    one.order()
    one.reach(F - 0.001)
    assert call.results == [{"type": "http.request", "body": b"", "more_body": False}]
    assert not client.gone
    one.reach(F)
    assert call.results[-1] == DISCONNECT
    answer = client.answer(method)
    assert (answer.status, answer["retry-after"], answer["connection"]) == (503, b"1", b"close")
    assert answer.complete
    assert client.gone
    call.sends(start())
    assert type(call.results[-1]) is ClientDisconnected
    call.ends()
    assert by_policy(one.finish())
    assert [record.status for record in one.records] == [503]
    assert caplog.messages == [message for message in caplog.messages if "rror" not in message]


def test_one_that_does_not_notice_is_cancelled_a_margin_later(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, close=("*",))
    client = one.connect()
    call = ask(stage, client, get())
    one.order()
    one.reach(F + M - 0.001)
    assert not call.cancelled
    one.reach(F + M)
    assert call.cancelled
    report = one.finish()
    assert by_policy(report)
    assert report.seconds < F + M + 1
    assert client.answer().status == 503


@pytest.mark.parametrize("policy", ["finish", "default"])
def test_others_have_the_whole_grace(stoppable: MakeStoppable, policy: str) -> None:
    stage = Stage()
    one = stoppable(stage, close=("/*",) if policy == "finish" else (), finish=("/calm",))
    client = one.connect()
    call = ask(stage, client, get("/calm"))
    one.order()
    one.reach(G - 0.001)
    assert not client.gone
    call.sends(start(), body(b"late"))
    call.ends()
    assert client.answer().body == b"late"
    assert one.finish().finished == 1


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_other_methods_are_left_alone(stoppable: MakeStoppable, method: str) -> None:
    """The client would send it again, and it would run twice."""
    stage = Stage()
    one = stoppable(stage, close=("*",))
    client = one.connect()
    call = ask(stage, client, get("/", method=method))
    one.order()
    one.reach(G - 0.001)
    assert not client.gone
    assert not call.cancelled
    call.sends(start(), body(b"done"))
    call.ends()
    assert client.answer(method).body == b"done"
    assert one.finish().finished == 1


def test_one_that_comes_after_the_farewell_has_as_long_to_answer(stoppable: MakeStoppable) -> None:
    """What is quick is served: a request that arrives in the linger is not lost."""
    farewell = 0.25
    stage = Stage()
    one = stoppable(stage, close=("*",), budgets=Budgets(farewell=farewell))
    quick, slow, holder = one.connect(), one.connect(), one.connect()
    held = ask(stage, holder, post(0))
    one.order()
    one.reach(0.5)
    answered = ask(stage, quick, get())
    answered.sends(start(), body(b"quick"))
    answered.ends()
    call = ask(stage, slow, get())
    assert quick.answer().body == b"quick"
    one.reach(0.5 + farewell - 0.001)
    assert not slow.gone
    one.reach(0.5 + farewell)
    assert slow.answer().status == 503
    call.ends()
    held.sends(start(), body())
    held.ends()
    report = one.finish()
    assert (report.finished, report.closed_by_policy) == (2, 1)


def test_close_after_the_farewell_is_at_once(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    call = ask(stage, client, get())
    one.order()
    one.reach(5)
    assert not client.gone
    one.loop.call(call.scope["extensions"]["lastcall.drain"]["notice"].close)
    assert client.answer().status == 503
    call.ends()
    assert by_policy(one.finish())
