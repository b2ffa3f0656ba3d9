"""``--health-path``: ready until the stop order, live as long as the loop turns, and unseen by the application."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from lastcall.base.types import Receive, Scope, Send
from lastcall.drain.ladder import Budgets, Phase
from testing.draining import StoppableBench
from testing.memory import GET, Bench, Stage, answering, body, get, post, start

MakeStoppable = Callable[..., StoppableBench]
MakeBench = Callable[..., Bench]
READY, LIVE = "/-/ready", "/-/live"


@pytest.mark.parametrize("path", [READY, LIVE])
def test_both_answer_200_while_the_server_serves(bench: MakeBench, path: str) -> None:
    one = bench(answering(b"app", 418), health_path="/-")
    answer = one.ask(get(path))
    assert (answer.status, answer.body, answer.complete) == (200, b"ok\n", True)
    assert answer["content-type"] == b"text/plain; charset=utf-8"
    assert answer["cache-control"] == b"no-store"
    assert answer["connection"] is None


def test_the_servers_headers_are_on_it(bench: MakeBench) -> None:
    answer = bench(answering(), health_path="/-", headers=((b"x-frame", b"deny"),)).ask(get(READY))
    assert (answer["server"], answer["x-frame"]) == (b"lastcall", b"deny")
    assert answer["date"] is not None


def test_the_default_is_off(bench: MakeBench) -> None:
    assert bench(answering(b"app", 418)).ask(get("/ready")).status == 418


@pytest.mark.parametrize(
    "path", ["/-", "/-/", "/-/ready/", "/-/readyx", "/ready", "//-/ready", "/-/READY", "/x/-/ready", "/-/live/ready"]
)
def test_other_paths_are_the_applications(bench: MakeBench, path: str) -> None:
    assert bench(answering(b"app", 418), health_path="/-").ask(get(path)).status == 418


@pytest.mark.parametrize("path", ["/-/ready?verbose", "/%2D/ready", "/-/%72eady", "http://other/-/ready"])
def test_ways_to_write_the_path(bench: MakeBench, path: str) -> None:
    assert bench(answering(b"app", 418), health_path="/-").ask(get(path)).status == 200


def test_the_prefix_is_what_comes_from_the_client_not_the_root_path(bench: MakeBench) -> None:
    one = bench(answering(b"app", 418), health_path="/-", root_path="/mounted")
    assert one.ask(get(READY)).status == 200


def test_head(bench: MakeBench) -> None:
    client = bench(answering(b"app", 418), health_path="/-").connect()
    client.send(get(READY, method="HEAD") + get(READY))
    head, whole = client.answers("HEAD", "GET")
    assert (head.status, head.body, head["content-length"]) == (200, b"", b"3")
    assert whole.body == b"ok\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods(bench: MakeBench, method: str) -> None:
    client = bench(answering(b"app", 418), health_path="/-").connect()
    client.send(get(READY, "Content-Length: 0", method=method))
    answer = client.answer("POST")
    assert (answer.status, answer["allow"], answer.body) == (405, b"GET, HEAD", b"Method Not Allowed\n")
    assert client.kept_alive


def test_http_1_0(bench: MakeBench) -> None:
    client = bench(answering(), health_path="/-").connect()
    client.send(get(READY, version="1.0"))
    assert client.answer().body == b"ok\n"
    assert client.gone


@pytest.mark.parametrize("packets", [1, 2])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_body_is_discarded(bench: MakeBench, packets: int, method: str) -> None:
    client = bench(answering(b"app"), health_path="/-").connect()
    parts = [get(READY, "Content-Length: 5", method=method), b"hello", GET]
    client.send(*(parts if packets == 2 else [b"".join(parts)]))
    health, next_one = client.answers(method, "GET")
    assert health.status == (200 if method == "GET" else 405)
    assert next_one.body == b"app"
    assert client.kept_alive


def test_a_client_that_waits_for_100_continue_gets_the_answer_alone(bench: MakeBench) -> None:
    client = bench(answering(), health_path="/-").connect()
    client.send(post(5, "Expect: 100-continue", path=READY))
    answer = client.answer("POST")
    assert (answer.status, answer["connection"]) == (405, b"close")


def test_a_probe_behind_a_slow_request_waits_for_it(bench: MakeBench) -> None:
    """Answers are in the order of the requests."""
    stage = Stage()
    client = bench(stage, health_path="/-").connect()
    client.send(GET + get(READY) + get("/2"))
    assert client.take() == b""
    for call_body in (b"first", b"last"):
        stage.last.sends(start(), body(call_body))
    assert [answer.body for answer in client.answers("GET", "GET", "GET")] == [b"first", b"ok\n", b"last"]


def test_a_probe_is_no_request_of_the_application(bench: MakeBench) -> None:
    ordered: list[bool] = []
    stage = Stage()
    one = bench(stage, health_path="/-", limit_max_requests=3, on_max_requests=lambda: ordered.append(True))
    client = one.connect()
    for _ in range(5):
        client.send(get(READY))
        assert client.answer().status == 200
    assert (one.tasks.total, stage.calls) == (0, [])
    assert ordered == [], "a probe each second must not use up --limit-max-requests"
    for _ in range(3):
        client.send(GET)
        stage.last.sends(start(), body())
    assert ordered == [True]


def test_a_probe_is_answered_at_the_concurrency_limit(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage, health_path="/-", limit_concurrency=1)
    one.connect().send(GET)
    assert one.ask(GET).status == 503
    assert one.ask(get(READY)).status == 200


def test_a_probe_that_lies_in_the_kernel_when_its_connection_times_out(bench: MakeBench) -> None:
    """What is there already is served, and its connection is not closed behind a promise to keep it."""
    one = bench(answering(), health_path="/-", timeout_keep_alive=5.0)
    client = one.connect()
    client.send(get(READY))
    client.take()
    client.stream.arriving = get(READY)
    one.advance(5.1)
    assert client.answer().status == 200
    assert client.kept_alive
    one.advance(5.1)
    assert client.gone


def test_probes_are_in_the_access_log(bench: MakeBench) -> None:
    one = bench(answering(), health_path="/-")
    one.ask(get(READY))
    assert [(record.target, record.status) for record in one.records] == [(READY, 200)]


# -- in a stop ---------------------------------------------------------------------------------------------------------


def probe(one: StoppableBench, path: str) -> tuple[int, bytes]:
    client = one.connect()
    client.send(get(path))
    answer = client.answer()
    client.eof()
    return answer.status, answer.body


def test_from_the_order_on_it_is_not_ready_but_live(stoppable: MakeStoppable) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(1)

    one = stoppable(app, health_path="/-", budgets=Budgets(delay=5.0))
    one.connect().send(GET)
    assert probe(one, READY) == (200, b"ok\n")
    one.order()
    assert one.phase is Phase.ANNOUNCED
    for at, phase in ((0, "ANNOUNCED"), (5, "DRAINING"), (23.5, "DISCONNECTING"), (25.5, "CANCELLING")):
        one.reach(at)
        assert one.phase.name == phase
        assert probe(one, READY) == (503, b"stopping\n")
        assert probe(one, LIVE) == (200, b"ok\n")
    report = one.finish()
    assert (report.total, report.arrived) == (1, 0), "probes are nothing that a stop has to do with"


def test_a_probe_in_a_stop_closes_its_connection(stoppable: MakeStoppable) -> None:
    one = stoppable(answering(), health_path="/-", budgets=Budgets(delay=5.0))
    one.order()
    client = one.connect()
    client.send(get(READY))
    answer = client.answer()
    assert (answer.status, answer["connection"]) == (503, b"close")
    assert client.gone


def test_what_balancers_are_told_comes_before_new_clients_are_refused(stoppable: MakeStoppable) -> None:
    one = stoppable(answering(b"app"), health_path="/-", budgets=Budgets(delay=5.0))
    one.order()
    one.reach(4.9)
    assert probe(one, READY)[0] == 503
    assert one.ask(GET).body == b"app", "and everything else is served as ever"
    one.finish()
    assert one.diary.at("stop new connections") == 5
