"""Connections that do not arrive: a successor that dies, or has no descriptors left; ends of the predecessor; forks."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import time
from contextlib import suppress
from typing import Any

import pytest

from lastcall.net import moving
from lastcall.net.moving import Adopter, Mover, moving_pair
from testing.moving import Connect, Pair, Start, adopter, ask, clients, driver_of, mover, settled, who
from testing.peer import eventually
from testing.running import Lines

# -- a successor that fails --------------------------------------------------------------------------------------------


def test_a_successor_that_dies_before_it_acknowledges_has_got_nothing(
    connect: Connect, start: Start, pair: Pair
) -> None:
    old = start("old")
    peers = [connect(old) for _ in range(5)]
    assert {who(peer) for peer in peers} == {"old"}
    settled(old, 5)
    sending = mover(old, pair[0])
    ask(old, sending.move_all)
    pair[1].room(100)
    descriptors, _ = pair[1].take()
    assert len(descriptors) == 5
    eventually(lambda: sending.in_flight == 5)
    for peer in peers:
        peer.request("/meanwhile")  # while nobody reads
    for fd in descriptors:
        os.close(fd)
    pair[1].close()
    assert [json.loads(peer.answer().body)[0] for peer in peers] == ["old"] * 5
    eventually(lambda: sending.ended)
    assert (sending.moved, sending.failed) == (0, "the successor is gone")
    assert {who(peer) for peer in peers} == {"old"}, "a worker that is not told to stop serves on"
    report = old.stop()
    assert (report.moved, {peer.ended() for peer in peers}) == (0, {"FIN"})


def test_one_that_dies_with_messages_unread_has_got_what_it_acknowledged_and_no_more(
    connect: Connect, start: Start, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "BATCH", 2)
    old = start("old")
    peers = [connect(old) for _ in range(4)]
    assert {who(peer) for peer in peers} == {"old"}
    settled(old, 4)
    sending = mover(old, pair[0])
    ask(old, sending.move_all)
    pair[1].room(100)
    theirs, records = pair[1].take()
    gone = clients(records)
    pair[1].received(2)
    eventually(lambda: sending.moved == 2 and sending.in_flight == 2)
    pair[1].close()  # the second message is in its queue: the kernel resets the pair
    eventually(lambda: sending.ended)
    assert (sending.moved, old.connections) == (2, 2)
    assert {who(peer) for peer in peers if peer.name not in gone} == {"old"}
    for fd in theirs:
        os.close(fd)
    assert {peer.ended() for peer in peers if peer.name in gone} == {"FIN"}


def test_in_a_drain_what_comes_back_is_answered_once_more_and_closed(
    connect: Connect, start: Start, pair: Pair
) -> None:
    old = start("old")
    asking, quiet = connect(old), connect(old)
    who(asking)
    who(quiet)
    settled(old, 2)
    sending = mover(old, pair[0])
    ask(old, sending.move_all)
    old.server.drain()
    pair[1].room(100)
    descriptors, _ = pair[1].take()
    eventually(lambda: driver_of(old).drain.listeners_closed)
    asking.request("/meanwhile")
    for fd in descriptors:
        os.close(fd)
    pair[1].close()
    answer = asking.answer()
    assert (json.loads(answer.body)[0], answer.headers["connection"]) == ("old", "close")
    assert quiet.ended() == "FIN"
    assert old.join().moved == 0


def test_in_a_drain_clients_of_what_comes_back_have_the_time_to_ask_that_those_of_any_drain_have(
    connect: Connect, start: Start, pair: Pair
) -> None:
    old = start("old")
    peers = [connect(old) for _ in range(3)]
    for peer in peers:
        who(peer)
    settled(old, 3)
    sending = mover(old, pair[0])
    ask(old, sending.move_all)
    old.server.drain()
    pair[1].room(100)
    descriptors, _ = pair[1].take()
    eventually(lambda: driver_of(old).drain.listeners_closed)
    for fd in descriptors:
        os.close(fd)
    pair[1].close()
    eventually(lambda: sending.ended)
    answers = [peer.get("/afterwards") for peer in peers[:2]]  # no answer has told them to send no more
    assert [answer.headers["connection"] for answer in answers] == ["close"] * 2
    assert {peer.ended() for peer in peers} == {"FIN"}
    old.join()


@pytest.mark.parametrize("idle", [0, 1])
def test_that_a_successor_leaves_is_a_warning_only_where_clients_notice(
    connect: Connect, start: Start, pair: Pair, log: Lines, idle: int
) -> None:
    """The next reload replaces a successor while its predecessor waits for a stream: that is as it should be."""
    old = start("old")
    peers = [connect(old) for _ in range(idle)]
    for peer in peers:
        who(peer)
    settled(old, idle)
    sending = mover(old, pair[0])
    ask(old, sending.move_all)
    pair[1].room(0)
    pair[1].close()
    eventually(lambda: sending.ended)
    assert any("successor is gone" in line for line in log.messages())
    assert len(log.messages(logging.WARNING)) == idle


def test_what_was_not_received_is_served_by_the_predecessor(connect: Connect, start: Start, pair: Pair) -> None:
    old = start("old")
    peers = [connect(old) for _ in range(6)]
    assert {who(peer) for peer in peers} == {"old"}
    settled(old, 6)
    sending = mover(old, pair[0])
    ask(old, sending.move_all)
    old.server.drain()
    pair[1].room(100)
    descriptors, records = pair[1].take()
    gone = clients(records[:4])
    for peer in peers:
        peer.request("/meanwhile")
    pair[1].received(4, room=0)
    stayed = [peer for peer in peers if peer.name not in gone]
    answers = [peer.answer() for peer in stayed]
    assert [(json.loads(one.body)[0], one.headers.get("connection")) for one in answers] == [("old", None)] * 2
    for fd in descriptors[4:]:
        os.close(fd)
    eventually(lambda: driver_of(old).drain.listeners_closed)
    assert {who(peer) for peer in stayed} == {"old"}, (
        "without room they are served on, for as long as the drain goes on"
    )
    pair[1].room(1)
    more, _ = pair[1].take()
    assert len(more) == 1
    pair[1].received(1, room=0)
    old.server.force_exit = True
    assert old.join().moved == 5
    for fd in (*descriptors[:4], *more):
        os.close(fd)


def test_the_kernel_takes_no_more_descriptors_for_a_while(
    connect: Connect, start: Start, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ETOOMANYREFS, which needs a user with a limit of its own; ENOBUFS and their kind go the same way."""
    old = start("old")
    peer = connect(old)
    who(peer)
    settled(old, 1)
    monkeypatch.setattr(moving, "FIRST_WAIT_SECONDS", 0.001)
    sending = mover(old, pair[0])
    refusing = Refusing(sending._sock, 3)
    ask(old, lambda: setattr(sending, "_sock", refusing))
    ask(old, sending.move_all)
    pair[1].room(100)
    descriptors, _ = pair[1].take()
    assert refusing.left == 0
    pair[1].received(1)
    eventually(lambda: sending.moved == 1)
    os.close(descriptors[0])
    assert peer.ended() == "FIN"


def test_the_kernel_takes_no_more_descriptors_at_all(
    connect: Connect, start: Start, pair: Pair, monkeypatch: pytest.MonkeyPatch, log: Lines
) -> None:
    old = start("old")
    peer = connect(old)
    who(peer)
    settled(old, 1)
    monkeypatch.setattr(moving, "FIRST_WAIT_SECONDS", 0.001)
    sending = mover(old, pair[0])
    refusing = Refusing(sending._sock, 1000)
    ask(old, lambda: setattr(sending, "_sock", refusing))
    ask(old, sending.move_all)
    pair[1].room(100)
    eventually(lambda: sending.ended)
    assert any("no longer move" in line for line in log.messages(logging.WARNING))
    assert who(peer) == "old"
    assert (old.stop().moved, peer.ended()) == (0, "FIN")


class Refusing:
    """A socket whose ``sendmsg`` is refused ``left`` times, as where too many descriptors are passed."""

    def __init__(self, sock: socket.socket, left: int) -> None:
        self._sock = sock
        self.left = left

    def sendmsg(self, *args: Any) -> int:
        """As ``socket.sendmsg``."""
        if self.left:
            self.left -= 1
            raise OSError(errno.ETOOMANYREFS, "Too many references: cannot splice")
        return self._sock.sendmsg(*args)

    def __getattr__(self, name: str) -> object:
        return getattr(self._sock, name)


def test_at_the_end_of_the_grace_what_is_still_here_is_closed(connect: Connect, start: Start, pair: Pair) -> None:
    old = start("old", timeout_graceful_shutdown=1.0)
    peer = connect(old)
    who(peer)
    settled(old, 1)
    sending = mover(old, pair[0])
    ask(old, sending.move_all)
    pair[1].room(0)
    old.server.drain()
    assert peer.ended() == "FIN"
    report = old.join()
    assert (report.moved, report.cut) == (0, ())
    assert sending.ended


def test_what_is_on_its_way_at_the_very_end_is_left_to_the_successor(
    connect: Connect, start: Start, pair: Pair
) -> None:
    old, new = start("old"), start("new")
    peer = connect(old)
    who(peer)
    settled(old, 1)
    sending = mover(old, pair[0])
    ask(old, sending.move_all)
    pair[1].room(1)
    eventually(lambda: sending.in_flight == 1)
    ask(old, sending.close)
    peer.request("/meanwhile")
    adopter(new, pair[1].sock)  # which finds nobody to acknowledge to, and is the only one who has it
    assert json.loads(peer.answer().body)[0] == "new"


# -- ends, and what is not understood ----------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"no", b"[]", b"[[9, null, false, 1.0]]", b"[1]", b'{"a": 1}', b"[[[], 1, 2, 3]]"])
def test_a_message_that_is_none_of_ours_takes_no_connection(start: Start, data: bytes) -> None:
    new = start("new")
    ours, theirs = moving_pair()
    receiving = adopter(new, theirs)
    ours.recv(1000)
    one, other = socket.socketpair()
    with ours, other:
        socket.send_fds(ours, [data], [one.fileno()])
        one.close()
        eventually(lambda: receiving.ended)
        assert ours.recv(1000) == b"", "nothing was acknowledged"
        assert other.recv(1) == b"", "and nothing kept"
    assert new.connections == 0


def test_the_ends_must_be_of_the_right_kind(start: Start) -> None:
    new = start("new")
    one, other = socket.socketpair()
    with one, other:
        for side in (lambda: Mover(driver_of(new), one, new.loop), lambda: Adopter(driver_of(new), {}, one, new.loop)):
            with pytest.raises(ValueError, match="moving_pair"):
                side()


def test_a_mover_moves_once(start: Start, pair: Pair) -> None:
    old = start("old")
    sending = mover(old, pair[0])
    ask(old, lambda: sending.move_share(1.0))
    with pytest.raises(RuntimeError):
        ask(old, sending.move_all)


def test_a_forked_child_lets_go_of_everything(connect: Connect, start: Start, pair: Pair) -> None:
    old = start("old")
    peer = connect(old)
    who(peer)
    settled(old, 1)
    sending = mover(old, pair[0])
    ask(old, sending.move_all)
    pair[1].room(1)
    descriptors, _ = pair[1].take()

    def forked() -> int:
        pid = os.fork()
        if pid == 0:
            with suppress(BaseException):
                os.close(descriptors[0])  # that is the successor's, who is here too
                sending.let_go()  # the server's own hook has let go of the connections
                time.sleep(60)
            os._exit(0)
        return pid

    pid = ask(old, forked)
    try:
        pair[1].received(1)
        eventually(lambda: sending.moved == 1)
        os.close(descriptors[0])
        assert peer.ended() == "FIN", "the child has no copy"
        ask(old, sending.close)
        assert pair[1].sock.recv(1000) == b"", "of the pair neither"
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
