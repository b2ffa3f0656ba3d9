cimport cython
from libc.stdint cimport uint32_t

from lastcall.connection.stream cimport Stream
from lastcall.net.driver cimport Driver, PeerAddress
from lastcall.net.listener cimport Listener


@cython.final
cdef class NativeStream(Stream):
    cdef Reactor reactor
    cdef Listener listener
    cdef readonly int fd
    cdef uint32_t generation
    cdef uint32_t interest
    cdef int left             # unacknowledged bytes when that was last looked at
    cdef PeerAddress peer
    cdef int update(self) except -1
    cdef int rearm(self) except -1
    cdef int ready(self, uint32_t events) except -1
    cdef int release(self) except -1


@cython.final
cdef class Reactor(Driver):
    cdef readonly int epoll
    cdef uint32_t generations
    cdef list by_fd
    cdef unsigned char* into
    cdef void* events
    cdef int count            # events of the last look, and how many of them are served
    cdef int served
    cdef bint yielding        # this turn must not look for more
    cdef bint resuming        # a turn for what the last one left is scheduled
    cdef NativeStream _join(self, int fd, PeerAddress* address, Listener listener)
    cdef int _watch_stream(self, NativeStream stream) except -1
    cdef int _serve(self, void* what) except -1
    cdef int _place(self, int fd, object what) except -1
