"""What a stop does to connections between requests: who still gets an answer, and when the quiet ones are closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from lastcall.base.types import Receive, Scope, Send
from lastcall.drain.ladder import Budgets, Phase
from testing.draining import StoppableBench
from testing.memory import GET, Answer, Client, Stage, answering, body, get, post, start

MakeStoppable = Callable[..., StoppableBench]
LINGER = 1.0  # of the default grace


def connections(answers: list[Answer]) -> list[bytes | None]:
    """The Connection field of each."""
    return [answer["connection"] for answer in answers]


def answer_all(stage: Stage) -> None:
    """Let every request that is running, and those that start after it, be answered."""
    answered = 0
    while answered < len(stage.calls):
        stage.calls[answered].sends(start(200, (b"content-length", b"2")), body(b"ok"))
        stage.calls[answered].ends()
        answered += 1


# -- pipelined requests ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0.0, 5.0], ids=["at once", "after a delay"])
@pytest.mark.parametrize("packets", ["one packet", "packets"])
def test_pipelined_requests_that_had_come_are_all_answered_and_the_last_one_closes(
    stoppable: MakeStoppable, delay: float, packets: str
) -> None:
    stage = Stage()
    one = stoppable(stage, budgets=Budgets(delay=delay))
    client = one.connect()
    requests = [get("/1"), get("/2"), get("/3")]
    client.send(*([b"".join(requests)] if packets == "one packet" else requests))
    one.order()
    one.advance(delay)
    assert one.phase is Phase.DRAINING
    answer_all(stage)
    assert [call.scope["path"] for call in stage.calls] == ["/1", "/2", "/3"]
    assert connections(client.answers("GET", "GET", "GET")) == [None, None, b"close"]
    assert client.gone


def test_requests_that_come_later_are_not_owed(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    client.send(get("/1") + get("/2"))
    one.order()
    client.send(get("/3"))
    answer_all(stage)
    assert connections(client.answers("GET", "GET")) == [None, b"close"]
    assert len(stage.calls) == 2, "behind an answer with Connection: close nothing is started"
    assert client.gone


@pytest.mark.parametrize("rest", [b"GET /3", b"GET /3 HTTP/1.1\r\nHost: a\r\n", b"\r\n"])
def test_a_half_read_head_behind_them_is_not_owed(stoppable: MakeStoppable, rest: bytes) -> None:
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    client.send(get("/1") + get("/2") + rest)
    one.order()
    client.send(get("/3")[len(rest) :] if rest.startswith(b"G") else b"")
    answer_all(stage)
    assert connections(client.answers("GET", "GET")) == [None, b"close"]
    assert len(stage.calls) == 2


def test_an_upload_among_them(stoppable: MakeStoppable) -> None:
    """Its head had come, and its body, which looks like the end of a head, has not quite."""
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    client.send(get("/1") + post(10, path="/2") + b"\r\n\r\n\r\n\r\n")
    one.order()
    stage.last.sends(start(200, (b"content-length", b"2")), body(b"ok"))
    upload = stage.last
    assert upload.scope["path"] == "/2"
    assert upload.receives() == {"type": "http.request", "body": b"\r\n\r\n\r\n\r\n", "more_body": True}
    client.send(b"ab" + get("/3"))
    assert upload.receives() == {"type": "http.request", "body": b"ab", "more_body": False}
    upload.sends(start(200, (b"content-length", b"2")), body(b"ok"))
    assert connections(client.answers("GET", "POST")) == [None, b"close"]
    assert len(stage.calls) == 2


def test_an_upload_that_had_come_as_a_whole_with_a_request_behind_it(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    client.send(get("/1") + post(4, path="/2") + b"\r\n\r\n" + get("/3"))
    one.order()
    answer_all(stage)
    assert connections(client.answers("GET", "POST", "GET")) == [None, None, b"close"]
    assert len(stage.calls) == 3


def test_a_pipeline_that_is_under_way_at_the_order(stoppable: MakeStoppable) -> None:
    """A long pipeline gives others their turn after a few answers, and there the order comes in."""
    served: list[str] = []
    served_at_order: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        served.append(scope["path"])
        if len(served) == 3:
            one.loop.call_soon(lambda: served_at_order.append(len(served)))
            one.loop.call_soon(one.controller.give_order, "SIGTERM")
        await send(start(200, (b"content-length", b"2")))
        await send(body(b"ok"))

    one = stoppable(app, clock=lambda loop: loop.time() + len(served) / 1000)  # a millisecond each
    client = one.connect()
    client.send(b"".join(get(f"/{number}") for number in range(40)))
    assert served_at_order[0] < 30
    assert served == [f"/{number}" for number in range(40)]
    assert connections(client.answers(*["GET"] * 40)) == [None] * 39 + [b"close"]
    assert client.gone


def test_a_pipeline_to_a_client_that_does_not_read(stoppable: MakeStoppable) -> None:
    """What is held back until the client reads is owed too."""
    one = stoppable(answering(b"x" * 70_000))
    client = one.connect(capacity=100)
    client.send(get("/1") + get("/2") + get("/3"))
    one.order()
    client.read()
    assert connections(client.answers("GET", "GET", "GET")) == [None, None, b"close"]
    assert client.gone


# -- one more answer ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [GET, get("/", method="HEAD"), post(2) + b"ab"], ids=["GET", "HEAD", "POST"])
def test_an_idle_connection_gets_one_more_answer(stoppable: MakeStoppable, head: bytes) -> None:
    one = stoppable(answering())
    client = one.connect()
    client.send(head)
    method = head.split()[0].decode()
    assert client.answer(method)["connection"] is None
    one.order()
    one.advance(LINGER - 0.01)
    assert not client.gone
    client.send(head + GET)
    answer = client.answer(method)
    assert (answer.status, answer["connection"]) == (200, b"close")
    assert client.gone
    assert len(one.records) == 2


def test_a_request_under_way_at_the_order_is_the_last_one(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    client.send(GET)
    one.order()
    one.advance(5)
    stage.last.sends(start(), body(b"ok"))
    answer = client.answer()
    assert (answer.body, answer["connection"]) == (b"ok", b"close")
    assert client.gone


def test_a_response_whose_head_is_out_already_gets_the_linger_and_a_fin(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    client.send(GET)
    stage.last.sends(start(), body(b"so", more=True))
    one.order()
    stage.last.sends(body(b"on"))
    answer = client.answer()
    assert (answer.body, answer.complete, answer["connection"]) == (b"soon", True, None)
    assert not client.gone, "it was promised that the connection is kept: its next request may be on the way"
    one.reach(1)
    assert client.gone
    assert not client.stream.was_reset


def test_a_response_whose_head_is_out_and_that_ends_after_the_linger_ends_with_a_fin(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    client.send(GET)
    stage.last.sends(start(), body(b"so", more=True))
    one.order()
    one.reach(2)
    stage.last.sends(body(b"on"))
    assert client.answer().complete
    assert client.gone
    assert not client.stream.was_reset


def test_a_request_that_has_come_when_such_a_response_ends_is_answered(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    client.send(GET)
    stage.last.sends(start(), body(b"so", more=True))
    one.order()
    one.reach(2)
    client.stream.arriving = GET  # in the kernel's buffer, not read yet
    stage.last.sends(body(b"on"))
    assert client.answer().complete
    stage.last.sends(start(), body(b"one more"))
    answer = client.answer()
    assert (answer.body, answer["connection"]) == (b"one more", b"close")
    assert client.gone


def test_pipelined_requests_that_wait_for_their_turn_are_answered_in_a_stop(stoppable: MakeStoppable) -> None:
    one = stoppable(answering())
    client = one.connect()
    client.send(GET * 30)
    assert len(client.answers(*["GET"] * 30)) == 30
    stage = Stage()
    two = stoppable(stage)
    other = two.connect()
    other.send(GET * 3)
    two.order()
    two.reach(2)
    for _ in range(3):
        stage.last.sends(start(), body(b"x"))
    found = other.answers("GET", "GET", "GET")
    assert [answer["connection"] for answer in found] == [None, None, b"close"]
    assert other.gone


def test_a_request_behind_a_response_whose_head_is_out_gets_the_one_more_answer(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    client.send(GET)
    stage.last.sends(start(), body(b"so", more=True))
    one.order()
    client.send(get("/2") + get("/3"))
    stage.last.sends(body(b"on"))
    stage.last.sends(start(), body(b"ok"))
    assert connections(client.answers("GET", "GET")) == [None, b"close"]
    assert [call.scope["path"] for call in stage.calls] == ["/", "/2"]


@pytest.mark.parametrize("had_come", [1, 8, 20, len(get("/2")) - 1, len(get("/2")), len(get("/2")) + 3])
@pytest.mark.parametrize("behind", [b"", get("/3"), b"x" * 5000])
def test_a_head_that_had_half_come_behind_a_response_whose_head_is_out(
    stoppable: MakeStoppable, had_come: int, behind: bytes
) -> None:
    """Answered in the step that reads it, with more in the buffer than had come by the order, or less."""
    gate = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        served.append(scope["path"])
        await send(start())
        if scope["path"] == "/1":
            await send(body(b"so", more=True))
            await gate.wait()
        await send(body(b"on"))

    served: list[str] = []
    one = stoppable(app)
    client = one.connect()
    rest = get("/2") + behind
    client.send(get("/1") + rest[:had_come])
    one.order()
    client.send(rest[had_come:])
    one.loop.call(gate.set)
    first, last = client.answers("GET", "GET")
    assert connections([first, last]) == [None, b"close"]
    assert served == ["/1", "/2"]
    assert client.gone


def test_an_unread_body_behind_a_response_whose_head_is_out(stoppable: MakeStoppable) -> None:
    """The rest of the upload is read and discarded, then there is nothing to wait for."""
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    client.send(post(10) + b"01234")
    stage.last.sends(start(), body(b"no", more=True))
    one.order()
    stage.last.sends(body(b" thanks"))
    assert not client.gone
    client.send(b"56789")
    assert client.answer("POST").body == b"no thanks"
    one.reach(1)
    assert client.gone


@pytest.mark.parametrize("when", ["before", "after"])
def test_http_1_0_answers_drop_keep_alive(stoppable: MakeStoppable, when: str) -> None:
    one = stoppable(answering())
    client = one.connect()
    if when == "after":
        one.order()
    client.send(get("/", "Connection: keep-alive", version="1.0"))
    assert client.answer()["connection"] == (b"keep-alive" if when == "before" else None)
    assert client.gone == (when == "after")


def test_while_announced_everything_is_answered_and_every_answer_closes(stoppable: MakeStoppable) -> None:
    """So the balancer's connections go elsewhere, but nobody is refused yet."""
    one = stoppable(answering(), budgets=Budgets(delay=10.0))
    early = one.connect()
    early.send(GET)
    assert early.answer()["connection"] is None
    one.order()
    one.advance(9)
    assert one.phase is Phase.ANNOUNCED
    assert not early.gone, "quiet connections have their keep-alive time"
    late = one.connect()
    for client in (early, late):
        client.send(GET)
        assert client.answer()["connection"] == b"close"
        assert client.gone
    assert "stop new connections" not in one.diary.words
    one.reach(10)
    assert one.diary.at("stop new connections") == 10


def test_what_comes_behind_a_last_answer_is_read_but_not_started(stoppable: MakeStoppable) -> None:
    """A lingering close: no reset eats the answer in flight, until the client's FIN or for a second."""
    stage = Stage()
    one = stoppable(stage)
    client, patient = one.connect(), one.connect()
    for each in (client, patient):
        each.send(GET)
    one.order()
    for call in stage.calls:
        call.sends(start(), body(b"ok"))
    for each in (client, patient):
        each.send(get("/2") + b"x" * 100_000)
        assert each.gone
        assert not each.stream.closed
    client.eof()
    assert client.stream.closed
    one.advance(1.1)
    assert patient.stream.closed
    for each in (client, patient):
        assert each.answer().body == b"ok"
        assert not each.stream.was_reset
    assert len(stage.calls) == 2


# -- quiet connections -------------------------------------------------------------------------------------------------


def idle(client: Client) -> None:
    client.send(GET)
    client.take()


def fresh(client: Client) -> None:
    """Not a byte."""


def half(client: Client) -> None:
    client.send(b"GET / HTTP/1.1\r\nHo")


@pytest.mark.parametrize("quiet", [idle, fresh, half])
@pytest.mark.parametrize(("grace", "linger"), [(20.0, 1.0), (5.0, 0.5), (0.0, 0.0)])
def test_quiet_connections_get_the_linger_and_then_a_fin(
    stoppable: MakeStoppable, quiet: Callable[[Client], None], grace: float, linger: float
) -> None:
    one = stoppable(answering(), budgets=Budgets(graceful=grace))
    client = one.connect()
    quiet(client)
    one.advance(0.001)
    one.order()
    if linger:
        one.reach(linger - 0.001)
        assert not client.gone
    one.reach(linger)
    assert client.gone
    assert not client.stream.was_reset
    assert client.take() == b""


@pytest.mark.parametrize("quiet", [idle, fresh, half])
def test_ctrl_c_has_no_linger_but_what_has_arrived_is_served(
    stoppable: MakeStoppable, quiet: Callable[[Client], None]
) -> None:
    one = stoppable(answering())
    here, gone = one.connect(), one.connect()
    for client in (here, gone):
        quiet(client)
    one.advance(0.001)
    here.stream.arriving = GET if quiet is not half else b"st: a\r\n\r\n"
    one.order("SIGINT")
    assert here.answer()["connection"] == b"close"
    assert gone.take() == b""
    assert here.gone
    assert gone.gone


@pytest.mark.parametrize("quiet", [idle, fresh, half])
def test_what_comes_within_the_linger_is_served(stoppable: MakeStoppable, quiet: Callable[[Client], None]) -> None:
    one = stoppable(answering())
    client = one.connect()
    quiet(client)
    one.order()
    one.advance(0.9)
    client.send(GET if quiet is not half else b"st: a\r\n\r\n")
    answer = client.answer()
    assert (answer.body, answer["connection"]) == (b"ok", b"close")
    assert one.finish().arrived == 1


@pytest.mark.parametrize("quiet", [idle, fresh, half])
def test_what_lies_in_the_kernel_at_the_end_of_the_linger_is_served(
    stoppable: MakeStoppable, quiet: Callable[[Client], None]
) -> None:
    """Before a quiet connection is closed it is read once more."""
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    quiet(client)
    for call in stage.calls:
        call.sends(start(), body())
    client.take()
    one.order()
    one.reach(0.99)
    client.stream.arriving = GET if quiet is not half else b"st: a\r\n\r\n"
    one.reach(1.5)
    assert not client.gone
    stage.last.sends(start(), body(b"ok"))
    answer = client.answer()
    assert (answer.body, answer["connection"]) == (b"ok", b"close")


HEAD_PARTS = [
    [b"G", b"ET / HTTP/1.1\r\nHost: a\r\n\r\n"],
    [b"GET / HT", b"TP/1.1\r\nHost: a\r\n\r\n"],
    [b"GET / HTTP/1.1\r\n", b"Host: a\r\n\r\n"],
    [b"GET / HTTP/1.1\r\nHost: a\r\n", b"\r\n"],
    [b"GET / HTTP/1.1\r\nHo", b"st: a\r\n\r\n"],
]


@pytest.mark.parametrize("parts", HEAD_PARTS, ids=lambda parts: repr(parts[0]))
@pytest.mark.parametrize("earlier", [True, False], ids=["kept alive", "fresh"])
def test_a_head_begun_in_the_linger_may_finish(stoppable: MakeStoppable, parts: list[bytes], earlier: bool) -> None:
    one = stoppable(answering())
    client = one.connect()
    if earlier:
        idle(client)
    one.order()
    one.reach(0.5)
    client.send(parts[0])
    one.reach(3)
    assert not client.gone
    client.send(parts[1])
    answer = client.answer()
    assert (answer.body, answer["connection"]) == (b"ok", b"close")
    assert one.finish().finished == 1


@pytest.mark.parametrize("parts", HEAD_PARTS, ids=lambda parts: repr(parts[0]))
@pytest.mark.parametrize("more", [0, 1, 3], ids=["silent", "a byte", "bytes"])
@pytest.mark.parametrize("earlier", [True, False], ids=["kept alive", "fresh"])
def test_a_head_begun_before_the_drain_gets_its_fin_at_the_end_of_the_linger(
    stoppable: MakeStoppable, parts: list[bytes], more: int, earlier: bool
) -> None:
    """However it comes: a client that sends a byte now and then does not hold the stop up."""
    one = stoppable(answering())
    client = one.connect()
    if earlier:
        idle(client)
    client.send(parts[0])
    one.advance(0.1)
    one.order()
    for number in range(more):
        one.advance(0.2)
        client.send(parts[1][number : number + 1] if len(parts[1]) > 3 else b"")
    one.reach(0.999)
    assert not client.gone
    one.reach(1)
    assert client.gone
    assert client.take() == b""


def test_a_head_begun_in_the_linger_behind_a_response_whose_head_is_out(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    client = one.connect()
    client.send(GET)
    stage.last.sends(start(), body(b"so", more=True))
    one.advance(0.1)
    one.order()
    one.reach(0.5)
    client.send(b"GET /2 HT")
    stage.last.sends(body(b"on"))
    one.reach(2)
    client.send(b"TP/1.1\r\nHost: a\r\n\r\n")
    stage.last.sends(start(), body(b"ok"))
    assert connections(client.answers("GET", "GET")) == [None, b"close"]


def test_a_head_begun_in_the_linger_has_its_own_timeout(stoppable: MakeStoppable) -> None:
    one = stoppable(answering(), timeout_header=4.0)
    client = one.connect()
    idle(client)
    one.order()
    one.reach(0.5)
    client.send(b"GET / HT")
    one.reach(4.4)
    assert not client.gone
    one.reach(4.7)
    assert client.answer().status == 408
    assert client.gone


@pytest.mark.parametrize("quiet", [idle, fresh, half])
def test_the_linger_extends_no_shorter_timeout(stoppable: MakeStoppable, quiet: Callable[[Client], None]) -> None:
    one = stoppable(answering(), timeout_keep_alive=0.4, timeout_header=0.4)
    client = one.connect()
    quiet(client)
    one.advance(0.2)
    one.order()
    one.reach(0.3)
    assert client.gone


def test_a_running_exchange_is_not_quiet(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    served, uploading = one.connect(), one.connect()
    served.send(GET)
    uploading.send(post(10) + b"01234")
    one.order()
    one.reach(15)
    assert not served.gone
    assert not uploading.gone
    uploading.send(b"56789")
    for call in stage.calls:
        call.sends(start(), body(b"ok"))
        call.ends()
    for client, method in ((served, "GET"), (uploading, "POST")):
        answer = client.answer(method)
        assert (answer.status, answer["connection"]) == (200, b"close")
    assert one.finish().finished == 2


# -- clients that come while the server drains -------------------------------------------------------------------------


def test_who_comes_late_and_is_answered_is_counted_once(stoppable: MakeStoppable) -> None:
    one = stoppable(answering(), budgets=Budgets(delay=5.0))
    idle(one.connect())
    one.order()
    one.advance(2)
    idle(one.connect())  # announced only: as good as any other
    one.reach(5)
    late, silent, twice = one.connect(), one.connect(), one.connect()
    late.send(GET)
    twice.send(GET + GET)
    for client in (late, twice):
        assert client.answer()["connection"] == b"close"
    assert one.service.backlog_answered == 2
    report = one.finish()
    assert report.backlog_answered == 2
    assert silent.take() == b""
    assert (report.arrived, report.finished) == (3, 3)


def test_who_comes_late_is_counted_when_the_answer_is_whole(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    first = one.connect()
    first.send(GET)
    one.order()
    late = one.connect()
    late.send(GET)
    stage.last.sends(start(), body(b"so", more=True))
    assert one.service.backlog_answered == 0
    stage.last.sends(body(b"on"))
    assert one.service.backlog_answered == 1
    stage.calls[0].sends(start(), body(b"ok"))
    assert one.service.backlog_answered == 1, "the first one came before"


def test_requests_that_come_while_tasks_are_cancelled_get_a_503(stoppable: MakeStoppable) -> None:
    started: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        started.append(scope["path"])
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(1)

    one = stoppable(app)
    running, slow = one.connect(), one.connect()
    running.send(get("/running"))
    one.order()
    one.reach(0.5)
    slow.send(b"GET /slow HT")
    one.reach(0.6)
    one.force()
    assert one.phase is Phase.CANCELLING
    slow.send(b"TP/1.1\r\nHost: a\r\n\r\n")
    answer = slow.answer()
    assert (answer.status, answer["retry-after"], answer["connection"]) == (503, b"1", b"close")
    assert started == ["/running"]
    report = one.finish()
    assert running.answer().status == 503
    assert (report.total, report.cancelled) == (1, 1)
