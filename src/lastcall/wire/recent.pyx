# cython: language_level=3
"""Header lines seen lately, and the (name, value) pairs that they parse to.

Most header lines of most requests are ones that have just been seen: the same browsers, the same proxy, the same
connection. A line that equals, byte for byte, one that was parsed before yields the pair that was made then: two
allocations and a validation less. Pairs are immutable, so requests can share them.

One small direct-mapped table per process: ``SLOTS`` lines of at most ``LONGEST`` bytes, so its memory is bounded
whatever a peer sends. A line must miss twice in a row before it takes a slot, so values that never repeat (trace ids)
only cost their hash. Which lines are worth it is the parser's business; it never offers one that may hold a secret.
"""

from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.stdint cimport uint64_t
from libc.string cimport memcmp, memcpy

cdef enum:
    SLOTS = 512          # a power of two
    LONGEST = 192

cdef struct Slot:
    uint64_t candidate   # the fingerprint that missed here last
    PyObject* pair       # owned
    Py_ssize_t length
    unsigned char[LONGEST] line

cdef Slot[SLOTS] TABLE


cdef uint64_t fingerprint(const unsigned char* p, Py_ssize_t n) noexcept nogil:
    """A hash of the line. It only chooses a slot: the bytes themselves decide."""
    cdef uint64_t h = <uint64_t>n * 0x9E3779B97F4A7C15ULL
    cdef uint64_t word
    while n >= 8:
        memcpy(&word, p, 8)
        h = (h ^ word) * 0xFF51AFD7ED558CCDULL
        h ^= h >> 32
        p += 8
        n -= 8
    word = 0
    memcpy(&word, p, n)
    h = (h ^ word) * 0xC4CEB9FE1A85EC53ULL
    return h ^ (h >> 29)


cdef tuple recall(uint64_t print, const unsigned char* p, Py_ssize_t n):
    """The pair of an equal line, or None."""
    cdef Slot* slot = &TABLE[print & (SLOTS - 1)]
    if slot.length == n and slot.pair != NULL and memcmp(slot.line, p, n) == 0:
        return <tuple>slot.pair
    return None


cdef int remember(uint64_t print, const unsigned char* p, Py_ssize_t n, tuple pair) except -1:
    """The line was parsed to ``pair``: keep it if it has missed before."""
    cdef Slot* slot = &TABLE[print & (SLOTS - 1)]
    cdef PyObject* old
    if n > LONGEST:
        return 0
    if slot.candidate != print:
        slot.candidate = print
        return 0
    old = slot.pair
    Py_INCREF(pair)
    slot.pair = <PyObject*>pair
    slot.length = n
    memcpy(slot.line, p, n)
    Py_XDECREF(old)
    return 0
