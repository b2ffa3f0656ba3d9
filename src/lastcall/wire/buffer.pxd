cdef class ByteBuffer:
    cdef char* data            # NULL while empty: an idle connection holds no memory here
    cdef Py_ssize_t start      # first unread byte
    cdef Py_ssize_t end        # one past the last byte
    cdef Py_ssize_t capacity
    cdef char* reserve(self, Py_ssize_t n) except NULL
    cdef int append(self, const char* p, Py_ssize_t n) except -1
    cdef int append_bytes(self, bytes b) except -1
    cdef void consume(self, Py_ssize_t n) noexcept
    cdef void clear(self) noexcept


cdef inline char* reserved(ByteBuffer buffer, Py_ssize_t n) except NULL:
    """``buffer.reserve(n)``, without a call where there is room already."""
    if buffer.data != NULL and buffer.capacity - buffer.end >= n:
        return buffer.data + buffer.end
    return buffer.reserve(n)
