"""A worker with a successor: connections are neither closed nor told to close, and are offered when they are idle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lastcall.connection.http1 import HTTP1Connection
from lastcall.drain.ladder import Budgets, Phase
from testing.draining import StoppableBench
from testing.memory import GET, OLD_GET, Client, Stage, answering, body, echo, get, post, start

MakeStoppable = Callable[..., StoppableBench]


class Offers:
    """A mover that only keeps books. As the real one, it ends with ``stop()``."""

    def __init__(self, bench: StoppableBench) -> None:
        self.bench = bench
        self.offered: list[HTTP1Connection] = []
        bench.service.drain.mover = self

    def offer(self, connection: Any) -> None:
        """As ``Mover.offer``; only what is movable is ever offered."""
        assert connection.movable
        self.offered.append(connection)

    def stop(self) -> None:
        """As ``Mover.stop``."""
        drain = self.bench.service.drain
        drain.mover = None
        for connection in self.bench.driver.connections:
            connection.begin_drain()
            if drain.listeners_closed:
                connection.close_idle(drain.since)

    def count(self, client: Client) -> int:
        """How often this client's connection was offered since the last call."""
        found = self.offered.count(client.connection)
        self.offered = [one for one in self.offered if one is not client.connection]
        return found


def movable(one: StoppableBench, **options: Any) -> Client:
    """A client whose connection could move."""
    client = one.connect(**options)
    client.stream.movable = True
    return client


def ask(client: Client, path: str = "/") -> bytes | None:
    """The Connection field of the answer to one request; it must be a 200."""
    client.send(get(path))
    answer = client.answer()
    assert answer.status == 200
    return answer["connection"]


def test_while_there_is_a_successor_a_drain_closes_nobody(stoppable: MakeStoppable) -> None:
    one = stoppable(answering(), budgets=Budgets(graceful=20))
    quiet, asking = movable(one), movable(one)
    for client in (quiet, asking):
        assert ask(client) is None
    offers = Offers(one)
    one.order()
    one.reach(5)
    assert one.phase is Phase.DRAINING
    assert one.service.drain.listeners_closed
    assert (quiet.kept_alive, offers.count(quiet)) == (True, 1), "it is offered again in place of being closed"
    for _ in range(3):
        assert ask(asking) is None
    assert (asking.kept_alive, offers.count(asking)) == (True, 4)


def test_what_cannot_move_drains_as_ever(stoppable: MakeStoppable) -> None:
    one = stoppable(answering(), budgets=Budgets(graceful=20))
    quiet, asking = one.connect(), one.connect()
    ask(quiet)
    offers = Offers(one)
    one.order()
    one.reach(0.5)
    assert ask(asking) == b"close"
    one.reach(1.5)
    assert quiet.gone
    assert offers.offered == []


def test_when_responses_are_disconnected_the_rest_is_closed(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage, budgets=Budgets(graceful=20))
    quiet, busy = movable(one), movable(one)
    quiet.send(GET)
    stage.last.sends(start(200, (b"content-length", b"2")), body(b"ok"))
    stage.last.ends()
    assert quiet.answer()["connection"] is None
    busy.send(GET)
    Offers(one)
    one.order()
    one.reach(17.9)
    assert not quiet.gone
    one.reach(18.1)
    assert one.phase is Phase.DISCONNECTING
    assert quiet.gone
    stage.last.sends(start(200, (b"content-length", b"2")), body(b"ok"))
    stage.last.ends()
    assert busy.answer()["connection"] == b"close"
    one.finish()


def test_a_mover_that_ends_leaves_a_drain_as_any_other(stoppable: MakeStoppable) -> None:
    one = stoppable(answering(), budgets=Budgets(graceful=20))
    quiet, asking = movable(one), movable(one)
    offers = Offers(one)
    one.order()
    assert ask(asking) is None
    offers.stop()
    assert ask(asking) == b"close"
    assert not quiet.gone
    one.reach(1.1)
    assert quiet.gone
    one.finish()


@pytest.mark.parametrize(
    ("sent", "offered"),
    [
        ((GET,), 1),
        ((GET + GET,), 1),
        ((GET, GET), 2),
        ((GET + b"\r\n",), 1),  # an empty line behind a request is nothing (RFC 9112 2.2)
        ((GET + b"\r",), 0),
        ((GET + b"\r", b"\n" + GET), 1),
        ((GET + GET[:7],), 0),
        ((GET[:7],), 0),
        ((GET[:7], GET[7:]), 1),
        ((post(2) + b"h",), 0),
        ((post(2) + b"h", b"i"), 1),
        ((get("/", "Connection: close"),), 0),
        ((OLD_GET,), 0),
        ((get("/", "Connection: keep-alive", version="1.0"),), 1),
        ((b"nonsense\r\n\r\n",), 0),
    ],
)
def test_a_connection_is_offered_when_nothing_of_it_is_here(
    stoppable: MakeStoppable, sent: tuple[bytes, ...], offered: int
) -> None:
    one = stoppable(echo)
    client = movable(one)
    offers = Offers(one)
    client.send(*sent)
    assert offers.count(client) == offered
    assert client.connection.movable == bool(offered)


def test_not_before_the_client_has_taken_its_answer(stoppable: MakeStoppable) -> None:
    one = stoppable(answering(b"x" * 1000))
    client = movable(one, capacity=100)
    offers = Offers(one)
    client.send(GET)
    assert (offers.count(client), client.connection.movable) == (0, False)
    client.read()
    assert (offers.count(client), client.connection.movable) == (1, True)


def test_not_after_its_fin(stoppable: MakeStoppable) -> None:
    one = stoppable(answering())
    client = movable(one)
    offers = Offers(one)
    client.send_last(GET)
    assert (offers.count(client), client.connection.movable) == (0, False)


def test_not_where_connections_are_not_kept(stoppable: MakeStoppable) -> None:
    one = stoppable(answering(), timeout_keep_alive=0)
    client = movable(one)
    assert not client.connection.movable


def test_not_while_a_body_is_being_discarded(stoppable: MakeStoppable) -> None:
    one = stoppable(answering())
    client = movable(one)
    offers = Offers(one)
    one.order()
    one.reach(1.5)
    assert offers.count(client) == 1
    client.send(post(10) + b"half.")
    assert client.answer()["connection"] is None
    assert (offers.count(client), client.connection.movable) == (0, False)
    client.send(b"half.")
    assert (offers.count(client), client.kept_alive) == (1, True)


def test_not_while_a_response_goes_on_and_though_its_background_work_does(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    client = movable(one)
    offers = Offers(one)
    client.send(GET)
    stage.last.sends(start(200, (b"content-length", b"4")), body(b"ok", more=True))
    assert offers.count(client) == 0
    stage.last.sends(body(b"ok"))
    assert offers.count(client) == 1
    stage.last.ends()
    assert offers.count(client) == 0


def test_an_end_that_writes_nothing_is_an_end(stoppable: MakeStoppable) -> None:
    """The body went out before: the last message has no byte for the client."""
    stage = Stage()
    one = stoppable(stage)
    client = movable(one)
    offers = Offers(one)
    client.send(GET)
    stage.last.sends(start(200, (b"content-length", b"2")), body(b"ok", more=True))
    one.reach(0.5)
    stage.last.sends(body())
    assert client.answer().body == b"ok"
    assert (offers.count(client), client.connection.movable) == (1, True)


def test_one_that_is_let_in_later_is_offered_too(stoppable: MakeStoppable) -> None:
    one = stoppable(answering())
    other = movable(one)
    offers = Offers(one)
    one.order()
    one.reach(0.5)
    client = movable(one)
    one.reach(1.5)
    assert (offers.count(client), offers.count(other)) == (1, 1)
    assert not client.gone
    assert ask(client) is None


def test_pipelined_requests_are_all_answered_whenever_they_came(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    client = movable(one)
    offers = Offers(one)
    client.send(get("/1") + get("/2"))
    one.order()
    client.send(get("/3"))
    one.reach(1.5)
    for number in range(3):
        stage.calls[number].sends(start(200, (b"content-length", b"2")), body(b"ok"))
        stage.calls[number].ends()
    assert [answer["connection"] for answer in client.answers("GET", "GET", "GET")] == [None] * 3
    assert offers.count(client) == 1


def test_an_application_that_fails_in_the_drain_loses_its_client_no_connection(stoppable: MakeStoppable) -> None:
    stage = Stage()
    one = stoppable(stage)
    client = movable(one)
    Offers(one)
    client.send(GET)
    one.order()
    stage.last.ends(ValueError("no"))
    answer = client.answer()
    assert (answer.status, answer["connection"]) == (500, None)
    assert client.kept_alive


def test_a_load_balancers_check_on_a_connection_that_is_still_here_speaks_for_the_service(
    stoppable: MakeStoppable,
) -> None:
    one = stoppable(answering(), health_path="/health")
    client = movable(one)
    offers = Offers(one)
    one.order()
    assert ask(client, "/health/ready") is None
    offers.stop()
    client.send(get("/health/ready"))
    assert client.answer().status == 503


def test_a_stop_that_is_forced_closes_everybody(stoppable: MakeStoppable) -> None:
    one = stoppable(answering())
    client = movable(one)
    Offers(one)
    one.order()
    one.force()
    one.finish()
    assert client.gone
