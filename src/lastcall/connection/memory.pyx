# cython: language_level=3
"""A byte stream in memory, for tests and for measurements of everything above the sockets."""

from lastcall.base.errors import LocalProtocolError
from lastcall.connection.scheduler cimport Scheduler
from lastcall.connection.stream cimport Connection, Stream
from lastcall.notice.running cimport RunningTask, RunningTasks
from lastcall.wire.buffer cimport ByteBuffer


cdef class MemoryStream(Stream):
    """Collects what is written; fails loudly on a write after the close. ``capacity`` (bytes, None: no bound) is what
    it takes before it blocks, as a client does that does not read; ``drain(n)`` makes room again.
    ``movable``: whether it pretends to be a descriptor that another process could take over.
    ``arriving`` is what the next ``read_now()`` finds, ``unread`` how much of what was written is on its way still."""

    cdef public bytes written
    cdef public object capacity
    cdef public bytes arriving
    cdef public Py_ssize_t unread
    cdef public bint was_reset
    cdef public bint movable
    cdef public object client
    cdef public object server

    def __init__(self, Scheduler scheduler not None, *, capacity=None, client=("127.0.0.1", 50000), server=("127.0.0.1", 8000)):
        self.scheduler = scheduler
        self.out = ByteBuffer()
        self.written = b""
        self.capacity = capacity
        self.arriving = b""
        self.reading = True
        self.client = client
        self.server = server

    def open(self):
        """The connection, made over this stream, begins."""
        self.scheduler.begin()
        try:
            self.connection.opened()
        finally:
            self.scheduler.end()

    def drain(self, n=None):
        """The client reads ``n`` bytes more (None: everything, for ever)."""
        self.capacity = None if n is None else len(self.written) + n
        self.blocked = False
        self.scheduler.begin()
        try:
            self.flush()
        finally:
            self.scheduler.end()

    def take(self):
        """What was written since the last call."""
        written, self.written = self.written, b""
        return written

    cdef int transmit(self) except -1:
        cdef Py_ssize_t n = self.out.end - self.out.start
        if self.closed or self.fin_sent:
            raise LocalProtocolError("write after close")
        if self.capacity is not None:
            n = max(0, min(n, self.capacity - len(self.written)))
        self.written += self.out.data[self.out.start:self.out.start + n]
        self.out.consume(n)
        self.sent += n
        self.blocked = self.out.end > self.out.start
        return 0

    cdef int set_reading(self, bint wanted) except -1:
        self.reading = wanted
        return 0

    cdef int shutdown_write(self) except -1:
        return 0

    cdef int close(self) except -1:
        self.closed = True
        return 0

    cdef int reset(self) except -1:
        self.closed = True
        self.was_reset = True
        return 0

    cdef int read_now(self) except -1:
        cdef bytes data = self.arriving
        self.arriving = b""
        if data:
            self.connection.on_data(<const unsigned char*><const char*>data, len(data))
        return 0

    cdef Py_ssize_t in_flight(self) noexcept:
        return self.unread

    cdef bint can_move(self) noexcept:
        return self.movable

    cdef object client_address(self):
        return self.client

    cdef object server_address(self):
        return self.server


cdef class MemoryConnection(Connection):
    """A protocol that only keeps what it is handed, and writes what it is told: a successor for ``detach``."""

    cdef public bytes received
    cdef public bint opened_once
    cdef public bint ended             # the FIN was heard of

    def __init__(self, Stream stream not None):
        self.scheduler = stream.scheduler
        self.stream = stream
        self.received = b""

    cdef int on_data(self, const unsigned char* p, Py_ssize_t n) except -1:
        self.received += <bytes>p[:n]
        return 0

    cdef int opened(self) except -1:
        self.opened_once = True
        return 0

    cdef int on_eof(self) except -1:
        self.ended = True
        return Connection.on_eof(self)

    def write(self, bytes data not None):
        """Queue bytes."""
        self.stream.out.append_bytes(data)
        self.scheduler.mark_dirty(self.stream)


cdef class NoTasks(RunningTasks):
    """Running tasks that nobody keeps: what keeping them costs is the difference (``bench/running_tasks.py``)."""

    cdef int add(self, RunningTask task, double now) except -1:
        return 0

    cdef int remove(self, RunningTask task) except -1:
        return 0
