cdef class Output:
    cdef readonly int fd
    cdef readonly int error        # errno of the last put(), 0 if nothing failed
    cdef readonly bint torn        # what was written last does not end with a newline
    cdef readonly object device    # which device it is, if it is a terminal (st_rdev); else None
    cdef int _target               # the descriptor that is written to: fd, or another one for the same terminal
    cdef object _stream
    cdef int _kind
    cdef bint _nowait
    cdef bint ready(self) noexcept
    cdef Py_ssize_t put(self, const char* data, Py_ssize_t size, double patience) noexcept
    cdef Py_ssize_t _put(self, const char* data, Py_ssize_t size, double patience) noexcept
    cdef Py_ssize_t _put_in_turn(self, const char* data, Py_ssize_t size, double patience) noexcept
    cdef bint _settle(self) noexcept
    cdef Py_ssize_t _write_some(self, const char* data, Py_ssize_t size) noexcept
    cdef double _wait(self, double patience) noexcept
