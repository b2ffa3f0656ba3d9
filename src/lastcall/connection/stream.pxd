from lastcall.connection.deadlines cimport Node
from lastcall.connection.scheduler cimport Flushable, Scheduler, Runnable
from lastcall.wire.buffer cimport ByteBuffer


cdef enum:
    # The end of every connection's life; what is below is the protocol's own.
    FINISHING = 14          # nothing more is served: flush, FIN, wait for the peer's, close
    CLOSED = 15             # or detached: the stream is no longer ours


cdef class Stream(Flushable):
    cdef readonly Scheduler scheduler
    cdef Connection connection
    cdef ByteBuffer out
    cdef readonly bint reading       # bytes are wanted
    cdef readonly bint blocked       # the kernel took less than was offered: it will say when it takes more
    cdef readonly bint closed
    cdef bint fin_wanted             # once ``out`` is empty
    cdef readonly bint fin_sent
    cdef long long sent              # bytes that were written, ever
    cdef long long _sent_before      # and what advanced() found at its last call
    cdef long long _taken_before
    cdef Py_ssize_t unsent(self) noexcept
    cdef int after_write(self) except -1
    cdef int finish(self) except -1
    cdef int lost(self) except -1
    cdef bint advanced(self) noexcept
    # net implements these
    cdef int transmit(self) except -1
    cdef int set_reading(self, bint wanted) except -1
    cdef int shutdown_write(self) except -1
    cdef int close(self) except -1
    cdef int reset(self) except -1
    cdef int read_now(self) except -1
    cdef bint progressed(self) except -1
    cdef Py_ssize_t in_flight(self) noexcept
    cdef bint can_move(self) noexcept
    cdef int let_go(self) except -1
    cdef object client_address(self)
    cdef object server_address(self)


cdef class Connection(Runnable):
    cdef readonly Scheduler scheduler
    cdef readonly Stream stream
    cdef Node read_node
    cdef Node write_node
    cdef int state
    cdef bint eof                    # the peer's FIN has been read, or is known to be next
    cdef bint skip_linger                  # was idle: nothing is on its way that a RST could eat, so do not linger
    cdef int become(self, int state) except -1
    # net calls these
    cdef int opened(self) except -1
    cdef int on_data(self, const unsigned char* p, Py_ssize_t n) except -1
    cdef int on_last_data(self, const unsigned char* p, Py_ssize_t n) except -1
    cdef int on_eof(self) except -1
    cdef int on_lost(self) except -1
    cdef int on_drained(self) except -1
    cdef int on_fin_sent(self) except -1
    # moving to another process
    cdef bint can_move(self) noexcept
    cdef double suspend(self, int* kind) noexcept
    cdef int resume_until(self, int kind, double at, Connection behind) except -1
    cdef object past(self)
    cdef int inherit(self, object past) except -1
    cdef int moved(self) except -1
    # the drain's orders
    cpdef begin_drain(self)
    cpdef abort(self)
    cpdef close_now(self)
    cdef int closed(self) except -1
    cdef int detach(self, Connection successor, bytes unread) except -1
    cdef int finish(self) except -1
