# cython: language_level=3
"""How many responses there were, how many of them failed, and how long they took: what a worker tells its parent."""

cimport cython
from libc.string cimport memset

cdef double[BUCKETS - 1] BOUNDS     # those of channel.messages.LATENCY_BUCKETS, which need not be imported for one process
cdef int _n
for _n in range(BUCKETS - 1):
    BOUNDS[_n] = 0.0005 * 2.0 ** (_n / 3.0)


@cython.final
cdef class ResponseCounts:
    """Counts of one worker since its start. ``latency`` has them by time from the request's head to the response's, in
    the buckets of ``channel.messages.LATENCY_BUCKETS``: neither a stream that lasts nor a client that reads slowly is
    slow."""

    def __cinit__(self):
        memset(self.buckets, 0, sizeof(self.buckets))

    cdef void add(self, bint failed, double seconds) noexcept:
        cdef int low = 0
        cdef int high = BUCKETS - 1
        cdef int middle
        self.served += 1
        self.errors += failed
        while low < high:
            middle = (low + high) // 2
            if seconds > BOUNDS[middle]:
                low = middle + 1
            else:
                high = middle
        self.buckets[low] += 1

    def count(self, bint failed, double seconds):
        """Add a response that began ``seconds`` after its request; ``failed``: it was an error of the server's side."""
        self.add(failed, seconds)

    @property
    def latency(self):
        """The counts of all buckets, as a tuple."""
        return tuple([self.buckets[at] for at in range(BUCKETS)])
