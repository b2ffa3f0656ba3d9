"""Listeners that come and go while a driver serves, as a worker's do under a parent."""

from __future__ import annotations

import logging
import os
import resource
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from lastcall.base.options import BindSpec
from lastcall.connection.stream import Stream
from lastcall.drain.ladder import Phase
from lastcall.net.binding import passed
from lastcall.net.listener import Listener, Owner
from lastcall.net.slots import Slots
from lastcall.net.steering import drop_newcomers, is_shut
from lastcall.server.loops import loop_factory
from lastcall.server.parts import http1_protocol
from testing.driving import Bench
from testing.peer import Peer

Slot = Callable[..., Listener]

SHARES = pytest.mark.parametrize("owner", [Owner.SLOT, Owner.SHARED])


@pytest.fixture
def slot(bench: Bench) -> Iterator[Slot]:
    """``slot()``: a listener of a parent's, of which the driver has not heard yet."""
    with ExitStack() as stack:
        yield lambda owner=Owner.SLOT: prepare(bench, stack, owner)


def prepare(bench: Bench, stack: ExitStack, owner: Owner = Owner.SLOT) -> Listener:
    sock = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=200))
    sock.setblocking(False)
    listener = Listener(sock, owner)
    listener.protocol = http1_protocol(bench.service, listener)
    return listener


def address(listener: Listener) -> tuple[str, int]:
    found = listener.address
    assert isinstance(found, tuple)
    return found


def turns(bench: Bench, number: int = 4) -> int:
    return sum(bench.turn() for _ in range(number))


def test_exactly_the_given_listeners_are_accepted_from_at_once(bench: Bench, slot: Slot) -> None:
    one, two, three = slot(), slot(), slot()
    with ExitStack() as stack:
        for listener in (one, two, three):
            for _ in range(2):
                stack.enter_context(Peer(address(listener)))
        bench.driver.accept_from([one])
        assert turns(bench) == 2
        bench.driver.accept_from((two, three))
        stack.enter_context(Peer(address(one)))
        assert turns(bench) == 4
        bench.driver.accept_from([two, three])
        stack.enter_context(Peer(address(three)))
        assert turns(bench) == 1
        bench.driver.accept_from([])
        for listener in (one, two, three):
            stack.enter_context(Peer(address(listener)))
        assert turns(bench) == 0
        bench.driver.accept_from([three, one])
        assert turns(bench) == 3
        two.sock.accept()[0].close()  # who waits where nobody accepts is somebody else's


def test_each_needs_a_protocol_and_else_nothing_changes(bench: Bench, slot: Slot) -> None:
    one, two = slot(), slot()
    two.protocol = None
    bench.driver.accept_from([one])
    with pytest.raises(ValueError, match="without a protocol"):
        bench.driver.accept_from([two])
    with Peer(address(one)):
        assert turns(bench) == 1


@SHARES
def test_a_queue_is_emptied_whether_or_not_it_is_accepted_from(bench: Bench, slot: Slot, owner: Owner) -> None:
    one = slot(owner)
    assert bench.driver.empty(one)
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer(address(one))) for _ in range(100)]
        assert bench.driver.empty(one)
        assert len(bench.driver) == 100
        bench.driver.accept_from([one])
        peers.append(stack.enter_context(Peer(address(one))))
        assert bench.driver.empty(one)
        assert len(bench.driver) == 101
        bench.driver.release(one)
        peers[0].request()
        peers[-1].request()
        for _ in range(12):
            bench.turn()
        assert peers[0].answer().status == peers[-1].answer().status == 200
        stack.enter_context(Peer(address(one)))
        assert turns(bench) == 0
        bench.driver.release(one)


def test_under_a_flood_emptying_ends_and_says_so(driver: str, loop: str) -> None:
    bench = Bench(driver, loop_factory(loop)(), clock=count(1000.0).__next__)
    with ExitStack() as stack:
        listener = prepare(bench, stack)
        for _ in range(150):
            stack.enter_context(Peer(address(listener)))
        assert not bench.driver.empty(listener), "the time for it is over after the first few"
        assert 0 < len(bench.driver) < 150
        while not bench.driver.empty(listener):
            pass
        assert len(bench.driver) == 150
        bench.close()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_where_the_parent_lets_nobody_in_the_queue_is_emptied_however_long_it_takes(
    driver: str, loop: str, family: int, tmp_path: Path
) -> None:
    bench = Bench(driver, loop_factory(loop)(), clock=count(1000.0).__next__)
    with socket.socket(family) as sock, ExitStack() as stack:
        sock.bind(("127.0.0.1", 0) if family == socket.AF_INET else str(tmp_path / "socket"))
        sock.listen(200)
        copy = stack.enter_context(sock.dup())
        bench.listen(sock, Owner.SLOT if family == socket.AF_INET else Owner.SHARED)
        assert not is_shut(sock)
        for _ in range(150):
            stack.enter_context(Peer(sock.getsockname()))
        if family == socket.AF_INET:
            assert drop_newcomers(copy)
        else:
            copy.shutdown(socket.SHUT_RD)
        assert is_shut(sock)
        bench.stop_new_connections()
        assert len(bench.driver) == 150
        bench.driver.accept_backlog()
        bench.close()


def test_at_the_limit_a_queue_is_not_empty_and_nobody_is_let_in(driver: str, loop: str) -> None:
    bench = Bench(driver, loop_factory(loop)(), limit=2)
    with ExitStack() as stack:
        one, two = prepare(bench, stack), prepare(bench, stack)
        bench.driver.accept_from([one])
        first = stack.enter_context(Peer(address(one)))
        stack.enter_context(Peer(address(one)))
        stack.enter_context(Peer(address(two)))
        assert turns(bench) == 2
        assert not bench.driver.empty(two)
        bench.driver.accept_from([one, two])
        assert turns(bench) == 0
        first.close()
        for _ in range(4):
            bench.turn()
        assert len(bench.driver) == 2, "below the limit again, the new one is accepted from"
        assert not bench.driver.empty(two), "at the limit nobody looks"
        bench.drain.phase = Phase.DRAINING
        assert bench.driver.empty(two)
        bench.close()


def test_without_descriptors_a_queue_is_not_empty_and_accepting_goes_on_later(
    driver: str, loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(driver, loop_factory(loop)())
    with ExitStack() as stack:
        one, two = prepare(bench, stack), prepare(bench, stack)
        bench.driver.accept_from([one])
        stack.enter_context(Peer(address(one)))
        stack.enter_context(Peer(address(two)))
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, before[1]))
        try:
            assert not bench.driver.empty(two)
            bench.driver.accept_from([one, two])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        while len(bench.driver) < 2:
            bench.turn()
        assert bench.driver.empty(one)
        bench.close()
    assert len([record for record in caplog.records if "accept failed" in record.message]) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="programs that choose a listener are Linux's")
def test_a_neighbour_covers_a_slot_without_a_worker(bench: Bench) -> None:
    spec = BindSpec("tcp", host="127.0.0.1", port=0)
    slots = Slots((spec,), 100)
    with ExitStack() as stack:
        stack.callback(slots.close)
        slots.bind(2)
        copies = [passed(os.dup(fd), spec, slot=True) for number in (0, 1) for _, fd in slots.descriptors(number)]
        for copy in copies:
            stack.callback(copy.close)
            copy.protocol = http1_protocol(bench.service, copy)
        bench.driver.accept_from(copies[:1])
        turns(bench, 2)  # nobody listens yet
        slots.listen()
        bench.driver.accept_from(copies[:1])
        peers = [stack.enter_context(Peer(address(copies[0]))) for _ in range(40)]
        own = turns(bench)
        assert own + slots.waiting(1) == 40
        assert 0 < own < 40
        bench.driver.accept_from(copies)
        turns(bench)
        assert len(bench.driver) == 40
        for peer in peers:
            peer.request()
        for _ in range(12):
            bench.turn()
        assert {peer.answer().status for peer in peers} == {200}
        bench.driver.accept_from(copies[:1])  # the slot has its worker again
        for _ in range(20):
            stack.enter_context(Peer(address(copies[0])))
        assert turns(bench) + slots.waiting(1) == 20


@SHARES
def test_what_the_parent_has_shut_is_left_in_silence(
    bench: Bench, slot: Slot, owner: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    """It is "readable" for ever, and everything else goes on."""
    caplog.set_level(logging.DEBUG, "lastcall.error")
    one, two = slot(owner), slot()
    bench.driver.accept_from([one, two])
    bench.turn()
    one.sock.shutdown(socket.SHUT_RDWR)
    turns(bench)
    with Peer(address(two)):
        assert turns(bench) == 1
        assert bench.driver.empty(one)
        assert caplog.messages == []
        # It may come again: a worker that is told to accept before its parent listens is told once more.
        one.sock.listen()
        bench.driver.accept_from([one, two])
        with Peer(address(one)):
            assert turns(bench) == 1


def test_of_a_shared_unix_socket_that_is_shut_everybody_who_waits_is_answered(bench: Bench, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as sock, ExitStack() as stack:
        sock.bind(path)
        sock.listen(20)
        listener = bench.listen(sock, Owner.SHARED)
        bench.turn()
        peers = [stack.enter_context(Peer(path)) for _ in range(5)]
        sock.shutdown(socket.SHUT_RD)  # the parent: nobody new
        bench.stop_new_connections()
        bench.driver.accept_backlog()
        assert len(bench.driver) == 5
        assert bench.driver.empty(listener)
        for peer in peers:
            peer.request()
        for _ in range(12):
            bench.turn()
        assert [peer.answer().status for peer in peers] == [200] * 5


@SHARES
def test_at_the_stop_the_queue_is_answered_and_then_nobody_new(bench: Bench, slot: Slot, owner: Owner) -> None:
    one, late = slot(owner), slot()
    bench.driver.accept_from([one])
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(Peer(address(one)))
        bench.stop_new_connections()
        assert len(bench.driver) == 3
        bench.driver.accept_from([one, late])  # a neighbour has died: who waits there is answered too
        stack.enter_context(Peer(address(late)))
        assert turns(bench) == 1
        stack.enter_context(Peer(address(one)))
        bench.driver.accept_backlog()
        assert len(bench.driver) == 5
        bench.driver.accept_from([one, late])  # an order that was late
        stack.enter_context(Peer(address(one)))
        assert turns(bench) == 0


def test_the_parent_says_when_a_slot_listens(bench: Bench) -> None:
    """In a group the order of ``listen()`` is the order of its members."""
    for owner in (Owner.SLOT, Owner.SHARED):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            Listener(sock, owner).listen(5)
            with pytest.raises(ConnectionRefusedError):
                Peer(sock.getsockname())


def test_a_listener_may_be_closed_while_its_event_is_on_its_way(
    bench: Bench, slot: Slot, caplog: pytest.LogCaptureFixture
) -> None:
    """And its number be given to a connection in the same turn."""
    with ExitStack() as stack:
        closing, stays = slot(), slot()
        number = closing.fd
        while (fd := os.dup(0)) < number:  # the numbers below are in use, so the next one is the closed listener's
            stack.callback(os.close, fd)
        os.close(fd)
        made: list[int] = []
        make = stays.protocol
        assert make is not None

        def close_the_other(stream: Stream) -> object:
            if not made:
                bench.driver.release(closing)
                closing.close()
            made.append(1)
            return make(stream)

        stays.protocol = close_the_other
        bench.driver.accept_from([stays, closing])
        bench.turn()
        peers = [stack.enter_context(Peer(address(stays))) for _ in range(3)]
        lost = stack.enter_context(Peer(address(closing)))
        for peer in peers:
            peer.request()
        for _ in range(12):
            bench.turn()
        assert [peer.answer().status for peer in peers] == [200] * 3
        assert lost.ended() == "RST"
        assert os.readlink(f"/proc/self/fd/{number}").startswith("socket:"), "a connection has the number"
        assert caplog.messages == []
