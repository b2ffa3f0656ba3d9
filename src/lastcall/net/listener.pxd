cimport cython


cdef enum:
    OURS = 0
    INHERITED = 1
    SLOT = 2
    SHARED = 3


@cython.final
cdef class Listener:
    cdef readonly object sock
    cdef readonly int fd
    cdef readonly int owner
    cdef readonly str scheme
    cdef readonly object tls           # ssl.SSLContext, or None
    cdef public str root_path
    cdef public object protocol
    cdef public object inode
    cdef public str path
    cdef public object key
    # the driver's
    cdef object server                 # the scope's "server", or None if it differs per connection
    cdef bint contended                # others accept from it too: one connection per wake-up
    cdef bint watched
    cdef bint shut                     # takes nobody new; who waits in the queue can still be accepted
