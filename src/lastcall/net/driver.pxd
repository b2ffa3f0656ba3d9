from lastcall.connection.scheduler cimport Scheduler
from lastcall.connection.stream cimport Connection, Stream
from lastcall.drain.state cimport DrainState
from lastcall.net.listener cimport Listener

cdef extern from "sys/socket.h" nogil:
    ctypedef unsigned int socklen_t
    cdef struct sockaddr:
        unsigned short sa_family
    cdef struct sockaddr_storage:
        unsigned short ss_family

cdef extern from "netinet/in.h" nogil:
    cdef struct in_addr:
        unsigned int s_addr
    cdef struct in6_addr:
        unsigned char s6_addr[16]
    cdef struct sockaddr_in:
        unsigned short sin_family
        unsigned short sin_port
        in_addr sin_addr
    cdef struct sockaddr_in6:
        unsigned short sin6_family
        unsigned short sin6_port
        in6_addr sin6_addr


cdef union PeerAddress:
    # a compact sockaddr: a unix peer has no address worth keeping
    unsigned short family
    sockaddr_in v4
    sockaddr_in6 v6


cdef class Driver:
    cdef readonly Scheduler scheduler
    cdef readonly object loop
    cdef readonly DrainState drain
    cdef readonly list listeners
    cdef readonly set streams          # of open connections
    cdef readonly Py_ssize_t limit
    cdef readonly bint accepting
    cdef bint stopped                  # accept_from() does not begin anew
    cdef bint found_empty              # the last accept() ended because nobody was left
    cdef bint starved                  # EMFILE and its kind: accepting is paused
    cdef double complain_after
    cdef public object peers           # net.peers.PeerLimit, or None: addresses are not counted
    cdef public Py_ssize_t moved       # connections that other processes have got from here
    cdef public Py_ssize_t adopted     # and those that came from others
    cdef public object on_closed       # called when the last stream is gone, or None
    cdef bint full(self) noexcept
    cdef int accept(self, Listener listener) except -1
    cdef bint too_many(self, PeerAddress* address) except -1
    cdef int remember(self, Stream stream) except -1
    cdef int forget(self, Stream stream) except -1
    cdef PeerAddress* peer_of(self, Stream stream) noexcept
    cdef int adopt(self, int fd, PeerAddress* address, Listener listener) except -1
    cdef int watch(self, Listener listener) except -1
    cdef int unwatch(self, Listener listener) except -1
    cdef int _leave(self, Listener listener) except -1


cdef bytes peer_key(PeerAddress* address)
cdef object peer_tuple(PeerAddress* address)
cdef int peer_address(object client, PeerAddress* into) except -1
cdef object local_address(int fd)
cdef Py_ssize_t receive(int fd, unsigned char* into, Py_ssize_t n) noexcept
cdef bint fin_is_next(int fd) noexcept
cdef int unacknowledged(int fd) noexcept
cdef bint would_block(int error) noexcept
cdef void reset_on_close(int fd) noexcept
