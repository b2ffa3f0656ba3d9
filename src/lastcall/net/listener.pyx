# cython: language_level=3
"""A listening socket, and all that is the listener's: whose it is, and what is spoken behind it."""

cimport cython

import contextlib
import os
import socket
from enum import IntEnum

from lastcall.base.errors import StartupError

Address = tuple[str, int] | str


class Owner(IntEnum):
    """Who holds a listening socket, which decides what a stop may do to it."""

    OURS = 0
    """Only this process: it drops new handshakes, empties the accept queue, and closes the socket."""

    INHERITED = 1
    """Others may hold it too (systemd, a successor, the caller): its queue is theirs as well, so just stop accepting,
    and take one connection per wake-up before."""

    SLOT = 2
    """The parent's, for this worker: the worker answers its queue, the parent closes it."""

    SHARED = 3
    """The parent's, for all its workers: one connection per wake-up, as INHERITED, and at the stop the queue is ours to
    answer, as a slot's. Sockets that cannot be split into slots, and that nobody outside the service has."""


assert (OURS, INHERITED, SLOT, SHARED) == tuple(Owner)


@cython.final
cdef class Listener:
    """One listening socket. ``scheme`` and ``root_path`` are those of the scopes of its requests, ``tls`` its SSLContext,
    or None.

    ``protocol(stream)`` makes the connection of a client that came in here, and sets ``stream.connection``; it is given
    before a driver listens.
    ``inode`` is that of the unix socket's file that we made: (device, inode), or None; ``path`` is where it is,
    whatever becomes of the working directory.
    ``key``: what the same address is called in every worker of the service, an int, so that connections that came in
    here can move to another one (``net.moving``); None: they cannot.
    """

    def __init__(self, sock, owner=Owner.OURS, *, str scheme="http", tls=None, protocol=None):
        self.sock = sock
        self.fd = sock.fileno()
        self.owner = owner
        self.contended = owner in (INHERITED, SHARED)
        self.scheme = scheme
        self.tls = tls
        self.protocol = protocol
        self.path = ""
        self.root_path = ""
        if sock.family == socket.AF_UNIX:
            self.server = (self.address, None)
        else:
            name = sock.getsockname()
            if name[0] not in ("0.0.0.0", "::"):
                self.server = (name[0], name[1])

    @property
    def address(self):
        """``(host, port)`` or the path of a unix socket, as the kernel has it: port 0 has become the real one."""
        name = self.sock.getsockname()
        if isinstance(name, tuple):
            return name[0], name[1]
        return os.fsdecode(name) if isinstance(name, bytes) else str(name)

    @property
    def url(self):
        """What a person would open."""
        address = self.address
        if isinstance(address, str):
            return f"unix:{address or '(unnamed)'}"
        host, port = address
        return f"{self.scheme}://[{host}]:{port}" if ":" in host else f"{self.scheme}://{host}:{port}"

    def listen(self, int backlog):
        """Start listening; raises StartupError where the address is another's by now, or the kernel refuses.

        What is the parent's listens when the parent says so: in a group, the order of listen() counts.
        """
        if self.owner in (SLOT, SHARED):
            return
        try:
            if self.owner == OURS and self.sock.family != socket.AF_UNIX:
                # Inherited by connections: those that outlive us must not keep a successor from binding.
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.sock.listen(backlog)
        except OSError as exc:
            raise StartupError(f"cannot listen on {self.url}: {exc.strerror}") from exc
        # Until now nobody answered here, so that another server could take the file for one that was left behind.
        if self.inode is not None and (found := inode_of(self.path)) != self.inode:
            what = "its file is gone" if found is None else "another server has taken its place"
            raise StartupError(f"cannot listen on {self.url}: {what}")

    def unlink(self):
        """Remove the unix socket's file if it is still the one that we made: nobody new can find us."""
        if self.inode is not None:
            unlink_socket(self.path, self.inode)
            self.inode = None

    def close(self):
        """Close our copy; remove the unix socket's file as ``unlink`` does.

        A TCP socket of our own stops listening, whoever has a copy: a child that was forked somewhere in C, or that
        inherited it, would hold newcomers, whom nobody accepts, and keep the port from a successor. Only what was
        accepted before is served.
        """
        self.unlink()
        if self.owner == OURS and self.sock.family != socket.AF_UNIX:
            with contextlib.suppress(OSError):      # it does not listen yet, or is closed
                self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def let_go(self):
        """In a forked child: close our copy, and nothing more."""
        self.inode = None
        self.sock.close()


def unlink_socket(path, inode):
    """Remove a unix socket's file unless somebody has put another one there."""
    if inode_of(path) == inode:
        with contextlib.suppress(OSError):
            os.unlink(path)


def inode_of(path):
    """(device, inode) of a file, or None."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
