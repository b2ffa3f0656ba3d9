cimport cython

from lastcall.asgi.websocket cimport WebSocketCycle
from lastcall.connection.http1 cimport HTTP1Connection, HTTP1Cycle
from lastcall.connection.service cimport Upgrades
from lastcall.connection.stream cimport Connection, Stream
from lastcall.wire.buffer cimport ByteBuffer
from lastcall.wire.websocket cimport FrameParser


cdef enum State:
    # and FINISHING and CLOSED, as every connection
    OPEN = 0
    CLOSING = 1          # our Close is out, or queued: the peer's is awaited, and what comes before it is dropped


@cython.final
cdef class WebSocketUpgrades(Upgrades):
    cdef readonly object options           # base.options.WebSocketOptions
    cdef Py_ssize_t max_queue
    cdef Py_ssize_t max_queue_size
    cdef Py_ssize_t worth_it


@cython.final
cdef class HTTP1WebSocketCycle(WebSocketCycle):
    cdef WebSocketUpgrades upgrades
    cdef HTTP1Cycle exchange               # the handshake's, until it has its answer
    cdef WebSocketConnection connection    # after that
    cdef bytes key                         # Sec-WebSocket-Key
    cdef list offers                       # the values of Sec-WebSocket-Extensions
    cdef list subprotocols


@cython.final
cdef class WebSocketConnection(Connection):
    cdef HTTP1WebSocketCycle cycle         # None once it is told that this is over
    cdef WebSocketUpgrades upgrades
    cdef FrameParser parser
    cdef object deflater                   # wire.deflate.Deflater, or None
    cdef ByteBuffer pending                # bytes that the application is too slow for, or None
    cdef bytes late_pong                   # the answer to a ping, until the client has read what is before it, or None
    cdef bint held                         # reading is paused for it
    cdef bint pinged                       # and no byte has come since
    cdef int advance(self, const unsigned char* p, Py_ssize_t n) except -1
    cdef bint is_full(self) noexcept
    cdef int hold(self, const unsigned char* p, Py_ssize_t n) except -1
    cdef int release(self) except -1
    cdef int put(self, int first, const char* data, Py_ssize_t n) except -1
    cdef int answer_ping(self, bytes payload) except -1
    cdef int send_message(self, object data) except -1
    cdef int take_pending(self) except -1
    cdef int say_close(self, int code, str reason) except -1
    cdef int close_from_peer(self) except -1
    cdef int fail(self, int code, str reason) except -1
    cdef int listen(self) except -1
    cdef int tell(self, int code, str reason) except -1
