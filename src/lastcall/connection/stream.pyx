# cython: language_level=3
"""The seam between sockets and protocols.

A ``Stream`` is one client's byte stream: ``net`` implements it (native and portable), connections write into its ``out``
buffer and tell it what they want. A ``Connection`` is what ``net`` hands bytes to. What every protocol does alike is
here: flushing, the write timeout, and the lingering close: after the last byte ``shutdown(SHUT_WR)``, then reading (and
discarding) until the peer's FIN, for at most a second, so that no RST eats an answer in flight (RFC 9112 9.6).
"""

from libc.math cimport INFINITY

import logging

from lastcall.asgi.cycle cimport LOW_WATER
from lastcall.connection.deadlines cimport DISCARD, LINGER, WRITE, Deadlines, unset
from lastcall.connection.scheduler cimport Flushable, Scheduler, Runnable
from lastcall.wire.buffer cimport ByteBuffer

cdef object logger = logging.getLogger("lastcall.error")

cdef enum:
    LAST_READS = 8           # of a connection that is closed behind an answer without the time to linger


cdef class Stream(Flushable):
    """See the module's docstring. Everything here may be called at any time before ``close``; after it, nothing."""

    cdef int flush(self) except -1:
        """Write what is queued, as far as the kernel takes it."""
        if self.closed or self.blocked:
            return 0
        if self.out.end > self.out.start:
            self.transmit()
            if self.closed:
                return 0
        return self.after_write()

    cdef Py_ssize_t unsent(self) noexcept:
        """How many bytes wait here to be written."""
        return self.out.end - self.out.start

    cdef int broken(self) except -1:
        return self.connection.broken() if self.connection is not None else 0

    cdef int after_write(self) except -1:
        """After every progress in writing: the write timeout, a FIN that waits, senders that wait."""
        cdef Py_ssize_t left = self.unsent()
        if left or self.blocked:
            self.scheduler.deadlines.set(&self.connection.write_node, self.connection, WRITE, self.scheduler.time())
        else:
            unset(&self.connection.write_node)
            if self.fin_wanted and not self.fin_sent:
                self.fin_sent = True
                self.shutdown_write()
                if not self.closed:
                    return self.connection.on_fin_sent()
                return 0
        if left <= LOW_WATER:
            self.connection.on_drained()
        return 0

    cdef int finish(self) except -1:
        """Send a FIN once everything queued is written."""
        self.fin_wanted = True
        return self.scheduler.mark_dirty(self)

    cdef int lost(self) except -1:
        """The peer is gone (ECONNRESET, EPIPE, …)."""
        if not self.closed:
            self.connection.on_lost()
        return 0

    cdef bint advanced(self) noexcept:
        """Whether bytes were written, or acknowledged by the peer, since the last call."""
        cdef long long taken = self._taken_before if self.closed else self.sent - self.in_flight()
        cdef bint found = self.sent > self._sent_before or taken > self._taken_before
        self._sent_before = self.sent
        self._taken_before = taken
        return found

    cdef int transmit(self) except -1:
        """Offer ``out`` to the kernel and add to ``sent`` what it takes; set ``blocked`` if it took less, call ``lost`` if the peer is gone."""
        raise NotImplementedError

    cdef int set_reading(self, bint wanted) except -1:
        """Ask for bytes, or stop asking."""
        raise NotImplementedError

    cdef int shutdown_write(self) except -1:
        """Send a FIN now."""
        raise NotImplementedError

    cdef int close(self) except -1:
        """Close now, whatever is unwritten; the connection's nodes are unset by its owner."""
        raise NotImplementedError

    cdef int reset(self) except -1:
        """Close now with a RST, so that nobody takes what was sent for complete."""
        raise NotImplementedError

    cdef int read_now(self) except -1:
        """Read once without waiting, and hand over what is there."""
        raise NotImplementedError

    cdef bint progressed(self) except -1:
        """Whether the peer has taken bytes since the kernel took fewer than it was offered, or since the last call."""
        return False

    cdef Py_ssize_t in_flight(self) noexcept:
        """How many of the bytes that were written the peer has not acknowledged, as far as that is known."""
        return 0

    cdef bint can_move(self) noexcept:
        """Whether another process could go on with this byte stream, if it had the descriptor: nothing of it is here."""
        return False

    cdef int let_go(self) except -1:
        """In a forked child: close the descriptor, which is a copy, and nothing more."""
        raise NotImplementedError

    cdef object client_address(self):
        """The scope's ``client``: (host, port), or None."""
        raise NotImplementedError

    cdef object server_address(self):
        """The scope's ``server``: (host, port), or (path, None) for a unix socket."""
        raise NotImplementedError


cdef class Connection(Runnable):
    """One client connection; a subclass speaks a protocol."""

    def __dealloc__(self):
        unset(&self.read_node)
        unset(&self.write_node)

    cdef int become(self, int state) except -1:
        """Enter a state; a protocol with states of its own checks that it may follow."""
        self.state = state
        return 0

    cdef int opened(self) except -1:
        """The stream is connected."""
        return 0

    cdef int on_data(self, const unsigned char* p, Py_ssize_t n) except -1:
        """Bytes have come; they are gone when this returns."""
        return 0

    cdef int on_last_data(self, const unsigned char* p, Py_ssize_t n) except -1:
        """Bytes have come, and behind them the peer's FIN."""
        self.on_data(p, n)
        return 0 if self.stream.closed else self.on_eof()

    cdef int on_eof(self) except -1:
        """The peer's FIN has come."""
        self.eof = True
        self.stream.set_reading(False)
        if self.state == FINISHING and self.stream.fin_sent:
            self.close_now()
        return 0

    cdef int on_lost(self) except -1:
        """The peer is gone, both ways."""
        self.close_now()
        return 0

    cdef int on_drained(self) except -1:
        """Little is left to write."""
        return 0

    cdef int on_fin_sent(self) except -1:
        """Our FIN is out: wait for the peer's, but not long."""
        if self.eof or self.skip_linger:
            self.close_now()
        else:
            self.stream.set_reading(True)
            self.scheduler.deadlines.set(&self.read_node, self, LINGER, self.scheduler.time())
        return 0

    cdef int broken(self) except -1:
        self.abort()
        return 0

    # -- moving to another process (``net.moving``) ---------------------------------------------------------------

    cdef bint can_move(self) noexcept:
        """Whether the connection is nothing but its descriptor now: nobody is served, and no byte waits here."""
        return False

    cdef double suspend(self, int* kind) noexcept:
        """It is on its way: no timeout applies. Returns when the one that did would be due, infinity if none is set."""
        cdef double at = INFINITY
        if self.read_node.previous != NULL:
            at = self.read_node.at
            kind[0] = self.read_node.kind
        unset(&self.read_node)
        return at

    cdef int resume_until(self, int kind, double at, Connection behind) except -1:
        """It is served here, as another process has left it or as ``suspend`` did: idle until ``at`` at most.
        ``behind`` may be a connection that was resumed a moment ago, with an earlier deadline, or None."""
        cdef Deadlines deadlines = self.scheduler.deadlines
        at = min(at, deadlines.latest(kind, self.scheduler.time()))
        deadlines.set_at(&self.read_node, self, kind, at, NULL if behind is None else &behind.read_node)
        return 0 if self.scheduler.in_turn else self.scheduler.arm()

    cdef object past(self):
        """What a limit on connections counts of this one, for the process that it moves to: a list for JSON, or None."""
        return None

    cdef int inherit(self, object past) except -1:
        """It comes from another process, where ``past`` was counted."""
        return 0

    cdef int moved(self) except -1:
        """Another process has it: close our copy of the descriptor, which nobody but us hears of."""
        Connection.close_now(self)
        return 0

    cdef int finish(self) except -1:
        """Serve nothing more: flush, FIN, linger, close."""
        if self.state < FINISHING:
            self.become(FINISHING)
            unset(&self.read_node)
            self.stream.finish()
        return 0

    cdef int expired(self, int kind) except -1:
        if kind == WRITE:
            if self.stream.progressed():
                self.scheduler.deadlines.set(&self.write_node, self, WRITE, self.scheduler.time())
            else:
                logger.info("%s does not read what it asked for: connection reset", self.peer())
                self.abort()
        elif kind == LINGER or kind == DISCARD:
            self.close_now()
        return 0

    def close_idle(self, double since=0.0):
        """The drain's order: close if nothing is being served, or read that began at ``since`` or later."""

    cpdef begin_drain(self):
        """The drain's order: from now on each answer closes its connection, but for what has come before."""

    cpdef abort(self):
        """Close at once with a RST."""
        if self.state != CLOSED:
            self.become(CLOSED)
            unset(&self.read_node)
            unset(&self.write_node)
            self.stream.reset()
            self.closed()

    def flush_and_close(self):
        """Write what can be written without waiting, and close: the end of a drain. Returns how many bytes were left."""
        cdef Py_ssize_t left = 0
        cdef int reads = LAST_READS
        if self.state != CLOSED:
            self.stream.flush()
            left = self.stream.unsent()
            while self.state == FINISHING and reads:   # unread bytes would make a RST of the close, which eats answers
                reads -= 1
                self.stream.read_now()
            self.close_now()
        return left

    def peer(self):
        """The client's address for a log line."""
        client = self.stream.client_address()
        return "a client on a unix socket" if client is None else f"{client[0]}:{client[1]}"

    cpdef close_now(self):
        """Close at once; what the kernel has taken still goes out."""
        if self.state != CLOSED:
            self.become(CLOSED)
            unset(&self.read_node)
            unset(&self.write_node)
            self.stream.close()
            self.closed()

    cdef int closed(self) except -1:
        """The stream is closed, or another protocol's; nothing will be called any more."""
        return 0

    cdef int detach(self, Connection successor, bytes unread) except -1:
        """Hand the socket to another protocol, and ``unread``, the bytes that came and were not this one's.

        What this protocol has written goes out before what the successor writes. Nothing of the successor may have
        been called before.
        """
        cdef Stream stream = self.stream
        self.become(CLOSED)
        unset(&self.read_node)
        unset(&self.write_node)
        self.scheduler.keep(self)              # a method of ours is under way, and the stream alone may hold us
        stream.connection = successor
        successor.opened()
        if stream.blocked:
            self.scheduler.deadlines.set(&successor.write_node, successor, WRITE, self.scheduler.time())
        elif stream.unsent():
            self.scheduler.mark_dirty(stream)
        if self.eof:                           # it has been read, and will not come a second time
            if unread:
                return successor.on_last_data(<const unsigned char*><const char*>unread, len(unread))
            return successor.on_eof()
        stream.set_reading(True)
        if unread:
            successor.on_data(<const unsigned char*><const char*>unread, len(unread))
        return 0

    @property
    def movable(self):
        """True while another process could take the connection over by its descriptor alone."""
        return self.can_move()

    @property
    def finishing(self):
        """True once nothing more is served."""
        return self.state >= FINISHING

    @property
    def lingering(self):
        """True while it is being closed and reads on, so that its last answer is not eaten by a RST."""
        return False

    # For tests and tools.

    def feed(self, bytes data not None):
        """Hand over bytes as a driver would, inside a turn."""
        self.scheduler.begin()
        try:
            self.on_data(<const unsigned char*><const char*>data, len(data))
        finally:
            self.scheduler.end()

    def feed_last(self, bytes data not None):
        """Hand over bytes with the peer's FIN right behind them, inside a turn."""
        self.scheduler.begin()
        try:
            self.on_last_data(<const unsigned char*><const char*>data, len(data))
        finally:
            self.scheduler.end()

    def feed_eof(self):
        """Hand over the peer's FIN, inside a turn."""
        self.scheduler.begin()
        try:
            self.on_eof()
        finally:
            self.scheduler.end()

    def feed_reset(self):
        """Hand over a connection reset, inside a turn."""
        self.scheduler.begin()
        try:
            self.on_lost()
        finally:
            self.scheduler.end()
