cimport cython


cdef enum:
    BUCKETS = 53        # as many as channel.messages.LATENCY_BUCKETS has, and one for what took longer


@cython.final
cdef class ResponseCounts:
    cdef readonly unsigned long long served
    cdef readonly unsigned long long errors
    cdef unsigned long long[BUCKETS] buckets
    cdef void add(self, bint failed, double seconds) noexcept
