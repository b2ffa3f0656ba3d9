# cython: language_level=3
"""The portable driver: asyncio's own transports behind the same stream interface.

Slower than the reactor, and the way for whatever the reactor cannot do (a system without epoll). Bytes are offered to
the kernel here, and what it does not take waits in the stream, where the limits and timeouts are. Only one piece of it
goes to the transport, whose ``resume_writing`` then says when the kernel takes more.
"""

cimport cython
from libc.errno cimport errno

import os
import socket
from asyncio import Task

from lastcall.connection.stream cimport Connection, Stream
from lastcall.net.driver cimport (
    Driver, PeerAddress, fin_is_next, local_address, peer_tuple, receive, reset_on_close, unacknowledged, would_block,
)
from lastcall.net.listener cimport Listener
from lastcall.wire.buffer cimport ByteBuffer

cdef extern from "sys/socket.h" nogil:
    """
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0      /* then Python's ignoring of SIGPIPE does */
    #endif
    """
    int MSG_NOSIGNAL
    Py_ssize_t send(int fd, const void* data, size_t n, int flags)

cdef enum:
    READ_SIZE = 65536
    PIECE = 16384             # bytes that the transport gets to wait with


@cython.final
cdef class PortableStream(Stream):
    """A stream over an asyncio transport, of which it is also the protocol."""

    cdef PortableDriver driver
    cdef Listener listener
    cdef object transport
    cdef readonly int fd
    cdef int left             # unacknowledged bytes when that was last looked at
    cdef PeerAddress peer
    cdef bint ending          # connection_lost is on its way

    # -- asyncio.Protocol -----------------------------------------------------------------------------------------

    def connection_made(self, transport):
        """asyncio.Protocol."""
        self.transport = transport
        if self.closed:                 # while asyncio took its time to adopt the socket
            transport.abort()
            return
        transport.set_write_buffer_limits(high=0)
        self.blocked = False
        if not self.reading:
            transport.pause_reading()
        self.scheduler.begin()
        try:
            self.flush()
        except Exception:
            self.scheduler.report("a connection")
            if not self.closed:
                self.connection.abort()
        self.scheduler.end()

    def data_received(self, data):
        """asyncio.Protocol."""
        cdef bytes piece = bytes(data)
        if self.closed:
            return
        self.scheduler.begin()
        try:
            if fin_is_next(self.fd):     # the connection should know before it starts what these bytes ask for
                self.connection.on_last_data(<const unsigned char*><const char*>piece, len(piece))
            else:
                self.connection.on_data(<const unsigned char*><const char*>piece, len(piece))
        except Exception:
            self.scheduler.report("a connection")
            if not self.closed:
                self.connection.abort()
        self.scheduler.end()

    def eof_received(self):
        """asyncio.Protocol: True keeps the transport open for what is still to be written."""
        if self.closed:
            return False
        if self.connection.eof:
            return True                  # known already, from what came before it
        self.scheduler.begin()
        try:
            self.connection.on_eof()
        except Exception:
            self.scheduler.report("a connection")
            if not self.closed:
                self.connection.abort()
        self.scheduler.end()
        return True

    def connection_lost(self, exc):
        """asyncio.Protocol."""
        if not self.closed:
            self.ending = True
            self.scheduler.begin()
            try:
                self.connection.on_lost()
            except Exception:
                self.scheduler.report("a connection")
            self.scheduler.end()

    def pause_writing(self):
        """asyncio.Protocol: the kernel took less than it was offered."""
        self.blocked = True

    def resume_writing(self):
        """asyncio.Protocol."""
        self.blocked = False
        if not self.closed:
            self.scheduler.begin()
            try:
                self.flush()
            except Exception:
                self.scheduler.report("a stream")
            self.scheduler.end()

    # -- Stream ---------------------------------------------------------------------------------------------------

    cdef int transmit(self) except -1:
        cdef ByteBuffer out = self.out
        cdef Py_ssize_t sent
        cdef bytes piece
        if self.transport.is_closing():
            out.clear()                 # connection_lost has been scheduled
            return 0
        while out.end > out.start and not self.blocked:
            sent = send(self.fd, out.data + out.start, out.end - out.start, MSG_NOSIGNAL)
            if sent < 0:
                if not would_block(errno):
                    return self.lost()
                sent = 0
            out.consume(sent)
            self.sent += sent
            if out.end > out.start:
                piece = out.data[out.start:min(out.end, out.start + PIECE)]
                out.consume(len(piece))
                self.sent += len(piece)
                self.left = unacknowledged(self.fd)
                self.transport.write(piece)
        return 0

    cdef int set_reading(self, bint wanted) except -1:
        if self.reading != wanted and not self.closed:
            self.reading = wanted
            if self.transport is not None and not self.transport.is_closing():
                if wanted:
                    self.transport.resume_reading()
                else:
                    self.transport.pause_reading()
        return 0

    cdef int shutdown_write(self) except -1:
        if self.transport is not None and not self.transport.is_closing() and self.transport.can_write_eof():
            try:
                self.transport.write_eof()
            except OSError:                 # ENOTCONN: reset meanwhile, which a transport that does not read cannot see
                return self.lost()
        return 0

    cdef int close(self) except -1:
        if not self.closed:
            self.closed = True
            if self.transport is not None and not self.ending:
                self.transport.abort()
            self.driver.forget(self)
        return 0

    cdef int reset(self) except -1:
        if not self.closed and self.transport is not None and not self.transport.is_closing():
            reset_on_close(self.fd)
        return self.close()

    cdef int read_now(self) except -1:
        cdef unsigned char[READ_SIZE] into
        cdef Py_ssize_t n
        if self.closed or self.connection.eof or self.transport is not None and self.transport.is_closing():
            return 0
        n = receive(self.fd, into, READ_SIZE)
        if n > 0:
            return self.connection.on_data(into, n)
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

    cdef int let_go(self) except -1:
        cdef int null
        if not self.closed:
            self.closed = True
            # The number is the transport's, which closes it some day: by then it must not be another file's.
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            os.dup2(null, self.fd, inheritable=False)
            os.close(null)
        return 0

    cdef object client_address(self):
        return peer_tuple(&self.peer)

    cdef object server_address(self):
        return self.listener.server if self.listener.server is not None else local_address(self.fd)


@cython.final
cdef class PortableDriver(Driver):
    """See the module's docstring."""

    cdef set joining          # tasks: asyncio wants one to adopt a socket

    def __init__(self, scheduler, drain, *, limit):
        Driver.__init__(self, scheduler, drain, limit=limit)
        self.joining = set()

    def _accept(self, Listener listener):
        self.scheduler.begin()
        try:
            self.accept(listener)
        except Exception:
            self.scheduler.report("a listener")
        self.scheduler.end()

    cdef int adopt(self, int fd, PeerAddress* address, Listener listener) except -1:
        cdef PortableStream stream = PortableStream.__new__(PortableStream)
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        stream.scheduler = self.scheduler
        stream.driver = self
        stream.listener = listener
        stream.fd = fd
        stream.peer = address[0]
        stream.out = ByteBuffer.__new__(ByteBuffer)
        stream.reading = True
        stream.blocked = True           # until there is a transport
        try:
            listener.protocol(stream)
            if stream.connection is None:
                raise TypeError("a listener's protocol must make a Connection of the stream")
        except BaseException:
            stream.closed = True
            sock.close()
            raise
        self.remember(stream)
        stream.connection.opened()
        task = Task(self._join(stream, sock), loop=self.loop)      # whatever task factory the application has set
        self.joining.add(task)
        task.add_done_callback(self.joining.discard)
        return 0

    cdef PeerAddress* peer_of(self, Stream stream) noexcept:
        return &(<PortableStream>stream).peer

    async def _join(self, PortableStream stream, sock):
        try:
            await self.loop.connect_accepted_socket(lambda: stream, sock)
        except OSError:
            sock.close()
            if not stream.closed:
                stream.connection.close_now()

    cdef int watch(self, Listener listener) except -1:
        self.loop.add_reader(listener.fd, self._accept, listener)
        return 0

    cdef int unwatch(self, Listener listener) except -1:
        self.loop.remove_reader(listener.fd)
        return 0
