"""Slots: real listeners on loopback, spread by the kernel, that come and go while clients do."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from lastcall.base.errors import LastcallError, StartupError
from lastcall.base.options import BindSpec
from lastcall.net import steering
from lastcall.net.binding import passed
from lastcall.net.listener import Owner
from lastcall.net.slots import Slots
from testing.flood import Acceptor, Flood, serve_waiting
from testing.peer import Peer, filter_instructions

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="programs that choose a listener are Linux's")

BACKLOG = 2048


def tcp(host: str = "127.0.0.1", port: int = 0) -> BindSpec:
    return BindSpec("tcp", host=host, port=port)


def unix(path: Path) -> BindSpec:
    return BindSpec("unix", path=str(path))


@pytest.fixture
def make() -> Iterator[Callable[..., Slots]]:
    """``make(count, *binds)``: slots that listen, closed at the end."""
    with ExitStack() as stack:

        def start(count: int, *binds: BindSpec, listen: bool = True) -> Slots:
            slots = Slots(binds or (tcp(),), BACKLOG)
            stack.callback(slots.close)
            slots.bind(count)
            if listen:
                slots.listen()
            return slots

        yield start


def where(slots: Slots, index: int = 0) -> tuple[str, int]:
    found = slots.addresses[index]
    assert isinstance(found, tuple)
    return found


def listener(slots: Slots, slot: int, index: int = 0) -> socket.socket:
    """A copy of a slot's listener, which a test must close."""
    return socket.socket(fileno=os.dup(dict(slots.descriptors(slot))[index]))


def connect(slots: Slots, count: int, index: int = 0) -> None:
    """So many clients connect, and leave at once: the accept queues keep them."""
    for _ in range(count):
        Peer(where(slots, index)).close()


def take(slots: Slots, index: int = 0) -> dict[int, int]:
    """Accept everybody who waits; how many waited in each slot."""
    found = {}
    for slot in slots.numbers:
        found[slot] = 0
        with listener(slots, slot, index) as sock, contextlib.suppress(BlockingIOError):
            while True:
                sock.accept()[0].close()
                found[slot] += 1
    return found


def spread(slots: Slots, count: int, index: int = 0) -> dict[int, int]:
    """How many of ``count`` clients each slot gets."""
    connect(slots, count, index)
    found = take(slots, index)
    assert sum(found.values()) == count
    return found


def open_files() -> set[str]:
    found = set()
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(f"{entry} {os.readlink(f'/proc/self/fd/{entry}')}")
    return {name for name in found if "/proc/" not in name}


@contextmanager
def free_descriptors(count: int) -> Iterator[None]:
    """At most so many can be opened."""
    used = {int(entry.split()[0]) for entry in open_files()}
    limit = free = 0
    while free < count:
        free += limit not in used
        limit += 1
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# -- an even spread ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_thousand_connections_are_spread_evenly(make: Callable[..., Slots], count: int) -> None:
    found = spread(make(count), 1000)
    assert len(found) == count
    assert all(abs(number - 1000 / count) <= 250 / count for number in found.values()), found


def test_few_connections_are_spread_evenly_over_many_rounds(make: Callable[..., Slots]) -> None:
    slots = make(2)
    sums = {0: 0, 1: 0}
    for _ in range(20):
        for slot, number in spread(slots, 64).items():
            sums[slot] += number
    assert max(sums.values()) - min(sums.values()) <= 0.25 * 640, sums


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::"])
def test_all_families_are_spread(make: Callable[..., Slots], host: str) -> None:
    """``::`` alone takes IPv4 connections too, and one program chooses for both."""
    slots = make(2, tcp(host))
    slots.steer(1, 1.0)
    port = where(slots)[1]
    for peer in {"::": ("127.0.0.1", "::1")}.get(host, (host,)):
        for _ in range(20):
            Peer((peer, port)).close()
    assert take(slots)[0] == 0


def test_nobody_listens_before_the_slots_do(make: Callable[..., Slots]) -> None:
    slots = make(3, listen=False)
    with pytest.raises(ConnectionRefusedError):
        Peer(where(slots))
    slots.listen()
    assert sum(spread(slots, 30).values()) == 30


# -- addresses ---------------------------------------------------------------------------------------------------------


def test_port_0_is_the_same_real_one_for_all_slots(make: Callable[..., Slots]) -> None:
    slots = make(3)
    ports = set()
    for slot in slots.numbers:
        with listener(slots, slot) as sock:
            ports.add(sock.getsockname()[1])
    assert ports == {where(slots)[1]} != {0}
    slots.add(3)
    with listener(slots, 3) as sock:
        assert sock.getsockname() == where(slots)


def test_several_addresses_at_once(make: Callable[..., Slots], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        path = tmp_path / "socket"
        slots = make(2, tcp(), unix(path), tcp("::1"), BindSpec("fd", fd=given.fileno()))
        assert [kind for kind, _ in slots.descriptors(0)] == [kind for kind, _ in slots.descriptors(1)] == [0, 2]
        assert [kind for kind, _ in slots.shared] == [1, 3]
        assert slots.addresses == [where(slots), str(path), where(slots, 2), given.getsockname()]
        assert slots.urls[1] == f"unix:{path}"
        assert slots.split
        assert set(spread(slots, 100)) == set(spread(slots, 100, 2)) == {0, 1}
        Peer(str(path)).close()
        Peer(given.getsockname()).close()
        assert slots.files == [(str(path), (os.stat(path).st_dev, os.stat(path).st_ino))]


def test_both_ip_versions_can_have_the_same_port(make: Callable[..., Slots]) -> None:
    first = make(2, tcp("0.0.0.0"))
    port = where(first)[1]
    first.close()
    slots = make(2, tcp("0.0.0.0", port), tcp("::", port))
    slots.add(2)
    for host in ("127.0.0.1", "::1"):
        for _ in range(10):
            Peer((host, port)).close()
    assert sum(take(slots, 0).values()) == sum(take(slots, 1).values()) == 10


def test_connections_of_the_slots_send_without_delay_and_no_descriptor_is_inherited(make: Callable[..., Slots]) -> None:
    slots = make(2)
    for slot in slots.numbers:
        for _, fd in slots.descriptors(slot):
            assert not os.get_inheritable(fd)
            assert not os.get_blocking(fd)
    slots.steer(1, 1.0)
    with Peer(where(slots)), listener(slots, 1) as sock, sock.accept()[0] as accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_the_same_port_can_be_had_again_at_once(make: Callable[..., Slots]) -> None:
    """Connections outlive their service: some are open, some in TIME_WAIT."""
    first = make(2)
    address = where(first)
    with Peer(address) as lingering, Peer(address), ExitStack() as stack:
        accepted = []
        for slot in first.numbers:
            with listener(first, slot) as sock, contextlib.suppress(BlockingIOError):
                while True:
                    accepted.append(stack.enter_context(sock.accept()[0]))
        accepted[0].close()
        first.close()
        slots = make(2, tcp(port=address[1]))
        slots.add(2)
        assert sum(spread(slots, 30).values()) == 30
        lingering.close()


# -- an address that is taken ------------------------------------------------------------------------------------------

TAKER = """
import socket, sys
sock = socket.socket()
for option in sys.argv[2].split():
    sock.setsockopt(socket.SOL_SOCKET, getattr(socket, option), 1)
sock.bind(("127.0.0.1", int(sys.argv[1])))
if sys.argv[3] == "listens":
    sock.listen()
print(sock.getsockname()[1], flush=True)
sys.stdin.read(1)
try:
    sock.listen()
    print("listens", flush=True)
except OSError as exc:
    print(exc.strerror, flush=True)
sys.stdin.read()
"""


@contextmanager
def taker(options: str, does: str, port: int = 0) -> Iterator[tuple[int, Callable[[], str]]]:
    """Another process that has a port, and a call that makes it listen, and says what came of it."""
    command = [sys.executable, "-S", "-c", TAKER, str(port), options, does]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def listen() -> str:
            stdin.write(".")
            stdin.flush()
            return stdout.readline().rstrip()

        try:
            yield int(stdout.readline()), listen
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("options", "does"),
    [
        ("", "listens"),
        ("SO_REUSEADDR", "listens"),
        ("SO_REUSEPORT", "listens"),
        ("SO_REUSEADDR SO_REUSEPORT", "listens"),
        ("", "is only bound"),
        ("SO_REUSEPORT", "is only bound"),
    ],
)
@pytest.mark.parametrize("count", [1, 2])
def test_a_taken_port_is_a_startup_error(options: str, does: str, count: int) -> None:
    with taker(options, does) as (port, _):
        before = open_files()
        with pytest.raises(StartupError, match=rf"127\.0\.0\.1:{port}\b"):
            Slots((tcp(), tcp(port=port)), BACKLOG).bind(count)
        assert open_files() == before


def test_a_group_that_was_only_bound_before_us_and_listens_before_us_is_found_out_then() -> None:
    with taker("SO_REUSEADDR SO_REUSEPORT", "is only bound") as (port, listen):
        before = open_files()
        slots = Slots((tcp(port=port),), BACKLOG)
        slots.bind(2)
        assert listen() == "listens"
        with pytest.raises(StartupError, match=rf"127\.0\.0\.1:{port}\b"):
            slots.listen()
        slots.close()
        assert open_files() == before


def test_who_was_only_bound_before_us_cannot_listen_any_more(make: Callable[..., Slots]) -> None:
    """One of the two hears of it: with SO_REUSEADDR on both sides, not before it listens."""
    with taker("SO_REUSEADDR", "is only bound") as (port, listen):
        slots = make(2, tcp(port=port), listen=False)
        assert listen() == "Address already in use"
        slots.listen()
        assert sum(spread(slots, 20).values()) == 20


def test_a_group_that_comes_after_us_is_found_out(make: Callable[..., Slots]) -> None:
    """Of one user, so it may join; but we are not to serve half of the clients."""
    slots = make(2, listen=False)
    with taker("SO_REUSEPORT", "listens", where(slots)[1]), pytest.raises(StartupError, match=str(where(slots)[1])):
        slots.listen()


def test_two_services_cannot_have_one_port(make: Callable[..., Slots]) -> None:
    for listens in (False, True):
        slots = make(2, listen=listens)
        with pytest.raises(StartupError, match=str(where(slots)[1])):
            make(2, tcp(port=where(slots)[1]))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_can_add_no_slot(make: Callable[..., Slots]) -> None:
    slots = make(2)
    before = open_files()
    os.seteuid(65534)
    try:
        with pytest.raises(StartupError, match="slot 2"):
            slots.add(2)
    finally:
        os.seteuid(0)
    assert slots.numbers == (0, 1)
    assert open_files() == before
    assert sum(spread(slots, 50).values()) == 50


@pytest.mark.parametrize("free", range(9))
def test_without_enough_descriptors_nothing_stays_open(free: int, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    slots = Slots((tcp(), unix(path), tcp("::1")), BACKLOG)
    before = open_files()
    with free_descriptors(free), pytest.raises(StartupError, match="Too many open files"):
        slots.bind(8)
    assert open_files() == before
    assert not path.exists()


def test_a_slot_for_which_there_are_no_descriptors_changes_nothing(make: Callable[..., Slots]) -> None:
    slots = make(2, tcp(), tcp("::1"))
    before = open_files()
    with free_descriptors(1), pytest.raises(StartupError, match=r"slot 2.*Too many open files.*ulimit -n"):
        slots.add(2)
    assert slots.numbers == (0, 1)
    assert open_files() == before
    assert set(spread(slots, 100)) == set(spread(slots, 100, 1)) == {0, 1}
    slots.add(2)
    assert all(number > 0 for number in spread(slots, 100).values())


# -- a queue outlives its worker ---------------------------------------------------------------------------------------

WORKER = """
import socket, sys
sock = socket.socket(fileno=int(sys.argv[1]))
sock.setblocking(True)
print("holds", flush=True)
if sys.argv[2] == "hangs":
    sys.stdin.read()
while True:
    accepted, _ = sock.accept()
    with accepted:
        accepted.recv(64)
        accepted.sendall(b"successor")
"""


def test_who_waits_is_answered_by_the_successor_of_a_killed_worker(make: Callable[..., Slots]) -> None:
    slots = make(2)
    slots.steer(1, 1.0)
    ((_, fd),) = slots.descriptors(1)

    def worker(does: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-S", "-c", WORKER, str(fd), does]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[fd])
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        return process

    with ExitStack() as stack, worker("hangs") as first:
        peers = [stack.enter_context(Peer(where(slots))) for _ in range(10)]
        for peer in peers:
            peer.send(b"?")
        assert slots.waiting(1) == 10
        first.kill()
        first.wait()
        assert slots.waiting(1) == 10
        with worker("serves") as successor:
            try:
                assert [peer.rest() for peer in peers] == [b"successor"] * 10
            finally:
                successor.kill()


# -- live changes ------------------------------------------------------------------------------------------------------


def test_a_canary_gets_nobody_before_it_is_steered_and_its_share_after(make: Callable[..., Slots]) -> None:
    slots = make(2)
    slots.add(2, 0.0)
    assert spread(slots, 1000)[2] == 0
    slots.steer(2, 0.1)
    found = spread(slots, 1000)
    assert 50 <= found[2] <= 150
    assert abs(found[0] - found[1]) <= 250
    slots.steer(2, None)
    assert 250 <= spread(slots, 1000)[2] <= 417
    slots.steer(2, 0.0)
    assert spread(slots, 200)[2] == 0
    slots.remove(2)
    assert set(spread(slots, 100)) == {0, 1}


def test_a_canary_stays_what_it_is_while_another_slot_is_removed(make: Callable[..., Slots]) -> None:
    """It listens last, so the removed one's index becomes its."""
    slots = make(3)
    slots.add(3, 0.0)
    slots.remove(0)
    assert spread(slots, 500) == {1: pytest.approx(250, abs=62), 2: pytest.approx(250, abs=62), 3: 0}
    slots.steer(3, 0.05)
    assert 10 <= spread(slots, 1000)[3] <= 95
    slots.add(4)
    found = spread(slots, 1000)
    assert 10 <= found[3] <= 95
    assert min(found[slot] for slot in (1, 2, 4)) >= 235


@pytest.mark.parametrize("slot", [0, 1, 2])
def test_a_removed_slot_leaves_the_others_with_the_same(make: Callable[..., Slots], slot: int) -> None:
    slots = make(3)
    slots.remove(slot)
    assert slots.numbers == tuple({0, 1, 2} - {slot})
    found = spread(slots, 1000)
    assert all(375 <= number <= 625 for number in found.values()), found
    slots.add(slot)
    assert all(250 <= number <= 417 for number in spread(slots, 1000).values())


def test_a_slot_is_left_also_if_somebody_keeps_a_copy(make: Callable[..., Slots]) -> None:
    """A process that an application has forked, say. Its index would go on counting, and nobody would accept there."""
    slots = make(3)
    with listener(slots, 1):
        slots.remove(1)
        assert sum(spread(slots, 300).values()) == 300


def test_nobody_new_comes_to_a_slot_that_is_steered_away_from(make: Callable[..., Slots]) -> None:
    slots = make(3)
    connect(slots, 100)
    waiting = slots.waiting(1)
    assert waiting > 0
    slots.steer_away(1)
    slots.steer_away(1)
    connect(slots, 100)
    assert slots.waiting(1) == waiting
    slots.steer(2, None)
    connect(slots, 50)
    assert slots.waiting(1) == waiting, "another slot's share does not call it back"
    take(slots)
    slots.steer(1, None)
    assert spread(slots, 100)[1] > 0


def test_the_last_slot_stays(make: Callable[..., Slots]) -> None:
    slots = make(2)
    slots.remove(0)
    for act in (slots.steer_away, slots.remove):
        with pytest.raises(ValueError, match="last slot"):
            act(1)
    assert spread(slots, 20) == {1: 20}
    for strange in (slots.steer_away, slots.remove, slots.descriptors, slots.waiting):
        with pytest.raises(ValueError, match="no slot 7"):
            strange(7)
    with pytest.raises(ValueError, match="slot 1 already"):
        slots.add(1)


def test_slots_can_be_changed_before_they_listen(make: Callable[..., Slots]) -> None:
    slots = make(2, listen=False)
    slots.add(2)
    slots.remove(0)
    slots.listen()
    assert all(number > 300 for number in spread(slots, 1000).values())


@pytest.mark.parametrize("slot", [0, 2])
def test_slots_can_be_steered_before_they_listen(make: Callable[..., Slots], slot: int) -> None:
    slots = make(3, listen=False)
    slots.steer_away(slot)
    slots.listen()
    assert spread(slots, 200)[slot] == 0
    slots = make(3, listen=False)
    slots.steer(slot, 0.05)
    slots.listen()
    assert 10 <= spread(slots, 1000)[slot] <= 95


def test_a_program_that_the_kernel_refuses_changes_nothing(
    make: Callable[..., Slots], monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = make(2)
    with monkeypatch.context() as patch:
        patch.setattr(steering, "program", lambda count, **_: ((0xFFFF, 0, 0, 0),))
        with pytest.raises(LastcallError, match="cannot steer"):
            slots.steer(0, 0.5)
        with pytest.raises(LastcallError, match="cannot steer"):
            slots.steer_away(0)
        with pytest.raises(LastcallError, match="cannot steer"):
            slots.add(2)
    assert slots.numbers == (0, 1)
    assert all(number > 350 for number in spread(slots, 1000).values())


def test_where_one_of_two_addresses_cannot_be_steered_the_order_can_be_repeated(
    make: Callable[..., Slots], monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = make(3, tcp(), tcp("::1"))
    works = steering.steer

    def refuse(sock: socket.socket, steps: Sequence[steering.Instruction]) -> None:
        if sock.family == socket.AF_INET6:
            raise OSError(errno.ENOMEM, "no memory")  # a kernel that has none is not to be had here
        works(sock, steps)

    with monkeypatch.context() as patch:
        patch.setattr(steering, "steer", refuse)
        before = open_files()
        with pytest.raises(LastcallError, match=r"cannot steer.*::1"):
            slots.add(3)
        assert open_files() == before
    slots.steer_away(0)
    with monkeypatch.context() as patch:
        patch.setattr(steering, "steer", refuse)
        with pytest.raises(LastcallError, match=r"cannot steer.*::1"):
            slots.remove(0)
    assert slots.waiting(0) == 0
    assert [index for index, _ in slots.descriptors(0)] == [1]
    slots.remove(0)
    for index in (0, 1):
        assert all(number > 350 for number in spread(slots, 1000, index).values())


@pytest.mark.slow
def test_live_replacements_of_the_program_lose_nobody(make: Callable[..., Slots]) -> None:
    slots = make(2)
    slots.add(2, 0.0)
    with Acceptor() as acceptor:
        for slot in slots.numbers:
            acceptor.hold(b"%d" % slot, slots.descriptors(slot))
        with Flood(where(slots)) as flood:
            for number in range(2000):
                slots.steer(2, (None, 0.0, 0.1, 0.9, 1.0)[number % 5])
                if number % 100 == 0:
                    flood.settle()
    assert flood.errors == []
    assert flood.answers.keys() == {b"0", b"1", b"2"}


@pytest.mark.slow
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_slots_come_and_go_without_losing_anybody(make: Callable[..., Slots], host: str) -> None:
    slots = make(1, tcp(host))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with Acceptor() as acceptor:
        acceptor.hold(b"0", slots.descriptors(0))
        with Flood(where(slots), family) as flood:
            for number in range(25):
                for slot in (3 * number + 1, 3 * number + 2, 3 * number + 3):
                    slots.add(slot)
                    acceptor.hold(b"%d" % slot, slots.descriptors(slot))
                flood.settle()
                for slot in sorted(slots.numbers, key=lambda slot: (slot * 7) % 5)[:3]:  # first, middle and last ones
                    slots.steer_away(slot)
                    flood.settle()  # whoever has sent a SYN before is through
                    acceptor.release(b"%d" % slot)
                    assert slots.waiting(slot) == 0
                    slots.remove(slot)
    assert flood.errors == []
    assert len(flood.answers) > 25
    assert len(slots.numbers) == 1


# -- shared listeners --------------------------------------------------------------------------------------------------


def test_without_programs_each_address_has_one_shared_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steering, "available", lambda: False)  # a kernel of another kind is not to be had here
    slots = Slots((tcp(),), BACKLOG)
    slots.bind(3)
    slots.listen()
    assert not slots.split
    assert slots.numbers == (0, 1, 2)
    ((index, fd),) = slots.shared
    assert (index, slots.descriptors(2)) == (0, [])
    slots.add(3, 0.5)
    slots.steer_away(3)
    slots.remove(3)
    Peer(where(slots)).close()
    with socket.socket(fileno=os.dup(fd)) as copy:
        copy.accept()[0].close()
        slots.shut_door()
        assert filter_instructions(copy) == 4
    slots.close()


def test_a_worker_knows_whose_a_listener_is(make: Callable[..., Slots], tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.create_server(("127.0.0.1", 0)) as given:
        specs = (tcp(), unix(path), BindSpec("fd", fd=given.fileno()))
        slots = make(1, *specs)
        found = [passed(os.dup(fd), specs[index], slot=True) for index, fd in slots.descriptors(0)]
        found += [passed(os.dup(fd), specs[index], slot=False) for index, fd in slots.shared]
        assert [one.owner for one in found] == [Owner.SLOT, Owner.SHARED, Owner.INHERITED]
        for one in found:
            one.close()
        assert path.exists()
        for address in slots.addresses:
            Peer(address).close()


# -- the end -----------------------------------------------------------------------------------------------------------


def test_the_door_is_shut_where_nobody_else_listens(make: Callable[..., Slots], tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.create_server(("127.0.0.1", 0)) as given, ExitStack() as stack:
        slots = make(2, tcp(), unix(path), BindSpec("fd", fd=given.fileno()))
        os.link(path, tmp_path / "other name")
        waiting = [stack.enter_context(Peer(str(path))) for _ in range(3)]
        waiting += [stack.enter_context(Peer(where(slots))) for _ in range(5)]
        slots.shut_door()
        for slot in slots.numbers:
            with listener(slots, slot) as sock:
                assert filter_instructions(sock) == 4
        assert filter_instructions(given) == 0
        assert not path.exists()
        with pytest.raises(OSError, match="refused"):
            Peer(str(tmp_path / "other name"))
        with socket.socket() as late:
            late.settimeout(0.2)
            with pytest.raises(TimeoutError):
                late.connect(where(slots))
        for peer in waiting:
            peer.send(b"?")
        for fd in [fd for slot in slots.numbers for _, fd in slots.descriptors(slot)] + [slots.shared[0][1]]:
            with socket.socket(fileno=os.dup(fd)) as copy, contextlib.suppress(OSError):
                serve_waiting(copy)
        assert [peer.rest() for peer in waiting] == [b"!"] * 8
        slots.close()
        with pytest.raises(ConnectionRefusedError):
            Peer(where_was := waiting[-1].sock.getpeername())
        assert where_was[1] > 0
        Peer(given.getsockname()).close()


def test_closing_ends_the_listening_whoever_has_copies(make: Callable[..., Slots], tmp_path: Path) -> None:
    path = tmp_path / "socket"
    slots = make(2, tcp(), unix(path))
    address = where(slots)
    with listener(slots, 0), listener(slots, 1):
        slots.close()
        slots.close()
        with pytest.raises(ConnectionRefusedError):
            Peer(address)
        assert not path.exists()
        make(2, tcp(port=address[1]))


def test_a_child_that_lets_go_takes_nothing_with_it(make: Callable[..., Slots], tmp_path: Path) -> None:
    path = tmp_path / "socket"
    slots = make(2, tcp(), unix(path))
    child = os.fork()
    if child == 0:
        slots.let_go()
        slots.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert sum(spread(slots, 20).values()) == 20
    Peer(str(path)).close()


# -- another parent ----------------------------------------------------------------------------------------------------


def succeed(slots: Slots, *binds: BindSpec) -> Slots:
    """What a new parent makes of the state and the descriptors that it is passed."""
    state, fds = slots.handover()
    return Slots.inherited(binds, BACKLOG, json.loads(json.dumps(state)), [os.dup(fd) for fd in fds])


def test_another_parent_goes_on_where_the_first_one_was(make: Callable[..., Slots], tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.create_server(("127.0.0.1", 0)) as given:
        binds = (tcp(), unix(path), BindSpec("fd", fd=given.fileno()))
        old = make(3, *binds)
        old.add(3, 0.0)
        old.remove(0)
        address, inode = where(old), os.stat(path).st_ino
        new = succeed(old, *binds)
        assert (new.addresses, new.numbers, new.listening) == (old.addresses, old.numbers, True)
        new.claim()
        old.let_go()
        assert os.stat(path).st_ino == inode
        assert spread(new, 400)[3] == 0
        new.steer(3, 0.5)
        assert 400 <= spread(new, 1000)[3] <= 600
        new.remove(1)
        new.remove(3)
        new.add(4)
        assert all(375 <= number <= 625 for number in spread(new, 1000).values())
        new.close()
        assert not path.exists()
        with pytest.raises(ConnectionRefusedError):
            Peer(address)
        Peer(given.getsockname()).close()


def test_another_parent_that_cannot_start_changes_nothing(make: Callable[..., Slots], tmp_path: Path) -> None:
    path = tmp_path / "socket"
    old = make(2, tcp(), unix(path))
    before = open_files()
    new = succeed(old, tcp(), unix(path))
    new.close()
    assert open_files() == before
    assert sum(spread(old, 50).values()) == 50
    Peer(str(path)).close()


@pytest.mark.parametrize("change", ["groups", "shared", "spread", "fewer", "no sockets"])
def test_a_state_that_is_none_is_refused_and_nothing_stays_open(make: Callable[..., Slots], change: str) -> None:
    slots = make(2, tcp(), tcp("::1"))
    state, fds = slots.handover()
    before = open_files()
    copies = [os.dup(fd) for fd in fds]
    broken: dict[str, Any] = state | ({change: None} if change in state else {})
    if change == "fewer":
        os.close(copies.pop())
    elif change == "no sockets":
        os.close(copies.pop())
        copies.append(os.open(os.devnull, os.O_RDONLY))
    with pytest.raises(StartupError, match="old parent"):
        Slots.inherited((tcp(), tcp("::1")), BACKLOG, broken, copies)
    assert open_files() == before
    assert sum(spread(slots, 20).values()) == 20


def test_slots_that_do_not_listen_yet_can_be_passed_on(make: Callable[..., Slots]) -> None:
    old = make(2, listen=False)
    new = succeed(old, tcp())
    new.claim()
    old.let_go()
    new.listen()
    assert all(number > 350 for number in spread(new, 1000).values())
    new.close()
