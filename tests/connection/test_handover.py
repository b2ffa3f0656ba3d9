"""The socket goes to another protocol: no byte is lost on the way, in either direction, and none comes twice."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lastcall.base.types import Receive, Scope, Send
from lastcall.connection.http1 import TRANSITIONS
from lastcall.connection.memory import MemoryConnection
from testing.memory import GET, Bench, Client, Stage, answering, body, get, post, read_answers, start

MakeBench = Callable[..., Bench]
BLOCK = 16384  # the smallest piece of memory of a buffer


def hand_over(client: Client) -> MemoryConnection:
    """Give the client's socket to a protocol that only keeps what it is handed."""
    successor = MemoryConnection(client.stream)
    client.bench.loop.call(client.connection.hand_over, successor)
    return successor


def test_bytes_that_come_later_are_the_successors(bench: MakeBench) -> None:
    client = bench(answering()).connect()
    client.send(GET)
    assert client.answer().status == 200
    successor = hand_over(client)
    assert (successor.opened_once, successor.received) == (True, b"")
    client.bench.loop.call(successor.feed, b"frames")
    assert successor.received == b"frames"
    assert client.take() == b"", "the old protocol says nothing any more"


def test_bytes_that_came_behind_the_last_request_are_handed_over_once(bench: MakeBench) -> None:
    """They wait because the client has not read the answer before them; what they mean is not HTTP's to say."""
    one = bench(answering(b"x" * 200_000))
    client = one.connect(capacity=0)
    client.send(GET, b"\x81\x05hello", b" more")
    assert client.connection.phase == "AWAIT_HEAD"
    successor = hand_over(client)
    assert successor.received == b"\x81\x05hello more"
    client.bench.loop.call(successor.feed, b" again")
    assert successor.received == b"\x81\x05hello more again"
    client.read()
    assert client.answer().body == b"x" * 200_000
    assert one.service.requests == 1


def test_pipelined_requests_that_wait_for_their_turn_are_handed_over_and_not_served(bench: MakeBench) -> None:
    one = bench(answering(b"x" * 200_000))
    client = one.connect(capacity=0)
    client.send(GET + get("/second") + get("/third"))
    successor = hand_over(client)
    assert successor.received == get("/second") + get("/third")
    client.read()
    one.advance(100)
    assert len(client.answers()) == 1
    assert one.service.requests == 1


@pytest.mark.parametrize("capacity", [0, 70_000, None])
def test_what_was_queued_goes_out_before_what_the_successor_writes(bench: MakeBench, capacity: int | None) -> None:
    client = bench(answering(b"x" * 100_000)).connect(capacity=capacity)
    client.send(GET)
    successor = hand_over(client)
    client.bench.loop.call(successor.write, b"first words")
    client.read()
    data = client.take()
    assert data.endswith(b"first words")
    assert read_answers(data.removesuffix(b"first words"), closed=False)[0].body == b"x" * 100_000


def test_a_client_that_does_not_read_is_still_cut_after_the_handover(bench: MakeBench) -> None:
    """The write timeout goes with the socket."""
    one = bench(answering(b"x" * 100_000), timeout_write=5.0)
    client = one.connect(capacity=0)
    client.send(GET)
    hand_over(client)
    one.advance(4.9)
    assert not client.stream.closed
    one.advance(0.2)
    assert client.stream.was_reset


def test_no_timeout_of_the_old_protocol_is_left(bench: MakeBench) -> None:
    one = bench(answering(), timeout_keep_alive=5.0, timeout_header=5.0)
    client = one.connect()
    client.send(GET)
    client.take()
    hand_over(client)
    one.advance(1000)
    assert (client.stream.closed, client.take()) == (False, b"")
    fresh = one.connect()
    hand_over(fresh)
    one.advance(1000)
    assert not fresh.stream.closed


def test_a_fin_that_was_seen_is_known_to_the_successor(bench: MakeBench) -> None:
    client = bench(answering(b"x" * 200_000)).connect(capacity=0)
    client.send(GET)
    client.send_last(b"the last words")
    successor = hand_over(client)
    assert successor.received == b"the last words"
    assert not client.stream.reading, "nothing can come any more"
    assert successor.ended, "or it would wait for it for ever"
    client.stream.arriving = b"never"
    client.read()
    assert client.answer().complete


def test_reading_that_was_paused_goes_on(bench: MakeBench) -> None:
    client = bench(answering(b"x" * 200_000)).connect(capacity=0)
    client.send(GET, b"y" * 70_000)
    assert not client.stream.reading
    successor = hand_over(client)
    assert client.stream.reading
    assert len(successor.received) == 70_000


def test_within_an_exchange_the_socket_is_not_free(bench: MakeBench) -> None:
    stage = Stage()
    client = bench(stage).connect()
    client.send(post(5), b"12")
    for messages in ((), (start(),), (body(b"a", more=True),)):
        stage.last.sends(*messages)
        with pytest.raises(RuntimeError):
            hand_over(client)
    stage.last.sends(body(b"b"))
    assert client.connection.phase == "DISCARDING"
    with pytest.raises(RuntimeError):
        hand_over(client)
    client.send(b"345")
    assert client.answer("POST").body == b"ab"
    assert hand_over(client).opened_once


def test_while_bytes_are_read_the_socket_is_not_free(bench: MakeBench) -> None:
    """An application that answers at once does so while the rest of the packet is still being looked at.

    Before CPython 3.12 a task begins in the next turn, and the packet has been looked at by then.
    """
    refused: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answering()(scope, receive, send)
        try:
            client.connection.hand_over(MemoryConnection(client.stream))
        except RuntimeError as error:
            refused.append(str(error))

    client = bench(app).connect()
    client.send(GET + b"hel")
    assert client.answer().status == 200
    if sys.version_info >= (3, 12):
        assert len(refused) == 1
        assert hand_over(client).received == b"hel"
    else:
        assert refused == []


@pytest.mark.parametrize("end", ["finished", "closed", "handed over"])
def test_a_connection_that_has_ended_has_no_socket_to_give(bench: MakeBench, end: str) -> None:
    client = bench(answering()).connect()
    if end == "finished":
        client.send(get("/", "Connection: close"))
    elif end == "closed":
        client.reset()
    else:
        hand_over(client)
    client.take()
    with pytest.raises(RuntimeError):
        hand_over(client)


def test_the_old_connection_cannot_end_what_is_no_longer_its(bench: MakeBench) -> None:
    """The stop's orders reach connections by a snapshot, which may still name the old one."""
    client = bench(answering()).connect()
    client.send(GET)
    client.take()
    hand_over(client)
    for order in (
        client.connection.begin_drain,
        client.connection.close_idle,
        client.connection.close_now,
        client.connection.abort,
        client.connection.flush_and_close,
    ):
        client.bench.loop.call(order)
    assert not client.stream.closed
    assert client.connection.phase == "CLOSED"


def test_the_end_of_the_socket_is_the_successors(bench: MakeBench) -> None:
    client = bench(answering()).connect()
    client.send(GET)
    client.take()
    successor = hand_over(client)
    client.bench.loop.call(successor.close_now)
    assert client.stream.closed


def test_work_after_the_response_goes_on_when_the_socket_is_anothers(bench: MakeBench) -> None:
    stage = Stage()
    one = bench(stage)
    client = one.connect()
    client.send(GET)
    stage.last.sends(start(), body(b"ok"))
    assert client.answer().body == b"ok"
    successor = hand_over(client)
    assert one.tasks.count == 1
    stage.last.sends(body(b"ignored"))
    stage.last.ends()
    assert (one.tasks.count, client.take(), successor.received) == (0, b"", b"")


# -- the states --------------------------------------------------------------------------------------------------------


def test_every_state_can_end_and_the_end_is_one() -> None:
    assert TRANSITIONS["CLOSED"] == ()
    assert all("CLOSED" in followers for state, followers in TRANSITIONS.items() if state != "CLOSED")
    assert {follower for followers in TRANSITIONS.values() for follower in followers} == set(TRANSITIONS)


def test_the_phase_is_the_states_name(bench: MakeBench) -> None:
    stage = Stage()
    client = bench(stage).connect()
    found = [client.connection.phase]
    client.send(post(1))
    found.append(client.connection.phase)
    stage.last.sends(start(), body())
    found.append(client.connection.phase)
    client.send(b"x")
    found.append(client.connection.phase)
    client.send(get("/", "Connection: close"))
    stage.last.sends(start(), body())
    found.append(client.connection.phase)
    client.eof()
    found.append(client.connection.phase)
    assert found == ["AWAIT_HEAD", "EXCHANGE", "DISCARDING", "AWAIT_HEAD", "FINISHING", "CLOSED"]
    assert set(found) == set(TRANSITIONS)


# -- the buffer that what is written waits in --------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 97, BLOCK - 200, BLOCK, BLOCK + 1, 3 * BLOCK]), min_size=1, max_size=8),
    reads=st.lists(st.integers(0, 3 * BLOCK), max_size=12),
)
def test_what_waits_for_a_client_comes_out_whole_however_it_reads(sizes: list[int], reads: list[int]) -> None:
    """The buffer grows, gives back what was read from its start, and moves the rest."""
    one = Bench(Stage())
    client = one.connect(capacity=0)
    pieces = [bytes((number * 31 + i) % 251 for i in range(size)) for number, size in enumerate(sizes)]
    successor = hand_over(client)
    left = list(pieces)
    for n in reads:
        if left:
            one.loop.call(successor.write, left.pop(0))
        client.read(n)
    for piece in left:
        one.loop.call(successor.write, piece)
    client.read()
    assert client.take() == b"".join(pieces)
    assert list(accumulate(sizes))[-1] == len(b"".join(pieces))
    one.close()
