# cython: language_level=3
"""A growable byte queue whose memory goes back to a small pool whenever it runs empty.

Ten thousand idle connections must cost little memory, and a busy one must not pay an allocation per answer: blocks of
``BLOCK`` bytes are kept on a free list of at most ``POOL`` entries; larger ones go back to the allocator.
The free list is touched only with the GIL held (or, on a free-threaded build, by the one thread that runs the loop).
"""

from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

cdef enum:
    BLOCK = 16384
    POOL = 64

cdef char* _pool[POOL]
cdef int _pooled = 0


cdef class ByteBuffer:
    """Bytes ``data[start:end]``, appended at the end and consumed from the start."""

    def __dealloc__(self):
        self.clear()

    def __len__(self):
        return self.end - self.start

    def __bytes__(self):
        return self.data[self.start:self.end] if self.data != NULL else b""

    cdef char* reserve(self, Py_ssize_t n) except NULL:
        """Make room for ``n`` more bytes and return where they go; the caller then adds to ``end`` what it wrote."""
        global _pooled
        cdef Py_ssize_t used, capacity
        cdef char* grown
        if self.data == NULL:
            if n <= BLOCK:
                if _pooled:
                    _pooled -= 1
                    self.data = _pool[_pooled]
                else:
                    self.data = <char*>malloc(BLOCK)
                self.capacity = BLOCK
            else:
                self.data = <char*>malloc(n)
                self.capacity = n
            self.start = self.end = 0
            if self.data == NULL:
                self.capacity = 0
                raise MemoryError()
            return self.data
        if self.capacity - self.end >= n:
            return self.data + self.end
        used = self.end - self.start
        if self.start > 0 and self.capacity - used >= n and self.start >= used:
            memcpy(self.data, self.data + self.start, used)
        else:
            if self.start > 0:
                memmove(self.data, self.data + self.start, used)
            if self.capacity - used < n:
                self.start, self.end = 0, used
                capacity = max(self.capacity * 2, used + n)
                grown = <char*>realloc(self.data, capacity)
                if grown == NULL:
                    raise MemoryError()
                self.data, self.capacity = grown, capacity
        self.start, self.end = 0, used
        return self.data + used

    cdef int append(self, const char* p, Py_ssize_t n) except -1:
        memcpy(self.reserve(n), p, n)
        self.end += n
        return 0

    cdef int append_bytes(self, bytes b) except -1:
        return self.append(PyBytes_AS_STRING(b), PyBytes_GET_SIZE(b))

    cdef void consume(self, Py_ssize_t n) noexcept:
        """Drop ``n`` bytes from the start; an empty buffer gives its memory back."""
        self.start += n
        if self.start >= self.end:
            self.clear()

    cdef void clear(self) noexcept:
        global _pooled
        if self.data != NULL:
            if self.capacity == BLOCK and _pooled < POOL:
                _pool[_pooled] = self.data
                _pooled += 1
            else:
                free(self.data)
            self.data = NULL
        self.start = self.end = self.capacity = 0
