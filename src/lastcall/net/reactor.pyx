# cython: language_level=3
"""The native driver: an epoll set of our own, nested in the event loop.

The epoll descriptor holds the listeners and all connections, and is itself registered with ``loop.add_reader``: one
callback of the loop serves many ready sockets in compiled code. Any loop with ``add_reader`` will do. Connections are
edge-triggered, which saves the kernel a second look at each after it was served. What makes that safe: a read that
fills less than the buffer has taken everything (epoll(7)), and every change of interest makes epoll look anew. A turn ends when the scheduler's time for it is over, so that the loop's other work is never starved; what there was
no time for comes first in the next one.
"""

cimport cython
from libc.errno cimport EEXIST, errno
from libc.math cimport INFINITY
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, strerror

import os

from lastcall.connection.deadlines cimport HEADER, KEEP_ALIVE
from lastcall.connection.stream cimport Connection, Stream
from lastcall.net.driver cimport (
    Driver, PeerAddress, local_address, peer_address, peer_tuple, receive, reset_on_close, unacknowledged, would_block,
)
from lastcall.net.listener cimport Listener
from lastcall.wire.buffer cimport ByteBuffer

cdef extern from "sys/epoll.h" nogil:
    int EPOLL_CLOEXEC
    int EPOLL_CTL_ADD
    int EPOLL_CTL_DEL
    int EPOLL_CTL_MOD
    uint32_t EPOLLIN
    uint32_t EPOLLOUT
    uint32_t EPOLLERR
    uint32_t EPOLLHUP
    uint32_t EPOLLRDHUP
    uint32_t EPOLLET
    ctypedef union epoll_data_t:
        uint64_t u64
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event* event)
    int epoll_wait(int epoll, epoll_event* events, int most, int timeout)

cdef extern from "sys/socket.h" nogil:
    int SHUT_WR
    int MSG_NOSIGNAL
    int shutdown(int fd, int how)
    Py_ssize_t send(int fd, const void* data, size_t n, int flags)

cdef extern from "unistd.h" nogil:
    int c_close "close"(int fd)

cdef enum:
    MAX_EVENTS = 256
    READ_SIZE = 131072
    LISTENER = 0xFFFFFFFF        # the generation that marks a listener



@cython.final
cdef class NativeStream(Stream):
    """A connected socket in the reactor's epoll set."""

    def __cinit__(self):
        self.fd = -1

    def __dealloc__(self):
        if self.fd >= 0 and not self.closed:
            c_close(self.fd)               # the server's end was not an orderly one

    cdef int transmit(self) except -1:
        cdef ByteBuffer out = self.out
        cdef Py_ssize_t size = out.end - out.start
        cdef Py_ssize_t sent = send(self.fd, out.data + out.start, size, MSG_NOSIGNAL)
        if sent < 0:
            if not would_block(errno):
                return self.lost()
            sent = 0
        out.consume(sent)
        self.sent += sent
        if sent < size:
            self.blocked = True
            self.left = unacknowledged(self.fd)
            self.update()
        return 0

    cdef int set_reading(self, bint wanted) except -1:
        if self.reading != wanted and not self.closed:
            self.reading = wanted
            self.update()
        return 0

    cdef int update(self) except -1:
        """Tell epoll what we want to hear of. ERR and HUP come always."""
        cdef uint32_t interest = (EPOLLIN | EPOLLRDHUP if self.reading else 0) | (EPOLLOUT if self.blocked else 0)
        if interest != self.interest:
            self.interest = interest
            self.rearm()
        return 0

    cdef int rearm(self) except -1:
        """Have epoll look anew: what is ready now is reported, though it was before."""
        cdef epoll_event event
        event.events = self.interest | EPOLLET
        event.data.u64 = (<uint64_t>self.generation << 32) | <uint32_t>self.fd
        if epoll_ctl(self.reactor.epoll, EPOLL_CTL_MOD, self.fd, &event) != 0:
            raise OSError(errno, strerror(errno).decode())
        return 0

    cdef int shutdown_write(self) except -1:
        if shutdown(self.fd, SHUT_WR) != 0:
            return self.lost()
        return 0

    cdef int close(self) except -1:
        if not self.closed:
            self.closed = True
            self.release()
        return 0

    cdef int reset(self) except -1:
        if not self.closed:
            self.closed = True
            reset_on_close(self.fd)
            self.release()
        return 0

    cdef int release(self) except -1:
        self.reactor.by_fd[self.fd] = None     # before the number can be given to another connection
        # close() alone does not do this where a forked child holds the socket too: its events would come for ever.
        epoll_ctl(self.reactor.epoll, EPOLL_CTL_DEL, self.fd, NULL)
        c_close(self.fd)
        return self.reactor.forget(self)

    cdef int read_now(self) except -1:
        if not self.closed and not self.connection.eof:
            return self.ready(EPOLLIN)
        return 0

    cdef int ready(self, uint32_t events) except -1:
        """Serve one event."""
        cdef Reactor reactor = self.reactor
        cdef Py_ssize_t n
        if events & EPOLLOUT:
            self.blocked = False
            self.update()
            self.flush()
            if self.closed:
                return 0
        if not self.reading:
            if events & (EPOLLERR | EPOLLHUP):
                return self.lost()
            return 0
        if events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            n = receive(self.fd, reactor.into, READ_SIZE)
            if n > 0:
                if events & EPOLLRDHUP and n < READ_SIZE:
                    # These are the last bytes, and the connection should know before it starts what they ask for.
                    return self.connection.on_last_data(reactor.into, n)
                if n == READ_SIZE:
                    self.rearm()           # there may be more
                return self.connection.on_data(reactor.into, n)
            if n == 0:
                return self.connection.on_eof()
            if not would_block(errno):
                return self.lost()
        return 0

    cdef bint progressed(self) except -1:
        cdef int before = self.left
        self.left = unacknowledged(self.fd)
        return self.left < before

    cdef Py_ssize_t in_flight(self) noexcept:
        return unacknowledged(self.fd)

    cdef bint can_move(self) noexcept:
        # TLS has its state in this process.
        return self.listener.key is not None and self.listener.tls is None and not self.closed

    cdef int let_go(self) except -1:
        if not self.closed:
            self.closed = True
            c_close(self.fd)
            self.fd = -1
        return 0

    cdef object client_address(self):
        return peer_tuple(&self.peer)

    cdef object server_address(self):
        return self.listener.server if self.listener.server is not None else local_address(self.fd)


@cython.final
cdef class Reactor(Driver):
    """See the module's docstring."""

    def __cinit__(self):
        self.epoll = -1
        self.into = <unsigned char*>malloc(READ_SIZE)
        self.events = malloc(MAX_EVENTS * sizeof(epoll_event))
        if self.into == NULL or self.events == NULL:
            raise MemoryError()

    def __init__(self, scheduler, drain, *, limit):
        Driver.__init__(self, scheduler, drain, limit=limit)
        self.by_fd = []
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise OSError(errno, os.strerror(errno))
        self.loop.add_reader(self.epoll, self._turn)

    def __dealloc__(self):
        if self.epoll >= 0:
            c_close(self.epoll)
        free(self.into)
        free(self.events)

    def close(self):
        """Let go of the listeners and of the epoll set."""
        Driver.close(self)
        if self.epoll >= 0:
            self.loop.remove_reader(self.epoll)
            c_close(self.epoll)
            self.epoll = -1

    def let_go(self):
        """In a forked child: close our copies."""
        Driver.let_go(self)
        if self.epoll >= 0:
            c_close(self.epoll)
            self.epoll = -1
        self.count = self.served = 0

    def _turn(self):
        """Serve ready sockets: the loop's callback."""
        cdef epoll_event* events = <epoll_event*>self.events
        cdef double started, deadline
        if self.epoll < 0:
            return
        self.scheduler.begin()
        self.yielding = False
        deadline = self.scheduler.turn_ends
        while True:
            if self.served >= self.count:
                self.count = epoll_wait(self.epoll, events, MAX_EVENTS, 0)
                self.served = 0
                if self.count <= 0:
                    break
            # What an earlier turn had no time for comes first. Asking again instead would put those in front whose
            # answers went out early and who have sent their next request already, and starve the others.
            while self.served < self.count and self.scheduler.now <= deadline:
                started = self.scheduler.now
                self.served += 1
                self._serve(&events[self.served - 1])
                self.scheduler.after_event(started)
            # While nothing waits for the loop, looking again here is cheaper than by way of it.
            if self.scheduler.now > deadline or self.yielding or not self.scheduler.quiet():
                break
            self.scheduler.flush()
        if self.served < self.count and not self.resuming:
            self.resuming = True
            self.loop.call_soon(self._resume)    # edge-triggered: epoll says nothing of them a second time
        self.scheduler.end()

    def _resume(self):
        """A turn for what the last one had no time for."""
        self.resuming = False
        self._turn()

    cdef int _serve(self, void* what) except -1:
        """One ready listener or connection."""
        cdef epoll_event* event = <epoll_event*>what
        cdef uint32_t fd = <uint32_t>event.data.u64     # its lower half
        cdef uint32_t generation = <uint32_t>(event.data.u64 >> 32)
        cdef object found = self.by_fd[fd]
        cdef NativeStream stream
        if found is None:
            return 0           # closed, or not accepting any more, since this turn began
        if generation == LISTENER:
            if type(found) is not Listener:
                return 0       # closed, and its number given to a connection
            self.yielding |= (<Listener>found).contended     # the others get their chance at the next connection
            try:
                self.accept(<Listener>found)
            except Exception:
                self.scheduler.report("a listener")
            return 0
        if type(found) is not NativeStream:
            return 0           # closed, and its number given to a listener
        stream = <NativeStream>found
        if stream.generation != generation:
            return 0           # or to another connection
        try:
            stream.ready(event.events)
        except Exception:
            self.scheduler.report("a connection")
            if not stream.closed and stream.connection is not None:
                stream.connection.abort()
        return 0

    cdef int adopt(self, int fd, PeerAddress* address, Listener listener) except -1:
        cdef NativeStream stream = self._join(fd, address, listener)
        stream.connection.opened()
        return 0

    cdef NativeStream _join(self, int fd, PeerAddress* address, Listener listener):
        """A stream of a connected descriptor, in the epoll set; its connection has heard of nothing yet."""
        cdef NativeStream stream = NativeStream.__new__(NativeStream)
        stream.scheduler = self.scheduler
        stream.reactor = self
        stream.listener = listener
        stream.fd = fd
        stream.peer = address[0]
        stream.out = ByteBuffer.__new__(ByteBuffer)
        stream.reading = True
        self.generations = (self.generations + 1) & 0x7FFFFFFF
        stream.generation = self.generations
        stream.interest = EPOLLIN | EPOLLRDHUP
        try:
            listener.protocol(stream)              # which gives the stream its connection
            if stream.connection is None:
                raise TypeError("a listener's protocol must make a Connection of the stream")
            self._watch_stream(stream)
        except BaseException:
            stream.closed = True
            c_close(fd)
            raise
        self.remember(stream)
        return stream

    cdef PeerAddress* peer_of(self, Stream stream) noexcept:
        return &(<NativeStream>stream).peer

    cdef int _watch_stream(self, NativeStream stream) except -1:
        """Put a stream into the epoll set; what has come already is reported."""
        cdef epoll_event event
        event.events = stream.interest | EPOLLET
        event.data.u64 = (<uint64_t>stream.generation << 32) | <uint32_t>stream.fd
        if epoll_ctl(self.epoll, EPOLL_CTL_ADD, stream.fd, &event) != 0:
            raise OSError(errno, os.strerror(errno))
        return self._place(stream.fd, stream)

    # -- moving ---------------------------------------------------------------------------------------------------

    @property
    def moves(self):
        """Whether the connections of this driver can move at all."""
        return True

    def lift(self, Connection connection not None, keys):
        """As Driver.lift."""
        cdef NativeStream stream
        cdef int kind = KEEP_ALIVE
        cdef double at
        if not connection.can_move():
            return None
        stream = <NativeStream?>connection.stream
        if stream.listener.key not in keys:
            return None
        # An event of it that this turn has fetched already finds nobody; what it was about, the next epoll set reports.
        epoll_ctl(self.epoll, EPOLL_CTL_DEL, stream.fd, NULL)
        self.by_fd[stream.fd] = None
        at = connection.suspend(&kind)
        stream.connection = None               # the drain's orders do not reach it
        stream.blocked = True                  # and nobody writes
        left = None if at == INFINITY else max(0.0, at - self.scheduler.time())
        return stream.fd, at, (stream.listener.key, stream.client_address(), kind == HEADER, left, connection.past())

    def put_back(self, Connection connection not None, bint fresh, double at):
        """As Driver.put_back."""
        cdef NativeStream stream = <NativeStream?>connection.stream
        stream.connection = connection
        stream.blocked = False
        try:
            self._watch_stream(stream)
        except OSError:
            self.scheduler.report("a connection that could not be moved")
            connection.abort()
            return
        connection.resume_until(HEADER if fresh else KEEP_ALIVE, at, None)

    def drop(self, Connection connection not None):
        """As Driver.drop."""
        connection.moved()

    def take_over(self, int fd, Listener listener not None, client, bint fresh, left, Connection behind, past=None):
        """As Driver.take_over."""
        cdef PeerAddress address
        cdef NativeStream stream
        cdef double at = INFINITY if left is None else self.scheduler.time() + max(0.0, <double>left)
        try:
            peer_address(client, &address)
        except BaseException:
            c_close(fd)
            raise
        stream = self._join(fd, &address, listener)
        stream.connection.inherit(past)
        stream.connection.resume_until(HEADER if fresh else KEEP_ALIVE, at, behind)
        return stream.connection

    cdef int _place(self, int fd, object what) except -1:
        while len(self.by_fd) <= fd:
            self.by_fd.append(None)
        self.by_fd[fd] = what
        return 0

    cdef int watch(self, Listener listener) except -1:
        cdef epoll_event event
        event.events = EPOLLIN
        event.data.u64 = (<uint64_t>LISTENER << 32) | <uint32_t>listener.fd
        self._place(listener.fd, listener)
        if epoll_ctl(self.epoll, EPOLL_CTL_ADD, listener.fd, &event) != 0 and errno != EEXIST:
            raise OSError(errno, os.strerror(errno))
        return 0

    cdef int unwatch(self, Listener listener) except -1:
        epoll_ctl(self.epoll, EPOLL_CTL_DEL, listener.fd, NULL)
        if self.by_fd[listener.fd] is listener:
            self.by_fd[listener.fd] = None
        return 0
