cimport cython
from cpython.ref cimport PyObject


cdef enum:
    HEADER = 0       # a request head must be complete
    BODY = 1         # more of a request body must come
    KEEP_ALIVE = 2   # the next request must begin
    WRITE = 3        # the client must read on
    LINGER = 4       # a connection that we have finished must go away
    DISCARD = 5      # so does one whose client goes on sending what we have answered already
    WS_PING = 6      # a WebSocket is asked whether its client is there
    WS_PONG = 7      # and something must have come
    AGE = 8          # look whether the connection has grown too old
    REQUEST = 9      # a response must be complete
    KINDS = 10


cdef struct Node:
    Node* previous
    Node* next
    double at
    int kind
    PyObject* owner   # borrowed: whoever owns the node unlinks it before it dies


cdef class Timed:
    cdef int expired(self, int kind) except -1
    cdef int broken(self) except -1


@cython.final
cdef class Deadlines:
    cdef Node[KINDS] _heads
    cdef double[KINDS] _timeouts
    cdef void set(self, Node* node, Timed owner, int kind, double now) noexcept
    cdef void set_at(self, Node* node, Timed owner, int kind, double at, Node* behind) noexcept
    cdef double latest(self, int kind, double now) noexcept
    cdef double first(self) noexcept
    cdef int expire(self, double now) except -1


cdef void unset(Node* node) noexcept
