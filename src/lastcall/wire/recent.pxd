from libc.stdint cimport uint64_t

cdef uint64_t fingerprint(const unsigned char* p, Py_ssize_t n) noexcept nogil
cdef tuple recall(uint64_t print, const unsigned char* p, Py_ssize_t n)
cdef int remember(uint64_t print, const unsigned char* p, Py_ssize_t n, tuple pair) except -1
