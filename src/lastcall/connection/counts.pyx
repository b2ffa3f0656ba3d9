# cython: language_level=3
"""How many responses there were, how many of them failed, and how long they took: what a worker tells its parent."""

cimport cython
from libc.math cimport frexp
from libc.string cimport memset

cdef double FIRST = 0.0005      # seconds: the upper bound of the first bucket; three more double it
cdef double THIRD = 2.0 ** (-2 / 3.0)       # one and two thirds of the way from 1/2 to 1, on a logarithmic scale
cdef double TWO_THIRDS = 2.0 ** (-1 / 3.0)


@cython.final
cdef class ResponseCounts:
    """Counts of one worker since its start. ``latency`` has them by time from the request's head to the response's, in
    the buckets of ``channel.messages.LATENCY_BUCKETS``: neither a stream that lasts nor a client that reads slowly is
    slow."""

    def __cinit__(self):
        memset(self.buckets, 0, sizeof(self.buckets))

    cdef void add(self, bint failed, double seconds) noexcept:
        cdef int at = 0
        cdef double mantissa
        self.served += 1
        self.errors += failed
        if seconds > FIRST:
            # seconds/FIRST is mantissa * 2**at, with a mantissa from 0.5 on and below 1.
            mantissa = frexp(seconds / FIRST, &at)
            at = 3 * (at - 1) + (mantissa > 0.5) + (mantissa > THIRD) + (mantissa > TWO_THIRDS)
            at = min(at, BUCKETS - 1)
        self.buckets[at] += 1

    def count(self, bint failed, double seconds):
        """Add a response that began ``seconds`` after its request; ``failed``: it was an error of the server's side."""
        self.add(failed, seconds)

    @property
    def latency(self):
        """The counts of all buckets, as a tuple."""
        return tuple([self.buckets[at] for at in range(BUCKETS)])
