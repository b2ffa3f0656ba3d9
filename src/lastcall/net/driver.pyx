# cython: language_level=3
"""What both drivers share: the accept loop with its limits, the registry of open streams, socket addresses."""

from libc.errno cimport (
    EAGAIN, ECONNABORTED, EINTR, EINVAL, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPROTO, errno,
)
from libc.string cimport memcmp, memset, strerror

import logging
import socket

from lastcall.connection.scheduler cimport Scheduler
from lastcall.connection.stream cimport Connection, Stream
from lastcall.drain.state cimport DRAINING, DrainState
from lastcall.net.listener cimport INHERITED, OURS, Listener

from lastcall.net.steering import drop_newcomers, is_shut

cdef extern from "sys/socket.h" nogil:
    """
    #include <netinet/in.h>
    #include <arpa/inet.h>
    #include <sys/ioctl.h>
    #ifdef __linux__
    #include <linux/sockios.h>
    #else
    #define SIOCOUTQ TIOCOUTQ
    #endif
    """
    unsigned long SIOCOUTQ
    int ioctl(int fd, unsigned long request, ...)
    int AF_INET
    int AF_INET6
    int SOCK_NONBLOCK
    int SOCK_CLOEXEC
    int SOL_SOCKET
    int SO_LINGER
    int MSG_DONTWAIT
    int MSG_PEEK
    int SHUT_RD
    int accept4(int fd, sockaddr* address, socklen_t* length, int flags)
    int getsockname(int fd, sockaddr* address, socklen_t* length)
    int setsockopt(int fd, int level, int name, const void* value, socklen_t length)
    int shutdown(int fd, int how)
    Py_ssize_t recv(int fd, void* into, size_t n, int flags)
    cdef struct linger:
        int l_onoff
        int l_linger

cdef extern from "unistd.h" nogil:
    int c_close "close"(int fd)

cdef extern from "arpa/inet.h" nogil:
    int inet_pton(int family, const char* name, void* into)
    unsigned short htons(unsigned short n)
    const char* inet_ntop(int family, const void* address, char* into, socklen_t size)
    unsigned short ntohs(unsigned short n)

cdef object logger = logging.getLogger("lastcall.error")

cdef enum:
    ACCEPTS = 64          # connections taken from a listener of our own per wake-up
    NAME_MAX = 64         # INET6_ADDRSTRLEN is 46

cdef const char* MAPPED = b"\0\0\0\0\0\0\0\0\0\0\xff\xff"     # ::ffff:0:0/96 (RFC 4291 2.5.5.2)

STARVED_SECONDS = 0.1
COMPLAINT_SECONDS = 10.0      # descriptors come and go: the same line again only after so long
ACCEPT_WAITING_SECONDS = 0.25


cdef bytes peer_key(PeerAddress* address):
    """What a client is counted by: its IPv4 address, its IPv6 /64, or None on a unix socket."""
    cdef const unsigned char* bits = address.v6.sin6_addr.s6_addr
    if address.family == AF_INET:
        return (<const char*>&address.v4.sin_addr)[:4]
    if address.family != AF_INET6:
        return None
    if memcmp(bits, MAPPED, 12) == 0:          # an IPv4 client of a socket that has both
        return (<const char*>bits)[12:16]
    return (<const char*>bits)[:8]


cdef object peer_tuple(PeerAddress* address):
    """(host, port), or None for a unix socket."""
    cdef char[NAME_MAX] name
    if address.family == AF_INET:
        inet_ntop(AF_INET, &address.v4.sin_addr, name, NAME_MAX)
        return (<bytes><char*>name).decode("ascii"), ntohs(address.v4.sin_port)
    if address.family == AF_INET6:
        inet_ntop(AF_INET6, &address.v6.sin6_addr, name, NAME_MAX)
        return (<bytes><char*>name).decode("ascii"), ntohs(address.v6.sin6_port)
    return None


cdef int peer_address(object client, PeerAddress* into) except -1:
    """The reverse of ``peer_tuple``. Raises ValueError for what is no address."""
    cdef bytes name
    memset(into, 0, sizeof(PeerAddress))
    if client is None:
        return 0
    name = client[0].encode("ascii")
    if inet_pton(AF_INET, name, &into.v4.sin_addr) == 1:
        into.v4.sin_family = AF_INET
        into.v4.sin_port = htons(client[1])
    elif inet_pton(AF_INET6, name, &into.v6.sin6_addr) == 1:
        into.v6.sin6_family = AF_INET6
        into.v6.sin6_port = htons(client[1])
    else:
        raise ValueError(f"no address of a client: {client!r}")
    return 0


cdef object local_address(int fd):
    """This connection's own end: the scope's ``server``."""
    cdef PeerAddress address
    cdef socklen_t length = sizeof(address)
    memset(&address, 0, sizeof(address))
    if getsockname(fd, <sockaddr*>&address, &length) != 0:
        return None
    return peer_tuple(&address)


cdef Py_ssize_t receive(int fd, unsigned char* into, Py_ssize_t n) noexcept:
    """recv() without waiting; -1 and errno on failure."""
    return recv(fd, into, n, MSG_DONTWAIT)


cdef bint fin_is_next(int fd) noexcept:
    """Whether everything was read and the peer's FIN is what comes next."""
    cdef char one
    return recv(fd, &one, 1, MSG_PEEK | MSG_DONTWAIT) == 0


cdef int unacknowledged(int fd) noexcept:
    """How many written bytes the peer's side has not taken yet; 0 where the system does not say.

    The kernel calls a socket writable again only when a third of its buffer, which may be megabytes, is free: too
    coarse to tell a slow client from one that has stalled.
    """
    cdef int left = 0
    ioctl(fd, SIOCOUTQ, &left)
    return left


cdef bint would_block(int error) noexcept:
    """Whether errno says that there is just nothing to do now."""
    return error == EAGAIN or error == EINTR


cdef void reset_on_close(int fd) noexcept:
    """Make close() send a RST."""
    cdef linger option
    option.l_onoff = 1
    option.l_linger = 0
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &option, sizeof(option))


cdef class Driver:
    """Accepts connections and carries their bytes.

    Each listener makes its own protocol's connections. At ``limit`` open connections accepting stops, so clients wait in
    the backlog instead of being refused; once ``drain`` says that the server drains, who waits is let in all the same.
    ``on_closed()``, if set, is called when the last connection is gone.
    """

    def __init__(self, Scheduler scheduler not None, DrainState drain not None, *, Py_ssize_t limit):
        self.scheduler = scheduler
        self.loop = scheduler.loop
        self.drain = drain
        self.limit = limit
        self.listeners = []
        self.streams = set()

    def listen(self, Listener listener not None):
        """Accept from a listener, whose ``protocol`` must be set."""
        if listener.protocol is None:
            raise ValueError("a listener without a protocol")
        self.listeners.append(listener)
        self.accepting = True
        self.stopped = False
        self._update()

    def accept_from(self, listeners):
        """Accept from exactly these from now on, the ``protocol`` of each of which must be set.

        Those left out stay open, with whoever waits there: others accept from them. After ``stop_accepting()`` none is
        accepted from again.
        """
        cdef Listener listener
        cdef list wanted = list(listeners)
        for listener in wanted:
            if listener.protocol is None:
                raise ValueError("a listener without a protocol")
        for listener in list(self.listeners):
            if listener not in wanted:
                self._leave(listener)
        for listener in wanted:
            if listener.owner != OURS:
                listener.shut = False      # if it was ours to find that it does not listen, look again
            if listener not in self.listeners:
                self.listeners.append(listener)
        self.accepting = not self.stopped
        self._update()

    def empty(self, Listener listener not None):
        """Accept who waits at this listener, whether or not it is accepted from otherwise; True if nobody is left.

        False where the limit on connections, the lack of descriptors or a flood of newcomers came first: try again.
        ``protocol`` must be set.
        """
        cdef double deadline
        cdef bint emptied
        self.scheduler.begin()
        deadline = self.scheduler.now + ACCEPT_WAITING_SECONDS
        try:
            while self.accept(listener) and (listener.shut or self.scheduler.tick() < deadline):
                pass
            emptied = self.found_empty
        finally:
            self.scheduler.end()
        return emptied

    def release(self, Listener listener not None):
        """Accept no more from this one; do so before it is closed. It stays open: it belongs to the caller."""
        if listener in self.listeners:
            self._leave(listener)

    def shut(self, Listener listener not None):
        """Let in only those who wait already, at a listener of a parent that is gone: as it would have done itself."""
        if listener.sock.family == socket.AF_UNIX:
            listener.shut = shutdown(listener.fd, SHUT_RD) == 0
        else:
            drop_newcomers(listener.sock)      # it stays readable, and is accepted from as before
        self._update()

    def stop_accepting(self):
        """Accept no more. The listeners stay open: they belong to the caller."""
        self.stopped = True
        self.accepting = False
        self._update()

    def stop_new_connections(self):
        """Let in, from now on, only those who wait already, however many they are.

        A TCP listener of our own drops new SYNs (their clients try again a second later, elsewhere) and is accepted
        from as before: without that, a busy server's queue would never be empty, and closing it would reset those in
        it. A unix socket is emptied. Its file is gone by now, but it may have another name, and who has looked up the
        old one may be about to queue; after SHUT_RD Linux refuses them, and still gives out who is in the queue. An
        inherited listener is left to those who hold it too. Of slots, and of what all workers share, the parent stops
        the newcomers.
        """
        cdef Listener listener
        for listener in list(self.listeners):
            if listener.owner == INHERITED:
                self._leave(listener)
            elif listener.owner == OURS and listener.sock.family == socket.AF_UNIX:
                listener.shut = shutdown(listener.fd, SHUT_RD) == 0
            elif listener.owner == OURS:
                # Where that cannot be, the queue is emptied as far as possible.
                listener.shut = drop_newcomers(listener.sock)
        self._update()
        self.accept_waiting()

    def accept_backlog(self):
        """Accept who waits, then nobody any more. The listeners stay open: they belong to the caller."""
        self.accept_waiting()
        self.stop_accepting()

    cdef int _leave(self, Listener listener) except -1:
        """Accept no more from this one listener."""
        if listener.watched:
            listener.watched = False
            self.unwatch(listener)
        self.listeners.remove(listener)
        return 0

    def accept_waiting(self):
        """Accept what waits in the backlogs; return how many connections that were."""
        cdef Listener listener
        cdef Py_ssize_t before = len(self.streams)
        cdef double deadline
        cdef bint bounded
        self.scheduler.begin()
        deadline = self.scheduler.now + ACCEPT_WAITING_SECONDS
        try:
            for listener in self.listeners:
                # Bounded: a flood of new clients could fill the queue as fast as it is emptied. Where nobody new gets
                # in, the queue is the bound: who is left in it would be reset by the close.
                bounded = listener.shut or (listener.owner > INHERITED and is_shut(listener.sock))
                while self.accept(listener) and (bounded or self.scheduler.tick() < deadline):
                    pass
        finally:
            self.scheduler.end()
        return len(self.streams) - before

    @property
    def connections(self):
        """The open connections, a snapshot."""
        return [(<Stream>stream).connection for stream in self.streams if (<Stream>stream).connection is not None]

    def __len__(self):
        return len(self.streams)

    def let_go(self):
        """In a forked child: close our copies of all descriptors but the listeners', which are the caller's."""
        cdef Stream stream
        for stream in list(self.streams):
            stream.let_go()

    # -- connections that move to another process, and come from one (net.moving) -----------------------------------

    @property
    def moves(self):
        """Whether the connections of this driver can move at all."""
        return False

    def lift(self, Connection connection not None, keys):
        """Take a connection off, if it is idle and its listener's key in ``keys``: nobody reads or writes it any more,
        and it counts as open until ``drop`` or ``put_back``, one of which must follow.

        Returns None, or the descriptor, which stays ours, when its timeout is due on the scheduler's clock (infinity:
        it has none), and what another process must know of it (``Known``): the key, the client's address, whether it
        has never had a request, the seconds until its timeout is due, or None, and its past.
        """
        return None

    def put_back(self, Connection connection not None, bint fresh, double at):
        """Serve a lifted connection again; what has come meanwhile is read."""
        raise NotImplementedError

    def drop(self, Connection connection not None):
        """Another process has the lifted connection: close our copy of its descriptor, without a word on the wire."""
        raise NotImplementedError

    def take_over(self, int fd, Listener listener not None, client, bint fresh, left, Connection behind, past=None):
        """Serve a connection that another process has accepted, by a listener like ``listener``, and has lifted.

        ``fd`` is ours from now on, also where this raises (OSError, ValueError). ``left``: the seconds until its
        timeout is due, or None; ours is a limit too. ``behind``: the connection that was taken over before, whose
        timeout is due earlier; only a help. ``past``: its age and its requests, where those were counted.
        """
        raise NotImplementedError

    def close(self):
        """Let go of the listeners. Connections must be closed before."""
        self.stop_accepting()
        self.listeners.clear()

    def _update(self):
        """Watch the listeners, or stop watching them, as the limits now say."""
        cdef Listener listener
        cdef bint wanted = self.accepting and not self.starved and not self.full()
        cdef bint watched
        for listener in self.listeners:
            watched = wanted and not listener.shut     # a socket that is shut down is always "readable"
            if watched != listener.watched:
                listener.watched = watched
                if watched:
                    self.watch(listener)
                else:
                    self.unwatch(listener)

    cdef bint full(self) noexcept:
        """Whether the limit on connections is reached; in a drain there is none, for those who wait already."""
        return self.drain.phase < DRAINING and len(self.streams) >= self.limit

    def _recover(self):
        self.starved = False
        self._update()

    cdef int accept(self, Listener listener) except -1:
        """Accept until the queue is empty, or enough for one wake-up; return how many."""
        cdef PeerAddress address
        cdef socklen_t length
        cdef int fd, accepted = 0
        cdef int most = 1 if listener.contended else ACCEPTS
        self.found_empty = False
        while accepted < most:
            if self.full():
                self._update()
                break
            length = sizeof(address)
            address.family = 0
            fd = accept4(listener.fd, <sockaddr*>&address, &length, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd < 0:
                if errno == EINTR or errno == ECONNABORTED or errno == EPROTO:
                    continue
                if errno == EMFILE or errno == ENFILE or errno == ENOBUFS or errno == ENOMEM:
                    self.starve()
                elif would_block(errno):
                    self.found_empty = True
                elif errno == EINVAL and (listener.shut or listener.owner > INHERITED):
                    # It does not listen. Where it is the parent's, the parent has shut it: the queue was given out.
                    self.found_empty = listener.shut = True
                    self._update()
                else:
                    logger.error("accept failed: %s", strerror(errno).decode())
                    self.starve()
                break
            accepted += 1
            if self.peers is not None and self.too_many(&address):
                reset_on_close(fd)
                c_close(fd)
                continue
            self.adopt(fd, &address, listener)
        return accepted

    def starve(self):
        """No descriptor is left: a level-triggered listener would spin, so look away for a moment."""
        cdef double now = self.scheduler.time()
        if now >= self.complain_after:
            self.complain_after = now + COMPLAINT_SECONDS
            logger.error(
                "accept failed: %s. Accepting again as descriptors are freed; see `ulimit -n` and --limit-connections.",
                strerror(errno).decode(),
            )
        self.starved = True
        self._update()
        self.loop.call_later(STARVED_SECONDS, self._recover)

    cdef bint too_many(self, PeerAddress* address) except -1:
        """Whether the newcomer's address has its connections already."""
        cdef bytes key = peer_key(address)
        return key is not None and self.peers.full(key, peer_tuple(address)[0], self.scheduler.time())

    cdef int remember(self, Stream stream) except -1:
        """A stream is open, accepted here or by another process."""
        cdef bytes key
        self.streams.add(stream)
        if self.peers is not None:
            key = peer_key(self.peer_of(stream))
            if key is not None:
                self.peers.come(key)
        return 0

    cdef PeerAddress* peer_of(self, Stream stream) noexcept:
        """Whose stream it is; valid as long as the stream is."""
        return NULL

    cdef int forget(self, Stream stream) except -1:
        """A stream is closed."""
        cdef bint full = self.full()
        cdef bytes key
        if self.peers is not None and stream in self.streams:
            key = peer_key(self.peer_of(stream))
            if key is not None:
                self.peers.gone(key)
        self.streams.discard(stream)
        if full and self.accepting:
            self._update()
        if not self.streams and self.on_closed is not None:
            self.on_closed()
        return 0

    cdef int adopt(self, int fd, PeerAddress* address, Listener listener) except -1:
        """Make a stream of an accepted descriptor."""
        raise NotImplementedError

    cdef int watch(self, Listener listener) except -1:
        """Call ``accept`` when the listener is readable."""
        raise NotImplementedError

    cdef int unwatch(self, Listener listener) except -1:
        """Stop that."""
        raise NotImplementedError
