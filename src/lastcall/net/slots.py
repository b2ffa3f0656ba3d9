"""The parent's listening sockets: one per slot and address, and how new connections are spread over them.

A *slot* is a place for one worker. For each TCP address a slot has a listener of its own; together they are a
SO_REUSEPORT group (``net.steering``). The parent makes all of them, gives workers copies, and keeps its own for as long
as the service runs, so that an accept queue outlives the worker that should have answered it. What cannot be split,
unix sockets and sockets that somebody else has made, is *shared*: one listener, from which all workers accept.

Everything here acts at once and waits for nothing. What has to happen in between is the caller's: before ``remove``,
say, the holders accept who waits.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Sequence
from typing import Any, Self

from lastcall.base.errors import LastcallError, StartupError
from lastcall.base.options import BindSpec
from lastcall.base.record import Record
from lastcall.net import steering
from lastcall.net.binding import beside, bind, check_alone
from lastcall.net.listener import Address, Listener, Owner

HANDSHAKE_SECONDS = 1.2
"""After which a handshake is over that had begun: a lost SYN-ACK or ACK is sent again after a second (RFC 6298)."""

TCP_INFO_SIZE = 104
TCPI_UNACKED = slice(24, 28)
"""Of a listener: the length of its accept queue (tcp_get_info in net/ipv4/tcp.c)."""


class Spread(Record):
    """How new connections are spread, by slots: none to those ``away``, ``share`` of all to ``favoured``."""

    away: frozenset[int] = frozenset()
    favoured: int | None = None
    share: float = 0.0

    def program(self, order: Sequence[int]) -> tuple[steering.Instruction, ...]:
        """The program of a group whose members' slots are, by index, ``order``."""
        favoured = order.index(self.favoured) if self.favoured in order else None
        away = [index for index, slot in enumerate(order) if slot in self.away]
        return steering.program(len(order), away=away, favoured=favoured, share=self.share)


class Group:
    """The listeners of one TCP address, one per slot. ``order``: the slots of those that listen, by their index."""

    def __init__(self, slot: int, first: Listener, backlog: int) -> None:
        first.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._backlog = backlog
        self.listeners = {slot: first}
        self.order: list[int] = []

    @property
    def one(self) -> Listener:
        """One of the listeners; what is asked of it holds for all."""
        return next(iter(self.listeners.values()))

    def make(self, slot: int) -> None:
        """Bind one more; raises StartupError."""
        try:
            self.listeners[slot] = beside(self.one)
        except OSError as exc:
            raise StartupError(f"cannot listen on {self.one.url} for slot {slot}: {_reason(exc)}") from exc

    def listen(self, spread: Spread) -> None:
        """All that are bound begin to listen. From the first on there is a program, so none is found by the hash."""
        # Who has come since we bound, with SO_REUSEPORT and our user's identity, would be of our group.
        try:
            check_alone(list(self.listeners.values()))
        except OSError as exc:
            raise StartupError(f"cannot listen on {self.one.url}: {_reason(exc)}") from exc
        # Those with a share of their own come last: until they listen there is somebody to send everybody else to.
        for slot in sorted(self.listeners, key=lambda slot: slot in spread.away or slot == spread.favoured):
            self.open(slot)
            self.steer(spread)

    def open(self, slot: int) -> None:
        """Have one listen. Nobody is sent there before ``steer``: the program knows of fewer members."""
        # Attaching must wait for the first member's listen(); it would keep the second one's from succeeding.
        self.listeners[slot].listen(self._backlog)
        self.order.append(slot)

    def steer(self, spread: Spread) -> None:
        """Spread new connections so from now on; raises LastcallError if the kernel refuses, and the old way holds."""
        if self.order:
            try:
                steering.steer(self.listeners[self.order[0]].sock, spread.program(self.order))
            except OSError as exc:
                raise LastcallError(f"cannot steer connections on {self.one.url}: {_reason(exc)}") from exc

    def remove(self, slot: int, spread: Spread) -> None:
        """Close one that ``spread`` sends nobody to. Who waits in its queue is reset.

        The last takes its place, and for a moment its index as well would be wrong. So nobody is sent to that one
        either, if anybody else is left; if not, an index of no member does no harm: the kernel takes one by hash.
        """
        if slot in self.order:
            last = self.order[-1]
            without = spread.away | {slot, last}
            if slot != last and any(one not in without and one != spread.favoured for one in self.order):
                self.steer(Spread(away=without, favoured=spread.favoured, share=spread.share))
            # close() shuts it down, so it leaves the group now, also if somebody has kept a copy: a process that the
            # application has forked, say. Else its index would go on counting, and nobody would accept there.
            self.listeners.pop(slot).close()
            self.order[self.order.index(slot)] = last
            self.order.pop()
            self.steer(spread)
        elif slot in self.listeners:
            self.listeners.pop(slot).close()

    def undo(self, slot: int, before: Spread) -> None:
        """Be without one that was made, or opened, a moment ago, whether or not ``steer`` knew of it."""
        if slot in self.order:
            with contextlib.suppress(LastcallError):  # then its index is nobody's: the kernel takes one by hash
                self.steer(Spread(before.away | {slot}, before.favoured, before.share))
            self.order.remove(slot)  # it was the last
        if slot in self.listeners:
            self.listeners.pop(slot).close()


class Slots:
    """All listeners of a service: of each slot, and the shared ones. ``backlog``: how many may wait at each.

    First ``bind``, early, so that a taken address is known at once; then ``listen``, when somebody can accept. After a
    StartupError of one of the two, ``close``. ``files`` are the unix sockets' files that we made, with their inodes.
    """

    def __init__(self, binds: tuple[BindSpec, ...], backlog: int) -> None:
        self._binds = binds
        self._backlog = backlog
        self._groups: dict[int, Group] = {}
        self._shared: dict[int, Listener] = {}
        self._spread = Spread()
        self._claimed = True
        self._numbers: list[int] = []
        self.listening = False

    # -- making ----------------------------------------------------------------------------------------------------

    def bind(self, count: int) -> None:
        """Bind every address for the slots 0 to ``count`` - 1, or none at all; raises StartupError.

        The first slot is bound without SO_REUSEPORT: that fails where anybody else has the address, also a group of
        our own user's, which would let us in.
        """
        try:
            splittable = steering.available()
        except OSError as exc:
            raise StartupError(f"cannot make listeners: {_reason(exc)}") from exc
        for index, listener in enumerate(bind(self._binds)):
            self._shared[index] = listener  # so that close() finds it, whatever comes
        try:
            for index, listener in list(self._shared.items()):
                if splittable and listener.owner == Owner.OURS and listener.sock.family != socket.AF_UNIX:
                    self._groups[index] = Group(0, listener, self._backlog)
                    del self._shared[index]
            self._numbers.append(0)
            for slot in range(1, count):
                self.add(slot)
        except BaseException:
            self.close()
            raise

    def listen(self) -> None:
        """Let connections in; raises StartupError where an address was taken since, or a unix socket's file."""
        for group in self._groups.values():
            group.listen(self._spread)
        for listener in self._shared.values():
            listener.listen(self._backlog)
        self.listening = True

    def add(self, slot: int, share: float | None = None) -> None:
        """Make the listeners of one more slot, which gets ``share`` (0 to 1) of new connections; None: as the others.

        Raises LastcallError, mostly StartupError, and nothing has changed. All slots of an address are one user's
        (socket(7)): this fails once the process has another identity than when it bound.
        """
        if slot in self._numbers:
            raise ValueError(f"there is a slot {slot} already")
        before = self._spread
        try:
            for group in self._groups.values():
                group.make(slot)
            if self.listening:
                for group in self._groups.values():
                    group.open(slot)
            self._numbers.append(slot)
            self._steer(before if share is None else Spread(before.away, slot, share))
        except BaseException:
            self._spread = before
            if slot in self._numbers:
                self._numbers.remove(slot)
            for group in self._groups.values():
                group.undo(slot, before)
            raise

    # -- spreading -------------------------------------------------------------------------------------------------

    def steer(self, slot: int, share: float | None) -> None:
        """Give a slot this share (0 to 1) of new connections and the others the rest; None: all slots alike.

        One slot at most has a share of its own. Slots that are steered away from stay so, but for this one.
        """
        self._known(slot)
        away = self._spread.away - {slot}
        self._steer(Spread(away=away) if share is None else Spread(away=away, favoured=slot, share=share))

    def steer_away(self, slot: int) -> None:
        """Send nobody new to a slot. Raises ValueError if nobody would be left.

        A client that has sent its SYN before finishes its handshake here, a round trip later, or where a packet was
        lost a second: wait for HANDSHAKE_SECONDS before the holders empty the queue for the last time.
        """
        self._known(slot)
        old = self._spread
        favoured = None if old.favoured == slot else old.favoured
        if not set(self._numbers) - old.away - {slot}:
            raise ValueError("the last slot cannot be left")
        self._steer(Spread(away=old.away | {slot}, favoured=favoured, share=old.share if favoured is not None else 0.0))

    def _steer(self, spread: Spread) -> None:
        for group in self._groups.values():
            group.steer(spread)
        self._spread = spread

    def remove(self, slot: int) -> None:
        """Close a slot's listeners. First steer away from it, and have its holders accept who waits; the rest is reset.

        Nobody who was sent elsewhere notices. Raises ValueError if no slot would be left.
        """
        if slot not in self._spread.away:
            self.steer_away(slot)
        for group in self._groups.values():
            group.remove(slot, self._spread)
        self._numbers.remove(slot)
        self._spread = Spread(self._spread.away - {slot}, self._spread.favoured, self._spread.share)

    def _known(self, slot: int) -> None:
        if slot not in self._numbers:
            raise ValueError(f"there is no slot {slot}")

    # -- looking ---------------------------------------------------------------------------------------------------

    @property
    def numbers(self) -> tuple[int, ...]:
        """The slots."""
        return tuple(self._numbers)

    @property
    def split(self) -> bool:
        """Whether slots have listeners of their own: without, shares mean nothing."""
        return bool(self._groups)

    @property
    def addresses(self) -> list[Address]:
        """Where the service listens, in the order of the binds: port 0 has become the real one."""
        return [listener.address for listener in self._ones()]

    @property
    def urls(self) -> list[str]:
        """The same, as a person would open it."""
        return [listener.url for listener in self._ones()]

    @property
    def files(self) -> list[tuple[str, tuple[int, int]]]:
        """The unix sockets' files that we made: absolute path, and (device, inode)."""
        return [(one.path, one.inode) for one in self._shared.values() if one.inode is not None]

    def descriptors(self, slot: int) -> list[tuple[int, int]]:
        """(index of the bind, descriptor) of each listener that is the slot's own."""
        self._known(slot)
        groups = sorted(self._groups.items())
        return [(index, group.listeners[slot].fd) for index, group in groups if slot in group.listeners]

    @property
    def shared(self) -> list[tuple[int, int]]:
        """The same of those that all workers accept from."""
        return [(index, listener.fd) for index, listener in sorted(self._shared.items())]

    def waiting(self, slot: int) -> int:
        """How many connections wait in a slot's accept queues."""
        self._known(slot)
        found = [group.listeners[slot] for group in self._groups.values() if slot in group.listeners]
        return sum(_queue_length(listener.sock) for listener in found)

    def _ones(self) -> list[Listener]:
        """One listener of each bind."""
        found = self._shared | {index: group.one for index, group in self._groups.items()}
        return [found[index] for index in sorted(found)]

    def _all(self) -> list[Listener]:
        return [one for group in self._groups.values() for one in group.listeners.values()] + [*self._shared.values()]

    # -- the end ---------------------------------------------------------------------------------------------------

    def shut_door(self) -> None:
        """The service stops: let nobody new in, wherever nobody else may be listening. Who waits is still accepted.

        TCP clients hear nothing and try again a second later, elsewhere; those of a unix socket do not find its file,
        or are refused. Sockets that were given to us are left alone. What was shut shows in the workers' copies too.
        Before ``claim()`` this does nothing: the old parent serves.
        """
        if not self._claimed:
            return
        for listener in self._all():
            if listener.owner != Owner.OURS:
                continue
            if listener.sock.family == socket.AF_UNIX:
                # It may have another name, and somebody may have looked up the old one: Linux refuses them from now
                # on, and gives out who is in the queue.
                listener.unlink()
                with contextlib.suppress(OSError):  # it does not listen yet
                    listener.sock.shutdown(socket.SHUT_RD)
            else:
                steering.drop_newcomers(listener.sock)

    def open_door(self) -> None:
        """Let newcomers in again, where workers of a parent that was killed have shut the door behind it."""
        for listener in self._all():
            if listener.owner == Owner.OURS and listener.sock.family != socket.AF_UNIX:
                steering.let_newcomers_in(listener.sock)

    def close(self) -> None:
        """Stop listening, whoever has copies; remove the files of unix sockets that are still ours."""
        if not self._claimed:
            self.let_go()
            return
        for listener in self._all():
            listener.close()
        self._forget()

    def let_go(self) -> None:
        """Close our copies and nothing more: in a forked child, or where a new parent has all of them."""
        for listener in self._all():
            listener.let_go()
        self._forget()

    def _forget(self) -> None:
        self._groups.clear()
        self._shared.clear()
        self._numbers.clear()
        self.listening = False

    # -- another parent --------------------------------------------------------------------------------------------

    def handover(self) -> tuple[dict[str, Any], list[int]]:
        """What another parent needs to go on: a value for JSON, and the descriptors in its order.

        From now on only one of the two may change anything; whoever is not that one calls ``let_go``.
        """
        groups, shared, fds = [], [], []
        for index, group in sorted(self._groups.items()):
            slots = group.order if self.listening else list(group.listeners)
            groups.append({"bind": index, "slots": list(slots)})
            fds += [group.listeners[slot].fd for slot in slots]
        for index, listener in sorted(self._shared.items()):
            given = listener.owner != Owner.OURS
            shared.append({"bind": index, "given": given, "path": listener.path, "inode": listener.inode})
            fds.append(listener.fd)
        spread = {"away": sorted(self._spread.away), "favoured": self._spread.favoured, "share": self._spread.share}
        numbers = list(self._numbers)
        state = {"slots": numbers, "listening": self.listening, "spread": spread, "groups": groups, "shared": shared}
        return state, fds

    @classmethod
    def inherited(cls, binds: tuple[BindSpec, ...], backlog: int, state: dict[str, Any], fds: Sequence[int]) -> Self:
        """The slots of ``handover()`` in a new parent, which owns the descriptors from now on.

        They are not its own before ``claim()``: until then ``close`` closes copies only, so a new parent that cannot
        start changes nothing. Raises StartupError for what is no such state.
        """
        slots = cls(binds, backlog)
        slots._claimed = False
        given = list(fds)
        try:
            slots._take_over(state, given)
            if given:
                raise ValueError(f"{len(given)} descriptors too many")
        except (KeyError, TypeError, ValueError, IndexError, OSError) as exc:
            slots.let_go()
            for fd in given:
                with contextlib.suppress(OSError):
                    os.close(fd)
            raise StartupError(f"the listeners of the old parent cannot be used: {exc!r}") from exc
        return slots

    def _take_over(self, state: dict[str, Any], given: list[int]) -> None:
        """Be as ``state`` says, and take the descriptors out of ``given``, in order."""
        self.listening = bool(state["listening"])
        for entry in state["groups"]:
            for slot in entry["slots"]:
                listener = _adopted(given, Owner.OURS)
                group = self._groups.get(entry["bind"])
                if group is None:
                    group = self._groups[entry["bind"]] = Group(slot, listener, self._backlog)
                group.listeners[slot] = listener
                group.order += [slot] if self.listening else []
        for entry in state["shared"]:
            listener = self._shared[entry["bind"]] = _adopted(given, Owner.INHERITED if entry["given"] else Owner.OURS)
            listener.path, inode = entry["path"], entry["inode"]
            listener.inode = None if inode is None else (inode[0], inode[1])
        spread = state["spread"]
        self._spread = Spread(frozenset(spread["away"]), spread["favoured"], spread["share"])
        self._numbers = list(state["slots"])

    def claim(self) -> None:
        """We serve now: the listeners are ours, to close and to remove."""
        self._claimed = True


def _adopted(given: list[int], owner: Owner) -> Listener:
    os.set_inheritable(given[0], False)
    sock = socket.socket(fileno=given[0])  # fails for what is no socket, and leaves it open
    del given[0]
    return Listener(sock, owner)


def _queue_length(sock: socket.socket) -> int:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
    return int.from_bytes(info[TCPI_UNACKED], sys.byteorder)


def _reason(exc: OSError) -> str:
    if exc.errno in (errno.EMFILE, errno.ENFILE):
        return f"{exc.strerror}; each slot takes a descriptor per address, see `ulimit -n`"
    return exc.strerror or str(exc)
