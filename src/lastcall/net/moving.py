"""Idle connections move house: from a worker to the one that takes its place, by their descriptors.

Theory of operation
-------------------
HTTP/1.1 gives a server no way to close a kept-alive connection without racing a request that is on its way already. So
a worker that has a successor does not close them. An idle connection whose buffers are empty is one descriptor and a
few numbers, and these are passed on over a pair of unix sockets (``SOCK_SEQPACKET``: a message is received whole or not
at all). The predecessor's side is a ``Mover``, the successor's an ``Adopter``:

    Adopter -> Mover    {"room": n, "keys": [k, ...]}     the successor can take n; it has listeners of these keys
    Mover -> Adopter    [[key, client, fresh, left, past], ...]  and as many descriptors: at most 250, and at most n
    Adopter -> Mover    {"received": m, "room": n}         the first m of them are the successor's now

At any moment a connection has exactly one process that reads it:

*   The predecessor takes it out of its epoll set before it passes it, and keeps its copy of the descriptor. A request
    that comes meanwhile waits in the kernel.
*   The successor acknowledges first, and only then registers it and reads. What has come is reported at once.
*   At the acknowledgement the predecessor closes its copies, which no client hears of.
*   What was not received (the successor had too few descriptors, ``MSG_CTRUNC``) the predecessor serves again. So it
    does with all of them where the successor dies unacknowledged; its copies are what keeps the kernel from resetting
    them (descriptors in flight to a process that dies are closed). It is sure of that only at the end of the socket, so
    it never takes back what a successor that is merely slow may have received.
*   Where the predecessor is gone before it could hear of it, nobody but the successor is left to read, and it does.

One message is on its way at a time. That bounds the descriptors in flight, of which the kernel allows a user as many as
it may have open (``ETOOMANYREFS``), and what one turn of either loop takes.

Fields that a later version adds come behind those here; who does not know them leaves them out. The addresses that the
PROXY protocol gives will be such a field.
"""

from __future__ import annotations

import array
import errno
import json
import logging
import os
import resource
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lastcall.drain.ladder import LINGER

if TYPE_CHECKING:
    import asyncio

    from lastcall.connection.stream import Connection
    from lastcall.drain.state import DrainState
    from lastcall.net.driver import Driver
    from lastcall.net.listener import Listener

logger = logging.getLogger("lastcall.error")

BATCH = 250
"""Connections per message: the kernel takes 253 descriptors (SCM_MAX_FD in its sources, unix(7))."""

SPARE_DESCRIPTORS = 16
"""Descriptors that a successor leaves free, for what its application opens meanwhile."""

ROOM_SECONDS = 0.1
"""A successor without room looks again after so long."""

FIRST_WAIT_SECONDS = 0.05
WAITS = 6
"""Where descriptors do not get through for now, the predecessor waits so often, each time twice as long."""

_READ = 65536
_SPACE = socket.CMSG_SPACE(BATCH * array.array("i").itemsize)
# Resources of the kernel that somebody else may give back: ETOOMANYREFS counts all processes of the user.
_PASSING = frozenset({errno.ETOOMANYREFS, errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM})


def moving_pair() -> tuple[socket.socket, socket.socket]:
    """The two ends that a Mover and an Adopter need.

    Who passes them on must close its own copies of both: the end of the socket tells of the death of a side.
    """
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def free_descriptors() -> int:
    """How many more descriptors this process can open (``RLIMIT_NOFILE``)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1 << 30
    # Linux 6.2 and later say how many there are without listing them, which takes milliseconds for thousands.
    open_now = os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))
    return max(0, soft - open_now)


Address = tuple[str, int] | None
"""A client's; None on a unix socket."""

Past = list[float] | None
"""A connection's age in seconds and how many requests it has had, where limits count them."""

Known = tuple[int, Address, bool, float | None, Past]
"""What is said of a connection: its listener's key, its client, whether it has never had a request, and the seconds
until its timeout is due (None: it has none), and its past."""

Lifted = tuple[int, float, Known]
"""What ``Driver.lift`` gives."""


class _Side:
    """What both sides do with their end of the pair."""

    def __init__(self, driver: Driver, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_SEQPACKET:
            raise ValueError("connections move over AF_UNIX, SOCK_SEQPACKET: see moving_pair()")
        sock.setblocking(False)
        self._driver = driver
        self._drain = driver.drain
        self._sock = sock
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False
        loop.add_reader(sock, self._readable)

    @property
    def ended(self) -> bool:
        """Whether nothing moves any more."""
        return self._ended

    def let_go(self) -> None:
        """In a forked child: close our copy, and touch no loop. Those of connections are the driver's to let go of."""
        self._ended = True
        self._sock.close()

    def _readable(self) -> None:
        raise NotImplementedError

    def _leave(self) -> bool:
        """Close our end; False if that was done before."""
        if self._ended:
            return False
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()
        return True


class _Passed:
    """A connection that is on its way."""

    __slots__ = ("at", "connection", "fd", "known")

    def __init__(self, connection: Connection, fd: int, at: float, known: Known) -> None:
        self.connection = connection
        self.fd = fd
        self.at = at
        self.known = known


class Mover(_Side):
    """The predecessor's side: passes idle connections on. One of ``move_all`` and ``move_share`` is called, once.

    ``sock``: its end of a ``moving_pair()``, from now on the Mover's to close. Everything belongs to the thread of
    ``loop``. Listeners need a ``key``, or nothing that came in by them moves; nor does what only this process can go
    on with: TLS, and whatever the portable driver has.

    ``on_done()`` is called once, when nothing moves any more, also after ``close()``. ``moved`` counts connections that
    the successor has acknowledged; ``failed`` is "" or says in a line why it ended before it was told to.
    """

    def __init__(
        self,
        driver: Driver,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        *,
        on_done: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(driver, sock, loop)
        self.on_done = on_done
        self.moved = 0
        self.failed = ""
        self._keys: frozenset[int] = frozenset()
        self._room: int | None = None  # not said yet
        self._begun = False
        self._all = False  # move_all() was called
        self._retiring = False  # and is not over
        self._offered: dict[Connection, None] = {}  # in order
        self._on_their_way: list[_Passed] = []
        self._pumping = False
        self._waits = 0

    @property
    def in_flight(self) -> int:
        """How many connections are passed and not acknowledged."""
        return len(self._on_their_way)

    # -- orders ---------------------------------------------------------------------------------------------------

    def move_all(self) -> None:
        """The worker retires: pass every connection on as soon as it is idle. Belongs before the stop order.

        Sets ``drain.mover``, so that from now on no answer says ``Connection: close`` and nobody is closed for being
        idle. That ends, and what is left drains as usual, at ``stop()``, which the shutdown controller calls when
        responses are disconnected, and where moving fails. ``drain.moved`` counts with ``moved``.
        """
        self._begin()
        if self._ended:  # the successor was gone before
            return
        self._all = self._retiring = True
        self._drain.mover = self
        for connection in self._driver.connections:
            if connection.movable:
                self._offered[connection] = None
        self._schedule()

    def move_share(self, share: float) -> int:
        """Pass ``share`` (0 to 1) of the connections that are idle now, while the worker serves on; returns how many.

        Those that get a request before it is their turn stay.
        """
        self._begin()
        if self._ended:
            return 0
        idle = [connection for connection in self._driver.connections if connection.movable]
        count = min(len(idle), int(share * len(idle) + 0.5))
        # Evenly from all of them: neighbours may have come together, from the same client.
        self._offered = dict.fromkeys(idle[number * len(idle) // count] for number in range(count))
        self._schedule()
        return count

    def offer(self, connection: Connection) -> None:
        """A connection has fallen idle. What becomes of it is decided when it is its turn."""
        if not self._ended:
            self._offered[connection] = None
            self._schedule()

    def stop(self) -> None:
        """Pass nothing more on: from now on this is a drain like any other. What is on its way is waited for."""
        self._offered.clear()
        if self._retiring:
            self._retiring = False
            self._drain_as_usual()
        self._schedule()

    def close(self) -> None:
        """End at once. What is on its way is left to the successor: our copies are closed, without a word to anybody.

        Whether it has arrived is not known then, so it must not be read here again.
        """
        if self._leave():
            for one in self._take():
                self._driver.drop(one.connection)
            self._finish()

    # -- the end --------------------------------------------------------------------------------------------------

    def _end(self, failed: str, *, lost: bool = True) -> None:
        """Close our end; what is on its way is served here again. ``lost``: clients are going to notice.

        Without, all that were idle have moved. That is so where a successor is replaced itself, by the next reload,
        while we wait for a stream: who is busy here is told to close by its answer, and loses nothing.
        """
        if not self._ended:
            self.failed = failed
            self._leave()
            self._put_back(self._take())
            self._finish(logging.WARNING if lost else logging.INFO)

    def _finish(self, level: int = logging.WARNING) -> None:
        if self.failed:
            logger.log(level, "Idle connections no longer move to the successor: %s", self.failed)
        self._offered.clear()
        if self._retiring:
            self._retiring = False
            self._drain_as_usual()
        if self.on_done is not None:
            self.on_done()

    def _drain_as_usual(self) -> None:
        drain = self._drain
        if drain.mover is self:
            drain.mover = None
        if drain.stopping:
            for connection in self._driver.connections:
                connection.begin_drain()
            if drain.listeners_closed:
                _close_idle_soon(self._loop, drain, self._driver.connections)

    # -- passing --------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._begun:
            raise RuntimeError("a Mover moves once: make a new one")
        self._begun = True

    def _schedule(self) -> None:
        if not self._pumping and not self._ended:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Pass one message on, if it is time for one: the loop's other work gets its turn after each."""
        self._pumping = False
        if self._ended or not self._begun or self._on_their_way or self._timer is not None:
            return
        if self._offered:
            if self._room is None:
                return
            batch = list(self._lift(min(BATCH, self._room)))
            if batch:
                self._pass(batch)
                return
        if not self._retiring and (not self._offered or self._room == 0):
            self._end("the successor has no descriptors left" if self._offered else "")

    def _lift(self, most: int) -> Iterator[_Passed]:
        while most > 0 and self._offered:
            connection = next(iter(self._offered))
            del self._offered[connection]
            lifted = self._driver.lift(connection, self._keys)
            if lifted is not None:
                most -= 1
                yield _Passed(connection, *lifted)

    def _pass(self, batch: list[_Passed]) -> None:
        batch.sort(key=lambda one: one.at)  # the order in which the successor files them
        descriptors = array.array("i", [one.fd for one in batch])
        data = json.dumps([one.known for one in batch], separators=(",", ":")).encode()
        try:
            self._sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)], socket.MSG_NOSIGNAL)
        except OSError as exc:
            self._put_back(batch)
            if exc.errno in _PASSING:
                self._wait(exc.strerror or str(exc))
            else:
                self._end(exc.strerror or str(exc))
        else:
            self._on_their_way = batch

    def _wait(self, reason: str) -> None:
        """What could not be passed is served here meanwhile: at once again would be never a chance to read."""
        if self._waits == WAITS:
            self._end(reason)
        elif not self._ended:
            self._timer = self._loop.call_later(FIRST_WAIT_SECONDS * 2**self._waits, self._try_again)
            self._waits += 1

    def _try_again(self) -> None:
        self._timer = None
        self._schedule()

    def _take(self) -> list[_Passed]:
        batch, self._on_their_way = self._on_their_way, []
        return batch

    def _put_back(self, batch: list[_Passed]) -> None:
        """Serve what did not arrive, and try it again later."""
        drain = self._drain
        for one in batch:
            self._driver.put_back(one.connection, one.known[2], one.at)
            if not self._ended and (self._retiring or not drain.stopping):
                self._offered[one.connection] = None
        if drain.listeners_closed and not self._retiring:
            _close_idle_soon(self._loop, drain, [one.connection for one in batch])

    # -- what the successor says ----------------------------------------------------------------------------------

    def _readable(self) -> None:
        reset = False
        while not self._ended:
            try:
                data = self._sock.recv(_READ)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                # It died and had not read all. That is told once, and before what it has sent: an acknowledgement may
                # be behind it.
                if exc.errno != errno.ECONNRESET or reset:
                    self.close()
                reset = True
                continue
            if not data:
                waiting = bool(self._offered or self._on_their_way)
                self._end("the successor is gone" if self._retiring or waiting else "", lost=waiting)
                return
            try:
                self._hear(json.loads(data))
            except (ValueError, KeyError, TypeError):
                logger.exception("lastcall: internal error: the successor has said %.80r; please report this", data)
                self.close()

    def _hear(self, said: dict[str, Any]) -> None:
        room = int(said["room"])
        if "keys" in said:
            self._keys = frozenset(said["keys"])
        self._room = room
        if "received" in said:
            self._acknowledged(int(said["received"]))
        self._schedule()

    def _acknowledged(self, received: int) -> None:
        batch = self._take()
        for one in batch[:received]:
            self._driver.drop(one.connection)
        count = len(batch[:received])
        self.moved += count
        self._driver.moved += count
        if self._all:
            self._drain.moved += count
        if missing := batch[received:]:
            self._put_back(missing)
            self._wait(f"{len(missing)} of {len(batch)} descriptors were not received")
        else:
            self._waits = 0


class Adopter(_Side):
    """The successor's side: takes connections over and serves them.

    ``listeners``: for each key the listener by which such a connection would have come in here; ``sock``: its end of a
    ``moving_pair()``, from now on the Adopter's to close. Everything belongs to the thread of ``loop``, and begins at
    once. ``on_done()`` is called once, when the predecessor has passed all on, or is gone, and after ``close()``.
    ``adopted`` counts the connections.
    """

    def __init__(
        self,
        driver: Driver,
        listeners: Mapping[int, Listener],
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        *,
        on_done: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(driver, sock, loop)
        self.on_done = on_done
        self.adopted = 0
        self._listeners = dict(listeners)
        self._say({"keys": list(self._listeners)})

    def close(self) -> None:
        """Take no more; what was not acknowledged stays the predecessor's."""
        if self._leave() and self.on_done is not None:
            self.on_done()

    def room(self) -> int:
        """How many connections could be taken over now."""
        return self._room(0)

    def _room(self, taken: int) -> int:
        driver = self._driver
        if not driver.moves or self._drain.stopping:
            return 0
        return max(0, min(free_descriptors() - SPARE_DESCRIPTORS, driver.limit - len(driver) - taken))

    def _say(self, what: dict[str, Any], taken: int = 0) -> bool:
        """Send it, with the room that is left behind ``taken`` connections that have come; whether they are ours."""
        room = self._room(taken)
        try:
            self._sock.send(json.dumps(what | {"room": room}).encode(), socket.MSG_NOSIGNAL)
        except OSError as exc:
            # It is gone, and with it the other copies; else we cannot say that we have them.
            return exc.errno in (errno.EPIPE, errno.ECONNRESET)
        if room == 0 and self._timer is None:
            self._timer = self._loop.call_later(ROOM_SECONDS, self._look_for_room)
        return True

    def _look_for_room(self) -> None:
        self._timer = None
        if self.room():
            self._say({})
        else:
            self._timer = self._loop.call_later(ROOM_SECONDS, self._look_for_room)

    def _readable(self) -> None:
        """Take over what one message brings: the loop's other work gets its turn after each."""
        try:
            data, ancillary, _, _ = self._sock.recvmsg(_READ, _SPACE, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        descriptors = _descriptors(ancillary)
        records = _records(data, self._listeners)
        count = min(len(descriptors), len(records))  # fewer came where too few were free: MSG_CTRUNC
        if count == 0 and data and records:
            self._say({"received": 0})
            return
        # Nothing of them is read before this is said, and nothing is said after it was read.
        if count == 0 or not self._say({"received": count}, count):
            for fd in descriptors:
                os.close(fd)
            self.close()
            return
        self._adopt(descriptors, records)

    def _adopt(self, descriptors: list[int], records: list[Known]) -> None:
        driver, drain = self._driver, self._drain
        before: Connection | None = None
        unwarned: list[Connection] = []
        for fd in descriptors[len(records) :]:
            os.close(fd)
        for fd, (key, client, fresh, left, *more) in zip(descriptors, records, strict=False):
            past = more[0] if more else None  # an older parent's worker says nothing of it
            try:
                before = driver.take_over(fd, self._listeners[key], client, fresh, left, before, past)
            except Exception:  # whatever is wrong with one, the others are ours alone by now
                logger.exception("lastcall: a connection could not be taken over")
                continue
            self.adopted += 1
            driver.adopted += 1
            if drain.mover is not None:
                drain.mover.offer(before)
            elif drain.listeners_closed:
                unwarned.append(before)
        if unwarned:
            _close_idle_soon(self._loop, drain, unwarned)


def _close_idle_soon(loop: asyncio.AbstractEventLoop, drain: DrainState, connections: Iterable[Connection]) -> None:
    """Close connections that are still idle when the linger is over, as at the begin of a drain.

    It begins for them only now: no answer has told their clients to send no more, and a request may be on its way.
    """
    connections = tuple(connections)

    def close() -> None:
        for connection in connections:
            connection.close_idle(drain.since)

    loop.call_later(min(LINGER, drain.margin), close)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(content[: len(content) - len(content) % found.itemsize])
    return found.tolist()


def _records(data: bytes, keys: Mapping[int, Listener]) -> list[Known]:
    """What a message says of its connections; [] for what is none of ours, which then stay where they were."""
    with suppress(ValueError, TypeError):
        records: list[Known] = json.loads(data) if data else []
        if all(len(record) >= 4 and record[0] in keys for record in records):
            return records
    return []
