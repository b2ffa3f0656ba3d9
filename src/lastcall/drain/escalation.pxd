cimport cython


cdef struct Asked:
    int level       # 0 before the first
    double last     # seconds; when the last signal came


cdef void asked_nothing(Asked* asked) noexcept nogil
cdef bint press(Asked* asked, double now, int weight) noexcept nogil


@cython.final
cdef class Escalation:
    cdef Asked asked
