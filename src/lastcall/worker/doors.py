"""The listeners of a worker: the slots', which the parent has made, and the private one, which only the parent knows.

All workers hold all slots' listeners. Whom a worker accepts from is the parent's word (``Accept``), and nobody is let
in before that, but for the parent itself.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from lastcall.base.options import BindSpec
from lastcall.base.record import Record
from lastcall.channel.messages import SHARED
from lastcall.net.binding import adopt, passed
from lastcall.net.listener import Owner
from lastcall.net.steering import drop_newcomers
from lastcall.server.doors import Doors
from lastcall.server.guarding import guarded

if TYPE_CHECKING:
    from lastcall.connection.stream import Connection, Stream
    from lastcall.net.listener import Listener
    from lastcall.server.parent import Serving

EMPTYING = 0.05
"""Seconds between two looks at a slot's queue that is to be empty before its listeners are closed."""

FOREIGN = BindSpec("fd")
"""Of listeners that others than this service may have."""

TRIES = 40
"""Looks after which they are closed all the same: the parent's copy is the last."""


class Held(Record):
    """One of the slots' listeners. ``outside``: others than this service may hold it, whose queue it is as well."""

    slot: int
    listener: Listener
    outside: bool


class SlotDoors(Doors):
    """See the module. ``binds`` are the configured addresses.

    ``listeners`` is every listener that is open, the private one among them.
    ``on_closed()`` is called when the stop has closed the doors. ``alone``: no other parent has these listeners, so
    that nobody is left to answer there if ours is gone.
    """

    def __init__(self, private: int, binds: Sequence[BindSpec], on_closed: Callable[[], object]) -> None:
        self._private = adopt(socket.socket(fileno=private), Owner.SLOT)
        self.listeners: list[Listener] = [self._private]
        self.closed = False
        self.leaving = False
        self.alone = True
        self._held: list[Held] = []
        self._binds = binds
        self._accepting: tuple[int, ...] = ()
        self._serving: Serving | None = None
        self._visitors: set[Connection] = set()
        self._on_closed = on_closed
        self._parent_is_gone = False
        self._no_newcomers = False

    # -- what the parent orders -----------------------------------------------------------------------------------

    def add(self, slots: Iterable[int], binds: Iterable[int], descriptors: Iterable[int]) -> None:
        """Take listeners, each of a slot and an address. A worker whose doors are closed closes them."""
        for slot, bind, fd in zip(slots, binds, descriptors, strict=True):
            if self.closed:
                os.close(fd)
                continue
            spec = self._binds[bind] if 0 <= bind < len(self._binds) else FOREIGN
            # Of the shared ones only unix sockets are surely nobody else's: systemd's are not in the configuration.
            outside = slot == SHARED and spec.kind != "unix"
            listener = passed(fd, FOREIGN if outside else spec, slot=slot != SHARED)
            listener.sock.setblocking(False)
            listener.key = bind
            if self._serving is not None:
                self._serving.prepare(listener, self._serving.service)
            self._held.append(Held(slot, listener, outside))
            self.listeners.append(listener)

    def accept(self, slots: tuple[int, ...]) -> tuple[int, ...]:
        """Accept from the listeners of exactly these slots; return those that are accepted from.

        A slot without listeners of its own is one of them: all that the service listens on is shared then.
        """
        if self.closed or self.leaving:
            return ()
        self._accepting = slots
        self._watch()
        return self._accepting

    def leave(self) -> None:
        """Somebody else accepts from the slots: accept no more, and leave their queues alone."""
        self.leaving = True
        self._accepting = ()
        self._watch()

    def close_slot(self, slot: int, done: Callable[[], object]) -> None:
        """Accept from the slot until its queues are empty, then close our copies, and call ``done()``."""
        mine = [held.listener for held in self._held if held.slot == slot]
        if self._serving is None or self.closed:
            self._close(mine)
            done()
        else:
            self._empty(mine, done, TRIES)

    def _empty(self, listeners: list[Listener], done: Callable[[], object], tries: int) -> None:
        serving = self._serving
        if serving is None or self.closed:
            done()
            return
        empty = [serving.driver.empty(listener) for listener in listeners]
        if not all(empty) and tries > 0:
            loop = serving.service.scheduler.loop
            loop.call_later(EMPTYING, self._empty, listeners, done, tries - 1)
            return
        self._close(listeners)
        done()

    def orphaned(self) -> None:
        """The parent is gone, and with it whoever would have shut the door: the stop that follows does it."""
        self._parent_is_gone = True

    # -- as Doors ------------------------------------------------------------------------------------------------

    def serve(self, serving: Serving) -> None:
        """What stands behind the doors, before they are opened."""
        self._serving = serving
        serving.prepare(self._private, serving.private)
        make = self._private.protocol
        assert make is not None, "it was just given"

        def visit(stream: Stream) -> object:
            connection: Connection = make(stream)  # type: ignore[assignment]
            self._visitors.add(connection)
            return connection

        self._private.protocol = visit
        for held in self._held:
            serving.prepare(held.listener, serving.service)

    def open(self) -> None:
        self._watch()

    def stop_newcomers(self) -> None:
        """See ``Doors``. The parent stops the newcomers where it can; of what others hold, the queue is theirs."""
        serving = self._serving
        if serving is None or self.leaving:
            return
        if self._parent_is_gone and self.alone:
            for held in self._held:
                if not held.outside:
                    guarded(partial(_shut, held.listener.sock), "a listener")
        self._no_newcomers = True
        self._watch()
        guarded(serving.driver.accept_waiting, "the accept queues")

    def close(self) -> None:
        """See ``Doors``. All are closed: another worker has its copies, or nobody is to come any more."""
        serving = self._serving
        if self.closed or serving is None:
            return
        for held in self._held:
            if held.slot in self._accepting and not held.outside:
                guarded(partial(serving.driver.empty, held.listener), "an accept queue")
        guarded(serving.driver.accept_backlog, "the private listener's queue")
        self.closed = True
        self._close(list(self.listeners))
        self._on_closed()

    # -- for others -----------------------------------------------------------------------------------------------

    @property
    def by_key(self) -> dict[int, Listener]:
        """For each address, by its place in the configuration, a listener of it."""
        return {held.listener.key: held.listener for held in self._held if held.listener.key is not None}

    @property
    def visitors(self) -> set[Connection]:
        """The parent's own connections, those that are open."""
        self._visitors = {connection for connection in self._visitors if not connection.stream.closed}
        return self._visitors

    # -- private --------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Have the driver accept from those that are to be accepted from now."""
        if self._serving is not None:
            wanted = [
                held.listener
                for held in self._held
                if held.slot in self._accepting and not (held.outside and self._no_newcomers)
            ]
            self._serving.driver.accept_from([self._private, *wanted])

    def _close(self, listeners: list[Listener]) -> None:
        for listener in listeners:
            if self._serving is not None:
                self._serving.driver.release(listener)
            with suppress(ValueError):
                self.listeners.remove(listener)
            listener.sock.close()  # and not shut down: others hold it
        self._held = [held for held in self._held if held.listener not in listeners]


def _shut(sock: socket.socket) -> None:
    """Let in only those who wait already, at a listener that is this service's alone: as its parent would have done."""
    if sock.family == socket.AF_UNIX:
        sock.shutdown(socket.SHUT_RD)  # Linux still gives out who is in the queue
    else:
        drop_newcomers(sock)
