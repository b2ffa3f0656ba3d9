# cython: language_level=3
"""How many responses there were, how many of them failed, and how long they took: what a worker tells its parent."""

cimport cython
from libc.math cimport frexp
from libc.string cimport memset

cdef double FIRST = 0.0005      # seconds: the upper bound of the first bucket; each next one is twice as wide


@cython.final
cdef class ResponseCounts:
    """Counts of one worker since its start. ``latency`` has them by time from head to end: up to 0.5 ms, 1 ms, 2 ms, and so
    on to 65 s, then what took longer."""

    def __cinit__(self):
        memset(self.buckets, 0, sizeof(self.buckets))

    cdef void add(self, bint failed, double seconds) noexcept:
        cdef int at = 0
        cdef double mantissa
        self.served += 1
        self.errors += failed
        if seconds > FIRST:
            # seconds/FIRST is mantissa * 2**at, with a mantissa from 0.5 on: at or below 2**at. At 0.5 it is 2**(at - 1).
            mantissa = frexp(seconds / FIRST, &at)
            if mantissa == 0.5:
                at -= 1
            at = min(at, BUCKETS - 1)
        self.buckets[at] += 1

    def count(self, bint failed, double seconds):
        """Add a response that took ``seconds`` from its head to its end; ``failed``: it was an error of the server's side."""
        self.add(failed, seconds)

    @property
    def latency(self):
        """The counts of all buckets, as a tuple."""
        return tuple([self.buckets[at] for at in range(BUCKETS)])
